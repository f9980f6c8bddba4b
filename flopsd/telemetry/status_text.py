"""The facts of a run in a terminal of 80 columns, without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from textwrap import wrap
from typing import Any

from flopsd.core.flop import format_flop
from flopsd.core.model import PPM
from flopsd.core.rounding import Towards, divided
from flopsd.report.ledger_text import at_least, at_most, counted, coverage_share, one_line, share_text

_WIDTH = 80
_INDENT = 11
_YEAR_S = 31_556_952  # of the Gregorian calendar, on average


def status_text(told: Mapping[str, Any]) -> str:
    """All facts, a line each, long ones wrapped."""
    executed, rate = told["executed"], told["measuredFlopPerSecond"]
    ended = f", ended: {one_line(told['endReason'])}" if told["endReason"] else ""
    lines = [
        *(["REPLAY of a recording: no hardware is metered"] if told["replay"] else []),
        *_fact(
            "run",
            f"{one_line(told['run'])} on {one_line(told['node'])}, daemon start {told['daemonStarts']}, "
            f"daemon {told['daemon']}{ended}",
        ),
        *_fact("measured", _shown(executed["measured"], "nothing was measured", Towards.NEAREST)),
        *_fact("at least", _shown(executed["low"], "unknown", Towards.DOWN)),
        *_fact("at most", _shown(executed["high"], "no upper bound is known", Towards.UP)),
        *_fact("guidelines", _counted(told["guidelines"])),
        *threshold_lines(told["thresholds"]),
        *_fact("rate", "unknown" if rate is None else format_flop(int(rate), "FLOP/s")),
        *_fact("coverage", coverage_text(told)),
        *_fact("gaps", gaps_text(told["devices"])),
        *_sources(told["sources"]),
        *([] if not told["journal"] or not told["journal"]["fault"] else
          _fact("journal", f"NOT WRITTEN, totals are in memory only: {one_line(told['journal']['fault'])}")),
        "",
        f"{'GPU':>3}  {'model':<28} {'evidence':<12} {'measured':>15} {'gap s':>10}",
    ]  # fmt: skip
    for device in told["devices"]:
        measured = device["executed"]["measured"]
        shown = "ceiling only" if measured is None else format_flop(int(measured))
        lines.append(
            f"{device['index']:>3}  {one_line(device['model'])[:28]:<28} {','.join(device['evidence'])[:12]:<12} "
            f"{shown:>15} {float(device['gapSeconds']):>10.2f}"
        )
        lines += [f"     {line}" for line in wrap(now_text(device), _WIDTH - 5)]
    return "\n".join(lines) + "\n"


def coverage_text(told: Mapping[str, Any]) -> str:
    span = Fraction(told["jobSeconds"])
    if not span:
        return "unknown"
    return f"{coverage_share(int(Fraction(told['knownSeconds']) * PPM / span))} of {float(span):.1f} device seconds"


def gaps_text(devices: Sequence[Mapping[str, Any]]) -> str:
    """Device seconds by reason, the longest first."""
    total: dict[str, float] = {}
    for device in devices:
        for reason, seconds in device["gapSecondsByReason"].items():
            total[reason] = total.get(reason, 0.0) + float(seconds)
    longest = sorted(total.items(), key=lambda item: -item[1])
    return ", ".join(f"{seconds:.2f} s {one_line(reason)}" for reason, seconds in longest) or "none"


def now_text(device: Mapping[str, Any]) -> str:
    """What the device shows at this moment; nothing where only a journal was read."""
    rate, busy, clock = (device.get(name) for name in ("measuredFlopPerSecond", "utilizationRatio", "smClockMhz"))
    active = sorted(device.get("pipeActivityRatio", {}).items(), key=lambda item: -item[1])
    parts = [
        *([] if rate is None else [format_flop(int(rate), "FLOP/s")]),
        *(f"{one_line(pipe)} {100 * ratio:.0f} %" for pipe, ratio in active if ratio >= 0.005),
        *([] if busy is None else [f"{100 * busy:.0f} % busy"]),
        *([] if clock is None else [f"{clock} MHz"]),
    ]
    return ", ".join(parts)


def _sources(told: Sequence[Mapping[str, Any]]) -> list[str]:
    words = {True: "up", False: "DOWN", None: ""}
    texts = []
    for one in told:
        reason = f": {one_line(one['reason'])}" if one["reason"] else ""
        texts.append(f"{one_line(one['name'])} {words[one['up']]}".rstrip() + reason)
    return [line for at, text in enumerate(texts or ["none"]) for line in _fact("" if at else "sources", text)]


def _fact(name: str, text: str) -> list[str]:
    lines = wrap(text, _WIDTH - _INDENT) or [""]
    return [f"{name if at == 0 else '':<{_INDENT}}{line}" for at, line in enumerate(lines)]


def _counted(guidelines: Mapping[str, Any]) -> str:
    """What counts as training compute: an interval, and a point where declarations make one."""
    point = "" if guidelines["measured"] is None else f"{format_flop(int(guidelines['measured']))}, "
    high = "no known bound" if guidelines["high"] is None else at_most(int(guidelines["high"]))
    return f"{point}{at_least(int(guidelines['low'] or 0))} to {high}"


def threshold_lines(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each rule: its state, the most that the run can be of it, when it would be crossed at the mean rate."""
    lines: list[str] = []
    undeclared = [one for one in told if one["applies"] is None and one["state"] == "indeterminate"]
    if undeclared:
        what = f"{counted(len(undeclared), 'rule')}: INDETERMINATE, too little is declared (docs/thresholds.md)"
        lines += _fact("threshold", what)
    for one in told:
        if one in undeclared:
            continue
        high, when = one["sharePpm"]["high"], one["crossing"]
        share = "no upper bound" if high is None else f"at most {share_text(int(high), Towards.UP)}"
        crossing = "" if when is None or one["state"] == "above" else f", {crossing_text(when)}"
        lines += _fact("threshold", f"{one_line(one['rule'])}: {str(one['state']).upper()}, {share}{crossing}")
    return lines


def crossing_text(crossing: Mapping[str, str | None]) -> str:
    """When a threshold is crossed; an upper end that is not known may be beyond it already."""
    earliest, latest = crossing["earliestSeconds"], crossing["latestSeconds"]
    if earliest is None:
        return "not crossed at this rate"
    if int(earliest) == 0:
        return "may be crossed already" + (
            "" if latest is None else f", certainly in {_time(latest, Towards.UP)} at this rate"
        )
    if latest is None:
        return f"crossed in {_time(earliest, Towards.DOWN)} at the earliest"
    return f"crossed in {_time(earliest, Towards.DOWN)} to {_time(latest, Towards.UP)} at this rate"


def _time(seconds_text: str, towards: Towards) -> str:
    seconds = int(seconds_text)
    if seconds < 172_800:
        hours = divided(seconds, 3600, towards)
        return counted(hours, "hour") if hours else "less than an hour"
    if seconds < 10 * _YEAR_S:
        return f"{divided(seconds, 86_400, towards)} days"
    years = divided(seconds, _YEAR_S, towards)
    return f"{years} years" if years <= 10_000 else "over 10 000 years"


def _shown(flop: str | None, otherwise: str, towards: Towards) -> str:
    return otherwise if flop is None else format_flop(int(flop), towards=towards)
