"""The committed dashboards are those that the script makes, and every query of every panel has data in a recorded hour."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import hour, picture
from tests.support.process import get

ROOT = Path(__file__).resolve().parent.parent.parent
GRAFANA = ROOT / "config" / "grafana"
NAMES = ("flopsd-run", "flopsd-fleet")
J = dict[str, Any]

pytestmark = pytest.mark.xdist_group("dashboards")  # one Prometheus for all


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, int]]:
    blocks, first, last = hour.record(tmp_path_factory.mktemp("hour"))
    with hour.served(blocks) as url:
        yield url, first, last


def panels(name: str) -> list[J]:
    found: list[J] = json.loads((GRAFANA / f"{name}.json").read_text())["panels"]
    return found


def asked(url: str, expression: str, first: int, last: int, step: int = 30) -> list[J]:
    """What a panel gets; Grafana's variables as it would fill them in."""
    expression = expression.replace("$run", "made-hour").replace("$__rate_interval", "1m")
    query = urllib.parse.urlencode({"query": expression, "start": first, "end": last, "step": step})
    status, body, _ = get(f"{url}/api/v1/query_range?{query}")
    assert status == 200, f"{expression}: {body}"
    found: list[J] = json.loads(body)["data"]["result"]
    return found


def test_the_committed_dashboards_are_what_the_script_makes(tmp_path: Path) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    subprocess.run([sys.executable, "-W", "ignore", str(ROOT / "scripts" / "dashboards.py"), str(tmp_path)], check=True)
    for name in NAMES:
        assert (tmp_path / f"{name}.json").read_text() == (GRAFANA / f"{name}.json").read_text(), (
            f"{name}: run scripts/dashboards.py"
        )


@pytest.mark.tool("prometheus", "promtool")
@pytest.mark.parametrize("name", NAMES)
def test_every_query_of_every_panel_has_data(name: str, recorded: tuple[str, int, int]) -> None:
    url, first, last = recorded
    for panel in panels(name):
        assert panel["targets"]
        for target in panel["targets"]:
            series = asked(url, target["expr"], first, last)
            values = [float(value) for one in series for _, value in one["values"]]
            assert any(math.isfinite(value) for value in values), f"{panel['title']}: {target['expr']} has no data"
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert all(label in one["metric"] for one in series), f"{panel['title']}: no {label} in its series"


@pytest.mark.tool("prometheus", "promtool")
def test_the_hour_tells_what_happened_in_it(recorded: tuple[str, int, int]) -> None:
    url, first, last = recorded

    def newest(expression: str) -> dict[str, float]:
        series = asked(url, expression, last, last)
        return {json.dumps(one["metric"], sort_keys=True): float(one["values"][-1][1]) for one in series}

    def one(expression: str) -> float:
        (value,) = newest(expression).values()
        return value

    assert one('sum(flopsd_gap_seconds_total{reason="driver_timeout"})') == 360
    job_seconds = one("sum(device:flopsd_job_seconds:sum)")
    assert job_seconds == pytest.approx(4 * 3600, abs=4 * 2 * hour.SCRAPE)  # promtool evaluates between scrapes
    assert one('run:flopsd_coverage:ratio{run_id="made-hour"}') == pytest.approx(1 - 360 / job_seconds, abs=1e-12)
    by_bound = {b: one(f'run:flopsd_run_flop:sum{{basis="executed",bound="{b}"}}') for b in ("low", "measured", "high")}
    assert by_bound["low"] < by_bound["measured"] < by_bound["high"]
    assert by_bound["measured"] == pytest.approx(one("sum(flopsd_flop_total)"), rel=0.01)
    blind = asked(url, 'device:flopsd_coverage:ratio5m{node="node-1",gpu="1"}', first + 1800, first + 1800)
    assert float(blind[0]["values"][0][1]) < 0.1
    assert 0.3 < one("run:flopsd_hfu:ratio5m") < 0.9
    assert 0.1 < one("run:flopsd_mfu_bf16:ratio10m") < one("run:flopsd_hfu:ratio5m")


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_as_grafana_wants_it(name: str) -> None:
    """What dashboard-linter would look for: data source by variable, units, words, rates by Grafana's interval, no overlap."""
    answer = json.loads((GRAFANA / f"{name}.json").read_text())
    assert answer["uid"] == name
    variables = {variable["name"]: variable for variable in answer["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    taken = set[tuple[int, int]]()
    for panel in answer["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"].get("unit"), panel["title"]
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel["targets"]:
            assert not re.search(r"rate\([^)]*\[\d", target["expr"]), "a rate by a fixed interval"
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= set(variables), used


@pytest.mark.tool("prometheus", "promtool")
@pytest.mark.parametrize("name", NAMES)
def test_the_picture_has_every_panel(name: str, recorded: tuple[str, int, int]) -> None:
    url, first, last = recorded
    answer = json.loads((GRAFANA / f"{name}.json").read_text())
    html = picture.page(answer, lambda expression: asked(url, expression, first + 60, last), (first, last))
    assert html.count("<section") == len(panels(name))
    assert all(panel["title"] in html for panel in panels(name))
    assert "nan" not in html
    assert (ROOT / "docs" / "images" / f"{name}.png").is_file()
