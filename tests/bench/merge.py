"""Merging at scale: ledgers a second and peak memory of the real program, by number and length of ledgers.

One run of eight GPUs is metered; every node's journal is that one with names, rank and devices of its own, framed,
sealed and signed anew, so that each ledger is another one and is verified whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.core.ledger.history import read_history
from flopsd.core.ledger.statement import JournalFacts, SealFacts, encode, statement
from flopsd.journal.codes import CodeKey, by_sha256
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import StateDir
from flopsd.testing import FakeClock
from tests.bench.journals import SECRET, fill, gpus
from tests.bench.measuring import Say, cost_of
from tests.support.jobs import slurm
from tests.support.strategies import table

COUNTS = (100, 1_000, 10_000)
MINUTES = 10


def merge(folder: Path, say: Say) -> None:
    """The figures of the design's budget, then what a longer journal costs."""
    _one(folder / "short", COUNTS[1], 1, say, "500 /s")
    for count in COUNTS:
        _one(folder / f"{count}", count, MINUTES, say, "500 /s; RSS does not grow")
    _one(folder / "day", 20, 24 * 60, say, "none: 1440 records are added up again")


def _one(folder: Path, count: int, minutes: int, say: Say, budget: str) -> None:
    folder.mkdir()
    key = _ledgers(folder, count, minutes)
    out = folder / "job.json"
    trusted = ["--trust", str(folder / "key.pub"), "--key", key, "--ledger", str(out), "--nodes", str(count)]
    cost = cost_of("merge", str(folder / "nodes"), *trusted)
    assert "COMPLETE" in cost.out
    what = f"merge of {count:,} ledgers, 8 GPUs, {minutes} min of records"
    say(f"{what}: rate, RSS", f"{count / cost.cpu_seconds:,.0f} /s of CPU, {cost.peak_bytes / 1e6:.1f} MB", budget)
    say(f"{what}: job ledger", f"{out.stat().st_size / count:,.0f} B a node", "64 MiB in all")


def _ledgers(folder: Path, count: int, minutes: int) -> str:
    """Write `count` node ledgers of one job; gives the key that signed them."""
    state = StateDir(folder / "state")
    clock = FakeClock()
    fill(state, clock, gpus(8), minutes, slurm(0, job="bench"), "bench")
    key, _ = ensure_key(None, state.path)
    signer = load_signer(key)
    (folder / "key.pub").write_bytes(signer.public.pem)
    records = [line.record() for line in read_journal(state.journal)]
    for rank in range(count):
        place = folder / "nodes" / f"{rank // 100:03d}" / f"{rank:05d}"
        place.mkdir(parents=True)
        lines, head, codes = [], GENESIS, CodeKey(SECRET, 1)
        mine = list(_renamed(records, rank))
        for record in mine:
            line, head = frame(head, record, codes.code)
            codes.advance()
            lines.append(line)
        journal = b"".join(lines)
        facts = JournalFacts(hashlib.sha256(journal).hexdigest(), len(journal), len(lines), head.hex())
        seal = SealFacts("bench", "2026-09-21T14:13:20.000000Z", code_secrets=by_sha256([SECRET]))
        document = statement(read_history(mine), table(), facts, seal)
        (place / "ledger.journal.jsonl").write_bytes(journal)
        (place / "ledger.json").write_bytes(sign(encode(document), signer))
    return key


def _renamed(records: list[Any], rank: int) -> Iterator[dict[str, Any]]:
    for record in records:
        if record["kind"] == "begin":
            other: dict[str, Any] = json.loads(json.dumps(record))
            other.update(node=f"node-{rank}", boot_id=f"boot-{rank}")
            other["context"]["node"]["rank"] = rank
            yield other
        elif record["kind"] == "device":
            yield {**record, "uuid": f"GPU-{rank:08x}{record['uuid'][12:]}"}
        else:
            yield dict(record)
