"""One collection of DCGM fields as a GPU's work: its evidence, and why it is not better. Pure."""

from __future__ import annotations

from dataclasses import replace

from flopsd.core.clock_integral import Cycles, activity
from flopsd.core.dataclass import dataclass
from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import PPM, Active, Busy, Evidence, GapReason, Limits, Pipe, Totals
from flopsd.core.running_counters import SUB_PIPES_TOLERANCE_PPM
from flopsd.core.values import ceil_div
from flopsd.sources.dcgm.exposition import NOT_PERMITTED, PREFIX, Field, GpuPage
from flopsd.sources.nvml.counter_calibration import ENOUGH_ACTIVITY_RATIO, Calibration, SampleInterval
from flopsd.sources.nvml.plausibility import IDLE_POWER_RATIO

RATIO_MAX = 1.005  # an average of averages may be rounded up to this
VECTOR_PIPES = ((Field.FP64, Pipe.FP64), (Field.FP32, Pipe.FP32), (Field.FP16, Pipe.FP16))
SUB_PIPES = ((Field.HMMA, Pipe.TENSOR_HMMA), (Field.IMMA, Pipe.TENSOR_IMMA), (Field.DFMA, Pipe.TENSOR_DFMA))
SPLIT_RATIOS = frozenset(f for f, _ in SUB_PIPES)
SPLIT_COUNTERS = frozenset((Field.CYCLES_HMMA, Field.CYCLES_IMMA, Field.CYCLES_DMMA, Field.CYCLES_DFMA))
_RATIOS = (Field.GR_ENGINE, Field.SM_ACTIVE, Field.TENSOR, *(f for f, _ in (*VECTOR_PIPES, *SUB_PIPES)))
_TENSOR_FIELDS = (Field.TENSOR, Field.HMMA)
_COUNTERS = (
    (Field.CYCLES_HMMA, Pipe.TENSOR_HMMA), (Field.CYCLES_IMMA, Pipe.TENSOR_IMMA), (Field.CYCLES_FP64, Pipe.FP64),
    (Field.CYCLES_FP32, Pipe.FP32), (Field.CYCLES_FP16, Pipe.FP16),
)  # fmt: skip
_RATIO_OF_COUNTER = (
    (Field.CYCLES_MMA, Field.TENSOR), (Field.CYCLES_HMMA, Field.HMMA), (Field.CYCLES_IMMA, Field.IMMA),
    (Field.CYCLES_FP64, Field.FP64), (Field.CYCLES_FP32, Field.FP32), (Field.CYCLES_FP16, Field.FP16),
)  # fmt: skip
_UTILIZATION_STANDS_FOR_NS = 166_666_666  # "between 1 second and 1/6 second, depending on the product", nvml.h
_IN_USE_PERCENT = 10
COUNTERS_NAME = "DCGM 1084-1096"


@dataclass(frozen=True, slots=True)
class Expected:
    """The evidence that a page allows; `gap`: it allows none."""

    evidence: Evidence
    reason: str = ""
    fix: str = ""
    gap: GapReason | None = None


STALE = Expected(
    Evidence.GAP,
    "the exporter has not renewed its values for two collection intervals",
    "set dcgm_interval_seconds to DCGM_EXPORTER_INTERVAL / 1000; if it has that value, restart dcgm-exporter",
)
STUCK = Expected(
    Evidence.GAP,
    "the activity fields have not changed for some collection intervals, though other fields show work of the GPU",
    "restart dcgm-exporter and its host engine, which repeats old values",
)
UNSEEN = Expected(
    Evidence.GAP,
    "the exporter renews its values more often than dcgm_interval_seconds states, so some are never read",
    "set dcgm_interval_seconds to DCGM_EXPORTER_INTERVAL / 1000; an exporter that collects less often costs less",
)
UNSPLIT = Expected(
    Evidence.GAP,
    "the exporter showed kinds of tensor activity apart before, and does not now",
    "give each exporter behind this address the same fields, or restart flopsd for one that has fewer for good",
)
DIVERGED = Expected(Evidence.GAP, "the cycle counters 1084-1096 and the SM clock differ by over a tenth")
STANDING = Expected(Evidence.GAP, "the cycle counters 1084-1096, or some of them, stand still")


