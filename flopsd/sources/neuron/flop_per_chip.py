"""One document by chip: FLOP over its period, or why that is not known. Pure.

Cores are logical ones (LNC): `index // cores per chip` is the chip. Every runtime lists every core with its own work
there, so a core's FLOP are the sum over the runtimes, each rate times that runtime's own period. FLOP are credited when
an execution completes: one that takes longer than a period is in a later document. Meanwhile its core is busy without
FLOP, which is a gap and never zero work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import floor

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Counted, Gap, GapReason
from flopsd.sources.neuron.document import MonitorDocument
from flopsd.sources.neuron.held_readings import Missing
from flopsd.sources.validate import MOST
from flopsd.system.clock import NS_PER_S

PERIOD_SECONDS = 1
BUSY_PERCENT = 50  # above it, a core without any FLOP did uncounted work

# By runtime, the cores that it has been seen to use, and still lists.
Runtimes = Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class ChipFlop:
    """One document, by chip. `has_rate` is false if runtimes are open and no FLOP rate is printed."""

    period_ns: int
    work: Sequence[Counted | Gap]
    utilization_ratio: Sequence[float | None]
    runtimes: Runtimes
    has_rate: bool
    missing: Mapping[str, Missing]  # by runtime, what is no longer listed


def account(
    document: MonitorDocument, chips: int, cores_per_chip: int, before: Runtimes, ahead: Collection[str] = ()
) -> ChipFlop:
    """Return the work of each of `chips`. `before`: the runtimes of the previous document. `ahead`: runtimes whose
    report is of time that was counted already, so that their work in it is not known.

    A runtime that cannot be read makes the period of all chips a gap: partly known is not known. A runtime that is gone
    takes with it what it did since its last report: a gap on the chips that it used. So does a core that it used and no
    longer lists. What others counted there was done all the same, and stays with the gap. No runtime at all is a
    measured zero: neuron-monitor is alive and reports that no process has the runtime open, and without it nothing is
    executed. Cores that no runtime lists are not in use, by the name of the list. A document with fewer chips, such as
    none if the monitor was started before the driver, says nothing about the others.
    """
    flop = [Fraction(0)] * (chips * cores_per_chip)
    percent = [Fraction(0)] * (chips * cores_per_chip)
    unknown_percent: set[int] = set()
    why: dict[int, GapReason] = {}
    runtimes: dict[str, frozenset[int]] = {}
    missing: dict[str, Missing] = {}
    everywhere = frozenset(range(chips))
    if document.hardware_error and not document.runtimes:
        _all(why, everywhere, GapReason.DRIVER_ERROR)  # it did not see that there are none: it could not see
    if document.device_count is not None:
        _all(why, frozenset(range(document.device_count, chips)), GapReason.DEVICE_MISSING)
    for runtime in document.runtimes:
        used = set(before.get(runtime.key, ())) | runtimes.get(runtime.key, frozenset())
        if runtime.error:
            _all(why, everywhere, GapReason.DRIVER_ERROR)
        else:
            if gone := used - runtime.cores.keys():
                missing[runtime.key] = Missing(frozenset(gone), _chips_of(gone, cores_per_chip))
            used &= runtime.cores.keys()
        for index, core in runtime.cores.items():
            chip = index // cores_per_chip
            if not 0 <= chip < chips:
                _all(why, everywhere, GapReason.OUT_OF_RANGE)  # then cores are not numbered as assumed
                continue
            if core.fault is not None:
                why.setdefault(chip, core.fault)
            elif core.flop_per_s is None:
                why.setdefault(chip, GapReason.NOT_SUPPORTED)
            elif core.flop_per_s and runtime.key in ahead:
                why.setdefault(chip, GapReason.OVERLAP)
            else:
                flop[index] += core.flop_per_s * runtime.period_seconds
            if core.utilization_percent is None:
                unknown_percent.add(chip)
            else:
                percent[index] += core.utilization_percent
            if core.flop_per_s or core.utilization_percent:
                used.add(index)
        runtimes[runtime.key] = frozenset(used)
    has_rate = document.rate_field is not None or not any(runtime.cores for runtime in document.runtimes)
    if not has_rate:
        _all(why, everywhere, GapReason.NOT_SUPPORTED)
    for key in before.keys() - runtimes.keys():
        missing[key] = Missing(before[key], _chips_of(before[key], cores_per_chip) or everywhere)
    for what in missing.values():
        _all(why, what.chips, GapReason.MISSED_READING)
    for index, busy in enumerate(percent):
        if busy > BUSY_PERCENT and not flop[index]:
            why.setdefault(index // cores_per_chip, GapReason.UNCOUNTED_WORK)
    cores = [range(chip * cores_per_chip, (chip + 1) * cores_per_chip) for chip in range(chips)]
    return ChipFlop(
        period_ns(document, before),
        [_work(why.get(chip), sum((flop[core] for core in cores[chip]), Fraction(0))) for chip in range(chips)],
        [
            None if c in unknown_percent else min(1.0, float(sum(percent[i] for i in cores[c]) / cores_per_chip / 100))
            for c in range(chips)
        ],
        runtimes,
        has_rate,
        missing,
    )


def _work(why: GapReason | None, flop: Fraction) -> Counted | Gap:
    if flop > MOST:
        return Gap(GapReason.OUT_OF_RANGE)
    if why is None:
        return Counted(round(flop))
    return Gap(why, 0 if why is GapReason.OUT_OF_RANGE else floor(flop))  # out of range: whose FLOP is not known


def period_ns(document: MonitorDocument, before: Runtimes) -> int:
    """Return the time that a document covers: the shortest period of the runtimes that were there before. A new runtime
    has a short first period and did nothing before it; if all are new, the longest period counts. Without any runtime
    the period of the system's group counts, else the period that was asked for."""
    usable = [runtime for runtime in document.runtimes if not runtime.error]
    older = [runtime.period_seconds for runtime in usable if runtime.key in before]
    if older:
        return round(min(older) * NS_PER_S)
    idle = document.system_period_seconds or Fraction(PERIOD_SECONDS)
    return round(max((runtime.period_seconds for runtime in usable), default=idle) * NS_PER_S)


def period_ends(came: Sequence[tuple[int, MonitorDocument | None]], before: Runtimes) -> list[int]:
    """Return when the period of each line ended, from when the line came. None: a line that is no document. Lines that
    lay in the pipe while this process was held up are stamped too late, all at once: a line cannot have come after the
    period of the next line began."""
    ends: list[int] = []
    latest_ns = came[-1][0] if came else 0
    for at_ns, document in reversed(came):
        ends.append(min(at_ns, latest_ns))
        latest_ns = ends[-1] - (period_ns(document, before) if document is not None else 0)
    return ends[::-1]


def _chips_of(cores: Collection[int], cores_per_chip: int) -> frozenset[int]:
    return frozenset(core // cores_per_chip for core in cores)


def _all(why: dict[int, GapReason], chips: frozenset[int], reason: GapReason) -> None:
    for chip in chips:
        why.setdefault(chip, reason)
