"""An adversary's edits of a ledger and its journal, with and without the key, drawn from a seeded generator."""

import base64
import hashlib
import io
import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.core.envelope import parse_envelope
from flopsd.core.field_reader import MALFORMED
from flopsd.core.ledger.statement import encode
from flopsd.errors import FlopsdError
from flopsd.journal.framing import GENESIS, JournalLine, read_lines
from flopsd.settings.data_files import config_dir, load_peaks
from flopsd.system.clock import NS_PER_S
from tests.make_vectors import files as vectors
from tests.support.json_edits import edited_json, edited_value, spelt
from tests.support.runs import H100, Run
from tests.support.story import PEAKS, POLICY, VECTORS

J = dict[str, Any]


class Pair(NamedTuple):
    """The two files that an auditor is given."""

    ledger: bytes
    journal: bytes


@dataclass(frozen=True)
class Material:
    """A sealed run, its daemon's log, and other pairs that the same key signed."""

    honest: Pair
    others: tuple[Pair, ...]  # older, smaller, or of another run
    public_key: bytes
    sign: Callable[[bytes], bytes]
    seal: Callable[[bytes], J]  # the statement that flopsd makes of a journal
    peaks: Path
    policy: Path | None = None
    log: bytes = b""  # the honest run's checkpoint lines
    anchored_bytes: int = 0  # the part of the honest journal that its last line covers


def material(folder: Path) -> Material:
    """Material from a run whose log exists too."""
    run = Run(folder / "state", devices=(H100,))
    run.meter(22)
    run.finish()
    sealed = run.seal(folder / "ledger.json")
    key = str(run.state.path / "flopsd-key.pem")
    lines = sealed.journal.read_bytes().splitlines(keepends=True)
    (folder / "older.jsonl").write_bytes(b"".join(lines[:4]))
    older = seal_journal(folder / "older.jsonl", key, folder / "older.json", run.clock)
    others = [older]
    for name, seconds in (("smaller", 3), ("other", 12)):
        show = Run(folder / name, devices=(H100,))
        show.clock.advance(NS_PER_S)
        show.meter(seconds)
        show.finish()
        others.append(show.seal(folder / f"{name}.json", key))
    log = "\n".join(run.lines) + "\n"
    held = int(run.lines[-1].split(" bytes=")[1].split(" ")[0])
    pairs = [Pair(s.ledger.read_bytes(), s.journal.read_bytes()) for s in (sealed, *others)]
    signer, peaks = load_signer(key), config_dir() / "peaks.yaml"
    return Material(
        pairs[0], tuple(pairs[1:]), sealed.public_key.read_bytes(), lambda payload: sign(payload, signer),
        lambda journal: vectors.statement_of(journal, peaks=load_peaks()), peaks, None, log.encode(), held,
    )  # fmt: skip


def of_vector(name: str) -> Material:
    """Material from a published vector, beside three others signed by the same key."""
    folders = [VECTORS / "valid" / other for other in (name, "rebooted", "activity-and-gaps", "declared-phases")]
    pairs = [Pair(*((f / file).read_bytes() for file in ("ledger.json", "ledger.journal.jsonl"))) for f in folders]
    key = (folders[0] / "ledger.pub").read_bytes()
    return Material(pairs[0], tuple(pairs[1:]), key, vectors.signed, vectors.statement_of, PEAKS, POLICY)


