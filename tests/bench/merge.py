"""Merging at scale: ledgers a second and peak memory of the real program, by number and length of ledgers.

One run of eight GPUs is metered and sealed. The ledgers of all other nodes are copies of it with their own names, rank
and devices, chained, sealed and signed anew, so that each ledger is different and is verified completely.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.statement import SealFacts, encode, statement
from flopsd.journal.codes import CodeKey, by_sha256
from flopsd.journal.framing import GENESIS
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import StateDir
from flopsd.testing import FakeClock
from tests.bench.journals import SECRET, fill, gpus
from tests.bench.measuring import Cost, Say, cost_of
from tests.support.jobs import slurm
from tests.support.strategies import table

COUNTS, MANY = (100, 1_000, 10_000), 100_000
MINUTES = 10
A_JOB, TOO_MANY = 10_000, 20_000  # the number of ledgers in a merged ledger is limited by its 64 MiB
# Texts that only the first node has; those of the others are as long.
_NODE, _BOOT, _RUN, _GPU = b"node-000000", b"boot-000000", b"run-00", b"GPU-5a4d0000"


def merge(folder: Path, say: Say) -> None:
    """The figures of the design's budget, then the cost of a longer journal."""
    _one(folder / "short", COUNTS[1], 1, say, "1,000 /s")
    for count in COUNTS:
        _one(folder / f"{count}", count, MINUTES, say, "500 /s; RSS does not grow")
    _one(folder / "day", 20, 24 * 60, say, "none: 1440 records are added up again")


def merge_many(folder: Path, say: Say) -> None:
    """More ledgers than a merged ledger can list, which is refused as soon as that is known; and still more, as a
    lineage of jobs."""
    nodes = Nodes(folder, 1)
    nodes.write(folder / "one", TOO_MANY, TOO_MANY)
    refused = cost_of("merge", str(folder / "one"), *nodes.trusted, *nodes.into(folder / "no.json"), codes=(1,))
    say(f"merge of {TOO_MANY:,} ledgers: refused", str(refused), "64 MiB")
    everything, jobs = nodes.write(folder / "all", MANY, A_JOB), folder / "jobs"
    jobs.mkdir()
    costs = [
        cost_of("merge", str(place), *nodes.trusted, *nodes.into(jobs / f"{place.name}.ledger.json"), "--nodes", str(A_JOB))
        for place in everything
    ]  # fmt: skip
    say(f"merge of {MANY:,} ledgers, a job of {A_JOB:,} at a time", _rate(MANY, costs), "1,000 /s; RSS does not grow")
    own = ("--trust", str(jobs / f"{everything[0].name}.ledger.pub"), "--kind", "lineage", "--lineage", "bench")
    lineage = cost_of("merge", str(jobs), *own, *nodes.into(folder / "lineage.json"))
    say(f"lineage of these {len(costs)} jobs", str(lineage), "none: each is added up again whole")


def _one(folder: Path, count: int, minutes: int, say: Say, budget: str) -> None:
    nodes, out = Nodes(folder, minutes), folder / "job.json"
    nodes.write(folder / "nodes", count, count)
    cost = cost_of("merge", str(folder / "nodes"), *nodes.trusted, *nodes.into(out), "--nodes", str(count))
    assert "COMPLETE" in cost.out
    what = f"merge of {count:,} ledgers, 8 GPUs, {minutes} min of records"
    say(what, _rate(count, [cost]), budget)
    say(f"{what}: job ledger", f"{out.stat().st_size / count:,.0f} B a node", "64 MiB in all")


def _rate(count: int, costs: Sequence[Cost]) -> str:
    cpu, seconds = sum(cost.cpu_seconds for cost in costs), sum(cost.seconds for cost in costs)
    peak = max(cost.peak_bytes for cost in costs)
    return f"{count / cpu:,.0f} /s of CPU, {seconds:.1f} s, {peak / 1e6:.1f} MB"


class Nodes:
    """Ledgers of nodes with one key, derived from that of the first node."""

    def __init__(self, folder: Path, minutes: int) -> None:
        folder.mkdir(exist_ok=True)
        state = StateDir(folder / "state")
        first = replace(slurm(0, job="bench"), node=_NODE.decode(), boot_id=_BOOT.decode())
        fill(state, FakeClock(), gpus(8), minutes, first, _RUN.decode())
        self._key, _ = ensure_key(None, state.path)
        self._signer = load_signer(self._key)
        self._public = folder / "key.pub"
        self._public.write_bytes(self._signer.public.pem)
        self._bodies = [line.body for line in read_journal(state.journal)]
        _, self._first = _framed(self._bodies)
        seal = SealFacts("bench", "2026-09-21T14:13:20.000000Z", code_secrets=by_sha256([SECRET]))
        self._payload = encode(statement(read_history(map(json.loads, self._bodies)), table(), self._first, seal))

    @property
    def trusted(self) -> tuple[str, ...]:
        return "--trust", str(self._public)

    def into(self, ledger: Path) -> tuple[str, ...]:
        return "--key", self._key, "--ledger", str(ledger)

    def write(self, folder: Path, count: int, a_job: int) -> list[Path]:
        """`count` ledgers, with those of each run in a folder of its own; returns these folders."""
        jobs = [folder / f"{job:02d}" for job in range(count // a_job)]
        for job, place in enumerate(jobs):
            for rank in range(a_job):
                self._write(place / f"{rank // 100:03d}" / f"{rank:05d}", job, rank, job * a_job + rank)
        return jobs

    def _write(self, place: Path, job: int, rank: int, number: int) -> None:
        place.mkdir(parents=True)
        journal, facts = _framed([_renamed(body, job, rank, number) for body in self._bodies])
        payload = _renamed(self._payload, job, rank, number)
        for name in ("sha256", "head_sha256"):
            payload = payload.replace(getattr(self._first, name).encode(), getattr(facts, name).encode())
        before, after = (b'"bytes": "%d"' % size for size in (self._first.size_bytes, facts.size_bytes))
        (place / "ledger.journal.jsonl").write_bytes(journal)
        (place / "ledger.json").write_bytes(sign(payload.replace(before, after), self._signer))


def _renamed(text: bytes, job: int, rank: int, number: int) -> bytes:
    """A record or payload of the first node, changed to that of another."""
    for before, after in (
        (_NODE, b"node-%06d" % number), (_BOOT, b"boot-%06d" % number), (_GPU, b"GPU-%08x" % number),
        (_RUN, b"run-%02d" % job), (b'"rank":0', b'"rank":%d' % rank), (b'"rank": 0', b'"rank": %d' % rank),
    ):  # fmt: skip
        text = text.replace(before, after)
    return text


def _framed(bodies: Sequence[bytes]) -> tuple[bytes, JournalFacts]:
    lines, head, codes = [], GENESIS, CodeKey(SECRET, 1)
    for body in bodies:
        head = hashlib.sha256(head + body).digest()
        lines.append(b'{"h":"%s","m":"%s","r":%s}\n' % (head.hex().encode(), codes.code(head).hex().encode(), body))
        codes.advance()
    journal = b"".join(lines)
    return journal, JournalFacts(hashlib.sha256(journal).hexdigest(), len(journal), len(lines), head.hex())
