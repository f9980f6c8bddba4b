"""The fleet dashboard: all runs that meter hardware, their lineages, and the state of the daemons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.dashboards import board
from scripts.dashboards.meanings import (
    COUNT,
    COVERAGE,
    FAULTS,
    FLOP,
    LOSSES,
    NONE,
    NOTES,
    RATE,
    SEAL_AGE,
    SECONDS,
    SHARE,
    THRESHOLD,
    UNKNOWN,
    UTILISATION,
    WARNINGS,
    WATT,
)
from scripts.dashboards.panels import (
    column,
    in_words,
    lines,
    linked,
    linked_column,
    number,
    numbers,
    or_none,
    rows,
    scaled,
    shares,
)

METERED = 'replay="false"'
RUN = "${__field.labels.run_id:percentencode}"
SCRAPED = 'up{job=~".*flopsd.*"} or flopsd_run_info'
NO_RUN = "no run that meters hardware is scraped; recordings are left out here"
NONE_METERED = "none metered"
NOT_MEASURED = "nothing is measured: no device has counters, or none is scraped; recordings are left out here"
NO_HFU = "not known: no run whose formats are declared and whose devices are all measured"
NO_ENERGY = "no device has an energy counter"
NO_LINEAGE = "no target has the label lineage, which joins the runs of one model"


def of_run(panel: Any) -> Any:
    return linked(panel, "This run", board.TO_RUN + RUN)


def by_run(rule: str, more: str = "") -> str:
    return f"max by (run_id) ({rule}{{{METERED}{more}}})"


def once(what: str, counter: str) -> str:
    """A counter's rate by reason over the fleet; targets scraped twice count once, replays do not count."""
    info = 'on (job, instance) group_left (run_id, node) instance:flopsd_run_info:newest{replay="false"}'
    rate = f"sum by (reason) (max by (run_id, node, {what}, reason) (rate({counter}[$__rate_interval]) * {info}))"
    return or_none(rate, "reason", f"max(run:flopsd_nodes:count{{{METERED}}})")


def figures() -> Iterator[Any]:
    yield number("Rate", "Measured FLOP/s of all devices.", "nothing measured", RATE, "fleet:flopsd_flop:rate5m")
    yield number(
        "Devices", "Each counted once; recordings are left out.", NONE_METERED, COUNT, "fleet:flopsd_devices:count"
    )
    runs = f"count(run:flopsd_nodes:count{{{METERED}}})"
    yield number("Runs", "With a node that is up; recordings are left out.", NONE_METERED, COUNT, runs)
    nodes = f"sum(run:flopsd_nodes:count{{{METERED}}})"
    yield number("Nodes", "Nodes that are up, of all runs; recordings are left out.", NONE_METERED, COUNT, nodes)
    yield number("Power", "From energy counters.", "no energy counter", WATT, "fleet:flopsd_power_watts:rate5m")
    about = "Share of the last hour's device time that is covered by readings. High is good."
    yield number("Coverage", about, NONE_METERED, SHARE, "fleet:flopsd_coverage:ratio1h", scale=COVERAGE).decimals(2)
    down = number(
        "Not answering",
        "Targets whose job has flopsd in its name and that do not answer, or vanished before their run had ended.",
        "no target of flopsd",
        COUNT,
        f"sum(instance:flopsd_down:bool) or 0 * count({SCRAPED})",
        scale=FAULTS,
    )
    yield down.mappings([NONE, UNKNOWN])
    firing = numbers(
        "Alerts",
        "Alerts of flopsd that fire, if flopsd.alerts.yml is loaded.",
        "alerts not loaded",
        *(
            (f'count({board.FIRING}, severity="{severity}"}}) or 0 * max(flopsd_links)', severity)
            for severity, _ in board.SEVERITIES
        ),
        unit=COUNT,
        scale=FAULTS,
        width=3,
    )
    firing = scaled(scaled(firing, "warning", WARNINGS), "info", NOTES)
    yield firing.mappings([NONE, UNKNOWN])


def table() -> Any:
    found = rows(
        "Each run",
        "Nearest threshold: the largest share measured or certain, never an upper bound. A run's name is a link.",
        NO_RUN,
        (by_run("run:flopsd_nodes:count"), "nodes"),
        (by_run("run:flopsd_run_flop:sum", ', basis="executed", bound="low"'), "at least"),
        (by_run("run:flopsd_run_flop:sum", ', basis="executed", bound="measured"'), "measured"),
        (by_run("run:flopsd_flop:rate5m"), "rate"),
        (by_run("run:flopsd_coverage:ratio1h"), "coverage, 1 h"),
        (by_run("run:flopsd_hfu:ratio5m"), "HFU"),
        (by_run("run:flopsd_threshold_reached:ratio"), "nearest threshold"),
        order=("run_id", "nodes", "at least", "measured", "rate", "coverage, 1 h", "HFU", "nearest threshold"),
        size=(24, 8),
    )
    for name, unit, scale in (
        ("at least", FLOP, None),
        ("measured", FLOP, None),
        ("rate", RATE, None),
        ("coverage, 1 h", SHARE, COVERAGE),
        ("HFU", SHARE, UTILISATION),
        ("nearest threshold", SHARE, THRESHOLD),
    ):
        found = column(found, name, unit, scale)
    return linked_column(found, "run_id", "This run", board.TO_RUN + "${__value.text:percentencode}")


