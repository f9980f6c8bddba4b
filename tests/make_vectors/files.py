"""The test vectors of the ledger's format, and the helpers of all their tables.

Deterministic to the byte: fixed keys, a fake clock, RFC 6979 for P-256. They are goldens: read the diff.
"""

import base64
import copy
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jsonschema import Draft202012Validator

from flopsd.attestation.signing.dsse import pae
from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.statement import PAYLOAD_TYPE, SealFacts, encode, statement
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.journal.codes import by_sha256
from flopsd.journal.framing import GENESIS, JournalLine, frame, read_lines
from tests.make_vectors import runs
from tests.support.paths import SCHEMA
from tests.support.story import PEAKS, VECTORS, VERSION, chain, policy, table, tell

SEALED_AT = "2026-09-21T15:00:00.000000Z"
Files = dict[str, bytes]  # by path below `VECTORS`
VALID_RUNS = {
    "activity-and-gaps": runs.activity,
    "cycles-recovered": runs.cycles,
    "declared-mix": runs.declared,
    "declared-mix-by-phase": runs.declared_by_phase,
    "declared-phases": runs.phases,
    "declared-by-settings": runs.settings,
    "lying-declarations": runs.lying,
    "neuron-count": runs.neuron,
    "unknown-device": runs.stranger,
    "no-device": runs.nothing,
    "replay": runs.replayed,
    "rebooted": runs.rebooted,
    "rebooted-with-the-clock-back": runs.rebooted_with_the_clock_back,
    "killed-early": runs.killed_early,
    "accounted-elsewhere": runs.elsewhere,
    "named-late": runs.named_late,
    "recovered-tail": runs.torn,
    "job-of-another-user": runs.apart,
    "journal-replaced": runs.lost,
    "ceiling-by-clock": runs.clocked,
    "energy-as-published": runs.plausible,
    "energy-below-published": runs.frugal,
    "operator-count": runs.operators,
    "operator-count-exceeding": runs.exceeding,
    "operator-count-as-claimed": runs.counted_as_claimed,
    "operator-count-of-training-in-evaluation": runs.counted_in_evaluation,
    "operator-counts-unused": runs.unused,
    "kernel-windows": runs.windows,
}


@dataclass(frozen=True)
class Key:
    """A publicly known key, made from its name."""

    name: str
    kind: str = "ed25519"

    @property
    def private(self) -> Any:
        seed = hashlib.sha256(f"flopsd test vector, a public key pair: {self.name}".encode()).digest()
        if self.kind == "ed25519":
            return ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        return ec.derive_private_key(int.from_bytes(seed, "big") >> 1, ec.SECP256R1())

    @property
    def public_pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    @property
    def keyid(self) -> str:
        der = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> tuple[str, bytes]:
        signed, private = pae(Envelope(payload, payload_type, ())), self.private
        if self.kind == "ed25519":
            return self.keyid, private.sign(signed)
        return self.keyid, private.sign(signed, ec.ECDSA(SHA256(), deterministic_signing=True))


FIRST, SECOND, P256 = Key("first"), Key("second"), Key("third", "p256")


def vector(
    name: str, what: str, ledger: bytes | dict[str, Any], journal: bytes | None,
    code: str | None = None, clause: str | None = None, path: str | None = None, *,
    more: Sequence[str] = (), keys: Sequence[Key] = (), schema: str | None = "accepts", peaks: str = "../../peaks.yaml",
) -> Files:  # fmt: skip
    """The files of one vector. `ledger`: a statement is signed by the first key. `code` None: it is to be accepted.
    `more`: further arguments. `schema` None: the result of the schema on the payload (`with_schema`)."""
    common = ["ledger.json", "--key", "ledger.pub", "--peaks", peaks, "--policy", "../../policy.yaml"]
    expected = {
        "what": what, "arguments": [*common, *more], "verdict": "accept" if code is None else "refuse",
        "code": code, "clause": clause, "path": path, "schema": schema,
    }  # fmt: skip
    envelope = ledger if isinstance(ledger, bytes) else signed(encode(ledger))
    return {**case(name, envelope, journal, *keys), f"{name}/expected.json": _json(expected)}


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def case(name: str, ledger: bytes, journal: bytes | None, *keys: Key) -> Files:
    """The files of one vector except `expected.json`."""
    files = {"ledger.json": ledger}
    for number, key in enumerate(keys or (FIRST,), 1):
        files["ledger.pub" if number == 1 else f"key{number}.pub"] = key.public_pem
    if journal is not None:
        files["ledger.journal.jsonl"] = journal
    return {f"{name}/{file}": data for file, data in files.items()}


