"""A run whose daemon was started thousands of times: the work grows linearly. Calls are counted, since times vary."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.attestation.seal import Sealed
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.impossible_totals import refuse_double_counting
from flopsd.core.ledger.merged_entry import node_entry
from flopsd.core.tally import Tally
from flopsd.errors import LedgerError
from flopsd.report.contents.build import course_of
from tests.second_implementation.arithmetic import payload_of
from tests.support.restarts import restarted
from tests.support.runs import history_of, verified
from tests.support.strategies import table


def calls(work: Callable[[], object]) -> int:
    """The number of calls, including built-in functions."""
    found = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.long
def test_the_work_grows_linearly_with_daemon_starts(tmp_path: Path) -> None:
    few, many = (restarted(tmp_path / str(starts), starts) for starts in (30, 60))
    for sealed in (few, many):
        log = sealed.ledger.parent.parent / "log"
        found = verified(sealed, anchors=[log])
        assert found.anchored is not None
        assert found.anchored.anchors == len(found.history.incarnations)

    def cost(sealed: Sealed, work: Callable[[Sealed], object]) -> int:
        return calls(lambda: work(sealed))

    for work in (
        lambda sealed: verified(sealed, anchors=[sealed.ledger.parent.parent / "log"]),
        lambda sealed: course_of(sealed.journal, 10**9, table()),
        lambda sealed: node_entry(payload_of(sealed.ledger)["predicate"], history_of(sealed.journal), "0" * 64, []),
    ):
        assert cost(many, work) < 2.2 * cost(few, work)


@pytest.mark.long
def test_overlaps_are_found_without_comparing_all_pairs_of_starts() -> None:
    def history(starts: int, **odd: Tally) -> History:
        found = History()
        for number in range(1, starts + 1):
            begin = {"incarnation": number, "boot_id": "b"}
            times = odd.get(f"at{number}", Tally(number * 10, number * 10 + 10))
            found.incarnations.append(Incarnation(begin, read={"GPU-h": times}))
        return found

    few, many = (calls(lambda starts=starts: refuse_double_counting(history(starts))) for starts in (200, 400))  # type: ignore[misc]
    assert many < 2.2 * few
    for odd in (Tally(50, 61), Tally(0, 4000), Tally(49, 50)):
        with pytest.raises(LedgerError, match="by daemon starts [1-9]+ and [1-9]+"):
            refuse_double_counting(history(9, at5=odd))
    refuse_double_counting(history(9, at5=Tally(25, 25)))
