"""The training process's own count of the floating-point operations of the operators that it launched. Pure.

It is the word of the party that trains. It may raise `low`, and give `measured` where no counter was read, but never
lowers `high` (docs/adr/0032). A count beyond what its device can have executed is not used at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase
from flopsd.core.figures import NO_FIGURES, Figures, sum_by_key, sum_figures
from flopsd.core.model import DeviceUid, Evidence
from flopsd.core.rows import UNDECLARED, Row
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.unused_count import Unused, UnusedCount
from flopsd.core.values import added, sum_if_all_known

OPERATOR_FLOP, RECOMPUTED = "operator_flop", "recomputed_operator_flop"
OPERATOR_COUNTERS = (OPERATOR_FLOP, RECOMPUTED)
NOT_COUNTED = ("not_counted", "operators_not_counted")  # facts that name work of a phase that the count leaves out
_CEILINGS = (Evidence.UTILIZATION, Evidence.GAP)


@dataclass(frozen=True, slots=True)
class DeviceCount:
    """The counts of one device's sessions together, by phase."""

    flop: Mapping[str, int]
    sessions: tuple[str, ...]

    @property
    def total_flop(self) -> int:
        return sum(self.flop.values())


@dataclass(frozen=True, slots=True)
class OperatorCounts:
    """The counts of all sessions by device, and the counts that are refused."""

    by_device: Mapping[DeviceUid, DeviceCount]
    refused: tuple[UnusedCount, ...] = ()

    def __add__(self, earlier: OperatorCounts) -> OperatorCounts:
        """These counts plus earlier ones of the same sessions."""
        found = dict(self.by_device)
        for device, count in earlier.by_device.items():
            here = found.get(device, DeviceCount({}, ()))
            sessions = tuple(dict.fromkeys((*here.sessions, *count.sessions)))
            found[device] = DeviceCount(added(here.flop, count.flop), sessions)
        return OperatorCounts(found, self.refused)


NO_COUNTS = OperatorCounts({})


def counted_flop(work: Mapping[str, Mapping[str, int]]) -> int:
    """FLOP that a session counted in all phases."""
    return sum(counters.get(OPERATOR_FLOP, 0) for counters in work.values())


def counts_of(sessions: Iterable[DeclaredSession]) -> OperatorCounts:
    """The counts of training processes, by the device that each declares."""
    found: dict[DeviceUid, list[DeclaredSession]] = {}
    refused: list[UnusedCount] = []
    for session in sorted(sessions, key=lambda session: session.id):
        if session.refused is not None:
            refused.append(session.refused)
        elif counted := counted_flop(session.work):
            if (device := session.facts.get("device")) is None:
                refused.append(UnusedCount(Unused.DEVICE_NOT_METERED, session.id, None, counted))
            else:
                found.setdefault(device, []).append(session)
    return OperatorCounts({device: _of_device(found[device]) for device in sorted(found)}, tuple(refused))


def _of_device(sessions: Sequence[DeclaredSession]) -> DeviceCount:
    flop: dict[str, int] = {}
    for session in sessions:
        for phase, counters in session.work.items():
            if counted := counters.get(OPERATOR_FLOP, 0):
                flop[phase] = flop.get(phase, 0) + counted
    return DeviceCount(flop, tuple(one.id for one in sessions))


@dataclass(frozen=True, slots=True)
class ReadFigures:
    """The figures of what was read of a device: whole, by phase, and the ceiling of all that was not measured."""

    whole: Figures = NO_FIGURES
    by_phase: Mapping[str, Figures] | None = None
    unmeasured_high: int | None = 0

    def __add__(self, other: ReadFigures) -> ReadFigures:
        return ReadFigures(
            self.whole + other.whole,
            sum_by_key((self.by_phase or {}, other.by_phase or {})),
            sum_if_all_known((self.unmeasured_high, other.unmeasured_high)),
        )

    @classmethod
    def of(cls, whole: Figures, by_phase: Mapping[str, Figures], rows: Iterable[Row]) -> ReadFigures:
        return cls(whole, by_phase, sum_figures(row.figures for row in rows if row.evidence in _CEILINGS).high_flop)


def exceeds(count: DeviceCount, read: ReadFigures) -> bool:
    """Whether the count is more than the device can have executed."""
    return read.whole.high_flop is not None and count.total_flop > read.whole.high_flop


def rows_of(count: DeviceCount, read: ReadFigures) -> tuple[Row, ...]:
    """What a count adds, by phase, to what was read of its device: the part that was not already measured, and no more
    than the ceiling of what was not measured. The sums thus stay between low and high, and where counters measured
    everything the count adds nothing."""
    return tuple(
        Row(Evidence.OPERATOR_COUNT, None, UNDECLARED, 0, 0, one, NO_FIGURES, bucket=phase)
        for phase, one in _additions(count, read).items()
        if one.low_flop or one.measured_flop
    )


def as_claimed(count: DeviceCount, read: ReadFigures) -> dict[str, Figures]:
    """What a count adds, by phase, to `read`, the figures under claimed formats, whose `low` is already higher. The
    measured figure of a phase becomes at least its `low`: readings of other phases say nothing of it. A phase of which
    more was counted than its time allows has work in the time of evaluation, which nothing else of the bounds has."""
    found, by_phase = _additions(count, read), read.by_phase or {}
    evaluated = by_phase.get(Phase.EVALUATE.value, NO_FIGURES).high_flop
    for phase, more in found.items():
        known = by_phase.get(phase, NO_FIGURES)
        least = known.low_flop + more.low_flop - (known.measured_flop or 0)
        fits = known.high_flop is None or count.flop[phase] <= known.high_flop or phase == Phase.EVALUATE
        found[phase] = Figures(more.low_flop, max(more.measured_flop or 0, least), 0 if fits else evaluated)
    return found


def _additions(count: DeviceCount, read: ReadFigures) -> dict[str, Figures]:
    by_phase = read.by_phase or {}
    lows = {phase: figures.low_flop for phase, figures in by_phase.items()}
    known = {phase: figures.measured_flop or 0 for phase, figures in by_phase.items()}
    low = _additions_by_phase(count, lows, read.whole.low_flop, read.unmeasured_high)
    measured = _additions_by_phase(count, known, read.whole.measured_flop or 0, read.unmeasured_high)
    return {phase: Figures(low[phase], measured[phase], 0) for phase in low}


def _additions_by_phase(count: DeviceCount, known: Mapping[str, int], whole: int, most: int | None) -> dict[str, int]:
    """What the count of each phase adds. Readings without a phase may belong to any phase, so together the phases add
    at most the excess of the total count over the total that was read."""
    left = max(0, count.total_flop - whole)
    left = left if most is None else min(left, most)
    found = {}
    for phase in (one.value for one in Phase if one.value in count.flop):
        found[phase] = min(left, max(0, count.flop[phase] - known.get(phase, 0)))
        left -= found[phase]
    return found
