"""One document of neuron-monitor by chip: two chips of two cores, the data of each runtime, and the resulting work."""

from collections.abc import Mapping
from fractions import Fraction

import pytest

from flopsd.core.model import Counted, Gap, GapReason
from flopsd.sources.neuron.document import Core, MonitorDocument, Runtime
from flopsd.sources.neuron.flop_per_chip import Runtimes, account, period_ends, period_ns
from flopsd.sources.validate import MOST
from flopsd.system.clock import NS_PER_S

Numbers = tuple[int | None, float | None]


def runtime(key: str, cores: Mapping[int, Numbers | GapReason], seconds: float = 1, error: str = "") -> Runtime:
    """`cores`: FLOP/s and percent by core, or a gap reason."""
    found = {}
    for index, what in cores.items():
        rate, percent = (None, None) if isinstance(what, GapReason) else what
        exact = [None if number is None else Fraction(number) for number in (rate, percent)]
        found[index] = Core(exact[0], exact[1], what if isinstance(what, GapReason) else None)
    return Runtime(key, error, Fraction(seconds), found)


def document(
    *runtimes: Runtime, rate: str | None = "flops", system: float | None = None, error: str = "", count: int = 2
) -> MonitorDocument:
    seconds = None if system is None else Fraction(system)
    return MonitorDocument(runtimes, rate, seconds, None, count, 2, None, error)


def cores(*indices: int) -> frozenset[int]:
    return frozenset(indices)


BUSY = runtime("a", {0: (7, 60), 1: (3, 20), 2: (0, 0), 3: (0, 0)})
USED, NONE = cores(0, 1), cores()