def runs() -> Iterator[Any]:
    rate = lines(
        "Rate by run",
        "Measured FLOP/s.",
        NOT_MEASURED,
        RATE,
        (f"run:flopsd_flop:rate5m{{{METERED}}}", "{{run_id}}"),
        stacked=True,
    )
    share = shares(
        "Share of thresholds by run",
        "Measured or certain, never an upper bound; the twelve largest. Indicative, no legal advice.",
        f"no rule applies to a run, or {NO_RUN}",
        (f"topk(12, run:flopsd_threshold_reached:ratio{{{METERED}}})", "{{run_id}} {{policy}} {{rule}}: {{bound}}"),
        scale=THRESHOLD,
    )
    utilisation = lines(
        "HFU by run",
        "Measured FLOP/s over the dense peak of the formats that ran. High is good.",
        NO_HFU,
        SHARE,
        (f"run:flopsd_hfu:ratio5m{{{METERED}}}", "{{run_id}}"),
        scale=UTILISATION,
    )
    low, measured = (
        f'run:flopsd_run_flop:sum{{{METERED}, basis="executed", bound="{bound}"}}' for bound in ("low", "measured")
    )
    totals = lines(
        "Totals by run",
        "Whole runs: measured, or what is certain where that is more.",
        NO_RUN,
        FLOP,
        (
            f"({measured} unless ignoring (bound) {measured} < ignoring (bound) {low}) or ignoring (bound) {low}",
            "{{run_id}}: {{bound}}",
        ),
        log=True,
    )
    coverage = lines(
        "Coverage by run",
        "Share of the last hour's device time that is covered by readings.",
        NO_RUN,
        SHARE,
        (f"run:flopsd_coverage:ratio1h{{{METERED}}}", "{{run_id}}"),
        scale=COVERAGE,
    )
    power = lines(
        "Power by run",
        "From energy counters.",
        NO_ENERGY,
        WATT,
        (f"run:flopsd_power_watts:rate5m{{{METERED}}}", "{{run_id}}"),
        stacked=True,
    )
    panels = (rate, in_words(share), utilisation, in_words(totals), coverage, power)
    yield from (of_run(panel) for panel in panels)


def lineages() -> Iterator[Any]:
    totals = lines(
        "Totals by lineage",
        "What the Guidelines count of all runs with the same label lineage, also ended ones: at least, measured.",
        NO_LINEAGE,
        FLOP,
        ('lineage:flopsd_run_flop:sum{basis="guidelines_cumulative"}', "{{lineage}}: {{bound}}"),
        log=True,
    )
    share = shares(
        "Share of thresholds by lineage",
        "All runs of a lineage, ended ones too: measured or certain, never an upper bound; the twelve largest.",
        NO_LINEAGE,
        ("topk(12, lineage:flopsd_threshold_share:ratio)", "{{lineage}} {{policy}} {{rule}}: {{bound}}"),
        scale=THRESHOLD,
    )
    yield from (in_words(panel) for panel in (totals, share))


def daemons() -> Iterator[Any]:
    yield lines(
        "Gaps by reason",
        "Devices without readings.",
        NO_RUN,
        COUNT,
        (once("uuid", 'flopsd_gap_seconds_total{reason!~"other_job|metered_as_mig|replaced"}'), "{{reason}}"),
        scale=LOSSES,
        stacked=True,
    )
    yield lines(
        "Readings refused",
        "Per second, by reason.",
        NO_RUN,
        "cps",
        (once("source", "flopsd_source_errors_total"), "{{reason}}"),
        scale=LOSSES,
    )
    join = "* on (job, instance) group_left () instance:flopsd_run_info:newest{" + METERED + "}"
    yield lines(
        "Sealed and durable",
        "Age of the oldest rolling seal and of the oldest durable record, by the clocks of the hosts.",
        NO_RUN,
        SECONDS,
        (f"max((flopsd_time_seconds - flopsd_ledger_last_seal_timestamp_seconds) {join})", "seal"),
        (f"max((flopsd_time_seconds - flopsd_journal_last_append_timestamp_seconds) {join})", "journal"),
        scale=SEAL_AGE,
    )


def build() -> Any:
    found = board.new("flopsd: the fleet", board.FLEET_UID, "All runs that meter hardware; recordings are left out. ")
    found = board.with_alerts(found.link(board.link("A run", board.RUN_UID)), "")
    for panel in (*figures(), table(), *runs(), *lineages(), *daemons()):
        found = found.with_panel(panel)
    return found
