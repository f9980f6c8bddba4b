"""Mutants of the files that a verifier gets, by family. Each is drawn from its own seed, so that it can be made
again."""

import base64
import copy
import gzip
import hashlib
import json
import os
import random
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.field_reader import MALFORMED
from flopsd.core.ledger.merged_entry import sort_key
from flopsd.core.ledger.merged_statement import recompute_merged
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from flopsd.errors import FlopsdError
from flopsd.settings.data_files import parse_peaks, parse_policy
from tests.make_vectors import files as vectors
from tests.support import story
from tests.support.json_edits import edited_json, edited_value, spelt
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.support.tamper import Material, Pair, byte_edit, edited, forged, material, misspoken, of_vector, records_of

LEDGER, JOURNAL, KEY, LOG = "ledger.json", "ledger.journal.jsonl", "ledger.pub", "daemon.log"
BASES = ("activity-and-gaps", "cycles-recovered", "declared-mix", "declared-phases", "neuron-count", "unknown-device",
         "rebooted", "accounted-elsewhere", "lying-declarations", "earlier-seal", "codes-checked",
         "recovered-tail", "journal-replaced", "job-of-another-user")  # fmt: skip
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


@dataclass(frozen=True)
class Mutant:
    """Files by path, options of `flopsd verify`, and the law that must hold if it is believed. `sealed`: its content
    is what was sealed. `computed`: its content is what a second implementation computes. `merged`: it adds up, and
    its children are those that were merged. `never`: it must not be believed."""

    files: Mapping[str, bytes | Callable[[Path], object]]
    law: str
    base: Material
    options: tuple[str, ...] = ()
    peaks: bytes = b""  # the table that it names, if it is not its base's
    children: Mapping[str, bytes] = field(default_factory=dict)


def mutant(family: str, number: int) -> Mutant:
    rng = random.Random(f"{family} {number}")
    return FAMILIES[family](rng)


@cache
def metered() -> Material:
    with tempfile.TemporaryDirectory() as folder:
        return material(Path(folder))


def _base(rng: random.Random) -> Material:
    return metered() if rng.random() < 0.3 else _vector(rng.choice(BASES))


@cache
def _vector(name: str) -> Material:
    return of_vector(name)


def of_pair(pair: Pair, base: Material, law: str, *options: str) -> Mutant:
    """The two files beside the honest key and, if there is one, the honest log."""
    files: dict[str, bytes | Callable[[Path], object]] = {
        LEDGER: pair.ledger,
        JOURNAL: pair.journal,
        KEY: base.public_key,
    }
    if base.log:
        files[LOG] = base.log
        options += ("--anchors", LOG)
    return Mutant(files, law, base, options)


def _bytes(rng: random.Random) -> Mutant:
    base = _base(rng)
    return of_pair(edited(rng, base), base, "sealed")


def _records(rng: random.Random) -> Mutant:
    base = _base(rng)
    return of_pair(forged(rng, base), base, "computed")


def _statement(rng: random.Random) -> Mutant:
    base = _base(rng)
    return of_pair(misspoken(rng, base), base, "computed")


def _signatures(rng: random.Random) -> Mutant:
    """A signature by another key, over other bytes, of another type, one of two, twice, or malformed."""
    base = _vector(rng.choice(BASES))
    payload, *others = (parse_envelope(pair.ledger).payload for pair in (base.honest, *base.others))
    other = rng.choice([one for one in others if one != payload])
    (keyid, genuine), (_, foreign) = vectors.FIRST.sign(payload), vectors.SECOND.sign(payload)
    scalar = (int.from_bytes(genuine[32:], "little") + ED25519_ORDER).to_bytes(32, "little")
    bad = rng.choice([
        foreign, genuine[:-1], genuine + b"\0", genuine[:32] + scalar, bytes(64), b"\1" + bytes(63), genuine[32:] + genuine[:32],
        vectors.FIRST.private.sign(payload), vectors.FIRST.sign(payload, "text/plain")[1], vectors.FIRST.sign(other)[1],
        vectors.P256.sign(payload)[1], rng.randbytes(64), b"",
    ])  # fmt: skip
    hint = rng.choice([keyid, vectors.SECOND.keyid, "", "0" * 64])
    kind, threshold = rng.randrange(4), ("--threshold", "2")
    if kind == 0:
        return of_pair(base.honest._replace(ledger=encode_envelope(payload, PAYLOAD_TYPE, [(hint, bad)] * rng.choice([1, 1, 3]))), base, "never")  # fmt: skip
    if kind == 1:
        return of_pair(
            base.honest._replace(ledger=encode_envelope(other, PAYLOAD_TYPE, [(hint, genuine)])), base, "never"
        )
    if kind == 2:  # two keys are required: one of them signed, perhaps twice
        signatures = rng.choice(
            [[(hint, genuine)], [(keyid, genuine), (hint, genuine)], [(keyid, genuine), (hint, bad)]]
        )
        found = of_pair(base.honest._replace(ledger=encode_envelope(payload, PAYLOAD_TYPE, signatures)), base, "never", *threshold, "--key", "second.pub")  # fmt: skip
        by_both = bad == foreign and len(signatures) == 2
        return replace(
            found, law="sealed" if by_both else "never", files={**found.files, "second.pub": vectors.SECOND.public_pem}
        )
    kind_of = rng.choice(["text/plain", f"{PAYLOAD_TYPE} ", "application/vnd.in-toto+JSON", ""])
    return of_pair(base.honest._replace(ledger=vectors.signed(payload, payload_type=kind_of)), base, "never")


