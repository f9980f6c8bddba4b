"""The time that late collections cover, and the work that they shift: by hand."""

import pytest

from flopsd.core.model import Limits, Pipe
from flopsd.sources.dcgm.coverage import CollectionCoverage

S = 10**9
LIMITS = Limits(1, 1000)  # one cycle per nanosecond


@pytest.mark.parametrize(
    ("interval", "readings", "uncovered"),
    [
        (30, [(30, 1), (30, 1), (31, 1), (29, 1), (30, 1)], [0, 0, 0, 0, 0]),
        (30, [(31, 1), (31, 1), (31, 1), (31, 1)], [0, 0, 2, 0]),  # it collects every 31 s: first a second late, ...
        (30, [(620, 600)], [590]),  # collected at an unknown time of the last 30 s
        (1, [(5, 5), (5, 5), (5, 5)], [4, 4, 4]),
        (30, [(10, 1), (10, 1), (10, 1), (50, 1)], [0, 0, 0, 20]),  # faster than configured: the surplus is not kept
        (20, [(22, 1), (20, 1)], [0, 0]),  # late by a 20th of the interval and by the lateness of the read
        (20, [(22.000000001, 1)], [2.000000001]),
    ],
)
def test_time_that_no_collection_covers_is_uncovered(
    interval: int, readings: list[tuple[float, int]], uncovered: list[float]
) -> None:
    coverage = CollectionCoverage(interval * S)
    found = []
    for seconds, lag in readings:
        ns, behind_ns = coverage.uncovered_ns(round(seconds * S), lag * S)
        found.append(ns)
        if ns:
            coverage.interrupt(behind_ns)
    assert found == [round(one * S) for one in uncovered]


def test_an_interval_is_no_longer_than_collections_are_apart() -> None:
    coverage = CollectionCoverage(30 * S)
    for seconds, lag, apart, uncovered in ((10, 1, 11, 0), (10, 1, 11, 0), (120, 110, 121, 109), (2, 1, 3, 0),
                                           (10, 1, 11, 7), (10, 1, 11, 7), (10, 1, 11, 0)):  # fmt: skip
        coverage.followed(apart * S)
        ns, behind_ns = coverage.uncovered_ns(seconds * S, lag * S)
        assert ns == uncovered * S
        if ns:
            coverage.interrupt(behind_ns)


@pytest.mark.parametrize(
    ("readings", "shifted"),
    [
        # The whole last second may be idle; under constant load no other.
        ([(0.5, 1), (0.5, 1), (0.5, 1)], [0.5, 0, 0]),
        # A boundary is a second off: the difference, and the extra work that the last second may contain.
        ([(0, 1), (1, 1), (0, 1), (0.25, 1)], [0, 2, 1, 0.5]),
        ([(0.5, 1), (0.5, 4), (0.5, 1)], [0.5, 1.5, 0]),
        ([(1, 99)], [5]),  # no collection is older than the next one
    ],
)
def test_work_shifted_by_the_collection_times_is_bounded(
    readings: list[tuple[float, int]], shifted: list[float]
) -> None:
    coverage = CollectionCoverage(5 * S)
    found = [coverage.shifted({Pipe.TENSOR: ratio}, lag * S, LIMITS) for ratio, lag in readings]
    assert [one.get(Pipe.TENSOR, 0) / S for one in found] == shifted
    coverage.interrupt()
    assert coverage.shifted({Pipe.TENSOR: 1.0}, S, LIMITS) == {Pipe.TENSOR: S}