def lines_of(journal: bytes) -> list[bytes]:
    return journal.splitlines(keepends=True)


def parsed(journal: bytes) -> list[JournalLine]:
    return list(read_lines(io.BytesIO(journal), GENESIS))


def facts_of(journal: bytes) -> JournalFacts:
    good = parsed(journal)
    head = good[-1].head if good else GENESIS
    return JournalFacts(hashlib.sha256(journal).hexdigest(), len(journal), len(good), head.hex())


def statement_of(
    journal: bytes, *secrets: bytes, peaks: PeakTable | None = None, policies: tuple[Policy, ...] | None = None
) -> dict[str, Any]:
    """The statement that flopsd seals of it, by the vectors' own table and policy unless others are given."""
    history = read_history(line.record() for line in parsed(journal))
    judged = policies if policies is not None else (policy(),) if history.policy_sha256 else ()
    seal = SealFacts(VERSION, SEALED_AT, policies=judged, code_secrets=by_sha256(secrets))
    return statement(history, peaks or table(), facts_of(journal), seal)


def claimed(journal: bytes, said: dict[str, Any]) -> dict[str, Any]:
    """The statement `said` over `journal`, whether true or not."""
    facts, document = facts_of(journal), copy.deepcopy(said)
    document["subject"][0]["digest"]["sha256"] = facts.sha256
    document["predicate"]["method"]["journal"].update(
        sha256=facts.sha256, bytes=str(facts.size_bytes), records=str(facts.records), headSha256=facts.head_sha256
    )
    return document