def _log(rng: random.Random) -> Mutant:
    """The log in another form and then edited, as anybody who keeps it could."""
    base = metered()
    lines = base.log.decode().splitlines()
    events = [
        {"timestamp": 1764079200000 + n, "message": line, "ingestionTime": 1764079200500 + n}
        for n, line in enumerate(lines)
    ]
    shape = rng.randrange(5)
    data = [base.log, json.dumps({"events": events}).encode(), json.dumps(events).encode(),
            "\n".join(json.dumps({"log": line + "\n", "time": "2026-11-25T14:00:00Z"}) for line in lines).encode(),
            base.log.decode().encode("utf-16")][shape]  # fmt: skip
    for _ in range(rng.choice([1, 1, 2, 4])):
        if 0 < shape < 4 and rng.random() < 0.5:
            data = edited_json(rng, data)
        elif rng.random() < 0.3:
            words = data.split(b" ")
            at = rng.randrange(len(words))
            words[at] = rng.choice(
                [words[at] + b"0", words[at][:-1], b"low_flop=0", b"records=2", b"incarnation=2", rng.choice(words)]
            )
            data = b" ".join(words)
        else:
            data = byte_edit(rng, data)
    if rng.random() < 0.2:
        packed = gzip.compress(data, 1)
        data = byte_edit(rng, packed) if rng.random() < 0.5 else packed
    found = of_pair(base.honest, base, "sealed")
    return replace(found, files={**found.files, LOG: data})


def _table(rng: random.Random, path: Path) -> tuple[bytes, str]:
    """An edited YAML file, and its digest."""
    data = path.read_bytes()
    if rng.random() < 0.6:
        lines = data.split(b"\n")
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(len(lines))
            name, colon, value = lines[at].partition(b":")
            odd = rng.choice([b" 0", b" -1", b" 1e9", b" [1, 2]", b" {a: b}", b" null", b" '\\x1b'", b" \"\\e[2J\"", b" *a", b" &a x", b" .nan", b" 9" * 60, b" " + b"[" * 3000, value + b"1"])  # fmt: skip
            lines[at] = rng.choice(
                [name + colon + odd, b" " + lines[at], lines[at][2:], lines[at] + b"\n" + lines[at], b""]
            )
        data = b"\n".join(lines)
    else:
        data = byte_edit(rng, data)
    return data, hashlib.sha256(data).hexdigest()


def _peaks(rng: random.Random) -> Mutant:
    """Another peak table beside the ledger or named by an option; or, by the holder of the key, with a journal that
    names it."""
    base = _vector(rng.choice(BASES))
    found, data = _of_table(rng, base, PEAKS, lambda j, d: vectors.statement_of(j, peaks=parse_peaks(d, "")))
    return replace(found, peaks=data if found.law == "computed" else b"")


def _policy(rng: random.Random) -> Mutant:
    """Another policy, in the same ways."""
    base = _vector("declared-phases")
    return _of_table(rng, base, POLICY, lambda j, d: vectors.statement_of(j, policies=(parse_policy(d, ""),)))[0]


def _of_table(
    rng: random.Random, base: Material, table: Path, stated: Callable[[bytes, bytes], dict[str, Any]]
) -> tuple[Mutant, bytes]:
    """A mutant with an edited table. `stated` gives flopsd's statement of a journal under it."""
    data, digest = _table(rng, table)
    options = (f"--{table.stem}", table.name)
    if rng.random() < 0.3:
        found = of_pair(base.honest, base, "sealed", *options)
    else:
        before = hashlib.sha256(table.read_bytes()).hexdigest().encode()
        records = json.dumps(records_of(base.honest.journal)).encode().replace(before, digest.encode())
        journal = story.chain(json.loads(records))
        try:
            payload = encode(stated(journal, data))
        except (FlopsdError, *MALFORMED):
            payload = encode(vectors.claimed(journal, json.loads(parse_envelope(base.honest.ledger).payload)))
        found = of_pair(Pair(base.sign(payload), journal), base, "computed", *options)
    return replace(found, files={**found.files, table.name: data}), data


