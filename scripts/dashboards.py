"""Makes config/grafana/*.json: `python scripts/dashboards.py [FOLDER]`. Needs grafana-foundation-sdk (extra: dev).

The queries need the recording rules of config/prometheus/flopsd.rules.yml.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statushistory, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    GraphGradientMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    FieldColorModeId,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
FLOP, RATE = "sci", "si:FLOP/s"  # Grafana writes 1.23e+24, and 812 TFLOP/s: the notation of flopsd's own texts
RUN = 'run_id="$run"'
JOIN = "on (job, instance) group_left (run_id, node, replay) flopsd_run_info{" + RUN + "}"
ABOUT = "Figures of flopsd. The queries need the recording rules of config/prometheus/flopsd.rules.yml. "
LINK = "At most is a ceiling, not an estimate; gaps count in it and in no other figure."


def query(expression: str, legend: str, ref: str, *, instant: bool = False) -> Any:
    found = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref)
    return found.instant().format("time_series") if instant else found.range()


def put(panel: Any, title: str, about: str, size: tuple[int, int], *queries: tuple[str, str]) -> Any:
    """Title, description, width of 24 and height, and the queries with their legends."""
    panel = panel.title(title).description(about).span(size[0]).height(size[1]).datasource(SOURCE)
    instant = isinstance(panel, stat.Panel | bargauge.Panel)
    for number, (expression, legend) in enumerate(queries):
        panel = panel.with_target(query(expression, legend, chr(ord("A") + number), instant=instant))
    return panel


def number(title: str, about: str, unit: str, expression: str, width: int = 3, decimals: int | None = None) -> Any:
    panel = put(stat.Panel(), title, about, (width, 4), (expression, "")).unit(unit).no_value("not known")
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    about: str,
    unit: str,
    *queries: tuple[str, str],
    width: int = 12,
    log: bool = False,
    stacked: bool = False,
    top: float | None = None,
) -> Any:
    panel = put(timeseries.Panel(), title, about, (width, 8), *queries).unit(unit).fill_opacity(8).line_width(2)
    panel = panel.show_points(VisibilityMode.NEVER).gradient_mode(GraphGradientMode.NONE)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = panel.legend(legend.show_legend(True))
    if log:
        panel = panel.scale_distribution(
            common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        ).fill_opacity(0)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    if top is not None:
        panel = panel.min(0).max(top)
    return panel


def heat(title: str, about: str, *queries: tuple[str, str]) -> Any:
    panel = put(statushistory.Panel(), title, about, (24, 7), *queries).unit("percentunit").min(0).max(1)
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BL_YL_RD))
    return panel.show_value(VisibilityMode.NEVER).max_data_points(120)


def shares(title: str, about: str, *queries: tuple[str, str]) -> Any:
    panel = put(bargauge.Panel(), title, about, (12, 8), *queries).unit("percentunit").min(0).max(1)
    return panel.display_mode(BarGaugeDisplayMode.BASIC)


def new_dashboard(title: str, uid: str, about: str) -> Any:
    found = dashboard.Dashboard(title).uid(uid).description(ABOUT + about).tags(["flopsd"]).readonly()
    found = found.refresh("30s").time("now-1h", "now").timezone("browser")
    return found.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))


def variable(name: str, label: str, values: str) -> Any:
    found = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(values)
    return found.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def total(bound: str, basis: str = "executed") -> str:
    return f'run:flopsd_run_flop:sum{{{RUN}, basis="{basis}", bound="{bound}"}}'


def once(what: str, counter: str) -> str:
    """A counter's rate by reason over the fleet: what is scraped twice counts once, replays not at all."""
    info = 'on (job, instance) group_left (run_id, node) flopsd_run_info{replay="false"}'
    return f"sum by (reason) (max by (run_id, node, {what}, reason) (rate({counter}[$__rate_interval]) * {info}))"


