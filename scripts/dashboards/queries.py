"""Queries, links and texts shared by the parts of a run's dashboard."""

from __future__ import annotations

from scripts.dashboards import board
from scripts.dashboards.panels import CARRIED

RUN = 'run_id="$run"'
CHOSEN = 'run_id="$run", node=~"$node", gpu=~"$gpu"'
_JOIN = "* on (job, instance) group_left (run_id, node) instance:flopsd_run_info:newest"
JOIN, JOIN_CHOSEN = f"{_JOIN}{{{RUN}}}", f'{_JOIN}{{{RUN}, node=~"$node"}}'
TO_NODE = f"/d/{board.RUN_UID}/?{CARRIED}&${{run:queryparam}}&var-node="
NODE, GPU = "${__field.labels.node:percentencode}", "${__field.labels.gpu:percentencode}"
NO_RUN = "no node of this run is scraped in this time range"
NOT_MEASURED = "nothing is measured: no device has counters, so there is an upper bound only (doctor says why)"
NO_HFU = "not known: the format is not declared, nothing is measured, or a peak is not known"
NO_ENERGY = "no device here has an energy counter"
NOT_SCRAPED, NOTHING = "not scraped", "nothing measured"  # for small panels


def total(bound: str, basis: str = "executed") -> str:
    return f'run:flopsd_run_flop:sum{{{RUN}, basis="{basis}", bound="{bound}"}}'


def or_zero(count: str) -> str:
    """The count, or 0 if it has no series while the run has a node; otherwise no value."""
    return f"{count} or 0 * max(run:flopsd_nodes:count{{{RUN}}})"


def devices_with(condition: str) -> str:
    return or_zero(f"count(max by (node, uuid) ({condition} {JOIN}))")


def rated(counter: str, labels: str, join: str = JOIN) -> str:
    """A device counter's rate; a device that is scraped twice counts once."""
    return f"max by (node, uuid, {labels}) (rate({counter}[$__rate_interval]) {join})"
