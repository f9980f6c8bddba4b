"""The types that a source and the meter share. All are frozen; every count is an int; names carry the unit.

Start here: a `Reading` covers an interval of one device and states its evidence. The meter folds readings into a
`Tally` (tally.py), whose fields only grow; rows.py turns a `Tally` into `Figures` (figures.py) by the peak table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import Enum

from flopsd.core.dataclass import dataclass

DeviceUid = str

PPM = 1_000_000
UNDECLARED_PHASE = "undeclared"
_HEX_RUN = re.compile("[0-9a-fA-F]{8}")
_SIX_DIGITS = Context(prec=6, rounding=ROUND_HALF_EVEN)  # a fraction can be an exact tie where its float is not


class Pipe(str, Enum):
    """Pipes of a streaming multiprocessor, by DCGM's names."""

    TENSOR = "tensor"  # tensor activity not attributed to a sub-pipe
    TENSOR_HMMA = "tensor_hmma"  # FP16, BF16, TF32, and FP8/FP4 where the chip has them
    TENSOR_IMMA = "tensor_imma"
    TENSOR_DFMA = "tensor_dfma"
    FP64 = "fp64"
    FP32 = "fp32"  # the FMA pipe, which also executes integer multiply-adds
    FP16 = "fp16"


class Evidence(str, Enum):
    """How an interval is known, strongest first."""

    CYCLES = "cycles"
    ACTIVITY = "activity"
    COUNT = "count"
    OPERATOR_COUNT = "operator_count"  # declared by training processes: in no reading and no tally
    UTILIZATION = "utilization"
    GAP = "gap"


READ = frozenset(Evidence) - {Evidence.OPERATOR_COUNT}  # what a source can read
ESTIMATING = (Evidence.CYCLES, Evidence.ACTIVITY, Evidence.COUNT)


class GapReason(str, Enum):
    """Why an interval was not observed. A closed set, so that it can serve as a metric label."""

    STARTING = "starting"
    STOPPING = "stopping"
    DAEMON_DOWN = "daemon_down"
    SOURCE_DOWN = "source_down"
    SOURCE_SILENT = "source_silent"
    DEVICE_MISSING = "device_missing"
    DEVICE_LOST = "device_lost"
    OTHER_JOB = "other_job"  # the device belonged to another job: nothing is missing from this one
    METERED_AS_MIG = "metered_as_mig"  # its MIG slices are metered in its place
    REPLACED = "replaced"  # metered as other devices: other slices of its GPU, or itself under its real name
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
    COUNTERS_IN_USE = "counters_in_use"  # another profiler holds the counters; a machine allows one owner
    ZERO_AT_FULL_LOAD = "zero_at_full_load"  # counters read zero while kernels run
    STALE = "stale"  # the values have not been renewed since the last reading
    UNCOUNTED_WORK = "uncounted_work"  # the core was busy and nothing was counted
    UNKNOWN_DEVICE = "unknown_device"
    OVERLAP = "overlap"
    MISSED_READING = "missed_reading"  # no reading covers the interval
    NOT_JOURNALLED = "not_journalled"  # in ledgers only: the time of a continuing run from its last record to the seal
    END_UNKNOWN = "end_unknown"  # unmetered time of unknown length or unknown devices
    JOURNAL_REPLACED = "journal_replaced"  # the earlier journal is lost: replaced, altered or damaged


# Time that is accounted for elsewhere: it has no ceiling and does not reduce coverage.
ACCOUNTED_ELSEWHERE = (GapReason.OTHER_JOB, GapReason.METERED_AS_MIG, GapReason.REPLACED)
# Gaps of unknown length: their work has no upper bound.
UNBOUNDED = (GapReason.END_UNKNOWN, GapReason.JOURNAL_REPLACED)


UNIDENTIFIED = "unidentified"  # the model of a device that its driver cannot name


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
    evidence: Evidence = Evidence.GAP  # the strongest that this source expects to read from it now
    evidence_reason: str = ""  # why no stronger one
    evidence_fix: str = ""  # how to get a stronger one
    shared: str | None = None  # who else may use the device, as text; None: not known to be shared
    # MIG slices only: the driver's current numbering and naming. Not journalled: repartitioning the GPU changes them.
    gpu_instance: int | None = field(default=None, compare=False)
    mig_profile: str | None = field(default=None, compare=False)  # for example 1g.10gb

    def unique_name(self, node: str) -> str:
        """A name that is unique across machines: every machine may have a `neuron0`, but a UUID or serial is unique."""
        return self.uid if self.serial is not None or _HEX_RUN.search(self.uid) else f"{node}/{self.uid}"


