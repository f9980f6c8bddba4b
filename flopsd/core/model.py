"""The types of flopsd. All are frozen, all counts are ints, units are in the names.

Start here: a `Reading` covers an interval of one device and says how it is known; the meter folds
readings into a `Tally`, whose fields only grow; peaks turn a tally into `Figures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.values import text_or_none

DeviceUid = str

PPM = 1_000_000
UNDECLARED_PHASE = "undeclared"
_SIX_DIGITS = Context(prec=6, rounding=ROUND_HALF_EVEN)  # a float is not exactly a tie where the fraction is one


class Pipe(str, Enum):
    """Pipes of a streaming multiprocessor, by DCGM's names."""

    TENSOR = "tensor"  # tensor activity that no sub-pipe accounts for
    TENSOR_HMMA = "tensor_hmma"  # FP16, BF16, TF32, and FP8/FP4 where the chip has them
    TENSOR_IMMA = "tensor_imma"
    TENSOR_DFMA = "tensor_dfma"
    FP64 = "fp64"
    FP32 = "fp32"  # the FMA pipe: integer multiply-adds are in it
    FP16 = "fp16"


class Evidence(str, Enum):
    """How an interval is known, strongest first."""

    CYCLES = "cycles"
    ACTIVITY = "activity"
    COUNT = "count"
    OPERATOR_COUNT = "operator_count"  # of training processes: in no reading and no tally
    UTILIZATION = "utilization"
    GAP = "gap"


READ = frozenset(Evidence) - {Evidence.OPERATOR_COUNT}  # what a source can read
ESTIMATING = (Evidence.CYCLES, Evidence.ACTIVITY, Evidence.COUNT)


class GapReason(str, Enum):
    """Why an interval was not observed. A closed set, so that it can be a metric label."""

    STARTING = "starting"
    STOPPING = "stopping"
    DAEMON_DOWN = "daemon_down"
    SOURCE_DOWN = "source_down"
    SOURCE_SILENT = "source_silent"
    DEVICE_MISSING = "device_missing"
    DEVICE_LOST = "device_lost"
    OTHER_JOB = "other_job"  # the device belonged to another job: nothing of this one is missing
    METERED_AS_MIG = "metered_as_mig"  # its MIG slices are metered in its place
    REPLACED = "replaced"  # other devices are metered in its place: other slices of its GPU, or itself by its name
    DRIVER_TIMEOUT = "driver_timeout"
    DRIVER_ERROR = "driver_error"
    NO_PERMISSION = "no_permission"
    NOT_SUPPORTED = "not_supported"
    NOT_A_NUMBER = "not_a_number"
    OUT_OF_RANGE = "out_of_range"
    COUNTER_RESET = "counter_reset"
    COUNTER_STALLED = "counter_stalled"
    CONTRADICTORY = "contradictory"  # two counters of the same quantity disagree
    COUNTERS_DISABLED = "counters_disabled"  # another process switched the counters off
    COUNTERS_IN_USE = "counters_in_use"  # another profiler has the counters, which have one owner on a machine
    ZERO_AT_FULL_LOAD = "zero_at_full_load"  # counters say idle, power and utilisation say busy
    STALE = "stale"  # the values have not been renewed since the last reading
    UNCOUNTED_WORK = "uncounted_work"  # the core was busy and nothing was counted
    UNKNOWN_DEVICE = "unknown_device"
    OVERLAP = "overlap"
    MISSED_READING = "missed_reading"  # no reading covers the interval
    NOT_JOURNALLED = "not_journalled"  # of a ledger: from the last record of a run that goes on to the seal
    END_UNKNOWN = "end_unknown"  # unmetered time of unknown length, or of unknown devices
    JOURNAL_REPLACED = "journal_replaced"  # what was journalled before is lost: replaced, altered or damaged


