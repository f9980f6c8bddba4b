"""Properties of the meter and of the figures that follow from it."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.rated_tally import RatedTallies, RatedTally
from flopsd.core.ledger.tally_records import tally_from_record, tally_record
from flopsd.core.meter import LONGEST_EXECUTION_NS, advance, max_counted_flop, max_sm_cycles, new_gaps
from flopsd.core.model import (
    Active,
    ChipLimits,
    Counted,
    Evidence,
    Gap,
    GapReason,
    Growth,
    Limits,
    Pipe,
    Reading,
    Totals,
)
from flopsd.core.rows import Rating, gap_ceiling_flop
from flopsd.core.tally import Tally
from tests.support.sim import total
from tests.support.strategies import H100, LIMITS, rating, run, sequences, table


@given(sequences, st.data())
def test_replaying_any_prefix_changes_nothing(sequence: list[Reading], data: st.DataObject) -> None:
    tally = run(sequence)
    prefix = sequence[: data.draw(st.integers(0, len(sequence)))]
    assert run(prefix, tally) == tally


@given(st.integers(1, 10**10), st.integers(1, 10**10), st.integers(1, 10**10), st.integers(1, 10))
def test_a_reading_of_time_taken_for_silence_counts_whole_and_once(
    before_ns: int, silent_ns: int, late_ns: int, steps: int
) -> None:
    """It recovers the part of it that was a gap; a reading that reaches back into read time counts nothing."""
    work = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1})
    silence = [before_ns + silent_ns * step // steps for step in range(steps + 1)]
    gaps = [Reading("GPU-0", a, b, Gap(GapReason.SOURCE_SILENT)) for a, b in pairwise(silence) if b > a]
    late = Reading("GPU-0", before_ns, before_ns + late_ns, work)
    tally = run([Reading("GPU-0", 0, before_ns, work), *gaps, late])
    assert tally.active_sm_cycles == {(Evidence.ACTIVITY, Pipe.TENSOR_HMMA): 2}
    assert tally.gap_ns == {GapReason.SOURCE_SILENT: silent_ns}
    assert tally.known_ns(Evidence.ACTIVITY) == before_ns + late_ns
    assert tally.unknown_ns == max(0, silent_ns - late_ns)
    assert tally.watermark_ns == before_ns + max(silent_ns, late_ns)
    assert run([late], tally) == tally
    reaching_back = Reading("GPU-0", before_ns - 1, before_ns + silent_ns, work)
    assert run([Reading("GPU-0", 0, before_ns, work), *gaps, reaching_back]).known_ns(Evidence.ACTIVITY) == before_ns


@given(st.integers(2, 10**10), st.data())
def test_splitting_a_reading_changes_no_total(duration_ns: int, data: st.DataObject) -> None:
    cut_ns = data.draw(st.integers(1, duration_ns - 1))
    first = data.draw(st.integers(0, max_sm_cycles(LIMITS, cut_ns) - 1))
    second = data.draw(st.integers(0, max_sm_cycles(LIMITS, duration_ns - cut_ns) - 1))

    def reading(begin_ns: int, end_ns: int, cycles: int) -> Reading:
        return Reading("GPU-0", begin_ns, end_ns, Active(Evidence.CYCLES, {Pipe.TENSOR_HMMA: cycles}))

    whole = run([reading(0, duration_ns, first + second)])
    parts = run([reading(0, cut_ns, first), reading(cut_ns, duration_ns, second)])
    assert whole == parts
    assert total(whole, rating()) == total(parts, rating())


@pytest.mark.long
@given(sequences)
def test_no_pipe_is_active_beyond_the_devices_cycles(sequence: list[Reading]) -> None:
    tally = run(sequence)
    for (evidence, _), cycles in tally.active_sm_cycles.items():
        covered_ns = tally.observed_ns[evidence]
        if evidence is Evidence.CYCLES:  # running counters cover gaps too, and lag by the driver's delay
            covered_ns += tally.total_recovered_ns + len(sequence) * 200_000_000
        most = max_sm_cycles(LIMITS, covered_ns)
        assert cycles <= most + most // 100 + len(sequence)


@pytest.mark.parametrize("evidence", [Evidence.ACTIVITY, Evidence.CYCLES])
def test_the_clock_may_be_at_most_one_percent_above_its_maximum(evidence: Evidence) -> None:
    """Per second: all SM-cycles at the maximum clock, one percent for the reading of the clock, one cycle for
    rounding."""
    most = max_sm_cycles(LIMITS, 10**9)
    assert most == LIMITS.sm_count * LIMITS.sm_clock_max_mhz * 1_000_000
    most += most // 100 + 1
    reading = Reading("GPU-0", 0, 10**9, Active(evidence, {Pipe.TENSOR_HMMA: most}))
    assert run([reading]).active_sm_cycles == {(evidence, Pipe.TENSOR_HMMA): most}
    beyond = Reading("GPU-0", 0, 10**9, Active(evidence, {Pipe.TENSOR_HMMA: most + 1}))
    assert run([beyond]).gap_ns == {GapReason.OUT_OF_RANGE: 10**9}


@pytest.mark.parametrize(("doubt", "taken"), [(0, True), (2, True), (-1, False), (3, False)])
def test_a_doubt_may_be_at_most_twice_the_possible_cycles(doubt: int, taken: bool) -> None:
    most = max_sm_cycles(LIMITS, 10**9) * 101 // 100 + 1
    work = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 5}, {Pipe.TENSOR_HMMA: doubt * most})
    tally = run([Reading("GPU-0", 0, 10**9, work)])
    assert tally.gap_ns == ({} if taken else {GapReason.OUT_OF_RANGE: 10**9})


@given(sequences)
def test_a_device_without_a_row_counts_nothing(sequence: list[Reading]) -> None:
    tally = run(sequence, limits=None)
    assert tally.total_observed_ns == 0
    assert tally.total_gap_ns == tally.span_ns


@given(sequences)
def test_gap_intervals_add_up_to_the_gap_totals(sequence: list[Reading]) -> None:
    tally, listed = Tally(0, 0), dict[GapReason, int]()
    for reading in sequence:
        after = advance(tally, reading, LIMITS)
        position = tally.watermark_ns
        for begin_ns, end_ns, reason in new_gaps(tally, after, reading):
            assert position <= begin_ns < end_ns <= after.watermark_ns
            position = end_ns
            listed[reason] = listed.get(reason, 0) + end_ns - begin_ns
        tally = after
    assert listed == dict(tally.gap_ns)


@given(st.integers(0, 10**15))
def test_a_gaps_ceiling_is_peak_times_time(gap_ns: int) -> None:
    flop_per_cycle = 8192 + 128 + 256 + 512  # fastest tensor format, FP64, FP32, FP16 at once
    exact = Fraction(gap_ns * 132 * 1980 * flop_per_cycle, 1000)
    ceiling = gap_ceiling_flop(gap_ns, rating())
    assert ceiling is not None
    assert 0 <= ceiling - exact < 1


@given(sequences)
def test_no_more_time_is_recovered_than_was_missed(sequence: list[Reading]) -> None:
    tally = run(sequence)
    assert 0 <= tally.total_recovered_ns <= tally.total_gap_ns
    assert tally.unknown_ns == tally.total_gap_ns - tally.elsewhere_ns - tally.total_recovered_ns


GROWTH = st.lists(
    st.tuples(st.integers(1, 3_000_000_000), st.integers(0, 1000), st.integers(0, 1000), st.sampled_from(["read", "lost", "fault", "death"])),
    min_size=2, max_size=20,
)  # fmt: skip


@given(GROWTH, st.sampled_from([None, 2**48]))
def test_running_counters_lose_nothing_whatever_is_missed(
    steps: list[tuple[int, int, int, str]], wrap_at: int | None
) -> None:
    """Steps of (duration, tensor and HMMA activity in permille, the fate of the reading at its end)."""
    now_ns, tensor, hmma = 0, 0, 0
    since_boot = 2**47  # more than the device can have in all the missed time here

    def read() -> Totals:
        elapsed = since_boot + now_ns
        if wrap_at is None:
            return Totals("o", elapsed, {Pipe.TENSOR: tensor, Pipe.TENSOR_HMMA: hmma})
        pipes = ((wrap_at - 1000 + counter) % wrap_at for counter in (tensor, hmma))
        return Totals("o", elapsed, dict(zip((Pipe.TENSOR, Pipe.TENSOR_HMMA), pipes, strict=True)), (wrap_at, wrap_at))

    tally = advance(Tally(0, 0), Reading("GPU-0", 0, 1, Gap(GapReason.STARTING), {}, read()), LIMITS)
    counted: dict[Pipe, int] = {}
    gaps = recovered = 0
    for duration_ns, any_permille, hmma_permille, fate in [*steps, (1, 0, 0, "read")]:
        begin_ns, now_ns = max(1, now_ns), max(1, now_ns) + duration_ns
        possible = max_sm_cycles(LIMITS, duration_ns)
        hmma += possible * min(any_permille, hmma_permille) // 1000
        tensor += max(possible * any_permille // 1000, possible * min(any_permille, hmma_permille) // 1000)
        if fate == "read":
            tally = advance(tally, Reading("GPU-0", begin_ns, now_ns, Growth(), {}, read()), LIMITS)
        elif fate == "fault":
            tally = advance(tally, Reading("GPU-0", begin_ns, now_ns, Gap(GapReason.DRIVER_TIMEOUT)), LIMITS)
        elif fate == "death":  # the next incarnation continues where the journal ends
            for (_, pipe), cycles in tally.active_sm_cycles.items():
                counted[pipe] = counted.get(pipe, 0) + cycles
            gaps, recovered = gaps + tally.total_gap_ns, recovered + tally.total_recovered_ns
            start = tally_from_record(tally_record(tally), tally.begin_ns)
            tally = Tally(start.watermark_ns, start.watermark_ns, totals=start.totals, totals_ns=start.totals_ns)
    for (_, pipe), cycles in tally.active_sm_cycles.items():
        counted[pipe] = counted.get(pipe, 0) + cycles
    assert counted.get(Pipe.TENSOR_HMMA, 0) == hmma
    assert counted.get(Pipe.TENSOR, 0) == tensor - hmma
    assert (
        gaps + tally.total_gap_ns == recovered + tally.total_recovered_ns + 1
    )  # all but the time before the first reading


@pytest.mark.parametrize(
    ("seconds", "is_lost", "since_boot", "counted"),
    [
        (600, True, 2 * 10**12, True), (600, True, 10**12 + 1, False),
        (600, False, 10**12 + 1, False),  # flopsd was suspended
        (2, False, 3 * 10**9 + 1, True), (2, True, 3 * 10**9 + 1, False),
    ],
)  # fmt: skip
def test_counters_that_may_have_restarted_while_unread_do_not_cover_that_time(
    seconds: int, is_lost: bool, since_boot: int, counted: bool
) -> None:
    """An SM has at most 1.2 x 10^12 cycles in ten minutes."""
    second, sms, grown = 10**9, LIMITS.sm_count, 10**12 if seconds == 600 else 3 * 10**9

    def at(begin: int, end: int, elapsed: int, work: Growth | Gap) -> Reading:
        totals = Totals("o", elapsed * sms, {Pipe.FP32: elapsed})
        return Reading("GPU-0", begin * second, end * second, work, {"energy_mj": elapsed // 10**6}, totals)

    tally = run([at(0, 1, since_boot - grown, Gap(GapReason.STARTING))])
    if is_lost:
        tally = run([Reading("GPU-0", second, seconds * second, Gap(GapReason.DEVICE_LOST))], tally)
    tally = run([at(seconds if is_lost else 1, seconds + 1, since_boot, Growth())], tally)
    assert sum(tally.active_sm_cycles.values()) == (grown if counted else 0)
    assert tally.energy_mj == (grown // 10**6 if counted else None)
    assert tally.unknown_ns == second + (0 if counted else seconds * second)
    assert (GapReason.COUNTER_RESET in tally.gap_ns) is not counted
    tally = run([at(seconds + 1, seconds + 2, since_boot + 7, Growth())], tally)
    assert sum(tally.active_sm_cycles.values()) == (grown + 7 if counted else 7)


def test_totals_are_not_counted_twice_after_percentages() -> None:
    first = Totals("o", 10, {Pipe.TENSOR_HMMA: 5})
    tally = run([Reading("GPU-0", 0, 10, Gap(GapReason.STARTING), {}, first)])
    tally = run([Reading("GPU-0", 10, 20, Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 100}))], tally)
    assert tally.totals is None
    tally = run([Reading("GPU-0", 20, 30, Growth(), {}, Totals("o", 300, {Pipe.TENSOR_HMMA: 200}))], tally)
    assert sum(tally.active_sm_cycles.values()) == 100
    assert tally.gap_ns[GapReason.MISSED_READING] == 10


def test_counters_of_another_origin_or_after_a_reset_are_never_subtracted() -> None:
    def at(begin_ns: int, totals: Totals, energy_mj: int) -> Reading:
        return Reading("GPU-0", begin_ns, begin_ns + 10, Growth(), {"energy_mj": energy_mj}, totals)

    tally = run([at(0, Totals("average", 10, {Pipe.FP32: 5}), 100), at(10, Totals("sum", 1000, {Pipe.FP32: 900}), 110)])
    assert not tally.active_sm_cycles
    tally = run(
        [at(20, Totals("sum", 2000, {Pipe.FP32: 1900}), 7)], tally
    )  # the energy shows that the driver was reloaded
    assert tally.gap_ns[GapReason.COUNTER_RESET] == 10
    assert run([at(30, Totals("sum", 2001, {Pipe.FP32: 1901}), 8)], tally).active_sm_cycles == {
        (Evidence.CYCLES, Pipe.FP32): 1
    }


@pytest.mark.parametrize(("ns", "reason"), [(200_000_000, None), (200_000_001, GapReason.COUNTER_STALLED)])
def test_stopped_counters_do_not_cover_the_time_without_a_reader(ns: int, reason: GapReason | None) -> None:
    stood = Totals("o", 10**9, {Pipe.TENSOR_HMMA: 5})
    before = run([Reading("GPU-0", 0, 10, Gap(GapReason.STARTING), {}, stood)])
    tally = run([Reading("GPU-0", 10 + ns - 10, 10 + ns, Growth(), {}, stood)], before)
    assert tally.gap_ns.get(GapReason.COUNTER_STALLED, 0) == (0 if reason is None else ns)
    assert tally.observed_ns == {}
    assert (tally == before) is (reason is None)  # they may only not be renewed yet


def test_counters_that_stand_still_for_many_short_readings_are_a_gap_and_no_idle_time() -> None:
    """No reading alone is long enough to show it."""
    ms, stood = 1_000_000, Totals("o", 10**15, {Pipe.TENSOR_HMMA: 5})
    before = run([Reading("GPU-0", 0, 10, Gap(GapReason.STARTING), {}, stood)])
    short = [Reading("GPU-0", at * 90 * ms, (at + 1) * 90 * ms, Growth(), {}, stood) for at in range(1, 30)]
    tally = run(short, before)
    assert tally.observed_ns == {}
    assert tally.gap_ns[GapReason.COUNTER_STALLED] > 29 * 90 * ms
    later = Totals("o", 10**15 + 10**6, {Pipe.TENSOR_HMMA: 7})
    tally = run([Reading("GPU-0", 0, 10, Gap(GapReason.STARTING), {}, stood), *short[:1]])
    tally = run([Reading("GPU-0", 180 * ms, 270 * ms, Growth(), {}, later)], tally)
    assert tally.observed_ns == {Evidence.CYCLES: 270 * ms - 10}
    assert tally.active_sm_cycles == {(Evidence.CYCLES, Pipe.TENSOR_HMMA): 2}


def test_an_unread_pipe_raises_only_the_upper_figure() -> None:
    seen = run([Reading("GPU-0", 0, 10**9, Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 10**9}))])
    blind = run([Reading("GPU-0", 0, 10**9, Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 10**9}, {}, (Pipe.FP32,)))])
    one, other = total(seen, rating()), total(blind, rating())
    assert (one.low_flop, one.measured_flop) == (other.low_flop, other.measured_flop)
    assert one.high_flop is not None
    assert other.high_flop == one.high_flop + max_sm_cycles(LIMITS, 10**9) * 256


def test_energy_counts_across_a_gap_and_not_across_a_reset() -> None:
    def at(begin_ns: int, end_ns: int, energy_mj: int) -> Reading:
        return Reading("GPU-0", begin_ns, end_ns, Gap(GapReason.DAEMON_DOWN), {"energy_mj": energy_mj})

    tally = run([at(0, 1, 500)])
    assert tally.energy_mj is None  # counting begins here
    tally = run([at(1, 2, 900)], tally)
    assert (tally.energy_mj, tally.energy_ns) == (400, 1)
    tally = run([at(2, 4, 100)], tally)  # the driver was reloaded
    assert (tally.energy_mj, tally.energy_ns) == (400, 1)
    tally = run([at(4, 8, 150)], tally)
    assert (tally.energy_mj, tally.energy_ns) == (450, 5)
    tally = run([Reading("GPU-0", 8, 16, Gap(GapReason.DEVICE_LOST)), at(20, 32, 250)], tally)
    assert (tally.energy_mj, tally.energy_ns) == (550, 29)


@pytest.mark.parametrize(
    ("grown_mj", "is_counted"), [(100_000 * 1000 * 11, True), (100_000 * 1000 * 11 + 1, False), (2**64 - 6, False)]
)
def test_impossible_energy_is_not_counted(grown_mj: int, is_counted: bool) -> None:
    """The most in a second, including the earlier time that a counter renewed ten seconds late may contain."""
    second = 10**9

    def at(end: int, energy_mj: int) -> Reading:
        return Reading("GPU-0", (end - 1) * second, end * second, Gap(GapReason.DAEMON_DOWN), {"energy_mj": energy_mj})

    tally = run([at(1, 5), at(2, 5 + grown_mj)])
    assert (tally.energy_mj, tally.energy_ns) == ((grown_mj, second) if is_counted else (None, 0))
    back = run([at(3, 7), at(4, 9)], tally)  # after a misreading, the correct value is a fall
    assert (back.energy_mj, back.energy_ns) == ((grown_mj + 2, 2 * second) if is_counted else (2, second))


HOUR_NS = 3600 * 10**9
BUSY = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1000})


@pytest.mark.parametrize(
    ("hours", "energy_mj", "unknown_hours"),
    [
        ([(BUSY, 5_000_000), (BUSY, None), (BUSY, None)], None, 3),  # read once: unknown
        ([(BUSY, 0), (BUSY, 7000), (BUSY, None)], 7000, 2),
        ([(BUSY, 0), (BUSY, 7000), (Gap(GapReason.DEVICE_LOST), None)], 7000, 2),
        ([(BUSY, 0), (Gap(GapReason.DEVICE_LOST), None), (BUSY, 7000)], 7000, 1),  # it kept counting through the gap
        ([(BUSY, 9000), (BUSY, 100), (BUSY, 7100)], 7000, 2),  # reset: the loss is unknown
        ([(BUSY, 0), (Gap(GapReason.OTHER_JOB), None), (BUSY, 900_000), (BUSY, 907_000)], 7000, 2),
        ([(BUSY, 0), (Gap(GapReason.METERED_AS_MIG), 900_000), (BUSY, 907_000)], 7000, 1),
    ],
)
def test_the_time_without_known_energy_is_stated(
    hours: list[tuple[Active | Gap, int | None]], energy_mj: int | None, unknown_hours: int
) -> None:
    tally = run(
        [
            Reading("GPU-0", at * HOUR_NS, (at + 1) * HOUR_NS, work, {} if energy is None else {"energy_mj": energy})
            for at, (work, energy) in enumerate(hours)
        ]
    )
    rated = RatedTally(1, DeviceEntry(H100, "sim", None, 0), tally, Rating(None, None, None, table()))
    device = RatedTallies((rated,))
    assert (device.energy_mj, device.energy_unknown_ns) == (energy_mj, unknown_hours * HOUR_NS)


@given(sequences)
def test_energy_never_covers_more_time_than_the_jobs(sequence: list[Reading]) -> None:
    tally = run(sequence)
    assert 0 <= tally.energy_ns <= tally.job_ns
    assert (tally.energy_ns == 0) == (tally.energy_mj is None)


@pytest.mark.parametrize(("sub_pipes", "counted"), [(50, True), (60, True), (61, False)])
def test_running_counters_whose_parts_outgrow_the_whole_count_nothing(sub_pipes: int, counted: bool) -> None:
    def at(begin_ns: int, any_tensor: int, hmma: int, imma: int) -> Reading:
        pipes = {Pipe.TENSOR: any_tensor, Pipe.TENSOR_HMMA: hmma, Pipe.TENSOR_IMMA: imma}
        return Reading("GPU-0", begin_ns, begin_ns + 10, Growth(), {}, Totals("o", 20 * begin_ns, pipes))

    tally = run([at(0, 7, 1, 2), at(10, 7 + 50, 1 + sub_pipes - 20, 2 + 20)])
    assert sum(tally.active_sm_cycles.values()) == (sub_pipes if counted else 0)
    assert tally.gap_ns.get(GapReason.CONTRADICTORY, 0) == (0 if counted else 10)
    assert run([at(20, 70, 45, 25)], tally).total_observed_ns > tally.total_observed_ns  # counting continues from there


CHIP = ChipLimits(10**12)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 100),
            st.integers(0, 200),
            st.sampled_from([None, GapReason.MISSED_READING, GapReason.OTHER_JOB]),
        ),
        max_size=20,
    ),
    st.sampled_from([CHIP, LIMITS]),
)
def test_no_more_is_counted_than_the_device_can_do(
    steps: list[tuple[int, int, GapReason | None]], limits: ChipLimits | Limits
) -> None:
    """Steps of (seconds, FLOP in hundredths of a minute's maximum, gap reason or None)."""
    tally, minute = Tally(0, 0), max_counted_flop(limits, 0)
    assert minute is not None
    for seconds_, share, gap in steps:
        before, end_ns, flop = tally, tally.watermark_ns + seconds_ * 10**9, minute * share // 100
        work = Counted(flop) if gap is None else Gap(gap, flop)
        tally = advance(tally, Reading("NC", tally.watermark_ns, end_ns, work), limits)
        assert gap is not GapReason.OTHER_JOB or tally.counted_flop == before.counted_flop  # it is not this job's
        most = max_counted_flop(limits, tally.job_ns)
        assert most is not None
        assert tally.counted_flop <= most


def test_the_maximum_of_a_count() -> None:
    """In one second plus the longest execution before it: for 2 SMs at 1 GHz with 3 operations per cycle, and for a
    chip."""
    seconds_ = LONGEST_EXECUTION_NS // 10**9 + 1
    assert max_counted_flop(Limits(2, 1000, 3), 10**9) == 2 * 10**9 * 3 * seconds_
    assert max_counted_flop(ChipLimits(10**12, 2 * 10**12), 10**9) == 2 * 10**12 * seconds_
    assert max_counted_flop(ChipLimits(10**12), 10**9) == 10**12 * seconds_
    assert max_counted_flop(Limits(2, 1000), 10**9) is None


def test_one_long_execution_is_counted_whole_and_its_time_is_not_reused() -> None:
    tally = Tally(0, 0)
    for second in range(100):
        reading = Reading("NC", second * 10**9, (second + 1) * 10**9, Counted(50 * 10**12))
        tally = advance(tally, reading, CHIP)
    assert tally.counted_flop == 150 * 10**12  # of 160 that 100 s and one execution of 60 s can hold
    assert tally.gap_ns == {GapReason.OUT_OF_RANGE: 97 * 10**9}


def test_without_a_peak_no_count_is_accepted() -> None:
    reading = Reading("GPU-0", 0, 10**9, Counted(5))
    assert advance(Tally(0, 0), reading, Limits(132, 1980)).gap_ns == {GapReason.UNKNOWN_DEVICE: 10**9}
    assert advance(Tally(0, 0), reading, LIMITS).counted_flop == 5
    assert advance(Tally(0, 0), replace(reading, work=Counted(10**18)), LIMITS).gap_ns == {
        GapReason.OUT_OF_RANGE: 10**9
    }


def test_a_mapping_that_a_source_reuses_does_not_change_the_tally() -> None:
    mapping = {Pipe.TENSOR_HMMA: 100}
    first = Reading("GPU-0", 0, 10**9, Gap(GapReason.STARTING), totals=Totals("boot", 1000, mapping))
    tally = run([first])
    mapping[Pipe.TENSOR_HMMA] = 700
    tally = run([Reading("GPU-0", 10**9, 2 * 10**9, Growth(), totals=Totals("boot", 2000, mapping))], tally)
    assert tally.active_sm_cycles == {(Evidence.CYCLES, Pipe.TENSOR_HMMA): 600}
