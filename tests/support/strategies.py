"""Hypothesis strategies for readings and tallies."""

from functools import lru_cache

from hypothesis import strategies as st

from flopsd.core.meter import advance, max_sm_cycles
from flopsd.core.model import (
    UNBOUNDED,
    Active,
    Busy,
    Counted,
    Device,
    Evidence,
    Gap,
    GapReason,
    Growth,
    Limits,
    Pipe,
    Precision,
    Reading,
    Totals,
)
from flopsd.core.peaks import PeakTable
from flopsd.core.rows import Rating
from flopsd.core.tally import Tally
from flopsd.settings.data_files import load_peaks

H100 = Device("GPU-0", 0, "nvidia", "NVIDIA H100 80GB HBM3", sm_count=132, sm_clock_max_mhz=1980)
LIMITS = Limits(132, 1980, 8192 + 128 + 256 + 512)  # fastest tensor format, FP64, FP32 and FP16 at once


@lru_cache(maxsize=1)
def table() -> PeakTable:
    return load_peaks()


def rating(precision: Precision | None = None) -> Rating:
    return Rating(table().parts["h100-sxm5-80gb"], LIMITS, precision, table())


@st.composite
def works(draw: st.DrawFn, duration_ns: int) -> Active | Busy | Counted | Gap:
    most = max_sm_cycles(LIMITS, duration_ns)
    cycles = st.integers(0, most)
    kind = draw(st.sampled_from(["active", "busy", "gap", "counted"]))
    if kind == "active":
        pipes = draw(st.dictionaries(st.sampled_from(list(Pipe)), cycles, max_size=4))
        doubt = {pipe: draw(st.integers(0, n // 10)) for pipe, n in pipes.items() if n}
        unread = draw(st.sets(st.sampled_from([Pipe.FP64, Pipe.FP32, Pipe.FP16]))) - pipes.keys()
        squares = {pipe: draw(st.integers(0, n * n)) for pipe, n in doubt.items()}
        return Active(Evidence.ACTIVITY, pipes, doubt, tuple(unread), squares)
    if kind == "busy":
        return Busy(draw(cycles))
    if kind == "counted":
        return Counted(draw(st.integers(0, 10**16)))
    reason = draw(
        st.sampled_from([reason for reason in GapReason if reason not in UNBOUNDED])
    )  # no source reports the unbounded ones
    return Gap(reason, draw(st.sampled_from([0, 0, 10**12])))


@st.composite
def readings(draw: st.DrawFn, device: str = "GPU-0") -> Reading:
    """Any reading: overlapping, repeated, late, or after a hole."""
    begin_ns = draw(st.integers(0, 50)) * 100_000_000
    duration_ns = draw(st.integers(1, 30)) * 100_000_000 + draw(st.integers(0, 3))
    counters = draw(st.one_of(st.just({}), st.fixed_dictionaries({"energy_mj": st.integers(0, 10**9)})))
    end_ns, totals = begin_ns + duration_ns, draw(st.one_of(st.none(), running_totals()))
    work: Active | Growth | Busy | Counted | Gap = draw(works(duration_ns))
    if totals is not None and draw(st.booleans()):
        work = Growth()
    return Reading(device, begin_ns, end_ns, work, counters, totals)


@st.composite
def running_totals(draw: st.DrawFn) -> Totals:
    """Any totals: from one of two origins, and falling or growing without limit relative to others."""
    elapsed = draw(st.integers(0, 10**13))
    pipes = {pipe: draw(st.integers(0, elapsed)) for pipe in (Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.FP32)}
    return Totals(draw(st.sampled_from(["average", "sum"])), elapsed, pipes)


def run(sequence: list[Reading], start: Tally | None = None, limits: Limits | None = LIMITS) -> Tally:
    tally = start if start is not None else Tally(0, 0)
    for reading in sequence:
        tally = advance(tally, reading, limits)
    return tally


sequences = st.lists(readings(), max_size=12)
