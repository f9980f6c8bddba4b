"""Properties of phases: they divide the counted work, and lose and add nothing. And readings that pass the contract
suite are taken whole by the meter: none of their time or work becomes a gap."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flopsd.testing.rules as rules
from flopsd.core.declarations import Method, Recomputation
from flopsd.core.figures import Figures, sum_figures
from flopsd.core.ledger.impossible_records import grew_from
from flopsd.core.ledger.tally_records import tally_from_record, tally_record
from flopsd.core.meter import advance
from flopsd.core.model import (
    UNDECLARED_PHASE,
    Active,
    Busy,
    Counted,
    Evidence,
    Gap,
    GapReason,
    Growth,
    Pipe,
    Precision,
    Reading,
    Sweep,
    Totals,
)
from flopsd.core.phases import NO_PHASE, ActivePhase, bucket, remainder, split_bucket, sum_of
from flopsd.core.policy.guidelines import guidelines, required_share
from flopsd.core.rows import by_phase, rows
from flopsd.core.tally import Tally
from flopsd.testing.rules import Observation, Read
from tests.support.extent import examples
from tests.support.sim import total
from tests.support.strategies import H100, LIMITS, rating, readings, run, works

phases = st.sampled_from(
    ["undeclared", "train", "train@bf16", "train@bf16:0.9,fp8:0.1", "evaluate", "generate", "other"]
)
in_forces = st.builds(ActivePhase, phases, st.integers(-1, 80).map(lambda n: n * 100_000_000))
phased = st.lists(st.tuples(readings(), in_forces), max_size=12)


def fold(sequence: list[tuple[Reading, ActivePhase]]) -> list[Tally]:
    tallies = [Tally(0, 0)]
    for reading, in_force in sequence:
        tallies.append(advance(tallies[-1], reading, LIMITS, in_force))
    return tallies


@given(phased)
def test_phases_change_nothing_of_the_whole(sequence: list[tuple[Reading, ActivePhase]]) -> None:
    with_phases = fold(sequence)[-1]
    without = run([reading for reading, _ in sequence])
    assert replace(with_phases, phases={}) == without
    one, other = total(with_phases, rating()), total(without, rating())
    assert one.high_flop is not None
    assert other.high_flop is not None
    assert one.high_flop >= other.measured_flop if other.measured_flop is not None else True


@settings(max_examples=examples(30))
@given(phased, phased)
def test_two_segments_together_have_the_time_and_work_of_both_in_each_phase(
    one: list[tuple[Reading, ActivePhase]], other: list[tuple[Reading, ActivePhase]]
) -> None:
    segments = fold(one)[-1], fold(other)[-1]
    both = sum_of(*segments)
    assert both.phases.keys() == segments[0].phases.keys() | segments[1].phases.keys()
    for name, share in both.phases.items():
        parts = [tally.phases[name] for tally in segments if name in tally.phases]
        assert share.span_ns == sum(part.span_ns for part in parts)
        assert share.counted_flop == sum(part.counted_flop for part in parts)
        for key, cycles in share.active_sm_cycles.items():
            assert cycles == sum(part.active_sm_cycles.get(key, 0) for part in parts)


@given(phased)
def test_shares_add_up_to_the_whole(sequence: list[tuple[Reading, ActivePhase]]) -> None:
    tally = fold(sequence)[-1]
    left = remainder(tally)
    parts = [*tally.phases.values(), left]
    assert sum(part.span_ns for part in parts) == tally.span_ns
    for part in parts:
        assert part.total_observed_ns + part.total_gap_ns == part.span_ns
    for key, cycles in tally.active_sm_cycles.items():
        assert sum(part.active_sm_cycles.get(key, 0) for part in parts) == cycles
    assert sum(part.counted_flop for part in parts) == tally.counted_flop
    energies = [part.energy_mj for part in parts if part.energy_mj is not None]
    assert sum(energies) == (tally.energy_mj or 0)
    assert sum(part.energy_ns for part in parts) == tally.energy_ns


def test_energy_counted_before_the_phase_is_not_the_phases() -> None:
    half = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 10**6})
    tally, train = Tally(0, 0), ActivePhase("train", 20)
    for begin_ns, energy_mj, in_force in ((0, 100, NO_PHASE), (10, None, NO_PHASE), (20, 180, train), (30, 187, train)):
        counters = {} if energy_mj is None else {"energy_mj": energy_mj}
        tally = advance(tally, Reading("GPU-0", begin_ns, begin_ns + 10, half, counters), LIMITS, in_force)
    share = tally.phases["train"]
    assert (share.energy_mj, share.energy_ns, share.span_ns) == (7, 10, 20)
    assert (tally.energy_mj, tally.energy_ns) == (87, 30)


@given(phased)
def test_shares_only_grow_and_survive_a_round_trip(sequence: list[tuple[Reading, ActivePhase]]) -> None:
    tallies = fold(sequence)
    for before, after in pairwise(tallies):
        assert before == after or grew_from(before, after)
    assert tally_from_record(tally_record(tallies[-1]), 0) == tallies[-1]


def test_a_share_that_shrinks_did_not_grow() -> None:
    part, whole = Tally(0, 5, counted_flop=3), Tally(0, 9, counted_flop=7)
    before = replace(whole, phases={"train": part})
    assert grew_from(before, replace(before, watermark_ns=10, phases={"train": replace(part, watermark_ns=6)}))
    for phases in ({"train": replace(part, watermark_ns=6, counted_flop=2)}, {"evaluate": part}, {}):
        assert not grew_from(before, replace(before, watermark_ns=10, phases=phases))


@given(readings(), st.integers(0, 10**10), st.integers(1, 10**10))
def test_a_reading_that_began_before_the_phase_belongs_to_none(reading: Reading, start_ns: int, late_ns: int) -> None:
    begin = Tally(start_ns, start_ns)
    after = advance(begin, reading, LIMITS, ActivePhase("train", start_ns + late_ns))
    assert not after.phases
    at_once = advance(begin, reading, LIMITS, ActivePhase("train", start_ns))
    assert bool(at_once.phases) == (at_once != begin)


@given(readings(), st.integers(1, 10**9))
def test_recovered_work_of_a_hole_belongs_to_a_phase_only_if_it_held_throughout(reading: Reading, hole_ns: int) -> None:
    if reading.totals is None:
        return
    known = Tally(0, hole_ns, gap_ns={}, totals=reading.totals, totals_ns=0)
    growing = replace(reading, work=Growth(), end_ns=hole_ns + reading.end_ns)
    assert not advance(known, growing, LIMITS, ActivePhase("train", 1)).phases
    assert advance(known, growing, LIMITS, ActivePhase("train", 0)).phases


BF16, MIX = (Precision(shares, "config") for shares in ((("bf16", 10**6),), (("bf16", 900_000), ("fp8", 100_000))))


@given(phased, st.sampled_from([None, BF16, MIX]))
def test_rows_of_phases_are_disjoint_and_ordered(
    sequence: list[tuple[Reading, ActivePhase]], precision: Precision | None
) -> None:
    tally = fold(sequence)[-1]
    found = rows(tally, rating(precision))
    figures = total(tally, rating(precision))
    summed = sum_figures(row.figures for row in found)
    assert (summed.low_flop, summed.high_flop) == (figures.low_flop, figures.high_flop)
    parts = by_phase(tally, found)
    assert sum_figures(parts.values()).measured_flop == figures.measured_flop
    assert {row.phase for row in found} <= {"undeclared", "train", "evaluate", "generate", "other"}
    assert figures.high_flop is not None
    assert 0 <= figures.low_flop <= figures.high_flop
    if figures.measured_flop is not None:
        assert figures.low_flop <= figures.measured_flop <= figures.high_flop
    estimating = any(e in tally.observed_ns for e in (Evidence.ACTIVITY, Evidence.CYCLES, Evidence.COUNT))
    assert (figures.measured_flop is not None) == (estimating or tally.counted_flop > 0)


def test_a_process_that_names_its_format_is_believed_only_for_its_phase() -> None:
    half = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 10**9})
    tally = Tally(0, 0)
    for second, in_force in enumerate((NO_PHASE, ActivePhase("train@fp8", 0))):
        reading = Reading("GPU-0", second * 10**9, (second + 1) * 10**9, half)
        tally = advance(tally, reading, LIMITS, in_force)
    parts = by_phase(tally, rows(tally, rating()))
    assert parts["undeclared"].measured_flop == 10**9 * 4096  # dense BF16
    assert parts["train"].measured_flop == 10**9 * 8192
    labels = {(row.phase, row.precision, row.declared_by) for row in rows(tally, rating())}
    assert labels == {("train", "fp8", "process"), ("undeclared", "undeclared", None)}
    config = rating(Precision((("bf16", 1_000_000),), "config"))  # settings take precedence
    assert by_phase(tally, rows(tally, config))["train"].measured_flop == 10**9 * 4096


@given(
    st.dictionaries(
        st.sampled_from(["train", "evaluate", "generate", "other", UNDECLARED_PHASE]),
        st.tuples(st.integers(0, 10**25), st.integers(0, 10**25), st.integers(0, 10**25), st.booleans(), st.booleans()),
    ),
    st.none() | st.sampled_from(list(Method)),
    st.none() | st.sampled_from(list(Recomputation)),
)
def test_the_guidelines_basis_claims_only_what_is_known(
    phased: dict[str, tuple[int, int, int, bool, bool]], method: Method | None, recomputation: Recomputation | None
) -> None:
    executed = {}
    for phase, (one, two, three, is_measured, bounded) in phased.items():
        low, measured, high = sorted((one, two, three))
        executed[phase] = Figures(
            low if is_measured else 0, measured if is_measured else None, high if bounded else None
        )
    found = guidelines(executed, required_share(method, recomputation))
    for figures in (found.updates, found.cumulative):
        assert figures.high_flop is None or figures.low_flop <= figures.high_flop
        if figures.measured_flop is not None:
            assert figures.low_flop <= figures.measured_flop
            assert figures.high_flop is None or figures.measured_flop <= figures.high_flop
    counted = sum_figures(figures for phase, figures in executed.items() if phase != "evaluate")
    if counted.high_flop is not None:
        assert found.updates.high_flop is not None
        assert found.updates.high_flop <= counted.high_flop
    if "train" not in executed:
        assert (found.updates.low_flop, found.updates.measured_flop) == (0, None)
    if recomputation in (None, Recomputation.SELECTIVE):
        assert found.updates.measured_flop is None
    beside = sum(executed[p].measured_flop or 0 for p in ("other", UNDECLARED_PHASE) if p in executed)
    for figures in (found.updates, found.cumulative):
        if figures.measured_flop is not None:
            assert beside * 10 <= figures.measured_flop * 3, "else the point could be far too low"


def test_buckets_survive_a_round_trip() -> None:
    mix = Precision((("bf16", 900_000), ("fp8", 100_000)), "process")
    for phase, precision in (("train", None), ("evaluate", mix), ("generate", Precision((("fp8", 10**6),), "process"))):
        assert split_bucket(bucket(phase, precision)) == (phase, precision)
    for bad in ("undeclared", "rest", "train@bf16:0.5", "train@", "train@bf16:0.50,fp8:0.5", "@bf16"):
        with pytest.raises(ValueError, match="Phase|float|expected|shares|number format"):
            split_bucket(bad)
    assert NO_PHASE.bucket == UNDECLARED_PHASE


DEVICE = replace(H100, evidence=Evidence.CYCLES)


@st.composite
def observed_readings(draw: st.DrawFn) -> list[Reading]:
    """Readings of one device, mostly valid: now and then a hole, an overlap, too much work or a counter that falls."""
    readings, at_ns = [], 0
    total = 10**15  # more than the cycles of all these readings: after a hole the meter takes less for a reset
    for _ in range(draw(st.integers(1, 8))):
        begin_ns = max(0, at_ns + draw(st.sampled_from([0] * 9 + [-5, 5])))
        at_ns = begin_ns + draw(st.integers(1, 30)) * 100_000_000
        work: Active | Busy | Counted | Gap | Growth = draw(works(at_ns - begin_ns))
        totals = None
        if draw(st.sampled_from([False] * 3 + [True])):
            total += draw(st.sampled_from([0, 10**6, 10**9, 10**9, 10**9, -(10**6), 10**14]))
            work, totals = Growth(), Totals("boot", max(0, total), {Pipe.TENSOR: max(0, total)})
        elif isinstance(work, Busy) and draw(st.sampled_from([False] * 9 + [True])):
            work = Busy(work.sm_cycles + 10**14)
        readings.append(Reading(DEVICE.uid, begin_ns, at_ns, work, {}, totals))
    return readings


def problems(readings: list[Reading]) -> list[str]:
    reads = tuple(Read(r.end_ns, (DEVICE,), (DEVICE,), Sweep((r,))) for r in readings)
    observation = Observation(0, reads)
    return [*rules.intervals(observation), *rules.works(observation), *rules.totals(observation)]


@given(observed_readings())
def test_readings_that_pass_the_suite_are_taken_whole_by_the_meter(readings: list[Reading]) -> None:
    if problems(readings):
        return
    tally = run(readings, limits=LIMITS)
    allowed = {GapReason.STARTING} | {r.work.reason for r in readings if isinstance(r.work, Gap)}
    if any(isinstance(r.work, Growth) for r in readings):
        allowed.add(GapReason.MISSED_READING)  # until there are totals to subtract from
    assert set(tally.gap_ns) <= allowed
    assert tally.span_ns == readings[-1].end_ns


@given(observed_readings(), st.integers(0, 7), st.sampled_from([-1, 1]))
def test_a_shifted_boundary_is_always_found(readings: list[Reading], at: int, by_ns: int) -> None:
    if problems(readings) or len(readings) < 2:
        return
    at = at % (len(readings) - 1) + 1
    readings[at] = replace(readings[at], begin_ns=readings[at].begin_ns + by_ns)
    assert problems(readings)
