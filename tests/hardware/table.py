"""The results as a table for a terminal of 100 columns."""

from __future__ import annotations

from tests.hardware.results import Document

WIDTH = 100
_COLUMNS = f"{'load':<29}{'true':>10}{'metered':>10}{'ratio':>8} {'in':<3} {'pipe':<12}{'alone':>8}{'MHz':>6} evidence"


def header(document: Document) -> list[str]:
    """What was measured, where, with what."""
    device, versions = document["device"], document["versions"]
    lines = [
        f"{device['name']}, driver {device['driver']}, torch {versions['torch'] or 'none'}, "
        f"flopsd {versions['flopsd']} at {(document['commit'] or 'unknown commit')[:12]}, {document['date'] or 'no date'}"
    ]
    if document["origin"] != "hardware":
        lines.append(f"{document['origin'].upper()}: no figure here is about hardware")
    return [
        line[:WIDTH]
        for line in (
            *lines,
            "FLOP; ratio: metered of all pipes / true; alone: of the pipe named; in: low <= true <= high",
            _COLUMNS,
        )
    ]


def row(result: Document) -> str:
    """One load on one line."""
    if result["status"] != "done":
        return f"{result['name']:<29}{result['status']}: {result['reason']}"[:WIDTH]
    metered, main, clock = result["metered"], result["main"], result["clock_mhz"]
    evidence = ",".join([*metered["observed_seconds"], *(["gap"] if metered["gap_seconds"] else [])])
    inside = {True: "yes", False: "NO", None: "?"}[result["inside"]]
    text = (
        f"{result['name']:<29}{scientific(result['true_flop']):>10}{scientific(metered['declared']['measured']):>10}"
        f"{_ratio(result['ratio']):>8} {inside:<3} {main['pipe'] if main else '-':<12}{_ratio(main and main['ratio']):>8}"
        f"{'-' if clock is None else round(clock['mean']):>6} {evidence}"
    )
    return text[:WIDTH]


def scientific(flop: str | None) -> str:
    """Three digits behind the point; what is unknown stays so."""
    return "unknown" if flop is None else f"{int(flop):.3e}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.4f}" if ratio < 100 else f"{ratio:.1e}"
