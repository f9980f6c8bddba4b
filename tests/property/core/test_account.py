"""Merging accounts: commutative, associative, idempotent, and deaf to nobody who counts twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.account import Account, Origin, merge, refuse_double_counting
from flopsd.core.model import Active, Evidence, Pipe, Reading, TallyKey
from flopsd.errors import LedgerError
from tests.support.strategies import readings, run


@st.composite
def histories(draw: st.DrawFn) -> list[Account]:
    """States of the same world: each account holds some devices at some point of their one history."""
    devices = {f"GPU-{i}": draw(st.lists(readings(f"GPU-{i}"), min_size=1, max_size=6)) for i in range(3)}
    accounts = []
    for _ in range(3):
        chosen = draw(st.sets(st.sampled_from(sorted(devices)), max_size=3))
        tallies = {
            TallyKey("run", "node", 1, uid): run(devices[uid][: draw(st.integers(0, len(devices[uid])))])
            for uid in sorted(chosen)
        }
        accounts.append(Account(tallies, {("run", "node", 1): Origin("boot", 0, 0)}))
    return accounts


@given(histories())
def test_merge_is_commutative_associative_idempotent(accounts: list[Account]) -> None:
    a, b, c = accounts
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a


@given(histories())
def test_merge_never_loses(accounts: list[Account]) -> None:
    merged = merge(accounts[0], accounts[1])
    for account in accounts[:2]:
        for key, tally in account.tallies.items():
            assert merged.tallies[key].watermark_ns >= tally.watermark_ns


def _account(run_id: str, begin_s: int, end_s: int, cycles: int = 5, boot: str = "boot", wall_s: int = 0) -> Account:
    reading = Reading("GPU-0", begin_s * 10**9, end_s * 10**9, Active(Evidence.ACTIVITY, {Pipe.FP32: cycles}))
    from flopsd.core.model import Tally

    tally = run([reading], Tally(begin_s * 10**9, begin_s * 10**9))
    return Account({TallyKey(run_id, "n", 1, "GPU-0"): tally}, {(run_id, "n", 1): Origin(boot, 0, wall_s * 10**9)})


def test_one_device_counted_twice_at_once_is_refused() -> None:
    with pytest.raises(LedgerError, match=r"GPU-0 is counted twice at the same time: by incarnation 1 of 'a'"):
        merge(_account("a", 0, 10), _account("b", 9, 20))
    merge(_account("a", 0, 10), _account("b", 10, 20))


def test_boots_are_compared_by_the_wall_clock() -> None:
    merge(_account("a", 0, 10), _account("b", 5, 20, boot="other", wall_s=100))
    with pytest.raises(LedgerError, match="counted twice"):
        merge(_account("a", 0, 10), _account("b", 5, 20, boot="other", wall_s=0))


def test_the_incarnations_of_one_journal_are_ordered_by_its_chain_and_not_by_a_clock_that_steps() -> None:
    tally = run([Reading("GPU-0", 0, 10**10, Active(Evidence.ACTIVITY, {Pipe.FP32: 5}))])

    def twice(boot: str, node: str = "n") -> Account:
        return Account(
            {TallyKey("run", "n", 1, "GPU-0"): tally, TallyKey("run", node, 2, "GPU-0"): tally},
            {("run", "n", 1): Origin("boot", 0, 0), ("run", node, 2): Origin(boot, 0, 5 * 10**9)},
        )

    refuse_double_counting(twice("other"))
    for account in (twice("boot"), twice("other", node="m")):
        with pytest.raises(LedgerError, match="counted twice"):
            refuse_double_counting(account)


def test_two_histories_of_one_counter_are_refused() -> None:
    with pytest.raises(LedgerError, match="contradict each other"):
        merge(_account("a", 0, 10, cycles=5), _account("a", 0, 10, cycles=6))