def of_run() -> Any:
    replay = ValueMap(
        options={
            "0": ValueMappingResult(text="metered", color="green", index=0),
            "1": ValueMappingResult(text="REPLAY: no hardware", color="red", index=1),
        }
    )
    found = new_dashboard("flopsd: a run", "flopsd-run", LINK)
    found = found.with_variable(variable("run", "Run", "label_values(flopsd_run_info, run_id)"))
    panels = [
        number("Measured FLOP", "From hardware counters, over all nodes.", FLOP, total("measured")),
        number("At least, FLOP", "What is certain: margin and undeclared formats taken off.", FLOP, total("low")),
        number(
            "At most, FLOP",
            "A ceiling, not an estimate. Absent while a node of the run is missing.",
            FLOP,
            total("high"),
        ),
        number("Rate", "Measured FLOP/s over five minutes.", RATE, f"run:flopsd_flop:rate5m{{{RUN}}}"),
        number(
            "Coverage",
            "Share of the run's device time that is covered by readings.",
            "percentunit",
            f"run:flopsd_coverage:ratio{{{RUN}}}",
            decimals=2,
        ),
        number("Energy", "By the devices' own counters.", "joule", f"run:flopsd_energy_joules:sum{{{RUN}}}"),
        number("Nodes", "Nodes that are up.", "none", f"run:flopsd_nodes:count{{{RUN}}}"),
        number(
            "Source",
            "Whether hardware is metered.",
            "none",
            f'clamp_max(count(node:flopsd_run_info:max{{{RUN}, replay="true"}}) or vector(0), 1)',
        ).mappings([replay]),
        lines(
            "Rate by node",
            "Measured FLOP/s. A device without readings adds nothing here, and its ceiling to at most.",
            RATE,
            (f"sum by (node) (device:flopsd_flop:rate5m{{{RUN}}})", "{{node}}"),
            stacked=True,
        ),
        lines(
            "Guidelines FLOP against thresholds",
            "Three bounds of what the Guidelines count of the run, and the thresholds that apply or may apply. " + LINK,
            FLOP,
            (total("low", "guidelines"), "at least"),
            (total("measured", "guidelines"), "measured"),
            (total("high", "guidelines"), "at most"),
            (f"max by (rule, bound) (flopsd_threshold_flop * {JOIN})", "threshold {{rule}} ({{bound}})"),
            log=True,
        ),
        shares(
            "Share of each threshold",
            "low is certain, measured is from hardware counters, high is a ceiling. Indicative, no legal advice.",
            (f"run:flopsd_threshold_share:ratio{{{RUN}}}", "{{rule}}: {{bound}}"),
        ),
        lines(
            "Utilisation",
            "HFU: measured FLOP over the dense peak of the format that ran. MFU: FLOP required by the architecture "
            "over the BF16 peak; absent while no process declares its model.",
            "percentunit",
            (f"run:flopsd_hfu:ratio5m{{{RUN}}}", "HFU"),
            (f"run:flopsd_mfu_bf16:ratio10m{{{RUN}}}", "MFU (BF16)"),
            top=1,
        ),
        heat(
            "Each GPU: share of its peak (HFU)",
            "Empty where there was no reading, or where the format is not declared.",
            (f"device:flopsd_hfu:ratio5m{{{RUN}}}", "{{node}} GPU {{gpu}}"),
        ),
        lines(
            "Evidence",
            "Devices by evidence. cycles, activity and count are measured; utilization gives an upper bound only.",
            "none",
            (
                f"sum by (evidence) (rate(flopsd_observed_seconds_total[$__rate_interval]) * {JOIN})",
                "{{evidence}}",
            ),
            stacked=True,
        ),
        lines(
            "Gaps by reason",
            "Devices without readings, and why. docs/runbook.md has a line for each reason.",
            "none",
            (f"sum by (reason) (rate(flopsd_gap_seconds_total[$__rate_interval]) * {JOIN})", "{{reason}}"),
            stacked=True,
        ),
        lines(
            "Coverage by GPU",
            "Share of its last five minutes that is covered by readings.",
            "percentunit",
            (f"device:flopsd_coverage:ratio5m{{{RUN}}}", "{{node}} GPU {{gpu}}"),
            top=1,
        ),
        lines(
            "Power",
            "From the devices' energy counters.",
            "watt",
            (f"sum by (node) (device:flopsd_power_watts:rate5m{{{RUN}}})", "{{node}}"),
            stacked=True,
        ),
        lines(
            "FLOP by basis",
            "executed: all that ran. guidelines: the part that the Commission's Guidelines count. architecture: "
            "computed from model and tokens. Lower bounds are certain; points are measured or computed.",
            FLOP,
            (f'run:flopsd_run_flop:sum{{{RUN}, bound!="high"}}', "{{basis}}: {{bound}}"),
        ),
        lines(
            "FLOP per joule",
            "Of devices that report their energy.",
            "si:FLOP/J",
            (f"run:flopsd_flop_per_joule:ratio5m{{{RUN}}}", "FLOP/J"),
        ),
    ]
    for panel in panels:
        found = found.with_panel(panel)
    return found


