"""Dashboards as Grafana would fill them: variables, legends, and the display that @grafana/data makes of a panel's
answers."""

import json
import re
import subprocess
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.process import get

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "config" / "grafana"
NAMES = ("flopsd-run", "flopsd-fleet")
SCRIPT = Path(__file__).with_name("grafana.cjs")
J = dict[str, Any]


def dashboard(name: str) -> J:
    found: J = json.loads((GRAFANA / f"{name}.json").read_text())
    return found


def panels(name: str) -> list[J]:
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus to query for one run and a time range, with all nodes and GPUs of the run selected."""

    url: str
    run: str
    first: int
    last: int
    step: int
    rate_interval: str

    def ask(self, expression: str, first: int | None = None) -> list[J]:
        """The series of a query over the range, or from `first` on."""
        for name, value in {"run": self.run, "node": ".*", "gpu": ".*", "__rate_interval": self.rate_interval}.items():
            expression = expression.replace(f"${name}", value)
        span = {"start": self.first if first is None else first, "end": self.last, "step": self.step}
        status, body, _ = get(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode({'query': expression, **span})}")
        assert status == 200, f"{expression}: {body}"
        found: list[J] = json.loads(body)["data"]["result"]
        return found

    def answers(self, panel: Mapping[str, Any]) -> list[J]:
        """The results of the panel's queries; for an instant query only the newest values."""
        return [
            answer(target, self.ask(target["expr"], self.last if target.get("instant") else None))
            for target in panel["targets"]
        ]


def answer(target: Mapping[str, Any], series: Sequence[J]) -> J:
    def legend(metric: Mapping[str, str]) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found[1], ""), target["legendFormat"])

    return {
        "refId": target["refId"],
        "table": target.get("format") == "table",
        "series": [{**one, "legend": legend(one["metric"])} for one in series],
    }


@dataclass(frozen=True)
class Shown:
    """One displayed value: its name, its text with the unit, and its colour by name, or by code where it has no
    name."""

    name: str
    text: str
    color: str


def shown(asked: Sequence[tuple[Mapping[str, Any], Sequence[J]]]) -> list[list[Shown]]:
    """The display that Grafana makes of each panel's answers. GRAFANA_DATA names the node_modules with
    @grafana/data."""
    given = json.dumps([{"panel": panel, "answers": answers} for panel, answers in asked])
    done = subprocess.run(["node", str(SCRIPT)], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[Shown(**value) for value in values] for values in json.loads(done.stdout)]