def reason_class(reason: str) -> str:
    """A reason without its numbers, names and values, for counting."""
    reason = re.sub(r"(/\S*/|\b)ledger\.journal\.jsonl", "the journal file", reason)
    reason = re.sub(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|[0-9a-f]{16,64}…?", "…", reason)
    return re.sub(r"\d+", "#", reason)[:70]


# Edits without the key. Each gives a pair that equals the honest one only by chance.


def _bytes(edit: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, Pair, Material], Pair]:
    def edit_one(rng: random.Random, pair: Pair, _: Material) -> Pair:
        if rng.random() < 0.5:
            return pair._replace(ledger=edit(rng, pair.ledger))
        return pair._replace(journal=edit(rng, pair.journal))

    return edit_one


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + bytes([b ^ rng.randrange(1, 256) for b in data[at : at + 1]]) + data[at + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice([data[:begin], data[end:], data[:begin] + data[end:]])


def _splice(rng: random.Random, data: bytes) -> bytes:
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[begin:end] + data[at:]


def _append(rng: random.Random, data: bytes) -> bytes:
    tail = rng.choice([b"\0" * rng.randrange(1, 600), rng.randbytes(rng.randrange(1, 99)), b"{}", b"\n", b"x\n", b"]"])
    return data + tail if rng.random() < 0.8 else tail + data


def byte_edit(rng: random.Random, data: bytes) -> bytes:
    """One edit of bytes, regardless of their meaning."""
    return rng.choice([_flip, _cut, _splice, _append, _respell])(rng, data)


def _respell(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(
        [
            b"\xef\xbb\xbf" + data,
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\n\n"),
            data.replace(b'":', b'" : '),
            data.replace(b"\n", b" \n"),
            b"\n\t " + data,
            data + b" \t\n",
            data.replace(b"{", b"{\x0b", 1),
            data.decode("utf-8", "replace").encode("utf-16"),
            data.upper(),
        ]
    )


def _lines(rng: random.Random, pair: Pair, material: Material) -> Pair:
    lines = pair.journal.splitlines(keepends=True) or [b"\n"]
    other = rng.choice(material.others).journal.splitlines(keepends=True) or [b"\n"]
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        lines[at], lines[to] = lines[to], lines[at]
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(to, lines[at])
    elif kind == 3:
        lines[at] = rng.choice(other)
    elif kind == 4:
        lines = lines[: at + 1] + other[at + 1 :]
    else:
        record = lines[at].replace(b'"r":{', b'"r":{"kind":"begin",', 1)
        lines[at] = rng.choice([record, lines[at].replace(b'{"h":', b'{"h":"' + b"0" * 64 + b'","h":', 1)])
    return pair._replace(journal=b"".join(lines))


def _replay(rng: random.Random, pair: Pair, material: Material) -> Pair:
    """A file of another pair that the same key signed, or both files."""
    other = rng.choice(material.others)
    return rng.choice([other, pair._replace(ledger=other.ledger), pair._replace(journal=other.journal)])


def _respelt(rng: random.Random, text: str) -> str:
    url_safe = text.translate(str.maketrans("+/", "-_"))
    return rng.choice([url_safe, text.rstrip("="), text + "=", text[:-4], "\n".join(text), text + "\n", " " + text])


def _other_signature(rng: random.Random, text: str) -> Any:
    noise = base64.b64encode(rng.randbytes(64)).decode()
    return rng.choice(["", "AA==", text[:-4], noise, "A" * 10_000, None, [], text + "\n"])


def _other_digit(rng: random.Random, text: str) -> str:
    payload = bytearray(base64.b64decode(text[: len(text) // 4 * 4].rstrip("=") + "==="))
    payload[rng.choice([i for i, b in enumerate(payload) if 48 <= b < 58])] = rng.randrange(48, 58)
    return base64.b64encode(payload).decode()


MEMBERS: tuple[Callable[[random.Random, J, J], object], ...] = (
    lambda _, d, other: d.update(signatures=other["signatures"]),
    lambda _, d, other: d.update(payload=other["payload"]),
    lambda _, d, other: d.update(signatures=[*d["signatures"], *other["signatures"]]),
    lambda rng, d, _: d.update(signatures=d["signatures"] * rng.randrange(150)),
    lambda rng, d, _: d["signatures"][0].update(keyid=rng.choice(["", "x", None, 7, "0" * 64, "\x1b[2J"])),
    lambda rng, d, _: d.update(payload=_respelt(rng, d["payload"])),
    lambda rng, d, _: d.update(payloadType=rng.choice(["application/vnd.in-toto+json\n", "text/plain", "", None, 5])),
    lambda rng, d, _: d["signatures"][0].update(sig=_other_signature(rng, d["signatures"][0]["sig"])),
    lambda _rng, d, _other: d.update(extension={"any": [1, {"deep": None}]}),
    lambda rng, d, _: d.update(payload=_other_digit(rng, d["payload"])),
    lambda _rng, d, _other: d.update({name: d.pop(name) for name in reversed(list(d))}),
)
TAILS = (
    b'"payload":"e30="}', b'"signatures":[]}', b'"x":NaN}', b'"x":1e9}', b'"x":"\\udc00"}', b'"x":' + b"9" * 5000 + b"}",
)  # fmt: skip
SPELLINGS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    lambda rng, data: data.rstrip(b"}\n ") + b"," + rng.choice(TAILS),
    lambda _, data: data.replace(b'"payload"', b'"\\u0070ayload"'),
    lambda rng, data: data[:-1] + b',"x":' + b"[" * rng.randrange(100, 100_000),
)


def _envelope(rng: random.Random, pair: Pair, material: Material) -> Pair:
    """Members of the envelope exchanged, duplicated, spelt differently, or taken from another ledger."""
    kind = rng.randrange(len(MEMBERS) + len(SPELLINGS))
    try:
        document: J = json.loads(pair.ledger)
        if kind < len(MEMBERS):
            MEMBERS[kind](rng, document, json.loads(rng.choice(material.others).ledger))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return pair
    dumped = json.dumps(document, indent=rng.choice([None, 0, 3, "\t"]), sort_keys=rng.random() < 0.3).encode()
    return pair._replace(ledger=dumped if kind < len(MEMBERS) else SPELLINGS[kind - len(MEMBERS)](rng, dumped))


EDITS: tuple[Callable[[random.Random, Pair, Material], Pair], ...] = (
    _bytes(_flip), _bytes(_cut), _bytes(_splice), _bytes(_append), _bytes(_respell), _lines, _replay, _envelope, _envelope,
)  # fmt: skip


def edited(rng: random.Random, material: Material) -> Pair:
    """One to three edits of the honest pair."""
    pair = material.honest
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        pair = rng.choice(EDITS)(rng, pair, material)
    return pair


# Edits by somebody who has the key: a journal of their own making, and a ledger signed over it.

LENIENT = (
    b'{"kind":"end","kind":"begin"}', b'{"x":' + b"[" * 900 + b"]" * 900 + b"}", b'{"x":1.0}', b'{"x":NaN}',
    b'{"x":"\\ud800"}', b'{"x":"\xff"}', b"{}}{}", b'{"x":' + b"9" * 5000 + b"}",
)  # fmt: skip


def records_of(journal: bytes) -> list[J]:
    return [dict(line.record()) for line in read_lines(io.BytesIO(journal))]


def chained(bodies: Iterable[bytes], codes: Iterable[bytes] = ()) -> tuple[bytes, str]:
    """Any bytes as bodies of records, each framed as in a journal, in a valid chain; returns that and its head. The
    codes are those available without the secret: the codes of the original lines."""
    lines, head = [], GENESIS
    for body, code in zip_longest(bodies, codes, fillvalue=b""):
        head = hashlib.sha256(head + body).digest()
        lines.append(JournalLine(body, 0, head, 0, code).framed())
    return b"".join(lines), head.hex()


def forged(rng: random.Random, material: Material) -> Pair:
    """Changed records with a newly made chain, signed with the right key. The statement is the one that flopsd would
    seal, or else the honest one with fitting digests."""
    lines = list(read_lines(io.BytesIO(material.honest.journal)))
    bodies = [line.body for line in lines]
    for _ in range(rng.choice([1, 1, 2, 3])):
        bodies = edited_json(rng, b"\n".join(bodies)).split(b"\n")
    if rng.random() < 0.05:  # text that only a lenient reader takes for a record
        bodies[rng.randrange(len(bodies))] = rng.choice(LENIENT)
    journal, head = chained(bodies, [line.code for line in lines][: len(bodies)])
    try:
        if rng.random() < 0.8:
            return Pair(material.sign(encode(material.seal(journal))), journal)
    except (FlopsdError, *MALFORMED):
        pass
    statement = json.loads(parse_envelope(material.honest.ledger).payload)
    digest = hashlib.sha256(journal).hexdigest()
    facts = {"sha256": digest, "bytes": str(len(journal)), "records": str(len(bodies)), "headSha256": head}
    statement["subject"][0]["digest"]["sha256"] = digest
    statement["predicate"]["method"]["journal"].update(facts)
    return Pair(material.sign(encode(statement)), journal)


def misspoken(rng: random.Random, material: Material) -> Pair:
    """The honest journal under a statement that was changed before it was signed."""
    statement = json.loads(parse_envelope(material.honest.ledger).payload)
    for _ in range(rng.choice([1, 1, 1, 2])):
        statement = edited_value(rng, statement)
    return material.honest._replace(ledger=material.sign(spelt(rng, statement)))
