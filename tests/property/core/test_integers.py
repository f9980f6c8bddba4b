"""Whatever mix of floating-point and integer work ran, and however it was read: both truths lie within their bounds."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.declarations import FORMATS
from flopsd.core.figures import Figures
from flopsd.core.model import PPM, ChipLimits, Device, Evidence, GapReason, Limits, Pipe, Precision
from flopsd.core.part import HMMA_FORMATS, INTEGER_FORMATS, Part
from flopsd.core.rows import Rating, rows, total_of
from flopsd.core.tally import Tally
from tests.support.strategies import table

PARTS = [part for part in table().parts.values() if part.tensor_flop_per_cycle]
CHIPS = [part for part in table().parts.values() if part.chip_flop_per_s]
S = 10**9


def limits_of(part: Part) -> Limits:
    limits = table().limits(
        Device("GPU-0", 0, part.vendor, "x", sm_count=part.sm_count or 82, sm_clock_max_mhz=2600), part
    )
    assert isinstance(limits, Limits)
    return limits


@dataclass(frozen=True)
class Ran:
    """A second of a device: SM-cycles by tensor format, and how they were read."""

    part: Part
    cycles: Mapping[str, int]
    seen: str
    declared: bool

    @property
    def tally(self) -> Tally:
        everything, observed = sum(self.cycles.values()), {Evidence.ACTIVITY: S}
        pipes = dict.fromkeys((Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA), 0)
        if self.seen == "gap":
            return Tally(0, S, gap_ns={GapReason.DRIVER_ERROR: S})
        if self.seen == "utilization":
            return Tally(0, S, busy_sm_cycles=everything, observed_ns={Evidence.UTILIZATION: S})
        if self.seen == "unread":
            return Tally(0, S, unread_ns={Pipe.TENSOR: S}, observed_ns=observed)
        for name, n in self.cycles.items():
            kind = (
                "tensor_hmma" if name in HMMA_FORMATS else "tensor_imma" if name in INTEGER_FORMATS else "tensor_dfma"
            )
            pipes[Pipe(kind) if self.seen in ("by kind", kind) else Pipe.TENSOR] += n
        return Tally(0, S, {(Evidence.ACTIVITY, pipe): n for pipe, n in pipes.items() if n}, observed_ns=observed)

    @property
    def rating(self) -> Rating:
        whole = sum(self.cycles.values())
        if not self.declared or not whole:
            return Rating(self.part, limits_of(self.part), None, table())
        shares = tuple((name, n * PPM // whole) for name, n in sorted(self.cycles.items()) if n)
        return Rating(self.part, limits_of(self.part), Precision(shares, "config"), table())

    def truth(self, *, integers: bool) -> int:
        counted = [name for name in self.cycles if (name in INTEGER_FORMATS) is integers]
        return sum(self.cycles[name] * self.part.tensor_flop_per_cycle[name] for name in counted)


@st.composite
def runs(draw: st.DrawFn) -> Ran:
    part = draw(st.sampled_from(PARTS))
    most = limits_of(part).sm_count * 2600 * 10**6
    names = draw(st.lists(st.sampled_from(sorted(part.tensor_flop_per_cycle)), min_size=1, max_size=4, unique=True))
    # Millionths of all cycles, so that a declaration can state the mix exactly.
    cuts = draw(st.lists(st.integers(0, PPM), min_size=len(names) - 1, max_size=len(names) - 1).map(sorted))
    shares = [end - begin for begin, end in zip([0, *cuts], [*cuts, PPM], strict=True)]
    each = draw(st.integers(0, most // PPM))
    seen = st.sampled_from(["as one", "by kind", "tensor_imma", "tensor_hmma", "gap", "utilization", "unread"])
    cycles = {name: share * each for name, share in zip(names, shares, strict=True)}
    return Ran(part, cycles, draw(seen), all(name in FORMATS for name in names) and draw(st.booleans()))


def within(truth: int, figures: Figures) -> bool:
    return figures.low_flop <= truth and (figures.high_flop is None or truth <= figures.high_flop)


T4 = table().parts["t4"]


@given(runs())
@example(Ran(T4, {"int8": PPM}, "by kind", declared=False))
@example(Ran(T4, {"int4": PPM}, "by kind", declared=False))
@example(Ran(T4, {"fp16": 1, "int8": PPM - 1}, "tensor_imma", declared=True))
@example(Ran(T4, {"fp16": PPM - 1, "int8": 1}, "tensor_hmma", declared=True))
@example(Ran(T4, {"int8": PPM}, "as one", declared=False))
@example(Ran(T4, {"int4": PPM}, "gap", declared=False))
@example(Ran(T4, {"int4": PPM}, "utilization", declared=False))
@example(Ran(T4, {"int4": PPM}, "unread", declared=False))
def test_flop_and_integer_operations_are_within_their_bounds(ran: Ran) -> None:
    found = rows(ran.tally, ran.rating)
    flop, integers = (total_of(found, ran.tally, integers=of) for of in (False, True))
    assert within(ran.truth(integers=False), flop)
    assert within(ran.truth(integers=True), integers)
    assert integers.high_flop is not None, "each part of the table has a bound"
    if ran.truth(integers=True) and ran.seen == "as one" and not ran.declared:
        assert flop.measured_flop == sum(row.figures.measured_flop or 0 for row in found if row.may_be_integer)
        assert integers.measured_flop is None, "nothing told them apart"
    if ran.seen == "by kind":
        assert integers.measured_flop is not None
        assert not any(row.may_be_integer for row in found)


@pytest.mark.parametrize("part", CHIPS, ids=lambda part: part.id)
@pytest.mark.parametrize("declared", [None, "bf16"])
def test_a_vendors_count_has_no_formats(part: Part, declared: str | None) -> None:
    """A dense uint8 product is counted like a BF16 one: measured on Trainium by PantheonNeuron."""
    limits = table().limits(Device("neuron0", 0, "aws", part.names[0]), part)
    assert isinstance(limits, ChipLimits)
    tally = Tally(0, S, counted_flop=10**12, observed_ns={Evidence.COUNT: S})
    precision = None if declared is None else Precision(((declared, PPM),), "config")
    (row,) = rows(tally, Rating(part, limits, precision, table()))
    margin = 10**12 * table().margin_ppm(Evidence.COUNT) // PPM
    if declared:
        assert (row.figures.low_flop, row.integers, row.may_be_integer) == (10**12 - margin, Figures(0, 0, 0), False)
    else:
        assert (row.figures.low_flop, row.integers.low_flop, row.may_be_integer) == (0, 0, True)
        assert row.integers.high_flop == row.figures.high_flop == 10**12 + margin
        assert total_of([row], tally, integers=True).measured_flop is None