def expect(
    page: GpuPage, limits: Limits | None, calibration: Calibration | None, clock_known: bool, hopper: bool
) -> Expected:
    """Return the best evidence for a GPU, why it is not better and what would make it so."""
    if page.slices:
        profiles = ", ".join(sorted(page.slices.values()))
        return _none(GapReason.NOT_SUPPORTED, f"MIG is on ({profiles}), and dcgm-exporter does not state "
                     "how many SMs a slice has")  # fmt: skip
    if limits is None:
        return _none(GapReason.UNKNOWN_DEVICE, "the peak table does not know this device, or not its SM count")
    garbage = [f for f in _RATIOS if f in page.values and not 0 <= page.values[f] <= RATIO_MAX]
    counted = calibration is not None and has_counters(page)
    if garbage and not counted:
        return _none(GapReason.OUT_OF_RANGE, f"{_name(garbage[0])} is not a ratio")
    parts = sum(page.values.get(f, 0.0) for f, _ in SUB_PIPES)
    if not counted and parts > page.values.get(Field.TENSOR, 1.0) + SUB_PIPES_TOLERANCE_PPM / PPM:
        return _none(GapReason.CONTRADICTORY, "the fields 1013-1015 show more tensor activity than field 1004")
    if zero_at_full_load(page):
        return _none(
            GapReason.ZERO_AT_FULL_LOAD,
            "the activity fields are exactly zero while kernels run",
            "restart dcgm-exporter and its host engine; an Xid 31 leaves the fields stuck at zero (DCGM#303)",
        )
    if counted:
        return Expected(Evidence.CYCLES)
    why_no_tensor = _why_no_tensor(page)
    if not why_no_tensor and clock_known:
        return _activity(page, hopper)
    percent = page.utilization_percent()
    if percent is not None:
        if not 0 <= percent <= 100:
            return _none(GapReason.OUT_OF_RANGE, "GPU utilisation is not a percentage")
        no_clock = "" if Field.SM_CLOCK in page.values else "add DCGM_FI_DEV_SM_CLOCK to the exporter's CSV"
        return Expected(
            Evidence.UTILIZATION,
            why_no_tensor or "the SM clock of the interval is not known, and without it activity is not a measurement",
            _tensor_fix(page) if why_no_tensor else no_clock,
        )
    blank = [page.blanks[f] for f in (*_TENSOR_FIELDS, Field.GPU_UTIL, Field.SM_CLOCK) if f in page.blanks]
    reason = GapReason.NOT_A_NUMBER if blank else GapReason.NOT_SUPPORTED
    if NOT_PERMITTED in blank:
        reason = GapReason.NO_PERMISSION
    return _none(reason, why_no_tensor or "neither SM clock nor utilisation is exported", _tensor_fix(page))


def _name(field: Field) -> str:
    return f"{PREFIX}{field.value[0]}"


def _none(gap: GapReason, reason: str, fix: str = "") -> Expected:
    return Expected(Evidence.GAP, reason, fix, gap)


def _why_no_tensor(page: GpuPage) -> str:
    if has_tensor(page):
        return ""
    if page.had_tensor:
        return "tensor activity (field 1004) is gone: another profiler has the counters, or profiling is paused"
    blank = page.blanks.get(Field.TENSOR)
    return f"tensor activity (field 1004) is {blank}" if blank else "tensor activity (field 1004) is not exported"


def has_tensor(page: GpuPage) -> bool:
    return any(f in page.values for f in _TENSOR_FIELDS)


def _tensor_fix(page: GpuPage) -> str:
    if page.had_tensor:
        return "end Nsight or the CUPTI profiler, on whichever GPU; `dcgmi profile --resume` ends a pause"
    if page.blanks.get(Field.TENSOR) == "not supported":
        return "none: DCGM has no profiling fields for this GPU"
    if Field.TENSOR in page.blanks:
        return (
            "start dcgm-exporter with --cap-add SYS_ADMIN (A100 and older), and end or resume any other program that "
            "profiles this machine (dcgmi profile --resume)"
        )
    return (
        "add DCGM_FI_PROF_PIPE_TENSOR_ACTIVE to the exporter's CSV and start it with --cap-add SYS_ADMIN; "
        "exporter 4.1.1 loses it on L40S (dcgm-exporter#513): take 4.2.3 or newer"
    )


def _activity(page: GpuPage, hopper: bool) -> Expected:
    if has_counters(page):
        reason = "the self-test has not yet determined the scale of the cycle counters 1084-1096"
        fix = "" if Field.TENSOR in page.values else "export 1004 too: the self-test compares it with them"
        return Expected(Evidence.ACTIVITY, reason, fix)
    reason = "no cycle counters on the page" if hopper else "only Hopper and newer GPUs have cycle counters"
    fixes = ["with DCGM 4.6 and driver R595 or newer add 1084-1096 to the exporter's CSV"] if hopper else []
    if not any(f in page.values for f, _ in SUB_PIPES):
        fixes.append("add 1013-1015 to the CSV (Ampere and newer) to split tensor work by kind")
    if missing := [_name(f) for f, _ in VECTOR_PIPES if f not in page.values]:
        fixes.append(f"add {', '.join(missing)} to the CSV: these pipes are only bounded")
    return Expected(Evidence.ACTIVITY, reason, "; ".join(fixes))


