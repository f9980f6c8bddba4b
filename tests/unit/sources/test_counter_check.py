"""Running counters from read to read: when their scale is proven, what revokes that, and which reads are gaps."""

from dataclasses import dataclass, field

import pytest

from flopsd.core.clock_integral import Cycles
from flopsd.core.model import Evidence, GapReason, Pipe
from flopsd.sources.nvml.counter_calibration import Calibration, Scale
from flopsd.sources.nvml.counter_check import CounterCheck
from flopsd.sources.nvml.driver import UnusableError
from flopsd.sources.nvml.gpm import Metrics

SMS, MHZ = 132, 1000
SECOND = 10**9
BY_ONE = Calibration(Scale(1), Scale(1), "GPM of driver 595.91.07").origin  # the counters are SM-cycles
PROVEN = (Evidence.CYCLES, "", "")


@dataclass
class Counters:
    """Counters of a GPU at a steady clock with tensor work in half of its cycles. The arguments of `sees` vary a
    read."""

    origin: str | None = None
    doubted_sms: int = 0
    driver: str = "595.91.07"
    elapsed: int = 10**12
    tensor: int = 10**12
    asked: int = 0  # number of times that the origin was asked for
    now_ns: int = 0
    check: CounterCheck = field(init=False)

    def __post_init__(self) -> None:
        self.check = CounterCheck(SMS, 2 * MHZ, self._origin, self.driver, self.doubted_sms)

    def _origin(self) -> str | None:
        self.asked += 1
        return self.origin

    def sees(
        self,
        seconds: float = 1.0,
        *,
        speed: float = 1.0,
        share: float = 0.5,
        ratio: float = 0.5,
        mhz: int | None = MHZ,
        late_ns: int = 0,
        more: tuple[Pipe, ...] = (),
        old: bool = False,
    ) -> bool | GapReason:
        """One read after `seconds`: return whether the counters count, or the gap reason of the interval. `speed`:
        factor of the counters; `share`: active part of the cycles; `late_ns`: delay of the begin of the percentages
        after the previous read."""
        since_ns, ns = self.now_ns + late_ns, round(seconds * SECOND)
        grown = round(SMS * MHZ * ns // 1000 * speed)
        self.now_ns, self.elapsed, self.tensor = (
            self.now_ns + ns,
            self.elapsed + grown,
            self.tensor + round(grown * share),
        )
        counters = {Pipe.TENSOR: self.tensor, **dict.fromkeys(more, 7)}
        metrics = Metrics(
            {Pipe.TENSOR: ratio, Pipe.FP16: 0.1}, (), None if old else self.elapsed, {} if old else counters
        )
        clock = None if mhz is None else Cycles(mhz * ns // 1000, 0)
        try:
            return self.check.examine(metrics, since_ns, self.now_ns, clock)
        except UnusableError as fault:
            return fault.reason


def proven() -> Counters:
    one = Counters()
    assert [one.sees() for _ in range(4)] == [False, False, False, True]
    assert one.check.evidence == PROVEN
    return one


@pytest.mark.parametrize(
    "origin", [None, BY_ONE.replace("x1", "x7"), BY_ONE.replace("91", "92"), BY_ONE, f"{BY_ONE}, more"]
)
def test_a_scale_named_by_the_journal_counts_from_the_first_read(origin: str | None) -> None:
    one = Counters(origin)
    is_known = origin is not None and origin.startswith(BY_ONE)
    assert (one.check.are_proven, one.check.evidence) == (False, (Evidence.ACTIVITY, "not read yet", ""))
    assert one.sees() is is_known
    assert (one.check.are_proven, one.check.evidence == PROVEN) == (is_known, is_known)
    assert "not proven yet" in one.check.evidence[1] or is_known
    assert [one.sees(), one.sees()] == [is_known, is_known]
    assert (one.check.are_proven, one.check.evidence, one.asked) == (True, PROVEN, 1)
    assert one.sees() is True


def test_unproven_counters_state_the_reason() -> None:
    one = Counters(BY_ONE, doubted_sms=12)
    assert [one.sees() for _ in range(4)] == [False] * 4
    assert one.check.evidence[0] is Evidence.ACTIVITY
    assert "differ by 12 SMs" in one.check.evidence[1]
    for driver, is_old in (("594.99", True), ("595.0", False), ("R600", True)):
        one = Counters(BY_ONE, driver=driver)
        assert one.sees(old=True) is False
        assert one.check.evidence[1].endswith("counters" if is_old else "for this GPU")
        assert one.check.evidence[2].startswith("a driver of R595 or newer") is is_old


def test_two_seconds_of_uninterrupted_work_at_a_known_clock_prove_counters() -> None:
    """A counter may be a tenth of a second old, and the clock twice as fast: a tenth of the cycles of two seconds."""
    for broken in ({"mhz": None}, {"late_ns": 1}, {"speed": -0.1, "share": 0.0}):
        one = Counters()
        one.sees()
        one.sees(1.9)
        one.sees(1.9, **broken)
        assert not one.check.are_proven, broken
        one.sees(1.9)
        one.sees(0.05)
        assert not one.check.are_proven, "1.95 s since then"
        one.sees(0.05)
        assert one.check.are_proven


def test_counters_keep_counting_when_others_appear_or_disappear() -> None:
    one = proven()
    assert one.sees(more=(Pipe.FP16,), share=0.3) is True, "nothing to compare with"
    assert one.sees(more=(Pipe.FP16,), share=0.3) is GapReason.CONTRADICTORY
    fresh = Counters()
    assert [fresh.sees(more=more) for more in ((), (Pipe.FP16,), ())] == [False] * 3
    assert not fresh.check.are_proven


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"speed": 0.0, "share": 0.0, "ratio": 0.0}, GapReason.COUNTER_STALLED),
        ({"speed": 0.0, "share": 0.0, "ratio": 0.0, "seconds": 0.5}, GapReason.COUNTER_STALLED),
        ({"speed": 0.0, "share": 0.0, "ratio": 0.0, "seconds": 0.499}, True),
        ({"share": -0.1}, GapReason.COUNTER_RESET),
        ({"share": 0.3}, GapReason.CONTRADICTORY), ({"share": 0.3, "late_ns": 1}, True),
    ],
)  # fmt: skip
def test_a_read_that_proven_counters_contradict_is_a_single_gap(
    change: dict[str, float], found: bool | GapReason
) -> None:
    one = proven()
    assert one.sees(**change) is found  # type: ignore[arg-type]
    assert one.sees() is True
    assert one.check.evidence == PROVEN