def of_fleet() -> Any:
    found = new_dashboard("flopsd: the fleet", "flopsd-fleet", "Recordings are left out. " + LINK)
    metered = 'replay="false"'
    panels = [
        number("Rate", "Measured FLOP/s of all devices.", RATE, "fleet:flopsd_flop:rate5m", 4),
        number("Devices", "Each counted once.", "none", "fleet:flopsd_devices:count", 4),
        number("Runs", "With a node that is up.", "none", f"count(run:flopsd_nodes:count{{{metered}}})", 4),
        number("Power", "From energy counters.", "watt", "fleet:flopsd_power_watts:rate5m", 4),
        number(
            "Coverage, last hour",
            "Share of device time that is covered by readings.",
            "percentunit",
            "fleet:flopsd_coverage:ratio1h",
            4,
            2,
        ),
        number("Daemons up", "", "none", 'sum(up{job=~".*flopsd.*"})', 4),
        lines(
            "Rate by run",
            "Measured FLOP/s.",
            RATE,
            (f"run:flopsd_flop:rate5m{{{metered}}}", "{{run_id}}"),
            width=24,
            stacked=True,
        ),
        lines(
            "Totals by run",
            "Measured, whole runs.",
            FLOP,
            (f'run:flopsd_run_flop:sum{{{metered}, basis="executed", bound="measured"}}', "{{run_id}}"),
            log=True,
        ),
        lines(
            "Totals by lineage",
            "What the Guidelines count of all runs with the same label lineage, also ended ones: at least, measured.",
            FLOP,
            ('lineage:flopsd_run_flop:sum{basis="guidelines_cumulative"}', "{{lineage}}: {{bound}}"),
            log=True,
        ),
        shares(
            "Share of thresholds by run",
            "Measured or certain, never a ceiling. Indicative, no legal advice.",
            (f"run:flopsd_threshold_reached:ratio{{{metered}}}", "{{run_id}} {{rule}} ({{bound}})"),
        ),
        shares(
            "Share of thresholds by lineage",
            "All runs of a lineage together, including ended ones: measured or certain, never a ceiling.",
            ("lineage:flopsd_threshold_share:ratio", "{{lineage}} {{rule}} ({{bound}})"),
        ),
        heat(
            "Coverage by run",
            "Share of the last hour's device time that is covered by readings.",
            (f"run:flopsd_coverage:ratio1h{{{metered}}}", "{{run_id}}"),
        ),
        lines(
            "Utilisation by run (HFU)",
            "Absent where a format is not declared.",
            "percentunit",
            (f"run:flopsd_hfu:ratio5m{{{metered}}}", "{{run_id}}"),
            top=1,
        ),
        lines(
            "Gaps by reason",
            "Devices without readings.",
            "none",
            (once("uuid", 'flopsd_gap_seconds_total{reason!~"other_job|metered_as_mig"}'), "{{reason}}"),
            stacked=True,
        ),
        lines(
            "Readings refused",
            "Per second, by reason.",
            "none",
            (once("source", "flopsd_source_errors_total"), "{{reason}}"),
        ),
        lines(
            "Sealed and durable",
            "Age of the oldest rolling seal and of the oldest durable record, by the clocks of the hosts.",
            "s",
            ("max(flopsd_time_seconds - flopsd_ledger_last_seal_timestamp_seconds)", "seal"),
            ("max(flopsd_time_seconds - flopsd_journal_last_append_timestamp_seconds)", "journal"),
        ),
    ]
    for panel in panels:
        found = found.with_panel(panel)
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in (("flopsd-run", of_run()), ("flopsd-fleet", of_fleet())):
        (folder / f"{name}.json").write_text(JSONEncoder(sort_keys=True, indent=2).encode(found.build()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "config" / "grafana")