@pytest.mark.parametrize(
    ("given", "before", "work", "utilization", "used"),
    [
        pytest.param(document(), {}, [0, 0], [0, 0], {}, id="no runtime"),
        pytest.param(document(BUSY), {}, [10, 0], [0.4, 0], {"a": USED}, id="one chip works"),
        pytest.param(document(BUSY), {"a": cores(3)}, [10, 0], [0.4, 0], {"a": cores(0, 1, 3)}, id="a core once used stays used"),
        pytest.param(document(BUSY, runtime("b", {0: (5, 30), 3: (2, None)}, 2)), {}, [20, 4], [0.55, None],
                     {"a": USED, "b": cores(0, 3)}, id="two runtimes on a core, each by its own period"),
        pytest.param(document(BUSY, BUSY), {}, [20, 0], [0.8, 0], {"a": USED}, id="two of one name"),
        pytest.param(document(BUSY, runtime("b", {0: (0, 100), 1: (0, 100)})), {}, [10, 0], [1.0, 0],
                     {"a": USED, "b": USED}, id="at most all of the time"),
        pytest.param(document(runtime("a", {}, error="x")), {}, [GapReason.DRIVER_ERROR] * 2, [0, 0], {"a": NONE},
                     id="a runtime that cannot be read"),
        pytest.param(document(BUSY, runtime("b", {}, error="x")), {},
                     [(GapReason.DRIVER_ERROR, 10), GapReason.DRIVER_ERROR], [0.4, 0], {"a": USED, "b": NONE},
                     id="and what the other counted"),
        pytest.param(document(error="x"), {}, [GapReason.DRIVER_ERROR] * 2, [0, 0], {}, id="no runtime could be seen"),
        pytest.param(document(BUSY, error="x"), {}, [10, 0], [0.4, 0], {"a": USED}, id="an error, but a runtime"),
        *(pytest.param(document(runtime("a", {0: (9, 1), index: (1, 1)})), {}, [GapReason.OUT_OF_RANGE] * 2,
                       [0.005, 0], {"a": cores(0)}, id=f"core {index}") for index in (-1, 4)),
        pytest.param(document(runtime("a", {0: GapReason.NOT_A_NUMBER, 1: (4, 1), 3: (5, 1)})), {},
                     [(GapReason.NOT_A_NUMBER, 4), 5], [None, 0.005], {"a": cores(1, 3)}, id="a core that is garbage"),
        pytest.param(document(runtime("a", {0: (MOST + 1, 1), 2: (5, 1)})), {}, [GapReason.OUT_OF_RANGE, 5],
                     [0.005, 0.005], {"a": cores(0, 2)}, id="more FLOP than a reading can hold"),
        pytest.param(document(runtime("a", {0: (MOST + 1, 1), 1: GapReason.NOT_A_NUMBER})), {},
                     [GapReason.OUT_OF_RANGE, 0], [None, 0], {"a": cores(0)}, id="more than that beside garbage"),
        pytest.param(document(runtime("a", {1: (None, 1), 2: (5, 1)})), {}, [GapReason.NOT_SUPPORTED, 5],
                     [0.005, 0.005], {"a": cores(1, 2)}, id="a core without a rate"),
        pytest.param(document(runtime("a", {0: (None, 1)}), rate=None), {}, [GapReason.NOT_SUPPORTED] * 2, [0.005, 0],
                     {"a": cores(0)}, id="no rate anywhere"),
        pytest.param(document(runtime("a", {}), rate=None), {}, [0, 0], [0, 0], {"a": NONE}, id="nor a core"),
        pytest.param(document(BUSY), {"a": USED, "b": cores(2)}, [10, GapReason.MISSED_READING], [0.4, 0], {"a": USED},
                     id="a runtime that is gone, on the chip that it used"),
        pytest.param(document(runtime("a", {0: (7, 60)})), {"a": cores(0, 3)}, [7, GapReason.MISSED_READING], [0.3, 0],
                     {"a": cores(0)}, id="a core that was used and is not listed"),
        pytest.param(document(runtime("a", {}, error="x")), {"a": cores(3)}, [GapReason.DRIVER_ERROR] * 2, [0, 0],
                     {"a": cores(3)}, id="nor is any where it cannot be read"),
        pytest.param(document(BUSY, count=1), {}, [10, GapReason.DEVICE_MISSING], [0.4, 0], {"a": USED},
                     id="a chip less"),
        pytest.param(document(count=0), {}, [GapReason.DEVICE_MISSING] * 2, [0, 0], {}, id="no chip"),
        pytest.param(document(BUSY), {"b": NONE}, [(GapReason.MISSED_READING, 10), GapReason.MISSED_READING], [0.4, 0],
                     {"a": USED}, id="on an unknown chip"),
        pytest.param(document(runtime("a", {0: (0, 50), 2: (0, 50.5), 3: (8, 99)})), {},
                     [0, (GapReason.UNCOUNTED_WORK, 8)], [0.25, 0.7475], {"a": cores(0, 2, 3)}, id="busy without FLOP"),
        pytest.param(document(runtime("a", {0: (0, 30)}), runtime("b", {0: (0, 30)})), {},
                     [GapReason.UNCOUNTED_WORK, 0], [0.3, 0], {"a": cores(0), "b": cores(0)}, id="busy by two runtimes"),
    ],
)  # fmt: skip
def test_each_chip_has_its_counted_work_or_a_gap_reason(
    given: MonitorDocument, before: Runtimes, work: list[object], utilization: list[float | None], used: Runtimes
) -> None:
    found = account(given, 2, 2, before)
    as_gap = [one if isinstance(one, tuple) else (one, 0) for one in work]
    assert found.work == [Gap(*one) if isinstance(one[0], GapReason) else Counted(one[0]) for one in as_gap]
    assert found.utilization_ratio == [None if one is None else pytest.approx(one) for one in utilization]
    assert found.runtimes == used
    assert found.has_rate is (given.rate_field is not None or not any(one.cores for one in given.runtimes))
    assert found.period_ns == period_ns(given, before)


@pytest.mark.parametrize(
    ("given", "before", "seconds"),
    [
        (document(), {}, 1),
        (document(system=1.25), {}, 1.25),
        (document(runtime("a", {}, 0.5), system=9), {}, 0.5),
        (document(runtime("a", {}, 0.5), runtime("b", {}, 0.75)), {}, 0.75),
        (document(runtime("a", {}, 0.5), runtime("b", {}, 0.75), runtime("c", {}, 1)), {"b": NONE, "c": NONE}, 0.75),
        (document(runtime("a", {}, 0, error="x"), runtime("b", {}, 0.75), system=9), {"a": NONE}, 0.75),
        (document(runtime("a", {}, 0, error="x"), system=9), {"a": NONE}, 9),
    ],
)
def test_the_period_is_the_shortest_of_the_runtimes_present_before(
    given: MonitorDocument, before: Runtimes, seconds: float
) -> None:
    assert period_ns(given, before) == seconds * NS_PER_S


def test_a_line_ends_no_later_than_the_period_of_the_next_begins() -> None:
    assert period_ends([], {}) == []
    second = document(runtime("a", {}, 1))
    came = [(t * NS_PER_S // 10, None if t == 25 else second) for t in (10, 25, 50, 51, 52)]
    assert period_ends(came, {}) == [t * NS_PER_S // 10 for t in (10, 22, 32, 42, 52)]
