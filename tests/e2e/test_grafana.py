"""The rendering of important values by Grafana: @grafana/data, Grafana's code for formats and colours, applied to
the committed panels. By its defaults, values over 80 are red, which a coverage of 10 % does not reach."""

import os
from typing import Any

import pytest

from tests.support.grafana import NAMES, Shown, answer, panels, shown
from tests.support.tools import missing

J = dict[str, Any]

pytestmark = pytest.mark.tool("node")


@pytest.fixture(scope="module", autouse=True)
def grafana_data() -> None:
    """The package, which .ci/run gets from npm."""
    if not os.environ.get("GRAFANA_DATA"):
        missing("GRAFANA_DATA names no node_modules; `npm install --legacy-peer-deps @grafana/data react@18` makes one")


def panel_of(name: str) -> J:
    board, _, title = name.partition(": ")
    (found,) = (panel for panel in panels(f"flopsd-{board}") if panel["title"] == title)
    return found


def given(panel: J, *values: tuple[str, J, str]) -> tuple[J, list[J]]:
    """A panel with a value for each query by its name, with labels."""
    return panel, [
        answer(target, [{"metric": metric, "values": [[1_790_000_000, value]]} for ref, metric, value in values
                        if ref == target["refId"]])
        for target in panel["targets"]
    ]  # fmt: skip


RULE: J = {"run_id": "r", "policy": "eu-ai-act", "rule": "gpai", "bound": "low"}
SHARE, NODES, FACTS = "run: Share of each threshold", "run: Nodes", "run: Not declared, only bounded, not observed"
# Panel, query, labels, value: name, text and colour.
SHOWN = [
    ("run: Coverage", "A", {}, "0.1", ("Coverage", "10.00%", "red")),
    ("run: Coverage", "A", {}, "0.95", ("Coverage", "95.00%", "orange")),
    ("run: Coverage", "A", {}, "0.999", ("Coverage", "99.90%", "green")),
    ("fleet: Coverage", "A", {}, "0.1", ("Coverage", "10.00%", "red")),
    ("run: HFU", "A", {}, "0.6", ("HFU", "60.0%", "green")),
    ("run: HFU", "A", {}, "0.95", ("HFU", "95.0%", "green")),
    ("run: HFU", "A", {}, "0.05", ("HFU", "5.0%", "orange")),
    ("run: Measured", "A", {}, "1.234e25", ("Measured", "12.3 YFLOP", "blue")),
    ("run: Rate", "A", {}, "8.12e14", ("Rate", "812 TFLOP/s", "blue")),
    ("run: At most", "A", {}, "+Inf", ("At most", "no upper bound known", "purple")),
    ("run: At most", "A", {}, "5e24", ("At most", "5.00 YFLOP", "purple")),
    ("run: Source", "A", {}, "0", ("Source", "Hardware is metered", "green")),
    ("run: Source", "A", {}, "1", ("Source", "REPLAY: a recording is read, no hardware is metered", "red")),
    (SHARE, "A", RULE, "0.3", ("eu-ai-act gpai: at least", "30.0000%", "green")),
    (SHARE, "A", RULE, "0.85", ("eu-ai-act gpai: at least", "85.0000%", "orange")),
    (SHARE, "A", RULE, "1.2", ("eu-ai-act gpai: at least", "120.0000%", "red")),
    (SHARE, "B", RULE, "3", ("eu-ai-act gpai: at most", "300.0000%", "purple")),
    (SHARE, "B", RULE, "+Inf", ("eu-ai-act gpai: at most", "no upper bound known", "purple")),
    (NODES, "A", {}, "4096", ("up", "4096", "blue")),
    (NODES, "C", {}, "0", ("gone", "0", "green")),
    (NODES, "C", {}, "1", ("gone", "1", "red")),
    (FACTS, "A", {}, "8", ("devices with an upper bound only", "8", "purple")),
    (FACTS, "D", {}, "3", ("devices with work that only their training processes counted", "3", "purple")),
    (FACTS, "E", {}, "0", ("devices shared with others", "none", "green")),
    (FACTS, "F", {}, "1", ("devices not observed now", "1", "red")),
    ("fleet: Devices", "A", {}, "512", ("Devices", "512", "blue")),
    ("fleet: Not answering", "A", {}, "2", ("Not answering", "2", "red")),
    ("fleet: Alerts", "B", {}, "2", ("warning", "2", "orange")),
    ("fleet: Rate by run", "A", {"run_id": "r"}, "9e15", ("r", "9 PFLOP/s", "blue")),
    ("run: Rate by pipe and format", "A", {"pipe": "tensor", "precision": "undeclared"}, "9e15",
     ("tensor undeclared", "9 PFLOP/s", "purple")),
    ("run: Evidence", "A", {"evidence": "utilization"}, "8", ("utilization", "8", "purple")),
]  # fmt: skip


def test_texts_and_colours_have_their_meaning() -> None:
    asked = [given(panel_of(name), (ref, labels, value)) for name, ref, labels, value, _ in SHOWN]
    assert [values for (values,) in shown(asked)] == [Shown(*expected) for *_, expected in SHOWN]


def test_an_unknown_value_is_a_text_without_an_alarming_colour() -> None:
    asked = [given(panel) for name in NAMES for panel in panels(name)]
    for (panel, _), values in zip(asked, shown(asked), strict=True):
        (value,) = values
        assert value.text == panel["fieldConfig"]["defaults"]["noValue"]
        assert value.color in {"", "blue"}, panel["title"]


def test_a_run_in_the_fleets_table_has_its_columns() -> None:
    run = {"run_id": "r"}
    known = [(ref, run, value) for ref, value in zip("ABCEG", ("2", "1e22", "2e22", "0.5", "0.9"), strict=True)]
    ((*values,),) = shown([given(panel_of("fleet: Each run"), *known, ("A", {"run_id": "s"}, "1"))])
    rows = {value.name: value for value in values if value.text not in {"s", "1", "not known"}}
    assert {name: (value.text, value.color) for name, value in rows.items() if name != "run_id"} == {
        "nodes": ("2", "blue"),
        "at least": ("10 ZFLOP", "blue"),
        "measured": ("20 ZFLOP", "blue"),
        "coverage, 1 h": ("50%", "red"),
        "nearest threshold": ("90%", "orange"),
    }
    assert [value.text for value in values if value.name == "measured"] == ["20 ZFLOP", "not known"]


def test_grafanas_defaults_would_be_wrong() -> None:
    """Shows that the other tests can fail: without the panels' own thresholds the colours change at 80."""
    bare = []
    for name, value in (("run: Coverage", "0.1"), ("fleet: Devices", "512")):
        panel = panel_of(name)
        defaults = {key: kept for key, kept in panel["fieldConfig"]["defaults"].items() if key != "thresholds"}
        bare.append(given({**panel, "fieldConfig": {"defaults": defaults, "overrides": []}}, ("A", {}, value)))
    assert [value.color for (value,) in shown(bare)] == ["green", "red"]
