"""Journals of any length as a daemon with default settings writes them, made without waiting."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import Device, Gap, GapReason, Gauges, Growth, Pipe, Reading, Sweep, Totals
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.codes import CodeKey
from flopsd.journal.framing import frame
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import StateDir
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S, rfc3339
from flopsd.testing import FakeClock
from tests.support.runs import H100
from tests.support.strategies import table

SECRET = bytes(range(32))
ORIGIN = "GPM pipes x132, elapsed x132"
# Running counters of all pipes: the fullest possible records.
SHARES = {Pipe.TENSOR: 2, Pipe.TENSOR_HMMA: 2, Pipe.TENSOR_IMMA: 997, Pipe.TENSOR_DFMA: 10**9, Pipe.FP64: 10**6,
          Pipe.FP32: 10, Pipe.FP16: 99}  # fmt: skip


def gpus(count: int) -> tuple[Device, ...]:
    return tuple(replace(H100, uid=f"GPU-5a4d0000-0000-4000-8000-{index:012d}", index=index) for index in range(count))


def fill(
    state: StateDir, clock: FakeClock, devices: Sequence[Device], minutes: int, context: Context, run: str,
    missed: int = 0,
) -> None:  # fmt: skip
    """A finished run with a checkpoint every minute; each line has a code derived from `SECRET`. Each device has no
    readings in one minute of every `missed`."""
    state.acquire()
    journal = Journal(state)
    journal.recover("aside")
    settings = WriterSettings(60 * NS_PER_S, 60 * NS_PER_S, "0" * 64, None, ("sim",))
    writer = Writer(journal, table(), settings, context, clock, lambda _: None, codes=lambda n: CodeKey(SECRET, n))
    writer.begin(run, RecoveredRun(read_history(journal.read())))
    since = clock.boottime_ns()
    writer.take(Message("sim", since, tuple(devices), Sweep(()), opened={"replay": None}))
    for minute in range(-1, minutes):  # the first reading has none before it from which counters could have grown
        clock.advance((60 if minute >= 0 else 1) * NS_PER_S)
        now = clock.boottime_ns()
        cycles = (1_500_000_000 * 132 * 60 + 7919) * (minute + 40_000)
        totals = Totals(ORIGIN, cycles, {pipe: cycles // share for pipe, share in SHARES.items()})
        readings = tuple(
            Reading(d.uid, since, now, Gap(GapReason.DRIVER_TIMEOUT))
            if missed and (minute + 7 * d.index) % missed == missed - 1
            else Reading(d.uid, since, now, Growth(), {"energy_mj": now // 1000}, totals)
            for d in devices
        )
        writer.take(Message("sim", now, tuple(devices), Sweep(readings, {devices[0].uid: Gauges()})))
        since = now
    writer.close("sigterm")
    journal.close()
    state.release()


def lengthen(state: StateDir, minutes: int) -> None:
    """Extend a journal that `fill` made by `minutes`, in far less time: everything that grew from the third-last
    checkpoint to the second-last goes on growing at the same rate. The last checkpoint is that of the end."""
    *lines, _, end = list(read_journal(state.journal))
    one, other, last = lines[-2].record(), lines[-1].record(), end.record()
    begin, codes, head = lines[0].record(), CodeKey(SECRET, 1), lines[-1].head
    for _ in lines:
        codes.advance()
    with state.journal.open("r+b") as file:
        file.truncate(lines[-1].end)
        file.seek(lines[-1].end)
        for step in range(1, minutes + 1):
            record = _later(one, other, step)
            record["utc"] = rfc3339(begin["wall_ns"] + record["ns"] - begin["ns"])
            for each in (record, {**last, "ns": record["ns"], "utc": record["utc"]})[: 2 if step == minutes else 1]:
                line, head = frame(head, each, codes.code)
                codes.advance()
                file.write(line)


def _later(one: Any, other: Any, steps: int) -> Any:
    """`other` after as many more steps of the size of that from `one` to it."""
    if isinstance(other, dict):
        return {key: _later(one[key], value, steps) for key, value in other.items()}
    if isinstance(other, list):
        return [_later(*pair, steps) for pair in zip(one, other, strict=True)]
    return other + steps * (other - one) if type(other) is int else other