def edited(said: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(said)
    edit(document)
    return encode(document)


def signed(payload: bytes, *keys: Key, payload_type: str = PAYLOAD_TYPE) -> bytes:
    return encode_envelope(payload, payload_type, [key.sign(payload, payload_type) for key in keys or (FIRST,)])


@lru_cache(maxsize=1)
def valid() -> Files:
    """The vectors that every implementation must accept, figure for figure."""
    from tests.make_vectors.merged import segments

    small = tell(runs.small)
    payload = encode(statement_of(small))
    further, _ = frame(parsed(small)[-1].head, {"kind": "end", "incarnation": 1})
    made = {
        **case("valid/p256", signed(payload, P256), small, P256),
        **case("valid/two-signatures", signed(payload, FIRST, P256), small, FIRST, P256),
        **case("valid/liberal-envelope", _liberal(payload), small),
        **case("valid/journal-goes-on", signed(payload), small + further),
        **case("valid/earlier-seal", signed(encode(statement_of(listing(small)))), listing(small)),
    }
    middle = segments()[1].files
    made |= case("valid/middle-segment", middle["ledger-0002.json"], middle["ledger-0002.journal.jsonl"])
    coded, (first, second) = tell(runs.coded, runs.SECRETS), runs.SECRETS.values()
    for name, secrets in (("codes-checked", (first, second)), ("codes-not-all-checkable", (second,))):
        made |= case(f"valid/{name}", signed(encode(statement_of(coded, *secrets))), coded)
    for name, run in VALID_RUNS.items():
        journal = tell(run)
        made |= case(f"valid/{name}", signed(encode(statement_of(journal))), journal)
    return made


def listing(journal: bytes, **changes: object) -> bytes:
    """The journal, with a record of a seal of its first four records."""
    lines = parsed(journal)
    early = b"".join(lines_of(journal)[:4])
    digest = hashlib.sha256(encode(statement_of(early))).hexdigest()
    seal = EarlierSeal(len(early), lines[3].head.hex(), digest, SEALED_AT).for_journal(1)
    records = [dict(line.record()) for line in lines]
    return chain([*records[:4], {**seal, **changes}, *records[4:]])


def _liberal(payload: bytes) -> bytes:
    """An envelope that uses the freedom DSSE allows."""
    (_, first), (_, second) = FIRST.sign(payload), SECOND.sign(payload)
    document = {
        "comment": "members that nobody knows are ignored",
        "signatures": [
            {"keyid": "mine", "sig": base64.urlsafe_b64encode(second).decode()},
            {"sig": base64.urlsafe_b64encode(first).decode(), "extension": {"kind": "unknown"}},
        ],
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.urlsafe_b64encode(payload).decode(),
    }
    return json.dumps(document).encode()


def makers() -> tuple[Callable[[], Files], ...]:
    """The functions that make all vectors but their `rows.json`."""
    from tests.make_vectors.declared import declared_vectors
    from tests.make_vectors.edges import edges_vectors
    from tests.make_vectors.entries import entries_vectors
    from tests.make_vectors.entry_limits import entry_limits_vectors
    from tests.make_vectors.envelopes import envelopes, gaps_vectors
    from tests.make_vectors.findings import companion_vectors, findings_vectors, models_vectors
    from tests.make_vectors.invalid import invalid
    from tests.make_vectors.left_out import left_out_vectors
    from tests.make_vectors.limits import limits_vectors
    from tests.make_vectors.merged import merged_vectors
    from tests.make_vectors.models import shapes_vectors
    from tests.make_vectors.odd_runs import odd_vectors
    from tests.make_vectors.peaks import peaks_vectors
    from tests.make_vectors.records import records_vectors
    from tests.make_vectors.refused_merges import refused_merges
    from tests.make_vectors.rows import rows_vectors
    from tests.make_vectors.starts import starts_vectors
    from tests.make_vectors.times import times_vectors
    from tests.make_vectors.two_faults import two_faults_vectors

    return (
        valid, invalid, merged_vectors, records_vectors, envelopes, gaps_vectors, rows_vectors, findings_vectors,
        companion_vectors, models_vectors, shapes_vectors, two_faults_vectors, refused_merges, entries_vectors,
        edges_vectors, peaks_vectors, times_vectors, declared_vectors, odd_vectors, left_out_vectors, limits_vectors,
        starts_vectors, entry_limits_vectors,
    )  # fmt: skip


def all_vectors() -> Files:
    """All vectors, with the `expected.json` of those made from tables; the others' are written by hand."""
    from tests.second_implementation import rows

    made = {name: data for make in makers() for name, data in make().items()}
    return {**made, **rows.files_of(made, PEAKS.read_bytes())}


@lru_cache(maxsize=1)
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(_inlined(schema, schema))


def _inlined(part: Any, schema: dict[str, Any]) -> Any:
    """Each `$ref` replaced by its target, which validates in half the time."""
    if isinstance(part, list):
        return [_inlined(one, schema) for one in part]
    if not isinstance(part, dict):
        return part
    found = {name: _inlined(one, schema) for name, one in part.items() if name not in ("$ref", "$defs", "$id")}
    if "$ref" not in part:
        return found
    named: Any = schema
    for step in part["$ref"].removeprefix("#/").split("/"):
        named = named[step]
    return {"allOf": [_inlined(named, schema), found]} if found else _inlined(named, schema)


def with_schema(files: Files) -> Files:
    """The same files; where an `expected.json` leaves it open, with the JSON Schema's verdict on the payload."""
    found = dict(files)
    for name, data in files.items():
        if name.endswith("/expected.json") and (expected := json.loads(data))["schema"] is None:
            payload = parse_envelope(files[name.removesuffix("expected.json") + "ledger.json"]).payload
            expected["schema"] = "accepts" if validator().is_valid(json.loads(payload)) else "refuses"
            found[name] = _json(expected)
    return found


def write(files: Files) -> None:
    for name, data in with_schema(files).items():
        (VECTORS / name).parent.mkdir(parents=True, exist_ok=True)
        (VECTORS / name).write_bytes(data)
