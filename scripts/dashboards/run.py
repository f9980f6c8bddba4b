"""The run dashboard: totals and bounds, thresholds, declarations; then the selected nodes and GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.builders import dashboard

from scripts.dashboards import board, devices
from scripts.dashboards.meanings import (
    BAD,
    BOUND,
    BOUNDED,
    COUNT,
    COVERAGE,
    FAULTS,
    FLOP,
    GOOD,
    JOULE,
    LOSSES,
    NONE,
    PER_JOULE,
    PLAIN,
    RATE,
    SHARE,
    THRESHOLD,
    UNKNOWN,
    UPPER_END,
    UTILISATION,
    WATT,
    texts,
)
from scripts.dashboards.panels import (
    banner,
    coloured,
    in_words,
    lines,
    linked,
    number,
    numbers,
    or_none,
    scaled,
    shares,
)
from scripts.dashboards.queries import (
    JOIN,
    NO_ENERGY,
    NO_HFU,
    NO_RUN,
    NODE,
    NOT_MEASURED,
    NOT_SCRAPED,
    NOTHING,
    RUN,
    TO_NODE,
    devices_with,
    or_zero,
    rated,
    total,
)

_BY_PROCESSES = (
    "Where no counter can be read, it includes what training processes say that they computed, which nobody checked."
)


def totals() -> Iterator[Any]:
    yield banner(
        "Source",
        "Whether hardware is metered, or a recording is read.",
        "No node of this run is up: choose another run, or a time range in which it ran",
        f'max(node:flopsd_run_info:max{{{RUN}, replay="true"}}) or 0 * max(node:flopsd_run_info:max{{{RUN}}})',
        texts({"0": (GOOD, "Hardware is metered"), "1": (BAD, "REPLAY: a recording is read, no hardware is metered")}),
    )
    yield number(
        "At least",
        f"What is certain: margins and undeclared formats taken off. {_BY_PROCESSES}",
        NOT_SCRAPED,
        FLOP,
        total("low"),
    )
    yield number(
        "Measured",
        f"From counters, of the nodes that have any. doctor says why a device has none. {_BY_PROCESSES}",
        NOTHING,
        FLOP,
        total("measured"),
    )
    yield number(
        "At most",
        "An upper bound, not an estimate. Of the nodes that were scraped. Absent while one of them is gone, and where "
        "one began anew.",
        "a node is gone or new",
        FLOP,
        total("high"),
        scale=UPPER_END,
    )
    yield number("Rate", "Measured FLOP/s over five minutes.", NOTHING, RATE, f"run:flopsd_flop:rate5m{{{RUN}}}")
    coverage = f"run:flopsd_coverage:ratio{{{RUN}}}"
    about = "Share of the run's device time that is covered by readings. High is good. Absent as at most is."
    yield number("Coverage", about, "a node is gone or new", SHARE, coverage, scale=COVERAGE).decimals(2)
    about = (
        "Measured FLOP/s over the dense peak of the format that ran, over five minutes; not known where a format "
        "is not declared, a peak is not known or nothing is measured. High is good."
    )
    yield number(
        "HFU", about, "format or peak unknown", SHARE, f"run:flopsd_hfu:ratio5m{{{RUN}}}", scale=UTILISATION
    ).decimals(1)
    energy = f"run:flopsd_energy_joules:sum{{{RUN}}}"
    yield number("Energy", "By the devices' own counters, of those that have one.", "no energy counter", JOULE, energy)
    nodes = numbers(
        "Nodes",
        "Up: shows this run. Ended: has ended as it should, and is up until its last scrape. Gone: no longer scraped.",
        NOT_SCRAPED,
        (f"max(run:flopsd_nodes:count{{{RUN}}})", "up"),
        (or_zero(f"sum(max by (node) (flopsd_run_ended {JOIN}))"), "ended"),
        (or_zero(f"max(run:flopsd_nodes_gone:count{{{RUN}}})"), "gone"),
        unit=COUNT,
        scale=PLAIN,
        width=3,
    )
    yield scaled(nodes, "gone", FAULTS)
    declared = numbers(
        "Not declared, only bounded, not observed",
        "Facts, not faults: each widens the distance between at least and at most. Declare formats by --precision, the "
        "purpose by --phase, --method and --recomputation or in the training process. Not observed: the last reading "
        "was a gap.",
        NOT_SCRAPED,
        (
            devices_with('(flopsd_observed_seconds_total{evidence="utilization"} > 0)'),
            "devices with an upper bound only",
        ),
        (devices_with('(flopsd_flop_total{precision="undeclared"} > 0)'), "devices with work in an undeclared format"),
        (
            or_zero(
                f'count(node:flopsd_run_flop:max{{{RUN}, basis="guidelines", bound="high"}} '
                f'unless on (run_id, node) node:flopsd_run_flop:max{{{RUN}, basis="guidelines", bound="measured"}})'
            ),
            "nodes whose counted training compute is an interval only",
        ),
        (
            devices_with('(flopsd_flop_total{evidence="operator_count"} > 0)'),
            "devices with work that only their training processes counted",
        ),
        (devices_with('flopsd_device_info{shared="true"}'), "devices shared with others"),
        (devices_with("(flopsd_device_up == 0)"), "devices not observed now"),
        unit=COUNT,
        scale=BOUNDED,
        width=24,
    )
    yield scaled(declared.mappings([NONE, UNKNOWN]), "/not observed/", FAULTS)
    share = shares(
        "Share of each threshold",
        "Measured or, where nothing is measured, certain; at most is an upper bound. Indicative, no legal advice.",
        "no rule applies to this run, or none of its nodes is scraped",
        (f"run:flopsd_threshold_reached:ratio{{{RUN}}}", "{{policy}} {{rule}}: {{bound}}"),
        (f'run:flopsd_threshold_share:ratio{{{RUN}, bound="high"}}', "{{policy}} {{rule}}: at most"),
        scale=THRESHOLD,
        height=10,
    )
    yield coloured(in_words(share), "/at most$/", BOUND)
    against = lines(
        "What the Guidelines count, against the thresholds",
        "Three bounds of one figure, and the thresholds that apply or may apply, at their lowest; one whose lowest is "
        "not known is not drawn. 1 YFLOP is 10^24 FLOP, 1 ZFLOP 10^21. " + board.ENDS,
        NO_RUN,
        FLOP,
        (total("low", "guidelines"), "at least"),
        (total("measured", "guidelines"), "measured"),
        (total("high", "guidelines"), "at most"),
        (f'min by (policy, rule) ((flopsd_threshold_flop{{bound="low"}} > 0) {JOIN})', "threshold {{policy}} {{rule}}"),
        log=True,
    ).height(10)
    yield coloured(coloured(against, "at most", BOUND, dashed=True), "/^threshold/", BAD, dashed=True)
    rate = lines(
        "Rate by node",
        "Measured FLOP/s. A device without readings adds nothing here.",
        NOT_MEASURED,
        RATE,
        (f"sum by (node) (device:flopsd_flop:rate5m{{{RUN}}})", "{{node}}"),
        stacked=True,
    )
    yield linked(rate, "The GPUs of this node", TO_NODE + NODE)
    yield lines(
        "Utilisation",
        "HFU: measured FLOP over the dense peak of the format that ran. MFU: FLOP that the architecture requires over "
        "the BF16 peak; absent while no process declares its model. High is good.",
        NO_HFU,
        SHARE,
        (f"run:flopsd_hfu:ratio5m{{{RUN}}}", "HFU"),
        (f"run:flopsd_mfu_bf16:ratio10m{{{RUN}}}", "MFU (BF16)"),
        scale=UTILISATION,
    )
    coverage = lines(
        "Coverage by node",
        "Share of the last five minutes of its devices that is covered by readings. High is good.",
        NO_RUN,
        SHARE,
        (f"avg by (node) (device:flopsd_coverage:ratio5m{{{RUN}}})", "{{node}}"),
        scale=COVERAGE,
    )
    yield linked(coverage, "The GPUs of this node", TO_NODE + NODE)
    gaps = rated("flopsd_gap_seconds_total", "reason")
    yield lines(
        "Gaps by reason",
        "Devices without readings, and why. docs/runbook.md has a line for each reason.",
        NO_RUN,
        COUNT,
        (or_none(f"sum by (reason) ({gaps})", "reason", f"max(run:flopsd_nodes:count{{{RUN}}})"), "{{reason}}"),
        scale=LOSSES,
        stacked=True,
    )
    evidence = lines(
        "Evidence",
        "Devices by evidence. cycles, activity and count are measured; utilization gives an upper bound only.",
        NO_RUN,
        COUNT,
        (f"sum by (evidence) ({rated('flopsd_observed_seconds_total', 'evidence')})", "{{evidence}}"),
        stacked=True,
    )
    yield coloured(evidence, "utilization", BOUND)
    basis = lines(
        "FLOP by basis",
        "executed: all that ran. guidelines: the part that the Commission's Guidelines count. architecture: computed "
        "from model and tokens. Lower bounds are certain; points are measured or computed.",
        NO_RUN,
        FLOP,
        (f'run:flopsd_run_flop:sum{{{RUN}, bound!="high"}}', "{{basis}}: {{bound}}"),
    )
    yield in_words(basis)
    power = f"sum by (node) (device:flopsd_power_watts:rate5m{{{RUN}}})"
    yield lines("Power", "From the devices' energy counters.", NO_ENERGY, WATT, (power, "{{node}}"), stacked=True)
    yield lines(
        "FLOP per joule",
        "Of devices that report their energy.",
        f"{NO_ENERGY}, or nothing is measured",
        PER_JOULE,
        (f"run:flopsd_flop_per_joule:ratio5m{{{RUN}}}", "FLOP/J"),
    )


def build() -> Any:
    found = board.new("flopsd: a run", board.RUN_UID, "Figures of one run, its nodes and GPUs. ")
    info = "instance:flopsd_run_info:newest{" + RUN
    found = found.with_variable(board.choice("run", "Run", "label_values(instance:flopsd_run_info:newest, run_id)"))
    found = found.with_variable(board.choices("node", "Node", f"label_values({info}}}, node)"))
    gpu = f'label_values(device:flopsd_job_seconds:sum{{{RUN}, node=~"$node"}}, gpu)'
    found = found.with_variable(board.choices("gpu", "GPU", gpu)).link(board.link("The fleet", board.FLEET_UID))
    found = board.with_alerts(found, f", {RUN}", ', run_id=""')
    for panel in totals():
        found = found.with_panel(panel)
    found = found.with_row(dashboard.Row("Nodes and GPUs, as chosen above"))
    for panel in devices.panels():
        found = found.with_panel(panel)
    return found