# Nothing is missing in such time: it has no ceiling and costs no coverage.
ACCOUNTED_ELSEWHERE = (GapReason.OTHER_JOB, GapReason.METERED_AS_MIG, GapReason.REPLACED)
# Nothing bounds what was done in such time, since its length is not known.
UNBOUNDED = (GapReason.END_UNKNOWN, GapReason.JOURNAL_REPLACED)


UNIDENTIFIED = "unidentified"  # the model of a device that its driver cannot even name


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator as its driver describes it. `sm_count` is None where it cannot be read."""

    uid: DeviceUid
    index: int
    vendor: str
    model: str
    serial: str | None = None
    pci_bus_id: str | None = None
    pci_device_id: int | None = None  # upper 16 bits of the PCI id word
    sm_count: int | None = None
    sm_clock_max_mhz: int | None = None
    parent: DeviceUid | None = None
    driver: str | None = None
    evidence: Evidence = Evidence.GAP  # the best this source expects to give for it now
    evidence_reason: str = ""  # why not a better one
    evidence_fix: str = ""  # what would give a better one
    shared: str | None = None  # who else may use it, as text; None: not known to be shared
    # Of a MIG slice, as the driver counts and names them now. Not journalled: repartitioning the GPU changes them.
    gpu_instance: int | None = field(default=None, compare=False)
    mig_profile: str | None = field(default=None, compare=False)  # such as 1g.10gb


@dataclass(frozen=True, slots=True)
class Active:
    """What estimating counters counted: SM-cycles during which each pipe was active, summed over the SMs.

    `uncertainty_sm_cycles` is how far each may be off, both ways, since the SM clock between two readings of it is not
    known. Where the clock was sampled at random, each may be off by the deviation of `square_sum` too (SM-cycles
    squared; clock_bound.py). `unread` are pipes of which nothing was read: only their ceiling is known.
    """

    evidence: Evidence
    sm_cycles: Mapping[Pipe, int]
    uncertainty_sm_cycles: Mapping[Pipe, int] = field(default_factory=dict)
    unread: tuple[Pipe, ...] = ()
    square_sum: Mapping[Pipe, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative counters, which the hardware keeps without a reader: SM-cycles since some origin, such as the boot.
    `origin` names the counters and their scale; only totals of the same origin can be subtracted. TENSOR is any tensor
    activity here: what no sub-pipe accounts for follows from the differences."""

    origin: str
    elapsed_sm_cycles: int
    sm_cycles: Mapping[Pipe, int]
    # Where elapsed cycles and pipes may start over at zero; None: nowhere. Not journalled: the source finds out again.
    wrap_at: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Growth:
    """The work is what `Reading.totals` grew by since they were last read, however long ago that was."""

    unread: tuple[Pipe, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """FLOP as the vendor's own software counted them; integer operations may be among them."""

    flop: int


@dataclass(frozen=True, slots=True)
class Busy:
    """A ceiling: SM-cycles, at most, during which anything at all ran. `clocked_sm_cycles` is another one, by random
    samples of the clock: at most but for the deviation of `square_sum`, which is small only of many readings together.
    None: the clock was not sampled, or promised no lower one."""

    sm_cycles: int
    clocked_sm_cycles: int | None = None
    square_sum: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """The work of the interval is not known; `counted_flop` is what a vendor's count knows of it all the same."""

    reason: GapReason
    counted_flop: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One interval [begin_ns, end_ns) of one device on the boot-time clock. `counters` (such as energy_mj) and `totals`
    are absolute values at end_ns. They are journalled, so that the next incarnation can close a gap exactly."""

    device: DeviceUid
    begin_ns: int
    end_ns: int
    work: Active | Growth | Counted | Busy | Gap
    counters: Mapping[str, int] = field(default_factory=dict)
    totals: Totals | None = None


@dataclass(frozen=True, slots=True)
class Gauges:
    """The last display values of a device; nothing is accounted from them. None: not known."""

    pipe_activity_ratio: Mapping[Pipe, float] = field(default_factory=dict)
    utilization_ratio: float | None = None
    sm_clock_mhz: int | None = None


@dataclass(frozen=True, slots=True)
class ChildCost:
    """What a program that a source started has cost: of all its `starts` together, and its memory now."""

    starts: int
    cpu_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of one read of one source."""

    readings: tuple[Reading, ...]
    gauges: Mapping[DeviceUid, Gauges] = field(default_factory=dict)
    patience_ns: int = 0  # how much longer than the reading interval this source may be silent without a gap
    not_ours: frozenset[DeviceUid] = frozenset()  # devices that are here and another job's
    not_ours_at_ns: int | None = None  # when that was asked; None: it is so now
    ours_until_ns: int | None = None  # up to when all others are taken for this job's; None: they cannot be another's
    # Devices listed so far under a provisional name, and what each turned out to be.
    renamed: Mapping[DeviceUid, Device] = field(default_factory=dict)
    child: ChildCost | None = None  # where the source reads a program that it started


@dataclass(frozen=True, slots=True)
class Precision:
    """Declared number format of tensor work: shares of pipe-active cycles, parts per million of all tensor work."""

    shares_ppm: tuple[tuple[str, int], ...]
    declared_by: str

    @property
    def label(self) -> str:
        """`bf16`, or `bf16:0.9,fp8:0.1` for a mix."""
        if len(self.shares_ppm) == 1:
            return self.shares_ppm[0][0]
        whole = sum(ppm for _, ppm in self.shares_ppm)
        shares = ((name, _SIX_DIGITS.divide(Decimal(ppm), Decimal(whole))) for name, ppm in self.shares_ppm)
        return ",".join(f"{name}:{float(share):g}" for name, share in shares)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device with streaming multiprocessors cannot exceed: the ceiling of any interval of it."""

    sm_count: int
    sm_clock_max_mhz: int
    operations_per_cycle: int | None = None  # of an SM with every pipe at its fastest, integers too; None: not known


@dataclass(frozen=True, slots=True)
class ChipLimits:
    """What a chip cannot exceed whose peak is published whole, in its fastest format, sparsity included."""

    flop_per_s: int
    integer_per_s: int | None = None  # integer operations; None: not known


@dataclass(frozen=True, slots=True)
class Tally:
    """Everything counted of one device in one daemon start and phase. Every count only grows."""

    begin_ns: int
    watermark_ns: int
    active_sm_cycles: Mapping[tuple[Evidence, Pipe], int] = field(default_factory=dict)
    counted_flop: int = 0
    busy_sm_cycles: int = 0
    sampled_busy_sm_cycles: int = 0  # the part of it in readings whose clock was sampled,
    clocked_sm_cycles: int = 0  # and the same by that clock
    clocked_square_sum: int = 0
    observed_ns: Mapping[Evidence, int] = field(default_factory=dict)
    gap_ns: Mapping[GapReason, int] = field(default_factory=dict)
    recovered_ns: Mapping[Evidence, int] = field(default_factory=dict)  # gap time whose work was learnt afterwards
    uncertainty_sm_cycles: Mapping[tuple[Evidence, Pipe], int] = field(default_factory=dict)
    square_sum: Mapping[tuple[Evidence, Pipe], int] = field(default_factory=dict)
    unread_ns: Mapping[Pipe, int] = field(default_factory=dict)  # observed time in which this pipe was not read
    energy_mj: int | None = None  # None: no energy was ever counted
    energy_ns: int = 0  # time whose energy is in energy_mj
    energy_at_ns: int = 0  # when the energy in `counters` was read, if there is one
    counters: Mapping[str, int] = field(default_factory=dict)
    totals: Totals | None = None  # at totals_ns; all time since then is gap
    totals_ns: int = 0
    phases: Mapping[str, Tally] = field(default_factory=dict)  # declared shares of all this; see core/phases.py
    # How much before the watermark was only silence, which a late reading can cover. Not journalled: the source of a
    # restarted daemon reads nothing from before its start.
    silent_ns: int = field(default=0, compare=False)

    def changed(self, **changes: Any) -> Tally:
        """As `dataclasses.replace`, in a third of its time: a tally is made for each device at each reading."""
        values = list(_VALUES_OF_TALLY(self))
        for name, value in changes.items():
            values[_AT_IN_TALLY[name]] = value
        return Tally(*values)

    @property
    def span_ns(self) -> int:
        """Device time covered, observed or not."""
        return self.watermark_ns - self.begin_ns

    @property
    def total_observed_ns(self) -> int:
        return sum(self.observed_ns.values())

    @property
    def total_gap_ns(self) -> int:
        return sum(self.gap_ns.values())

    @property
    def total_recovered_ns(self) -> int:
        return sum(self.recovered_ns.values())

    def known_ns(self, evidence: Evidence) -> int:
        """Time of which it is known by `evidence` what was done, at once or afterwards."""
        return self.observed_ns.get(evidence, 0) + self.recovered_ns.get(evidence, 0)

    @property
    def unknown_ns(self) -> int:
        """Gap time that was not recovered afterwards. A later tally can recover what an earlier one left open, so there
        it is not below zero."""
        return max(0, self.total_gap_ns - self.elsewhere_ns - self.total_recovered_ns)

    @property
    def job_ns(self) -> int:
        """Device time that belonged to this job. Coverage is the known share of it."""
        return self.span_ns - self.elsewhere_ns

    @property
    def elsewhere_ns(self) -> int:
        """Device time that is accounted for elsewhere: by another job, or under another device."""
        if self.gap_ns.keys().isdisjoint(ACCOUNTED_ELSEWHERE):  # as nearly always, and asked for many times
            return 0
        return sum([ns for reason, ns in self.gap_ns.items() if reason in ACCOUNTED_ELSEWHERE])


_AT_IN_TALLY = {one.name: at for at, one in enumerate(fields(Tally))}
_VALUES_OF_TALLY = attrgetter(*_AT_IN_TALLY)
# The fields of a tally that grow and add up, besides its span and energy_mj: the shares of its phases have no others.
TALLY_AMOUNTS = (
    "counted_flop", "busy_sm_cycles", "sampled_busy_sm_cycles", "clocked_sm_cycles", "clocked_square_sum", "energy_ns",
)  # fmt: skip
TALLY_ABSOLUTES = ("counters", "energy_at_ns", "totals", "totals_ns")  # what counting goes on from
TALLY_MAPPINGS = (
    "active_sm_cycles", "observed_ns", "gap_ns", "recovered_ns", "uncertainty_sm_cycles", "square_sum", "unread_ns",
)  # fmt: skip


class Figures(NamedTuple):
    """The three figures of any total. `measured` is None where nothing estimating was read;
    `high_flop` is None where no ceiling is known. Never one number."""

    low_flop: int
    measured_flop: int | None
    high_flop: int | None

    def __add__(self, other: Figures) -> Figures:  # type: ignore[override]  # no list of three numbers
        measured, more = self.measured_flop, other.measured_flop
        if more is not None:
            measured = more if measured is None else measured + more
        high = None if self.high_flop is None or other.high_flop is None else self.high_flop + other.high_flop
        return Figures(self.low_flop + other.low_flop, measured, high)

    @property
    def unbounded(self) -> Figures:
        """The same of what is not whole: no upper bound is known of it."""
        return self._replace(high_flop=None)

    def for_ledger(self) -> dict[str, str | None]:
        """`{low, measured, high}` as decimal strings; null is what is not known."""
        measured, high = text_or_none(self.measured_flop), text_or_none(self.high_flop)
        return {"low": str(self.low_flop), "measured": measured, "high": high}


NO_FIGURES = Figures(0, None, 0)
