"""Panels for the selected nodes and GPUs of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.dashboards.meanings import (
    BOUND,
    COVERAGE,
    HERTZ,
    LOSSES,
    RATE,
    SECONDS,
    SHARE,
    UTILISATION,
    WATT,
)
from scripts.dashboards.panels import (
    coloured,
    column,
    history,
    lines,
    linked,
    linked_column,
    or_none,
    rows,
)
from scripts.dashboards.queries import (
    CHOSEN,
    GPU,
    JOIN_CHOSEN,
    NO_ENERGY,
    NO_HFU,
    NODE,
    NOT_MEASURED,
    TO_NODE,
    rated,
)


def panels() -> Iterator[Any]:
    no_device = "no device at the nodes and GPUs chosen above"
    table = rows(
        "Devices",
        "What each is by its driver, how it is read, and its share of covered time over five minutes.",
        no_device,
        (
            "max by (node, gpu, uuid, model, evidence, source, peak_row, driver, shared, profile, parent) "
            f'(flopsd_device_info{{gpu=~"$gpu"}} {JOIN_CHOSEN})',
            "",
        ),
        (f"max by (node, gpu, uuid) (device:flopsd_coverage:ratio5m{{{CHOSEN}}})", "coverage"),
        (f"max by (node, gpu, uuid) (device:flopsd_flop:rate5m{{{CHOSEN}}})", "rate"),
        order=("node", "gpu", "model", "evidence", "coverage", "rate", "source", "shared", "profile", "parent", "uuid"),
        size=(24, 8),
    )
    table = column(column(table, "coverage", SHARE, COVERAGE), "rate", RATE)
    table = linked_column(table, "node", "The GPUs of this node", TO_NODE + "${__value.text:percentencode}")
    one_gpu = "${__data.fields.node:percentencode}&var-gpu=${__value.text:percentencode}"
    yield linked_column(table, "gpu", "This GPU alone", TO_NODE + one_gpu)
    yield history(
        "Coverage by GPU",
        "Share of its last five minutes that is covered by readings.",
        no_device,
        (f"device:flopsd_coverage:ratio5m{{{CHOSEN}}}", "{{node}} GPU {{gpu}}"),
        scale=COVERAGE,
    )
    by_gpu = "{{node}} GPU {{gpu}}"
    rate = f"device:flopsd_flop:rate5m{{{CHOSEN}}}"
    each = [
        lines("Rate by GPU", "Measured FLOP/s.", NOT_MEASURED, RATE, (rate, by_gpu)),
        lines(
            "HFU by GPU",
            "Measured FLOP/s over the dense peak of the format that ran. High is good.",
            NO_HFU,
            SHARE,
            (f"device:flopsd_hfu:ratio5m{{{CHOSEN}}}", by_gpu),
            scale=UTILISATION,
        ),
    ]
    yield from (linked(panel, "This GPU alone", f"{TO_NODE}{NODE}&var-gpu={GPU}") for panel in each)
    flop = f"max by (node, uuid, pipe, precision) (pipe:flopsd_flop:rate5m{{{CHOSEN}}})"
    yield coloured(
        lines(
            "Rate by pipe and format",
            "Measured FLOP/s. undeclared: the format is not known.",
            NOT_MEASURED,
            RATE,
            (f"sum by (pipe, precision) ({flop})", "{{pipe}} {{precision}}"),
            stacked=True,
        ),
        "/undeclared$/",
        BOUND,
    )
    activity = f'flopsd_pipe_activity_ratio{{gpu=~"$gpu"}} {JOIN_CHOSEN}'
    yield lines(
        "Pipe activity",
        "Share of the last interval's cycles in which a pipe was active; the average of the GPUs chosen.",
        "no device here has counters of its pipes at each reading",
        SHARE,
        (f"avg by (pipe) (max by (node, uuid, pipe) ({activity}))", "{{pipe}}"),
    )
    clock = f'flopsd_sm_clock_hertz{{gpu=~"$gpu"}} {JOIN_CHOSEN}'
    about = "At the last reading."
    no_clock = "no source here gives clocks"
    yield lines("SM clock", about, no_clock, HERTZ, (f"max by (node, gpu, uuid) ({clock})", by_gpu))
    watt = f"device:flopsd_power_watts:rate5m{{{CHOSEN}}}"
    yield lines("Power by GPU", "From its energy counter.", NO_ENERGY, WATT, (watt, by_gpu))
    counted = f"max by (node, gpu) (device:flopsd_job_seconds:sum{{{CHOSEN}}})"
    gaps = rated('flopsd_gap_seconds_total{gpu=~"$gpu"}', "gpu, reason", JOIN_CHOSEN)
    yield lines(
        "Gaps by GPU and reason",
        "Share of each GPU's time that is a gap.",
        no_device,
        SHARE,
        (or_none(f"max by (node, gpu, reason) ({gaps})", "reason", counted), "{{node}} GPU {{gpu}}: {{reason}}"),
        scale=LOSSES,
    )
    read = f"max by (node, source) (flopsd_source_read_duration_seconds {JOIN_CHOSEN})"
    yield lines("Time of a reading", "How long the last read took.", no_device, SECONDS, (read, "{{node}} {{source}}"))