def zero_at_full_load(page: GpuPage) -> bool:
    """Whether every activity field on the page is exactly zero on a GPU that runs kernels by its utilisation. Unless a
    field is there that no kernel leaves at zero, power must show that too, which not every exporter reports."""
    percent, watts, limit = page.utilization_percent(), *map(page.values.get, (Field.POWER_USAGE, Field.POWER_LIMIT))
    read = [page.values[f] for f in _RATIOS if f in page.values]
    if Field.TENSOR not in page.values or any(read) or percent is None or percent < _IN_USE_PERCENT:
        return False
    if Field.GR_ENGINE in page.values or Field.SM_ACTIVE in page.values:
        return True
    return watts is not None and bool(limit) and watts >= IDLE_POWER_RATIO * (limit or 0)


def ratios(page: GpuPage) -> dict[Pipe, float]:
    """Return the activity by pipe, of the fields that are there. What no sub-pipe accounts for is TENSOR."""
    found = {
        pipe: min(page.values[f], 1.0) for f, pipe in (*SUB_PIPES, *VECTOR_PIPES)
        if f in page.values and 0 <= page.values[f] <= RATIO_MAX
    }  # fmt: skip
    any_tensor = page.values.get(Field.TENSOR)
    if any_tensor is not None and 0 <= any_tensor <= RATIO_MAX:
        found[Pipe.TENSOR] = max(0.0, min(any_tensor, 1.0) - sum(found.get(pipe, 0.0) for _, pipe in SUB_PIPES))
    return found


def active(page: GpuPage, cycles: Cycles, sm_count: int) -> Active:
    """Return the activity over cycles of one SM, with the clock's doubt."""
    found = ratios(page)
    wanted = (Pipe.TENSOR, *(pipe for _, pipe in VECTOR_PIPES))
    return activity(found, cycles, sm_count, tuple(pipe for pipe in wanted if pipe not in found))


def ceiling(percent: float, limits: Limits, duration_ns: int) -> Busy:
    """Return the most SM-cycles in `duration_ns`, from one utilisation sample in it. The driver's sample stands for a
    sixth of a second at least; all other time counts as fully busy, at the highest clock."""
    sampled_ns = min(duration_ns, _UTILIZATION_STANDS_FOR_NS)
    at_most = min(int(percent) + 1, 100)
    return Busy(max_sm_cycles(limits, duration_ns - sampled_ns + ceil_div(sampled_ns * at_most, 100)))


def has_counters(page: GpuPage) -> bool:
    """Whether the page has the counters that all others need."""
    return Field.CYCLES_ELAPSED in page.values and Field.CYCLES_MMA in page.values


def totals(page: GpuPage, calibration: Calibration) -> Totals:
    """Return the counters in SM-cycles. The text has all digits, the parser keeps 53 bits: differences are off by at
    most 1e-16 of the total, and rounding makes no counter fall."""
    counted = {pipe: int(page.values[f]) for f, pipe in _COUNTERS if f in page.values}
    counted[Pipe.TENSOR] = int(page.values[Field.CYCLES_MMA])
    # It is documented nowhere how DMMA and DFMA relate, so they are never added. The rest stays under TENSOR.
    double = [page.values[f] for f in (Field.CYCLES_DMMA, Field.CYCLES_DFMA) if f in page.values]
    if double:
        counted[Pipe.TENSOR_DFMA] = int(max(double))
    found = calibration.totals(int(page.values[Field.CYCLES_ELAPSED]), counted)
    missing = sorted(pipe.value for pipe in Pipe if pipe not in counted)
    # A changed set of pipes is a new origin: its counters have not fallen.
    return replace(found, origin=f"{found.origin}, without {' '.join(missing)}") if missing else found


def unread_counters(page: GpuPage) -> tuple[Pipe, ...]:
    """Return the vector pipes without a counter. Tensor sub-pipes without one are in TENSOR."""
    vector = {pipe for _, pipe in VECTOR_PIPES}
    return tuple(pipe for f, pipe in _COUNTERS if pipe in vector and f not in page.values)


def stands_still(earlier: GpuPage, later: GpuPage) -> bool:
    """Whether the elapsed cycles stood still from one collection to the next, or a pipe's counter did although the pipe
    was active."""
    before, now = earlier.values, later.values
    active_pipes = (f for f, ratio in _RATIO_OF_COUNTER if ENOUGH_ACTIVITY_RATIO <= now.get(ratio, 0.0) <= RATIO_MAX)
    return any(f in before and before[f] == now.get(f) for f in (Field.CYCLES_ELAPSED, *active_pipes))


def counted_between(earlier: GpuPage, later: GpuPage) -> SampleInterval | None:
    """Return the growth of the counters from one collection to the next; None: they are missing, or show nothing."""
    if not (has_counters(earlier) and has_counters(later)):
        return None
    before, now = earlier.values, later.values
    elapsed = int(now[Field.CYCLES_ELAPSED]) - int(before[Field.CYCLES_ELAPSED])
    grown, ratio = int(now[Field.CYCLES_MMA]) - int(before[Field.CYCLES_MMA]), now.get(Field.TENSOR, 0.0)
    if elapsed <= 0 or ratio > RATIO_MAX:
        return None
    return SampleInterval(elapsed, {Pipe.TENSOR: grown}, {Pipe.TENSOR: ratio})
