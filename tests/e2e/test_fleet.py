"""Five hundred nodes on one machine, one Prometheus: every sum of the fleet's rules is right to a float's precision."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.many import NODES_A_RUN
from tests.support.monitoring import prometheus
from tests.support.process import environment, get, query, wait_until
from tests.support.prometheus import RULES

NODES = 500
BOUNDS = ("low", "measured", "high")


@pytest.mark.minute
@pytest.mark.tool("prometheus")
def test_the_fleet_rules_are_right_for_five_hundred_targets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.many", str(tmp_path / "nodes"), str(NODES)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(None)
    ) as many:
        assert many.stdin is not None
        assert many.stdout is not None
        nodes: list[dict[str, Any]] = [json.loads(many.stdout.readline()) for _ in range(NODES)]
        by_model = defaultdict(list)
        for node in nodes:
            by_model["even" if int(node["run"].removeprefix("run-")) % 2 == 0 else "odd"].append(node["target"])
        targets: list[dict[str, Any]] = [
            {"targets": of, "labels": {"lineage": model}} for model, of in by_model.items()
        ]
        # The first node is scraped a second time, under another name.
        again = {"targets": [nodes[0]["target"].replace("127.0.0.1", "localhost")], "labels": {"lineage": "even"}}
        with prometheus(tmp_path / "p", [*targets, again], rules=[str(RULES)], every="5s") as url:
            wait_until(lambda: query(url, f"count(up == 1) == {NODES + 1}"), "every target was scraped")
            wait_until(lambda: query(url, f"sum(run:flopsd_nodes:count) == {NODES}"), "the rules saw every node")
            wait_until(lambda: query(url, f"fleet:flopsd_devices:count == {2 * NODES}"), "and every device")
            runs = {(r["metric"]["run_id"], r["metric"]["bound"]): float(r["value"][1])
                    for r in query(url, 'run:flopsd_run_flop:sum{basis="executed"}')}  # fmt: skip
            lineages = {(r["metric"]["lineage"], r["metric"]["bound"]): float(r["value"][1])
                        for r in query(url, 'lineage:flopsd_run_flop:sum{basis="executed"}')}  # fmt: skip
            devices = query(url, "fleet:flopsd_devices:count")[0]["value"][1]
            took = {q: float(query(url, f"quantile({q}, scrape_duration_seconds)")[0]["value"][1]) for q in (0.5, 0.99)}
            groups = json.loads(get(f"{url}/api/v1/rules")[1])["data"]["groups"]
        many.stdin.close()
    true: dict[tuple[str, str], int] = defaultdict(int)
    for number, node in enumerate(nodes):
        for bound in BOUNDS:
            true[node["run"], bound] += node[bound]
            true["even" if number // NODES_A_RUN % 2 == 0 else "odd", bound] += node[bound]
    errors = {key: abs(value - true[key]) / true[key] for key, value in {**runs, **lineages}.items()}
    print(f"{NODES} targets: {len(runs)} sums of runs and {len(lineages)} of lineages, off by {max(errors.values()):.1e} at most; "
          f"a scrape takes {took[0.5] * 1e3:.1f} ms (p50), {took[0.99] * 1e3:.1f} ms (p99); "
          f"all rules {groups[0]['evaluationTime']:.2f} s")  # fmt: skip
    assert len(runs) == NODES // NODES_A_RUN * len(BOUNDS)
    assert sorted(lineages) == [(lineage, bound) for lineage in ("even", "odd") for bound in ("low", "measured")]
    assert max(errors.values()) < NODES * 2.0**-53
    assert devices == str(2 * NODES)
