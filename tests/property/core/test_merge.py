"""Properties of merging: sums in any order and grouping, and that a simultaneous double claim never passes."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.figures import Figures
from flopsd.core.ledger.merged_claims import DEVICE, Claim, DeviceClaims, refuse_double
from flopsd.core.ledger.merged_completeness import NodeCheck
from flopsd.core.ledger.merged_entry import sort_key
from flopsd.core.ledger.merged_statement import MergeFacts, Merging
from flopsd.core.ledger.merged_sums import COVERAGE_TIMES, TIMES, LedgerSums, sums_of_ledger
from flopsd.core.ledger.statement import METHODS
from flopsd.core.notes import note
from flopsd.core.policy.guidelines import NOTHING_COUNTED, Claimed, Guidelines
from flopsd.core.policy.reconcile import SHAPE, WEIGHTS, ArchitectureFigures, OpenBounds, figures_of_ledger
from flopsd.core.values import nanoseconds, seconds, whole_number
from flopsd.errors import LedgerError
from tests.support.extent import examples

flop = st.integers(0, 10**26)
REASONS = [note(code) for code in ("no_process", "no_work", "no_tokens", "no_configuration", "total_is_zero")] + [
    note("no_tokens_in_phase", phase="train")
]
durations = st.integers(0, 10**18)
figures = st.builds(
    lambda low, measured, width: Figures(low, measured, None if width is None else low + width),
    flop, st.none() | flop, st.none() | flop,
)  # fmt: skip
bounds = st.builds(OpenBounds, flop, st.none() | flop, st.none() | flop)
names = st.sampled_from(["activity", "cycles", "gap", "utilization"])

methods = st.frozensets(st.sampled_from([SHAPE, WEIGHTS]), min_size=1)
claim_keys = st.tuples(
    st.sampled_from(["", "train", "evaluate"]), st.sampled_from(["", "bf16", "bf16:0.9,fp8:0.1"])
).filter(any)
claimed_flop = st.dictionaries(claim_keys, figures, min_size=1)


@st.composite
def sums(draw: st.DrawFn) -> LedgerSums:
    return LedgerSums(
        draw(figures),
        draw(st.dictionaries(names, figures)),
        frozenset(draw(st.sets(st.sampled_from(METHODS), min_size=1))),  # "none" where nothing is measured
        draw(st.none() | st.integers(0, 10**15)),
        {name: draw(durations) for name in (*TIMES, *COVERAGE_TIMES)},
        draw(st.dictionaries(st.sampled_from(["starting", "driver_error"]), durations)),
        draw(st.dictionaries(st.sampled_from(["train", "evaluate", "undeclared"]), figures)),
        Guidelines(draw(figures), draw(figures)),
        draw(st.none() | st.builds(ArchitectureFigures, bounds, bounds, flop, methods)),
        frozenset(draw(st.sets(st.sampled_from(REASONS)))),
        draw(figures),
        Guidelines(draw(figures), draw(figures)),
        draw(flop),
        draw(st.none() | st.builds(Claimed, st.builds(Guidelines, figures, figures), claimed_flop)),
    )


@pytest.mark.long
@given(sums(), sums(), sums())
def test_sums_are_the_same_in_any_order_and_grouping(a: LedgerSums, b: LedgerSums, c: LedgerSums) -> None:
    assert (a + b).for_ledger() == (b + a).for_ledger()
    assert ((a + b) + c).for_ledger() == (a + (b + c)).for_ledger()
    assert (a + LedgerSums()).for_ledger() == a.for_ledger()


@given(sums())
def test_a_sum_is_written_and_read_back_exactly(a: LedgerSums) -> None:
    found = sums_of_ledger(a.for_ledger())
    assert replace(found, counted=a.counted, absent=a.absent) == a
    known = a.counted if not a.absent else None  # if one ledger lacks the basis, the sum has none
    assert (found.counted, bool(found.absent)) == (known, known is None)
    first = sorted(a.absent, key=lambda one: one.code)[:4]
    more = [note("more_reasons")] if len(a.absent) > 4 else []
    assert not a.absent or found.absent == {*first, *more}
    assert sums_of_ledger(a.for_ledger(whole=False)).executed.high_flop is None
    empty = replace(a, claimed=Claimed(a.guidelines, {})).for_ledger()  # the format has null where nothing is claimed
    with pytest.raises(ValueError, match="asClaimed has no claims"):
        sums_of_ledger(empty)


@given(bounds, flop)
def test_an_architecture_basis_below_zero_is_refused(given_bounds: OpenBounds, amount: int) -> None:
    found = ArchitectureFigures(given_bounds, given_bounds, 1).for_ledger()
    for where in (found, found["executed"]):
        before, where["low"] = where["low"], str(-amount - 1)
        with pytest.raises(ValueError, match="is not a count"):
            figures_of_ledger(found)
        where["low"] = before


@pytest.mark.long
@given(sums(), sums())
def test_a_value_unknown_in_one_ledger_is_unknown_or_omitted_in_the_sum(a: LedgerSums, b: LedgerSums) -> None:
    both = (a + b).executed
    assert (both.high_flop is None) == (a.executed.high_flop is None or b.executed.high_flop is None)
    assert (both.measured_flop is None) == (a.executed.measured_flop is None and b.executed.measured_flop is None)
    assert ((a + b).energy_mj is None) == (a.energy_mj is None and b.energy_mj is None)


counted = st.builds(Guidelines, figures, figures) | st.just(NOTHING_COUNTED)


@given(counted, counted)
def test_a_ledger_that_may_count_without_a_measured_figure_leaves_the_sum_none(a: Guidelines, b: Guidelines) -> None:
    both = (a + b).updates
    parts = (a.updates, b.updates)
    if any(part.measured_flop is None and part.high_flop != 0 for part in parts):
        assert both.measured_flop is None
    else:
        known = [part.measured_flop for part in parts if part.measured_flop is not None]
        assert both.measured_flop == (sum(known) if known else None)


@given(st.integers(0, 10**20))
def test_seconds_are_read_back_exactly_and_never_below_zero(ns: int) -> None:
    assert nanoseconds(seconds(ns)) == ns
    with pytest.raises(ValueError, match="is not an amount"):
        nanoseconds(seconds(-ns - 1))


@given(st.integers(0, 10**20))
def test_only_a_clock_time_may_be_negative(amount: int) -> None:
    assert whole_number(str(amount)) == whole_number(str(amount), signed=True) == amount
    assert whole_number(str(-amount), signed=True) == -amount
    for text in (str(-amount - 1), f"0{amount}", f"{amount}\n", f"+{amount}", "-0", ""):
        with pytest.raises(ValueError, match="is not a count"):
            whole_number(text)


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    begin = draw(st.integers(0, 50))
    return Claim(
        DEVICE, draw(st.sampled_from("ab")), draw(st.sampled_from(["x", "y"])), begin, begin + draw(st.integers(0, 20)),
        draw(st.integers(-5, 5)),
    )  # fmt: skip


@given(st.lists(st.tuples(claims(), st.integers(0, 3)), max_size=8))
def test_a_double_claim_is_found_exactly_when_there_is_one(given_claims: list[tuple[Claim, int]]) -> None:
    double = any(
        one.key == other.key and mine != its and one.overlaps(other)
        for one, mine in given_claims
        for other, its in given_claims
    )
    ordered = sorted(given_claims, key=lambda pair: pair[0].key)
    try:
        refuse_double(DeviceClaims(claim, child, str(child)) for claim, child in ordered)
    except LedgerError:
        assert double
    else:
        assert not double


def entry(rank: int, attempt: str, sums: LedgerSums) -> dict[str, Any]:
    sha256 = f"{rank}{attempt}".ljust(64, "0")
    return {
        "name": f"n{rank}/{sha256[:16]}", "sha256": sha256, "kind": "node", "keyids": ["0" * 64], "run": "r",
        "node": f"n{rank}", "rank": rank, "instanceType": None, "replay": False, "flopsdVersions": ["1"],
        "peakTableSha256": ["1" * 64], "startedAt": "2026-11-26T10:00:00.000000Z", "lastRecordAt": "2026-11-26T10:00:01.000000Z", "periods": [{"incarnation": 1, "attempt": attempt, "bootId": "b", "beginNs": "0", "endNs": "1", "wallOffsetNs": "0"}], "deviceTimes": [], "ended": True, "segment": None,
        "declared": {"method": None, "base": None, "contradictions": []},
        **sums.for_ledger(),
    }  # fmt: skip


jobs = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("01"), sums()), min_size=1, max_size=8, unique_by=lambda j: j[:2]
)


@pytest.mark.long
@settings(max_examples=examples(50))
@given(jobs, st.randoms())
def test_a_job_is_the_sum_of_its_children_in_any_order(job: list[tuple[int, str, LedgerSums]], random: Any) -> None:
    shuffled = list(job)
    random.shuffle(shuffled)
    found = []
    for order in (job, shuffled):
        merging = Merging(MergeFacts("job", {"id": "r"}, (), None, None, "1", "now"))
        entries = sorted((entry(*child) for child in order), key=sort_key)
        nodes = [merging.add(one, one["name"]) for one in entries]
        found.append(merging.predicate([*nodes, merging.last_node()], entries))
    assert found[0] == found[1]
    assert found[0]["totals"]["executed"]["low"] == str(sum(child[2].executed.low_flop for child in job))
    listed = [node for node in found[0]["nodes"] if node is not None]
    assert sum(int(node["executed"]["low"]) for node in listed) == sum(child[2].executed.low_flop for child in job)
    assert [node["rank"] for node in listed] == sorted({child[0] for child in job})
    assert found[0]["totals"]["executed"]["high"] is None  # the number of nodes is unknown


@given(st.integers(1, 6), st.sets(st.tuples(st.integers(0, 5), st.sampled_from("01")), min_size=1))
def test_a_job_is_whole_exactly_when_every_node_has_every_attempt(size: int, seen: set[tuple[int, str]]) -> None:
    seen = {(rank % size, attempt) for rank, attempt in seen}
    roll = NodeCheck([f"n{rank}" for rank in range(size)], None)
    for rank, attempt in seen:
        roll.add(entry(rank, attempt, LedgerSums()), "x")
    attempts = {attempt for _, attempt in seen}
    whole = len(seen) == size * len(attempts)
    assert roll.result().complete is whole
    assert bool(roll.result().missing) is not whole
    rank, attempt = min(seen)
    roll.add({**entry(rank, attempt, LedgerSums()), "ended": False}, "x")
    assert roll.result().complete is (None if whole else False)
    assert roll.result().missing[-1].code == "no_end"
