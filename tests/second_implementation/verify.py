"""Envelope, signatures, journal, laws, statement, and merged ledgers.

`python -m tests.second_implementation.verify LEDGER --key FILE …` follows the contract of docs/conformance.md. Nothing
of flopsd is used here.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tests.second_implementation.arithmetic import codes_of_lines, tallies_of
from tests.second_implementation.laws import (
    Refused,
    ends_of,
    is_digest,
    is_note,
    is_time,
    laws_of_records,
    laws_of_the_whole,
    need,
    sha256,
)
from tests.second_implementation.ledger import LOADER, Run, run_of
from tests.second_implementation.statement import LeftOut, predicate_of_node

J = dict[str, Any]
P25519 = 2**255 - 19
D25519 = -121665 * pow(121666, -1, P25519) % P25519
COUNT = re.compile("0|[1-9][0-9]{0,39}")
FRAME = re.compile(rb'\{"h":"([0-9a-f]{64})",(?:"m":"([0-9a-f]{32})",)?"r":(\{.*\})\}\n', re.DOTALL)
TYPES = (
    "https://in-toto.io/Statement/v1",
    "urn:uuid:961e75da-79e6-4b84-bec0-b0fcb65b8a61#compute-ledger-v1",
    "application/vnd.in-toto+json",
)
MOST_BYTES, MOST_LINE, MOST_SIGNATURES, MOST_DEPTH = 64 * 2**20, 4 * 2**20, 64, 100


@dataclass
class Asked:
    """The files and keys that the reader gives and trusts."""

    ledger: Path
    keys: list[Path]
    threshold: int = 1
    peaks: tuple[Path, ...] = ()
    policies: tuple[Path, ...] = ()
    allow_replay: bool = False
    also: Path | None = None
    children: Path | None = None


@dataclass
class Found:
    """A verified ledger: its predicate as computed, the members that were not computed, and its journal."""

    payload: bytes
    predicate: J
    left_out: list[str]
    run: Run | None = None
    lines: tuple[bytes, ...] = ()


def verify(asked: Asked) -> Found:
    """Raises Refused."""
    found = verify_one(asked.ledger, asked)
    if asked.also is not None:
        hold_against(found, verify_one(asked.also, asked))
    return found


def verify_one(ledger: Path, asked: Asked, *, signed: bool = True) -> Found:
    envelope = read_envelope(ledger.read_bytes())
    if signed:
        check_signatures(envelope, asked)
    payload = envelope["payload"]
    need(envelope["type"] == TYPES[2], "payload_type", "envelope")
    statement = strict_json(payload, "payload")
    need(isinstance(statement, dict) and statement.get("_type") == TYPES[0], "statement_type", "statement._type")
    need(statement.get("predicateType") == TYPES[1], "predicate_type", "statement.predicateType")
    need(isinstance(statement.get("predicate"), dict), "statement_malformed", "statement.predicate")
    kind = statement["predicate"].get("kind")
    if kind in ("job", "lineage"):
        from tests.second_implementation.jobs import verify_merged

        merged: Found = verify_merged(statement, payload, asked)
        return merged
    need(kind == "node", "statement_malformed", "statement.predicate.kind")
    return verify_node(ledger, statement, payload, asked)


def verify_node(ledger: Path, statement: J, payload: bytes, asked: Asked) -> Found:
    journal = ledger.with_name(f"{ledger.stem}.journal.jsonl")
    need(journal.is_file(), "journal_missing")
    try:
        sealed = journal_named(statement)
    except (KeyError, TypeError, IndexError, AttributeError) as fault:
        raise Refused("statement_malformed") from fault
    secrets = statement["predicate"]["method"].get("codeSecrets")
    need(isinstance(secrets, list) and all(map(is_digest, secrets)), "statement_malformed")
    data = journal.read_bytes()
    lines = framed(data)
    mine, size = [], 0
    for line in lines:
        if size + len(line) > sealed["bytes"]:
            break
        mine.append(line)
        size += len(line)
    head = mine[-1][6:70].decode() if mine else "00" * 32
    part = data[:size]
    facts = {"sha256": sha256(part), "bytes": size, "records": len(mine), "headSha256": head}
    if facts != sealed:
        need(len(mine) >= sealed["records"], "journal_truncated")
        raise Refused("journal_facts" if head == sealed["headSha256"] else "journal_other")
    records, codes = records_of_lines(mine, secrets)
    begins = [record for record in records if record["kind"] == "begin"]
    tables = {str(begin["peak_table_sha256"]) for begin in begins}
    need(len(tables) == 1, "law_1")
    peaks = tables.pop()
    table = by_digest(peaks, asked.peaks, "peak_table_unknown")
    predicate = statement["predicate"]
    need(times_are_times(predicate), "time_malformed")
    named = begins[-1].get("policies", ())
    policies = [
        {**by_digest(one["sha256"], asked.policies, "policy_unknown"), "sha256": one["sha256"]} for one in named
    ]
    sealed_at = predicate["method"]["sealedAt"]
    evidence_items(predicate)
    run = run_of(records, table, sealed_at)
    laws_of_the_whole(run.begins, run.rated, last_tallies(records))
    need(not run.leaves_out, "law_16")
    left_out = LeftOut(statement)
    known = {hashlib.sha256(bytes.fromhex(secret)).hexdigest(): secret for secret in secrets}
    listed = [
        known[name] for name in dict.fromkeys(begin.get("code_secret_sha256") for begin in begins) if name in known
    ]
    stated = {
        "peaks": peaks,
        "codes": codes,
        "secrets": listed,
        "journal": {name: str(value) for name, value in facts.items()},
    }
    try:
        again = predicate_of_node(run, table, policies, stated, statement, left_out)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as fault:
        raise Refused("statement_differs", "statement.predicate") from fault
    subject = [{"name": "journal.jsonl", "digest": {"sha256": facts["sha256"]}}]
    whole = {"_type": TYPES[0], "subject": subject, "predicateType": TYPES[1], "predicate": again}
    refuse_difference(whole, statement, "statement", "statement_differs")
    need(again["replay"] is None or asked.allow_replay, "replay", "statement.predicate.replay")
    return Found(payload, again, left_out.paths, run, tuple(mine))


def read_envelope(data: bytes) -> J:
    need(len(data) <= MOST_BYTES, "envelope_too_large", "envelope")
    envelope = strict_json(data, "envelope")
    well_formed = isinstance(envelope, dict) and all(
        isinstance(envelope.get(n), str) for n in ("payload", "payloadType")
    )
    need(well_formed, "envelope_malformed", "envelope")
    signatures = envelope.get("signatures")
    need(isinstance(signatures, list) and signatures, "no_signature", "envelope")
    need(len(signatures) <= MOST_SIGNATURES, "too_many_signatures", "envelope")
    for one in signatures:
        need(isinstance(one, dict) and isinstance(one.get("sig"), str), "envelope_malformed", "envelope")
    found = [from_base64(one["sig"]) for one in signatures]
    return {"payload": from_base64(envelope["payload"]), "type": envelope["payloadType"], "signatures": found}


def from_base64(text: str) -> bytes:
    plain = text.replace("-", "+").replace("_", "/")
    need(re.fullmatch("[A-Za-z0-9+/]*={0,2}", plain), "base64", "envelope")
    bare = plain.rstrip("=")
    need(plain == bare or len(plain) % 4 == 0, "base64", "envelope")
    need(len(bare) % 4 != 1, "base64", "envelope")
    try:
        found = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error as fault:
        raise Refused("base64", "envelope") from fault
    need(base64.b64encode(found).decode().rstrip("=") == bare, "base64", "envelope")
    return found


def strict_json(data: bytes, path: str) -> Any:
    def pairs(listed: list[tuple[str, Any]]) -> J:
        need(len({name for name, _ in listed}) == len(listed), "json_duplicate_member", path)
        return dict(listed)

    def number(_: str) -> Any:
        raise Refused("json_number", path)

    def whole(text: str) -> int:
        need(len(text) <= 40, "json_number", path)
        return int(text)

    need(not is_deep(data), "json_too_deep", path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise Refused("json_not_utf8", path) from fault
    try:
        found = json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=number, parse_int=whole)
    except json.JSONDecodeError as fault:
        raise Refused("json_malformed", path) from fault
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        raise Refused("json_surrogate", path) from fault
    return found


def is_deep(data: bytes) -> bool:
    depth = 0
    if data.count(b"{") + data.count(b"[") <= MOST_DEPTH:
        return False
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', data, re.DOTALL):
        if match[0] in b"[{":
            depth += 1
            if depth > MOST_DEPTH:
                return True
        elif match[0] in b"]}":
            depth -= 1
            if depth < 0:
                return False
    return False


def check_signatures(envelope: J, asked: Asked) -> None:
    kind, payload = envelope["type"].encode(), envelope["payload"]
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    good: set[bytes] = set()
    for path in asked.keys:
        try:
            key = load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm) as fault:
            raise Refused("key_not_allowed") from fault
        if isinstance(key, Ed25519PublicKey):
            need(not of_small_order(key.public_bytes_raw()), "key_not_allowed")
        else:
            need(isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1), "key_not_allowed")
        if any(verifies(key, signed, signature) for signature in envelope["signatures"]):
            good.add(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    need(len(good) >= max(1, asked.threshold), "too_few_signatures", "envelope")


def verifies(key: Any, signed: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def of_small_order(point: bytes) -> bool:
    y = int.from_bytes(point, "little") % 2**255 % P25519
    return y * (y * y - 1) * (D25519 * y**4 + 2 * y * y - 1) % P25519 == 0


def journal_named(statement: J) -> J:
    method, executed = statement["predicate"]["method"], statement["predicate"]["totals"]["executed"]
    sealed, digest = method["journal"], statement["subject"][0]["digest"]["sha256"]
    counts = [sealed["records"], sealed["bytes"], executed["low"]]
    counts += [executed[name] for name in ("measured", "high") if executed[name] is not None]
    need(all(isinstance(one, str) and COUNT.fullmatch(one) for one in counts), "statement_malformed")
    need(is_digest(digest) and is_digest(sealed["headSha256"]) and digest == sealed["sha256"], "statement_malformed")
    need(is_time(method.get("sealedAt")), "statement_malformed")
    return {
        "sha256": digest,
        "bytes": int(sealed["bytes"]),
        "records": int(sealed["records"]),
        "headSha256": sealed["headSha256"],
    }


def framed(data: bytes) -> list[bytes]:
    """The lines of a journal, after a check of frames and chain."""
    head, found = bytes(32), []
    for at, line in enumerate(data.splitlines(keepends=True) if b"\r" not in data else split(data), 1):
        match = FRAME.fullmatch(line)
        need(match and len(line) <= MOST_LINE, "journal_frame", f"journal:{at}")
        assert match is not None
        head = hashlib.sha256(head + match[3]).digest()
        need(head.hex().encode() == match[1], "journal_chain", f"journal:{at}")
        found.append(line)
    return found


def split(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def records_of_lines(lines: list[bytes], secrets: list[str]) -> tuple[list[J], list[str]]:
    """The records, and for each start whether its codes were checked. The first fault of any line is the one
    reported."""
    faults: list[tuple[int, int, Refused]] = []
    records: list[J] = []
    for at, line in enumerate(lines, 1):
        match = FRAME.fullmatch(line)
        assert match is not None
        try:
            record = strict_json(match[3], f"journal:{at}")
        except Refused as refused:
            faults.append((at, 0, refused))
            break
        records.append(record)
    try:
        codes = codes_of_lines(list(zip(lines, records, strict=False)), secrets)
    except Refused as refused:
        faults.append((int((refused.path or ":0").partition(":")[2]), 1, refused))
    try:
        laws_of_records(records, ends_of(b"".join(lines)))
    except Refused as refused:
        faults.append((int((refused.path or f":{len(lines) + 1}").partition(":")[2]), 2, refused))
    if faults:
        raise min(faults, key=lambda fault: fault[:2])[2]
    return records, codes


def last_tallies(records: list[J]) -> list[dict[int, J]]:
    """The last tallies of each start, by device."""
    found: list[dict[int, J]] = []
    for record in records:
        if record["kind"] == "begin":
            found.append({})
        elif record["kind"] == "device":
            found[-1][record["number"]] = record
        elif record["kind"] == "checkpoint":
            found[-1].update(tallies_of(record))
    return found


def times_are_times(predicate: J) -> bool:
    try:
        times = [predicate["method"]["journal"]["lastRecordAt"]]
        spans = predicate["incarnations"]
        need(isinstance(spans, list), "time_malformed")
        for one in spans:
            times += [one["startedAt"], one["lastRecordAt"]]
    except (KeyError, TypeError):
        return False
    return all(map(is_time, times))


def evidence_items(predicate: J) -> None:
    items = predicate.get("evidence")
    need(isinstance(items, list) and len(items) <= 64, "evidence_malformed")
    assert isinstance(items, list)
    for item in items:
        members = {"type", "collectedAt", "state", "reason", "data"}
        need(isinstance(item, dict) and set(item) == members, "evidence_malformed")
        need(isinstance(item["type"], str), "evidence_malformed")
        need(is_time(item["collectedAt"]), "evidence_malformed")
        there = item["state"] == "present" and isinstance(item["data"], dict) and item["reason"] is None
        absent = item["state"] == "absent" and item["data"] is None and is_note(item["reason"])
        need(there or absent, "evidence_malformed")
    need(len({item["type"] for item in items}) == len(items), "evidence_malformed")


@lru_cache(maxsize=8)
def read_yaml(data: bytes) -> J:
    found: J = yaml.load(data, LOADER)
    return found


def by_digest(digest: str, given: tuple[Path, ...], code: str) -> J:
    for path in given:
        data = path.read_bytes()
        if sha256(data) == digest:
            return read_yaml(data)
    raise Refused(code)


def refuse_difference(again: Any, said: Any, path: str, code: str) -> None:
    """Raises Refused with the first member that differs."""
    if isinstance(again, dict) and isinstance(said, dict):
        for name in {**again, **said}:
            need(name in again and name in said, code, f"{path}.{name}")
            refuse_difference(again[name], said[name], f"{path}.{name}", code)
    elif isinstance(again, list) and isinstance(said, list):
        need(len(again) == len(said), code, path)
        for at, (one, other) in enumerate(zip(again, said, strict=True)):
            refuse_difference(one, other, f"{path}[{at}]", code)
    else:
        need(type(again) is type(said) and again == said, code, path)


def hold_against(one: Found, other: Found) -> None:
    """Compare two ledgers of one run and node."""
    names = [(found.predicate["run"]["id"], found.predicate["node"]["name"]) for found in (one, other)]
    need(names[0] == names[1], "another_run")
    common = 0
    for mine, its in zip(one.lines, other.lines, strict=False):
        if mine[:70] != its[:70]:
            break
        common += 1
    if common < min(len(one.lines), len(other.lines)):
        need(common == 0 and not meet(one, other), "two_histories")


def meet(one: Found, other: Found) -> bool:
    return any(
        max(a[0], b[0]) < min(a[1], b[1]) for a in periods(one) for b in periods(other)
    )  # fmt: skip


def periods(found: Found) -> list[tuple[int, int]]:
    """The wall-clock periods in which each start of the daemon ran."""
    assert found.run is not None
    offsets = [begin["wall_ns"] - begin["ns"] for begin in found.run.begins]
    ends = zip(found.run.begins, found.run.last_ns, offsets, strict=True)
    return [(begin["ns"] + offset, last + offset) for begin, last, offset in ends]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", type=Path)
    for flag in ("--key", "--peaks", "--policy"):
        parser.add_argument(flag, type=Path, action="append", default=[])
    parser.add_argument("--threshold", type=int, default=1)
    parser.add_argument("--allow-replay", action="store_true")
    parser.add_argument("--also", type=Path)
    parser.add_argument("--children", type=Path)
    given = parser.parse_args(words)
    asked = Asked(
        given.ledger, given.key, given.threshold, tuple(given.peaks), tuple(given.policy), given.allow_replay,
        given.also, given.children,
    )  # fmt: skip
    try:
        found = verify(asked)
    except Refused as refused:
        print(json.dumps({"verified": False, "code": refused.code, "path": refused.path}))
        return 3
    whole = not found.left_out
    answer = {"verified": whole, "code": None, "notVerified": found.left_out, "predicate": found.predicate}
    print(json.dumps(answer))
    return 0 if whole else 5


if __name__ == "__main__":
    sys.exit(main())
