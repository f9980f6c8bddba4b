"""Merge ledgers: find the children, verify each, refuse conflicts and gaps, add up, sign."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flopsd import __version__
from flopsd.attestation.foreign_files import ForeignFile, companions_of, foreign_files
from flopsd.attestation.ledger_files import LEDGER_MODE, journal_beside, public_key_beside, remove_companions
from flopsd.attestation.merge.find_ledgers import find_ledgers
from flopsd.attestation.merge.ledger_folders import Note
from flopsd.attestation.merge.overwriting import refuse_another, refuse_overwriting
from flopsd.attestation.merge.read_child import Child, ChildReader
from flopsd.attestation.merge.readers import ReadOptions, read_all
from flopsd.attestation.merge.streamed_envelope import JsonLines, refuse_too_large, sign_statement
from flopsd.attestation.same_run import SealedRun, compare
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.public_key import load_public
from flopsd.core import notes
from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.merged_claims import Claim, DeviceClaims, refuse_double
from flopsd.core.ledger.merged_completeness import MAX_LISTED, Completeness
from flopsd.core.ledger.merged_entry import Stop, stop_of
from flopsd.core.ledger.merged_segments import NumberedSegment
from flopsd.core.ledger.merged_statement import JOB, MergeFacts, Merging
from flopsd.core.ledger.statement import statement_about
from flopsd.errors import LedgerError, NodeGivenTwiceError
from flopsd.settings.data_files import Tables, companion_beside, load_policies
from flopsd.settings.words import say_all
from flopsd.system.atomic_files import replace_file
from flopsd.system.clock import Clock, rfc3339
from flopsd.system.progress import Progress, no_progress

log = logging.getLogger("flopsd")
CACHE_KIB = 4096
_SCHEMA = """
CREATE TABLE child (
    number INTEGER PRIMARY KEY, run TEXT, rank INTEGER, node TEXT, sha256 TEXT, label TEXT, subject TEXT, entry TEXT
);
-- Times are text: the format's numbers may have more than 64 bits.
CREATE TABLE claim (child INTEGER, what INTEGER, key TEXT, boot TEXT, begins TEXT, ends TEXT, offset TEXT);
"""
_ORDER = "child.run, child.rank, child.node, child.sha256, child.label"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """The ledgers, trusted keys and output of a merge. `nodes`: the job's node count, if no ledger states it."""

    arguments: Sequence[str]
    trust: Sequence[str]
    key_uri: str
    ledger: Path
    kind: str = JOB
    lineage: str | None = None
    nodes: int | None = None
    allow_incomplete: bool = False
    allow_replay: bool = False
    peaks_files: Sequence[str] = ()
    policy_files: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of merging. `predicate` is without its lists of nodes and children."""

    ledger: Path
    public_key: Path
    payload_sha256: str
    ledgers: int
    completeness: Completeness
    predicate: Mapping[str, Any]
    foreign: tuple[ForeignFile, ...]
    companions: Sequence[Path]  # files that a verifier needs too
    stops: Sequence[Stop]


def merge_ledgers(request: MergeRequest, clock: Clock, note: Note, progress: Progress = no_progress) -> Merged:
    """Merge into `request.ledger`, which is written whole or not at all. `note` receives remarks for the user. Memory
    grows only with the names and attempts of nodes, and with the payload when it is signed. Raises LedgerError,
    NotVerifiedError, SigningKeyError."""
    key = load_signer(request.key_uri)
    refuse_overwriting(request.ledger, request.kind, key.public.pem)
    trusted = [load_public(file).pem for file in request.trust]
    tables = Tables(peaks_files=request.peaks_files, policy_files=request.policy_files)
    policies, judged_by = load_policies(request.policy_files), set[str]()
    reading = ReadOptions(request.kind, trusted, request.peaks_files, request.policy_files, request.allow_replay)
    try:
        request.ledger.absolute().parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="flopsd-merge-") as name, closing(Spool(Path(name))) as spool:
            temporary = Path(name)
            first = _read_children(request, reading, spool, temporary, judged_by, note, progress)
            progress("adding up ledgers:", spool.count, 0)
            try:
                refuse_double(spool.claimed(), spool.segments)
            except NodeGivenTwiceError as fault:
                raise _duplicate(fault, request, reading.reader(), temporary) from fault
            run, nodes = (dict(first.run), first.nodes) if request.kind == JOB else (None, ())
            refuse_another(request.ledger, request.kind, request.lineage if run is None else str(run["id"]))
            sealed_at = rfc3339(clock.wall_ns())
            merging = Merging(
                MergeFacts(request.kind, run, nodes, request.lineage, request.nodes, __version__, sealed_at, policies)
            )
            stops = _add_up(merging, spool, temporary / "nodes")
            completeness = merging.completeness()
            _refuse_incomplete(completeness, request)
            children = JsonLines(lambda: (entry for entry, _ in spool.entries()))
            subject = JsonLines(spool.subjects)
            predicate = merging.predicate(JsonLines(lambda: _lines(temporary / "nodes")), children)
            companions = companions_of(predicate, tables)
            for file, data in companions.items():
                replace_file(companion_beside(request.ledger, file), data, LEDGER_MODE)
            digest = sign_statement(statement_about(subject, predicate), key, request.ledger, temporary)
        public_key = public_key_beside(request.ledger)
        replace_file(public_key, key.public.pem, LEDGER_MODE)
        remove_companions(request.ledger, but=companions)
    except sqlite3.Error as fault:
        raise LedgerError(
            f"cannot write to the temporary folder: {fault}", hint="set TMPDIR to a folder with free disk space"
        ) from fault
    except OSError as fault:
        raise LedgerError(
            f"cannot write the ledger {request.ledger}: {fault.strerror or fault}",
            hint="give --ledger a writable path with free disk space",
        ) from fault
    for path in tables.unused([*predicate["method"]["peakTableSha256"], *(policy.sha256 for policy in policies)]):
        note(f"{path} was not used: no ledger was rated by it")
    for name in sorted(judged_by - {policy.id for policy in policies}):
        note(f"some ledgers were also judged by the policy {name}, the sum was not: add it with --policy")
    short = {name: value for name, value in predicate.items() if name not in ("nodes", "children")}
    foreign, beside = foreign_files(short, tables), [companion_beside(request.ledger, file) for file in companions]
    return Merged(request.ledger, public_key, digest, merging.ledgers, completeness, short, foreign, beside, stops)


def _read_children(
    request: MergeRequest, reading: ReadOptions, spool: Spool, temporary: Path, judged_by: set[str], note: Note,
    progress: Progress,
) -> Child:  # fmt: skip
    """Verify every child and store its entry; returns the first. `judged_by` gets the ids of their policies."""
    first: tuple[Child, str] | None = None
    others = 0
    everything = find_ledgers(request.arguments, temporary, note, but=request.ledger.resolve())
    with closing(everything) as ledgers, closing(read_all(ledgers, reading, passing=temporary)) as children:
        for found, child in children:
            if child is None:
                others += 1
                continue
            if first is None:
                first = child, found.label
            elif request.kind == JOB:
                _refuse_mixed(first, (child, found.label))
            spool.add(child, found.label)
            judged_by.update(child.policies)
            refuse_too_large(spool.size_bytes)
            progress("ledgers verified:", spool.count, 0)
    if others:
        note(f"skipped {others} signed statements that are not flopsd ledgers")
    if first is None:
        raise LedgerError("no ledger to merge was found")
    return first[0]


def _duplicate(fault: NodeGivenTwiceError, request: MergeRequest, reader: ChildReader, temporary: Path) -> LedgerError:
    """The error for two ledgers of one node, which says which is the earlier. Raises NotVerifiedError if the journals
    fork. Finds both again, since the temporary folder holds only one fetched or unpacked ledger at a time."""
    found: list[SealedRun] = []
    for one in find_ledgers(request.arguments, temporary, lambda _: None, but=request.ledger.resolve()):
        if one.label in fault.labels and len(found) < 2:
            kept = temporary / f"twice-{len(found)}.jsonl"
            shutil.copyfile(journal_beside(one.path), kept)
            found.append(SealedRun(one.label, kept, reader.verified(one)))
    if len(found) < 2:
        return fault
    compared = compare(*found)
    return LedgerError(f"{fault}: {compared.text.rstrip('.')}", hint=fault.hint)


def _refuse_mixed(first: tuple[Child, str], other: tuple[Child, str]) -> None:
    (one, where), (two, there) = first, other
    for name in ("id", "jobName", "jobArn", "platform"):
        if one.run[name] != two.run[name]:
            raise LedgerError(
                f"{there} belongs to another job than {where}: run.{name} is {two.run[name]!r}, not {one.run[name]!r}",
                hint="merge each job separately, then the jobs with --kind lineage; "
                "outside of a platform that names the job, give all its nodes the same --run-id",
            )
    if one.nodes != two.nodes:
        raise LedgerError(
            f"{there} lists other nodes than {where}: {_node_list(two.nodes)}, not {_node_list(one.nodes)}",
            hint="the platform gives all nodes of a job the same list, so one of the two ledgers is of another job",
        )


def _node_list(nodes: Sequence[str]) -> str:
    return f"{len(nodes)} nodes ({', '.join(nodes[:3])}{', …' if len(nodes) > 3 else ''})" if nodes else "none"


def _add_up(merging: Merging, spool: Spool, nodes: Path) -> list[Stop]:
    stops = []
    with nodes.open("w", encoding="ascii") as file:
        for line, label in spool.entries():
            finished = merging.add(entry := json.loads(line), label, own=True)
            if (stop := stop_of(entry)) is not None:
                stops.append(stop)
            if finished is not None:
                file.write(json.dumps(finished) + "\n")
        if (last := merging.last_node()) is not None:
            file.write(json.dumps(last) + "\n")
    return stops


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii") as file:
        for line in file:
            yield line.rstrip("\n")


def _refuse_incomplete(completeness: Completeness, request: MergeRequest) -> None:
    if completeness.complete is False and not request.allow_incomplete:
        raise LedgerError(
            f"the {request.kind} is incomplete: {missing_text(completeness.missing)}",
            hint="give these ledgers too, or merge without them and without an upper bound: --allow-incomplete"
            if request.kind == JOB
            else "merge these jobs again with all their ledgers, or merge without an upper bound: --allow-incomplete",
        )


def missing_text(missing: Sequence[notes.Note]) -> str:
    """The missing ledgers, in a text of limited length."""
    more = len(missing) - MAX_LISTED
    return say_all("completeness.missing", missing[:MAX_LISTED]) + (f"; and {more} more" if more > 0 else "")


class Spool:
    """Child entries and their claims in tables on disk, so that memory stays bounded; they are read back sorted. The
    tables are deleted with their folder. Raises sqlite3.Error if the disk is full."""

    def __init__(self, folder: Path) -> None:
        self._base = sqlite3.connect(folder / "children.sqlite", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{CACHE_KIB}"):
            self._base.execute(f"PRAGMA {pragma}")
        self._base.executescript(_SCHEMA)
        self._base.execute("BEGIN")
        self.count = self.size_bytes = 0

    def close(self) -> None:
        self._base.close()

    def add(self, child: Child, label: str) -> None:
        """Store a child with its claims, and with `label`, its name in messages."""
        shown = label.encode(errors="backslashreplace").decode()  # a file name need not be UTF-8
        row = (*child.order, shown, child.subject, child.entry)
        self.size_bytes += len(child.entry)
        self._base.execute("INSERT INTO child VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)
        self.count = number = self.count + 1
        rows = [
            (number, what, key, boot_id, str(begin_ns), str(end_ns), str(wall_offset_ns))
            for what, key, boot_id, begin_ns, end_ns, wall_offset_ns in child.claims
        ]
        self._base.executemany("INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Every child's entry as one line of JSON, and its label, in the order of `sort_key`."""
        yield from self._base.execute(f"SELECT entry, label FROM child ORDER BY {_ORDER}")

    def subjects(self) -> Iterator[str]:
        """Every child as a subject of the statement, in the order of `entries`."""
        return (subject for (subject,) in self._base.execute(f"SELECT subject FROM child ORDER BY {_ORDER}"))

    def segments(self) -> Iterator[NumberedSegment]:
        """The number of every child, and its segment."""
        for number, entry in self._base.execute("SELECT number, entry FROM child"):
            yield number, json.loads(entry)["segment"]

    def claimed(self) -> Iterator[DeviceClaims]:
        """Every claim whose object more than one child claims, sorted by what and key."""
        several = "SELECT what, key FROM claim GROUP BY what, key HAVING min(child) < max(child)"
        rows = self._base.execute(
            "SELECT child.number, child.label, what, key, boot, begins, ends, offset FROM claim"
            f" JOIN ({several}) USING (what, key) JOIN child ON claim.child = child.number"
            f" ORDER BY what, key, {_ORDER}"
        )
        for number, label, what, key, boot, *times in rows:
            yield DeviceClaims(Claim(what, key, boot, *map(int, times)), number, label)