@cache
def _job(name: str) -> tuple[Material, dict[str, bytes]]:
    """A merged vector as material, and its children's files."""
    folder = VECTORS / "merged" / name
    honest = Pair((folder / LEDGER).read_bytes(), b"")
    base = Material(honest, (honest,), (folder / KEY).read_bytes(), vectors.signed, vectors.statement_of, PEAKS, POLICY)
    paths = sorted(path for path in (folder / "children").rglob("*") if path.is_file())
    return base, {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _merged(rng: random.Random) -> Mutant:
    """A merged ledger: edited without the key, falsified with it, or summed anew from edited entries."""
    name = rng.choice(
        ["job", "job-alone", "job-with-a-hole", "job-without-an-end", "job-child-countersigned", "lineage"]
    )
    base, children = _job(name)
    kind = rng.randrange(3)
    if kind == 0:
        ledger, law = edited(rng, base).ledger, "sealed"
    elif kind == 1:
        ledger, law = misspoken(rng, base).ledger, "merged"
    else:
        statement, law = json.loads(parse_envelope(base.honest.ledger).payload), "merged"
        try:
            predicate = copy.deepcopy(statement["predicate"])
            entries = edited_value(rng, predicate["children"])
            statement = recompute_merged(predicate, sorted(entries, key=sort_key), (story.policy(),))
        except (FlopsdError, *MALFORMED):
            statement["predicate"]["children"] = entries
        ledger = base.sign(spelt(rng, statement))
    options = ("--children", "children") if children and rng.random() < 0.7 else ()
    files: dict[str, bytes | Callable[[Path], object]] = {LEDGER: ledger, KEY: base.public_key, **children}
    return Mutant(files, law, base, options, children=children)


def _children(rng: random.Random) -> Mutant:
    """Children that are edited, omitted, exchanged or added, under the honest merged ledger."""
    base, children = _job(rng.choice(["job", "job-with-a-hole", "job-without-an-end", "job-child-countersigned"]))
    files = dict(children)
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice(sorted(files))
        kind = rng.randrange(6)
        if kind == 0 and len(files) > 1:
            del files[name]
        elif kind == 1:
            files[name] = files[rng.choice(sorted(files))]
        elif kind == 2:
            folder = rng.choice(["more", "node-0", "x\x1b[2J"])
            files[f"children/{folder}/{Path(name).name}"] = files[name]
        elif kind == 3 and name.endswith(LEDGER):
            document = json.loads(files[name]) if files[name] == children.get(name) else {}
            payload = json.loads(base64.b64decode(document.get("payload", "e30=")))
            document["payload"] = base64.b64encode(spelt(rng, edited_value(rng, payload))).decode()
            files[name] = json.dumps(document).encode()
        else:
            files[name] = byte_edit(rng, files[name])
    return Mutant({LEDGER: base.honest.ledger, KEY: base.public_key, **files}, "merged", base, ("--children", "children"), children=children)  # fmt: skip


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


ODD_FILES: tuple[bytes | Callable[[Path], object], ...] = (
    Path.mkdir, os.mkfifo, _sparse, _socket, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/proc/self/mem"), lambda path: path.symlink_to("/nowhere"), lambda _: None, b"", b"\0" * 10**6,
    b"[" * 10**6, b'{"a":' * 10**5, b"{}" * 10**6, b"x" * 5 * 10**6, b"[" + b"1," * 10**6 + b"1]", b'"' + b"\\u0041" * 10**6 + b'"',
    lambda path: path.write_bytes(gzip.compress(b"\0" * (80 << 20))),
    lambda path: path.write_bytes(gzip.compress(b"{}\n" * (1 << 20))), b"\n" * 10**6,
)  # fmt: skip


def _files(rng: random.Random) -> Mutant:
    """A file that is not regular, has no end or has another size, in place of one that is read."""
    base = metered()
    found = of_pair(base.honest, base, "sealed", "--peaks", "peaks.yaml", "--policy", "policy.yaml")
    files = {**found.files, "peaks.yaml": base.peaks.read_bytes(), "policy.yaml": POLICY.read_bytes()}
    name = rng.choice(sorted(files.keys() - {KEY}))  # the verifier brings the key
    return replace(found, files={**files, name: rng.choice(ODD_FILES)})


FAMILIES: Mapping[str, Callable[[random.Random], Mutant]] = {
    "bytes": _bytes, "records": _records, "statement": _statement, "signatures": _signatures, "log": _log, "peaks": _peaks,
    "policy": _policy, "merged": _merged, "children": _children, "files": _files,
}  # fmt: skip
