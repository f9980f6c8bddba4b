"""The status of a run for a terminal of a given size: whole if it fits, else one line per fact and per device."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopsd.core.figures import figures_from
from flopsd.core.rounding import format_rate
from flopsd.report.answer import answer_to
from flopsd.report.numbers import NOTHING_MEASURED, figures_text
from flopsd.report.terminal import counted, facts, one_line, shown, table, wrapped
from flopsd.telemetry.status_text import (
    coverage_text,
    gap_time,
    gaps_text,
    ledger_facts,
    measured_text,
    rate_text,
    run_text,
    status_text,
)

_LONGEST_TEXT = 170  # characters of a fact: three lines of 80 columns, and the longest headline of one policy
_LEAST_MODEL = 8
_HEAD = ("device", "model", "evidence", "measured", "now", "busy", "gaps")
_MODEL, _WORDS = 1, (1, 2)
_LESSER = (5, 4, 2, 6, 1)  # columns that a narrow terminal leaves out, the least important first


def status_screen(status: Mapping[str, Any], columns: int, rows: int) -> str:
    """At most `rows` lines for any number of devices, if the facts leave room for two lines about them. The text says
    what was left out; no figure is cut."""
    whole = status_text(status)
    lines = whole.splitlines()
    if len(lines) <= rows and max(map(len, lines)) <= columns:
        return whole
    lines = [
        *wrapped(one_line(status["health"]["sentence"]), columns=columns),
        "",
        *facts(
            [
                ("run", run_text(status)),
                ("measured", figures_text(figures_from(status["executed"]), NOTHING_MEASURED)),
                ("guidelines", figures_text(figures_from(status["guidelines"]))),
                ("answer", _short(answer_to(status["thresholds"]).headline)),
                ("rate", f"{rate_text(status)}; coverage {coverage_text(status)}"),
                ("gaps", _short(gaps_text(status["devices"]))),
                *((label, _short(text)) for label, text in ledger_facts(status)),
            ],
            columns=columns,
        ),
        "",
    ]
    return shown([*lines, *_devices(status["devices"], columns, rows - len(lines))])


def _short(words: str) -> str:
    return textwrap.shorten(one_line(words), _LONGEST_TEXT, placeholder=" …")


def _devices(devices: Sequence[Mapping[str, Any]], columns: int, rows: int) -> list[str]:
    """A heading and a line per device; the last line counts the devices that have no room."""
    fits = len(devices) if len(devices) < rows else max(0, rows - 2)
    lines = _table(devices[:fits], columns) if fits else []
    rest = devices[fits:]
    if not rest:
        return lines
    gaps = sum(Fraction(one["gapSeconds"]) > 0 for one in rest)
    return [*lines, f"and {counted(len(rest), 'more device')}, {gaps} with gaps: `flopsd status` lists all"]


def _table(devices: Sequence[Mapping[str, Any]], columns: int) -> list[str]:
    """The table of devices without empty columns, such as the gauges if a journal was read. In a narrow terminal the
    model names are cut first, then columns are left out."""
    rows = [_HEAD, *(_cells(device) for device in devices)]
    kept = [at for at in range(len(_HEAD)) if any(row[at] for row in rows[1:])]
    for dropped in (None, *_LESSER):
        kept = [at for at in kept if at != dropped]
        right = [place for place, at in enumerate(kept) if at not in _WORDS]
        lines = table([[row[at] for at in kept] for row in rows], right)
        too_wide = max(map(len, lines)) - columns
        if too_wide > 0:
            room = max(_LEAST_MODEL, max(len(row[_MODEL]) for row in rows) - too_wide)
            lines = table([[row[at][: room if at == _MODEL else None] for at in kept] for row in rows], right)
        if max(map(len, lines)) <= columns:
            break
    return lines


def _cells(device: Mapping[str, Any]) -> tuple[str, ...]:
    rate, busy = device.get("measuredFlopPerSecond"), device.get("utilizationRatio")
    return (
        str(device["index"]),
        one_line(device["model"]).removeprefix("NVIDIA "),
        ",".join(device["evidence"]),
        measured_text(device),
        "" if rate is None else format_rate(int(rate)),
        "" if busy is None else f"{100 * busy:.0f} %",
        gap_time(device["gapSecondsByReason"]),
    )
