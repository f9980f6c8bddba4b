"""The committed dashboards equal the script's output, their queries have data in a recorded hour, and no panel is
empty without a reason on a default install."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import hour, installs
from tests.support.grafana import GRAFANA, NAMES, ROOT, Prometheus, dashboard, panels

# Each colour has one meaning: good, worth a look, bad, a plain figure, an upper bound.
COLOURS = {"green", "orange", "red", "blue", "purple"}
BETTER_HIGH = ["red", "orange", "blue", "green"]

pytestmark = pytest.mark.xdist_group("dashboards")  # one Prometheus for all


Recorded = tuple[Prometheus, dict[str, Prometheus]]


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """One Prometheus with the healthy installs one after the other, and then an eventful hour."""
    asked = [item.callspec.params.get("install") for item in request.session.items if hasattr(item, "callspec")]
    folder = tmp_path_factory.mktemp("store")
    text, first, last = hour.pages(folder)
    earlier, ends = installs.pages(folder, first, [name for name in installs.INSTALLS if name in asked])
    blocks = hour.stored(folder, earlier + text)
    spans = [(end - 360, end, 60) for end in ends.values()]
    hour.evaluate(folder, blocks, *spans, (first + hour.SCRAPE, last + hour.SCRAPE, hour.SCRAPE))
    with hour.served(blocks) as url:
        each = {name: Prometheus(url, name, end - 300, end, 60, "4m") for name, end in ends.items()}
        yield Prometheus(url, "made-hour", first, last, 30, "1m"), each


@pytest.fixture(scope="module")
def recorded(store: Recorded) -> Prometheus:
    return store[0]


@pytest.fixture(scope="module")
def installed(store: Recorded) -> dict[str, Prometheus]:
    return store[1]


def test_the_committed_dashboards_equal_the_scripts_output(tmp_path: Path) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    command = [sys.executable, "-W", "ignore", "-m", "scripts.dashboards", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    for name in NAMES:
        assert (tmp_path / f"{name}.json").read_text() == (GRAFANA / f"{name}.json").read_text(), (
            f"{name}: python -m scripts.dashboards"
        )


@pytest.mark.tool("prometheus", "promtool")
@pytest.mark.parametrize("name", NAMES)
def test_every_query_of_every_panel_has_data(name: str, recorded: Prometheus) -> None:
    for panel in panels(name):
        assert panel["targets"]
        for target in panel["targets"]:
            series = recorded.ask(target["expr"])
            values = [float(value) for one in series for _, value in one["values"]]
            assert any(math.isfinite(value) for value in values), f"{panel['title']}: {target['expr']} has no data"
            labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            for link in panel["fieldConfig"]["defaults"].get("links", ()):
                labels += re.findall(r"__field\.labels\.(\w+)", link["url"])
            for label in labels:
                assert all(label in one["metric"] for one in series), f"{panel['title']}: no {label} in its series"


@pytest.mark.tool("prometheus", "promtool")
@pytest.mark.parametrize("name", NAMES)
def test_a_firing_alert_is_an_annotation(name: str, recorded: Prometheus) -> None:
    found = {each["name"]: recorded.ask(each["expr"]) for each in dashboard(name)["annotations"]["list"]}
    assert {key: [one["metric"]["alertname"] for one in series] for key, series in found.items()} == {
        "Alerts: critical": [], "Alerts: warning": ["FlopsdDevicesBlind"], "Alerts: info": [],
    }  # fmt: skip


@pytest.mark.tool("prometheus", "promtool")
def test_the_recorded_hour_shows_its_events(recorded: Prometheus) -> None:
    def one(expression: str) -> float:
        (series,) = recorded.ask(expression, recorded.last)
        return float(series["values"][-1][1])

    assert one('sum(flopsd_gap_seconds_total{reason="driver_timeout"})') == 360
    job_seconds = one("sum(device:flopsd_job_seconds:sum)")
    assert job_seconds == pytest.approx(4 * 3600, abs=4 * 2 * hour.SCRAPE)  # promtool evaluates between scrapes
    assert one('run:flopsd_coverage:ratio{run_id="made-hour"}') == pytest.approx(1 - 360 / job_seconds, abs=1e-12)
    by_bound = {b: one(f'run:flopsd_run_flop:sum{{basis="executed",bound="{b}"}}') for b in ("low", "measured", "high")}
    assert by_bound["low"] < by_bound["measured"] < by_bound["high"]
    assert by_bound["measured"] == pytest.approx(one("sum(flopsd_flop_total)"), rel=0.01)
    blind = recorded.ask('device:flopsd_coverage:ratio5m{node="node-1",gpu="1"}', recorded.last - 1800)
    assert float(blind[0]["values"][0][1]) < 0.1
    assert 0.3 < one("run:flopsd_hfu:ratio5m") < 0.9
    assert 0.1 < one("run:flopsd_mfu_bf16:ratio10m") < one("run:flopsd_hfu:ratio5m")


def test_a_dashboard_follows_grafanas_rules() -> None:
    """The checks of dashboard-linter, and explicit values for Grafana's defaults: data source by variable, units,
    texts, thresholds, colours with one meaning, rates by Grafana's interval, no overlap."""
    for name in NAMES:
        answer = dashboard(name)
        assert answer["uid"] == name
        variables = {variable["name"]: variable for variable in answer["templating"]["list"]}
        assert variables["datasource"]["type"] == "datasource"
        links = re.findall(r'"url": "([^"]*)"', json.dumps(answer))
        assert {re.match(r"/d/([\w-]+)/\?", link)[1] for link in links} <= set(NAMES)  # type: ignore[index]
        taken = set[tuple[int, int]]()
        for panel in answer["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
            assert not taken & cells, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
        titles = [panel["title"] for panel in panels(name)]
        assert len(set(titles)) == len(titles)
        for panel in panels(name):
            title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
            assert title
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert defaults["noValue"], title
            assert panel["type"] != "stat" or panel["gridPos"]["w"] > 3 or len(defaults["noValue"]) < 24, (
                "no room for it"
            )
            assert defaults["thresholds"]["mode"] == "absolute"
            steps = defaults["thresholds"]["steps"]
            assert steps[0]["value"] is None
            values = [step["value"] for step in steps[1:]]
            assert values == sorted(values)
            if re.search("coverage|HFU|utilisation", title, re.IGNORECASE):
                order = [BETTER_HIGH.index(step["color"]) for step in steps]
                assert order == sorted(order), f"{title}: high is good"
            assert defaults["color"]["mode"] in {"thresholds", "shades"}, title
            used = set(re.findall(r'"(?:color|fixedColor)": "([^"]*)"', json.dumps(panel)))
            assert used <= COLOURS, title
            assert defaults["unit"], title
            if defaults["unit"] == "percentunit":
                assert (defaults["min"], defaults["max"]) == (0, 1), title
            for target in panel["targets"]:
                assert not re.search(r"rate\([^)]*\[\d", target["expr"]), "a rate by a fixed interval"
                assert set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"} <= set(variables), title


# The panels without data on a healthy install, for the reason that is shown in their place.
UNLABELLED = {"fleet: Totals by lineage", "fleet: Share of thresholds by lineage"}
NO_HFU = {"run: HFU", "run: Utilisation", "run: HFU by GPU", "fleet: HFU by run"}
NOTHING_MEASURED = {
    "run: Measured", "run: Rate", "run: Rate by node", "run: Rate by GPU", "run: Rate by pipe and format",
    "run: FLOP per joule", "run: Pipe activity", "fleet: Rate", "fleet: Rate by run",
}  # fmt: skip
NO_ENERGY = {
    "run: Energy", "run: Power", "run: Power by GPU", "run: FLOP per joule", "fleet: Power", "fleet: Power by run",
}  # fmt: skip
# Recordings are left out of the fleet, although their targets are up.
REPLAYED = {f"fleet: {panel['title']}" for panel in panels("flopsd-fleet")} - {"fleet: Not answering", "fleet: Alerts"}
EMPTY = {
    "host": NO_HFU | {"run: Pipe activity"},  # running counters only
    "exec": NO_HFU - {"run: HFU by GPU"},  # one of two GPUs has a format
    "sidecar": NO_HFU,
    "daemonset": NO_HFU,
    "a100 without counters": NO_HFU | NOTHING_MEASURED,
    "replay": NO_HFU | REPLAYED,
    "no energy counter": NO_HFU | NO_ENERGY,
}


@pytest.mark.tool("prometheus", "promtool")
@pytest.mark.parametrize("install", installs.INSTALLS)
def test_no_panel_is_empty_without_its_reason(install: str, installed: dict[str, Prometheus]) -> None:
    empty = set()
    for name in NAMES:
        for panel in panels(name):
            if not any(answer["series"] for answer in installed[install].answers(panel)):
                # Grafana writes the panel's own text there, except in a status history.
                assert panel["type"] in {"stat", "timeseries", "bargauge", "table"}, panel["title"]
                empty.add(f"{name.removeprefix('flopsd-')}: {panel['title']}")
    assert empty == EMPTY[install] | UNLABELLED
