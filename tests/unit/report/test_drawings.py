"""Positions in the drawings of a report."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.figures import Figures
from flopsd.core.policy.finding import Limit
from flopsd.report.contents.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Band,
    axis_of,
    bands,
    height_marks,
    height_of,
    linear_ticks,
    path,
    round_number,
    width_of,
)
from flopsd.report.contents.coverage import growth_chart
from flopsd.report.contents.verdicts import chart_of
from flopsd.report.ledger_json import LedgerObject
from flopsd.system.clock import NS_PER_S, rfc3339

EXPONENTS = st.lists(st.integers(-3, 40), min_size=1, max_size=4)


@given(st.one_of(st.integers(1, 300), st.integers(1, 10**40)))
@example(6)  # here a fourth, rounded down, is less than a sixth
@example(7)
def test_grid_lines_of_the_course_are_a_few_round_steps_up_to_its_top(top: int) -> None:
    first, *more = linear_ticks(top)
    step = more[0]
    assert first == 0
    assert more == [step * at for at in range(1, len(more) + 1)]
    assert 1 <= len(more) <= 5
    assert more[-1] <= top < more[-1] + step
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert all(len(round_number(tick)) < 12 for tick in more)


def test_an_empty_course_has_one_line_at_the_bottom() -> None:
    assert linear_ticks(0) == linear_ticks(-1) == (0,)
    assert height_of(0, 0) == HEIGHT
    assert [height_of(value, 4) for value in (0, 1, 4)] == [300, 225, 0]
    assert [(mark.at, mark.label) for mark in height_marks(20)] == [
        (100, "0 FLOP"), (75, "5 FLOP"), (50, "10 FLOP"), (25, "15 FLOP"), (0, "20 FLOP"),
    ]  # fmt: skip
    assert [round_number(value) for value in (0, 5, 120_000)] == ["0", "5", "1.2x10^5"]
    assert path([]) == ""
    assert path([(0, 1.5), (2, 3)]) == "M0,1.5 L2,3"


@given(st.lists(st.tuples(st.integers(-20, 120), st.integers(-20, 120)), max_size=6))
@example([(0, 10), (10, 20)])
def test_bands_cover_their_spans_once(spans: list[tuple[int, int]]) -> None:
    begin, end = 0, 100
    covered = {at for first, last in spans for at in range(first, last) if begin <= at < end}
    found = bands(spans, begin, end)
    drawn = [at for band in found for at in range(int(band.at), int(band.at + band.width))]
    assert sorted(covered) == drawn
    edges = [(band.at, band.at + band.width) for band in found]
    assert all(last < first for (_, last), (first, _) in pairwise(edges)), "those that touch are one"


def test_a_short_gap_is_a_visible_band_within_the_drawing() -> None:
    assert bands([(1000, 1001)], 0, 1001) == (Band(99.8, 0.2),)
    assert bands([(10, 20)], 10, 10) == bands([(10, 20)], 10, 9) == ()
    assert bands([(0, 15)], 10, 20) == (Band(0, 50),)
    assert [width_of(3.0, end) for end in (3.0, 3.5, 4.0)] == [0.6, 0.6, 1.0]


@given(EXPONENTS)
def test_a_scale_contains_every_value_within_its_margins(exponents: list[int]) -> None:
    values = [Fraction(10) ** exponent for exponent in exponents]
    axis = axis_of([*values, 0])
    assert axis is not None
    low, high = min(exponents), max(exponents)
    assert (axis.low, axis.high) == ((low - 1, high + 1) if high > low else (low - 2, high + 2))
    for exponent, value in zip(exponents, values, strict=True):
        assert axis.at(value) == round(3 + 94 * (exponent - axis.low) / (axis.high - axis.low), 2)
    assert (axis.at(0), axis.at(Fraction(10) ** (axis.low - 1)), axis.at(Fraction(10) ** (axis.high + 1))) == (3, 3, 97)
    ticks = [int(tick.label.removeprefix("10^")) for tick in axis.ticks]
    step = -(-(axis.high - axis.low) // 6)
    assert ticks == [one for one in range(axis.low, axis.high + 1) if one % step == 0]
    assert [tick.at for tick in axis.ticks] == [axis.at(Fraction(10) ** one) for one in ticks]
    assert axis_of([0, Fraction(0)]) is None


@pytest.mark.parametrize(
    ("figures", "low", "high", "places", "words"),
    [
        # from, width, from zero, open from, measured, threshold from, threshold to
        (Figures(10**20, 10**21, 10**22), 10**24, 10**24, (3.0, 47.0, False, None, 26.5, 97.0, 97.0), "10^24 FLOP."),
        (Figures(0, None, 10**22), 10**23, 10**24, (0.0, 50.0, True, None, None, 73.5, 97.0), "10^23 to 10^24 FLOP."),
        (Figures(10**20, None, None), 10**23, None, (3.0, 0.6, False, 3.0, None, 73.5, 73.5), "at least 10^23 FLOP."),
        (Figures(0, 10**21, None), 10**23, None, (0.0, 26.5, True, 26.5, 26.5, 73.5, 73.5), "at least 10^23 FLOP."),
    ],
)  # fmt: skip
def test_a_rule_is_drawn_as_an_interval_with_its_threshold(
    figures: Figures, low: int, high: int | None, places: tuple[Any, ...], words: str
) -> None:
    limit = Limit(Fraction(low), None if high is None else Fraction(high))
    drawn = chart_of(Axis(20, 24), figures, limit, "A rule", "at most 5 %")
    found = (drawn.bar_from, drawn.bar_width, drawn.from_zero, drawn.open_from, drawn.measured, drawn.threshold_from,
             drawn.threshold_to)  # fmt: skip
    assert found == places
    assert f"Threshold {words} Share of it: at most 5 %." in drawn.description
    assert ("no measured figure" in drawn.description) == (figures.measured_flop is None)
    bare = chart_of(Axis(20, 24), figures, limit, "A rule", "")
    assert bare.description == drawn.description.removesuffix(" Share of it: at most 5 %.")


START = 1_790_000_000


def at(second: int) -> str:
    return rfc3339((START + second) * NS_PER_S)


def course(*points: tuple[int, int, int | None, int | None], reasons: tuple[str, ...] = ()) -> Any:
    """The chart of checkpoints at these seconds, in a run of 100 s that began at 0, with gaps from second 10 to 30."""
    gap = {"incarnation": "1", "beginSeconds": "10.0", "endSeconds": "30.0"}
    predicate = {
        "incarnations": [{"number": "1", "startedAt": at(0)}],
        "coverage": {"gaps": [{**gap, "reason": reason} for reason in reasons]},
    }

    def text(value: int | None) -> str | None:
        return None if value is None else str(value)

    listed = [
        {"at": at(second), "executed": {"low": str(low), "measured": text(measured), "high": text(high)}}
        for second, low, measured, high in points
    ]
    return growth_chart(LedgerObject(predicate, "predicate"), listed)


def test_the_course_matches_a_drawing_by_hand() -> None:
    """The points are out of order by the clock, in a run that began with nothing."""
    found = course((100, 10, 20, 40), (50, 5, 10, 20), reasons=("source_down", "other_job"))
    assert found.band == f"M0,{HEIGHT} L500,150 L{WIDTH},0 L{WIDTH},225 L500,262.5 L0,{HEIGHT} Z"
    assert found.line == f"M0,{HEIGHT} L500,225 L{WIDTH},150"
    assert found.gaps == (Band(10, 20),)
    assert [(mark.at, mark.label[-8:], mark.anchor) for mark in found.times] == [
        (0, "14:13:20", "start"), (50, "14:14:10", "middle"), (100, "14:15:00", "end"),
    ]  # fmt: skip
    assert [row[1:] for row in found.rows] == [("0", "0", "0"), ("5", "10", "20"), ("10", "20", "40")]
    assert found.description.endswith("14:15:00. At the end: 10 to 40 FLOP, measured 20. 1 stretch with gaps shaded.")
    assert not found.unbounded


def test_points_are_ordered_by_time_where_an_upper_bound_has_fallen() -> None:
    found = course((100, 5, 10, 20), (50, 5, 10, 40))
    assert [row[3] for row in found.rows] == ["0", "40", "20"]


def test_unknown_values_of_a_course_are_drawn_open_or_left_out() -> None:
    found = course((50, 5, None, None), (100, 10, None, 40), reasons=("other_job",))
    assert found.unbounded
    assert found.band == f"M0,0 L500,0 L{WIDTH},0 L{WIDTH},225 L500,262.5 L0,{HEIGHT} Z"
    assert found.line == ""
    assert [row[2:] for row in found.rows] == [("nothing measured", "not known")] * 2 + [("nothing measured", "40")]
    assert found.description.endswith("nothing measured. No gap is shaded.")
    assert course((50, 0, None, None)) is course() is course((0, 1, 1, 1)) is None
    top = course((100, 10, 30, None))
    assert top.line == f"M0,{HEIGHT} L{WIDTH},150"