@dataclass(frozen=True, slots=True)
class Active:
    """Estimating evidence: SM-cycles during which each pipe was active, summed over the SMs.

    Each count may be off by `uncertainty_sm_cycles` either way, because the SM clock between two of its readings is not
    known. Where the clock was sampled at random, the deviation of `square_sum` (SM-cycles squared; clock_bound.py) is
    added to that. `unread` lists the pipes that were not read: only their ceiling is known.
    """

    evidence: Evidence
    sm_cycles: Mapping[Pipe, int]
    uncertainty_sm_cycles: Mapping[Pipe, int] = field(default_factory=dict)
    unread: tuple[Pipe, ...] = ()
    square_sum: Mapping[Pipe, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative counters that the hardware advances without a reader: SM-cycles since some origin, such as boot.
    `origin` names the counters and their scale; only totals of the same origin can be subtracted. TENSOR covers all
    tensor activity here; the part that no sub-pipe accounts for follows from the differences."""

    origin: str
    elapsed_sm_cycles: int
    sm_cycles: Mapping[Pipe, int]
    # Where elapsed cycles and pipe cycles wrap to zero; None: nowhere. Not journalled: the source determines it again.
    wrap_at: tuple[int, int] | None = field(default=None, compare=False)
    # The pipes' counters may be narrower than that of the elapsed cycles: after so many SM-cycles that nobody compared
    # with anything, they may have passed their whole range. None: never. Not journalled either.
    pipe_range: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Growth:
    """The work is the growth of `Reading.totals` since they were last read, however long ago."""

    unread: tuple[Pipe, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """FLOP as the vendor's own software counted them; they may include integer operations."""

    flop: int


@dataclass(frozen=True, slots=True)
class Busy:
    """A ceiling: at most this many SM-cycles had any kernel running. `clocked_sm_cycles` is a second ceiling, from
    random samples of the clock; it holds within the deviation of `square_sum`, which is small only over many readings.
    None: the clock was not sampled, or no lower ceiling can come of it."""

    sm_cycles: int
    clocked_sm_cycles: int | None = None
    square_sum: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """The work of the interval is not known; `counted_flop` is what a vendor's count still reports of it."""

    reason: GapReason
    counted_flop: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One interval [begin_ns, end_ns) of one device on the boot-time clock. `counters` (such as energy_mj) and `totals`
    are absolute values at end_ns. They are journalled so that the next daemon start can close a gap exactly."""

    device: DeviceUid
    begin_ns: int
    end_ns: int
    work: Active | Growth | Counted | Busy | Gap
    counters: Mapping[str, int] = field(default_factory=dict)
    totals: Totals | None = None


@dataclass(frozen=True, slots=True)
class Gauges:
    """The latest values of a device for display; no total uses them. None: not known."""

    pipe_activity_ratio: Mapping[Pipe, float] = field(default_factory=dict)
    utilization_ratio: float | None = None
    sm_clock_mhz: int | None = None


@dataclass(frozen=True, slots=True)
class ChildCost:
    """Resource use of a program that a source started: CPU time of all its `starts`, and its memory now."""

    starts: int
    cpu_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of one read of one source."""

    readings: tuple[Reading, ...]
    gauges: Mapping[DeviceUid, Gauges] = field(default_factory=dict)
    patience_ns: int = 0  # how much longer than the reading interval this source may stay silent without a gap
    not_ours: frozenset[DeviceUid] = frozenset()  # devices that are present but belong to another job
    not_ours_at_ns: int | None = None  # when ownership was checked; None: it holds now
    ours_until_ns: int | None = None  # the others count as this job's until then; None: none can be another job's
    # Devices that were listed under a provisional name until now, and what each turned out to be.
    renamed: Mapping[DeviceUid, Device] = field(default_factory=dict)
    child: ChildCost | None = None  # set where the source reads a program that it started


@dataclass(frozen=True, slots=True)
class Precision:
    """Declared number format of tensor work: shares of pipe-active cycles, in parts per million of all tensor work."""

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
    """Upper limits of a device with streaming multiprocessors; they give the ceiling of any interval."""

    sm_count: int
    sm_clock_max_mhz: int
    operations_per_cycle: int | None = None  # per SM with every pipe at its fastest, integers included; None: not known


@dataclass(frozen=True, slots=True)
class ChipLimits:
    """Upper limits of a chip whose peak is published for the whole chip: its fastest format, sparsity included."""

    flop_per_s: int
    integer_per_s: int | None = None  # integer operations; None: not known
