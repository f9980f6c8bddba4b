"""The types that a source and the meter share. All are frozen, all counts are ints, units are in the names.

Start here: a `Reading` covers an interval of one device and says how it is known. The meter folds readings into a
`Tally` (tally.py), whose fields only grow; rows.py makes `Figures` (figures.py) of it, by the peak table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import Enum

from flopsd.core.dataclass import dataclass

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
    ZERO_AT_FULL_LOAD = "zero_at_full_load"  # counters read zero while kernels run
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