def test_values_older_than_those_before_are_gaps_until_newer_ones_come() -> None:
    """Their growth was counted before: 1.5 seconds back, and 2.5 on in the next second."""
    one = proven()
    begin = one.elapsed
    assert one.sees(speed=-1.5) is GapReason.COUNTER_RESET
    assert [one.sees(), one.sees(), one.sees()] == [GapReason.COUNTER_RESET, GapReason.COUNTER_RESET, True]
    assert one.elapsed > begin
    assert [one.sees(speed=-1.5), one.sees(speed=-1.5), one.sees(speed=2.6)] == [GapReason.COUNTER_RESET] * 3
    assert [one.sees(), one.sees()] == [GapReason.COUNTER_RESET, True], "beyond the highest"
    assert [one.sees(speed=-61.0), one.sees()] == [GapReason.COUNTER_RESET, True], "no value is so old"


def test_counters_that_began_at_zero_count_at_once() -> None:
    one = proven()
    assert one.sees(speed=-1.5) is GapReason.COUNTER_RESET
    one.elapsed, one.tensor = 0, 0
    assert [one.sees(), one.sees()] == [GapReason.COUNTER_RESET, True]


@pytest.mark.parametrize(
    ("elapsed", "tensor", "found"),
    [
        (2**32 - 10**9, 10**9, True), (10**9, 2**32 - 10**9, True), (2**32 - 10**9, 2**32 - 10**9, True),
        (2**48 - 10**11, 10**12, True), (2**31, 10**9, GapReason.COUNTER_RESET), (2**48 + 1, 10**12, GapReason.COUNTER_RESET),
    ],
)  # fmt: skip
def test_counters_wrap_at_their_width(elapsed: int, tensor: int, found: bool | GapReason) -> None:
    """The width follows from the largest value that the elapsed counter ever showed."""
    one = Counters(BY_ONE, elapsed=elapsed, tensor=tensor)
    assert one.sees(0) is True
    bits = next((bits for bits in (32, 48) if elapsed < 2**bits), 48)
    ns = SECOND // 100
    grown = SMS * MHZ * ns // 1000 * (1 if bits == 32 else 100)
    one.now_ns += ns * (1 if bits == 32 else 100)
    for name, share in (("elapsed", 2), ("tensor", 1)):
        before = getattr(one, name)
        setattr(one, name, (before + grown * share // 2) % 2**bits if found is True else before - 10**9)
    metrics = Metrics({Pipe.TENSOR: 0.5}, (), one.elapsed, {Pipe.TENSOR: one.tensor})
    try:
        got: bool | GapReason = one.check.examine(metrics, 0, one.now_ns, None)
    except UnusableError as fault:
        got = fault.reason
    assert got is found


def test_three_contradictions_in_a_row_end_the_use_of_counters_for_good() -> None:
    one = proven()
    assert [one.sees(share=0.3) for _ in range(3)] == [GapReason.CONTRADICTORY] * 3
    said = one.check.evidence
    assert said[0] is Evidence.ACTIVITY
    assert "contradict the percentages" in said[1]
    one.origin = BY_ONE
    assert [one.sees() for _ in range(5)] == [False] * 5
    assert (one.check.evidence, one.check.are_proven, one.asked) == (said, False, 1)
    forgiven = proven()
    for _ in range(3):
        found = [forgiven.sees(share=share) for share in (0.3, 0.3, 0.5)]
        assert found == [GapReason.CONTRADICTORY, GapReason.CONTRADICTORY, True]
    unproven = Counters()
    assert [unproven.sees(share=0.3) for _ in range(6)] == [False] * 6
    assert "not proven yet" in unproven.check.evidence[1], "two of two seconds each"
    assert unproven.sees(share=0.3) is False
    assert "failed their self-test" in unproven.check.evidence[1]


@pytest.mark.parametrize(
    ("speed", "ends", "is_clock_doubted"),
    [(0.8, True, False), (1.2, True, True), (0.91, False, False), (1.09, False, False)],
)
def test_the_clock_is_compared_with_the_counters_each_minute(speed: float, ends: bool, is_clock_doubted: bool) -> None:
    one = proven()
    for _ in range(700):
        one.sees()
    found = [one.sees(speed=speed) for _ in range(200)]
    assert (GapReason.CONTRADICTORY in found) is ends, "the good minutes before are forgotten"
    assert found.count(GapReason.CONTRADICTORY) == ends
    if not ends:
        assert one.check.evidence == PROVEN
        return
    assert found[-1] is False
    assert "differ from the SM clock by over a tenth" in one.check.evidence[1]
    assert one.check.clock_doubted is is_clock_doubted


def test_counters_that_fit_a_faster_clock_blame_the_clock_until_they_fit() -> None:
    one = Counters()
    assert [one.sees(speed=1.6) for _ in range(9)] == [False] * 9
    assert one.check.clock_doubted
    assert "fit a faster clock than the device reports" in one.check.evidence[1]
    assert one.check.evidence[2]
    assert [one.sees() for _ in range(4)][-1] is True
    assert (one.check.clock_doubted, one.check.evidence) == (False, PROVEN)


def test_totals_have_the_proven_scale() -> None:
    one = Counters()
    metrics = Metrics({}, (), 2**20, {Pipe.TENSOR: 7})
    assert one.check.totals(metrics) is None
    one = proven()
    totals = one.check.totals(metrics)
    assert totals is not None
    assert (totals.origin, totals.elapsed_sm_cycles, totals.sm_cycles) == (BY_ONE, 2**20, {Pipe.TENSOR: 7})
    assert totals.wrap_at == (2**48, 2**48), "by the largest value that was seen"
    assert one.check.totals(metrics._replace(elapsed=None)) is None
    assert one.check.totals(metrics._replace(counters={})) is None
