"""The status of a run for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopsd.core.figures import figures_from
from flopsd.core.model import ACCOUNTED_ELSEWHERE
from flopsd.core.rounding import format_duration, format_flop, format_rate
from flopsd.report.claims import claims_text, holds_counts
from flopsd.report.ledger_json import may_be_longer
from flopsd.report.numbers import (
    NOTHING_MEASURED,
    beyond_margin,
    coverage_words,
    figures_text,
    integer_facts,
    interval,
)
from flopsd.report.terminal import facts, one_line, shown, stated, table, wrapped
from flopsd.report.threshold_text import threshold_facts
from flopsd.report.verification_text import daemon_stopped_text, lone_node_text
from flopsd.settings.words import say
from flopsd.system.clock import NS_PER_S

_MODEL_COLUMNS = 28
ELSEWHERE = frozenset(reason.value for reason in ACCOUNTED_ELSEWHERE)


def status_text(status: Mapping[str, Any]) -> str:
    """One line per fact, long lines wrapped; then the devices."""
    executed, counts, fault = status["executed"], status["guidelines"], (status["journal"] or {}).get("fault")
    rows = [
        ("run", run_text(status)),
        ("node", lone_node(status)),
        *interval(figures_from(executed)).facts(NOTHING_MEASURED),
        ("by count", holds_counts(*(device["evidence"] for device in status["devices"]))),
        *integer_facts(status["mayBeIntegerFlop"], figures_from(status["integerOperations"])),
        ("guidelines", figures_text(figures_from(counts))),
        ("guidelines", beyond_margin(figures_from(counts))),
        ("as claimed", claims_text(counts)),
        *threshold_facts(status["thresholds"]),
        ("rate", rate_text(status)),
        ("coverage", coverage_text(status)),
        ("gaps", gaps_text(status["devices"])),
        ("stopped", stopped_text(status)),
        *(("sources", text) for text in _sources(status["sources"]) or ["none"]),
        ("journal", f"NOT WRITTEN, totals are in memory only: {one_line(fault)}" if fault else ""),
        *ledger_facts(status),
    ]
    health = wrapped(one_line(status["health"]["sentence"]))
    return shown([*health, "", *facts(stated(rows)), "", *_devices(status["devices"])])


def lone_node(status: Mapping[str, Any]) -> str:
    """A warning for a node whose job may have other nodes that it does not list; else empty."""
    return lone_node_text(status["nodeRank"], status["jobNodes"] or 0)


def ledger_facts(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row for a peak table of the operator's own, which a verifier must be given, and for each known problem that
    prevents the seal, or the copy of a sealed ledger."""
    own = status.get("ownPeakTableSha256")
    problem, fault = (status.get("signingKey") or {}).get("problem"), status.get("rollingSealFault")
    ledgers = status.get("undeliveredLedgers")  # None: not known
    lack = "ledger is" if ledgers == 1 else "ledgers are"
    missing = f"NOT COPIED: {ledgers} sealed {lack} not at every destination yet; `flopsd copy --state-dir` tries again"
    found = [
        ("peak table", f"not flopsd's own: SHA-256 {one_line(own)}; every FLOP follows from its rates" if own else ""),
        ("key", f"CANNOT SIGN: {one_line(problem)}" if problem else ""),
        ("seals", one_line(fault or "")),
        ("copies", missing if ledgers else ""),
    ]
    return stated(found)


def rate_text(status: Mapping[str, Any]) -> str:
    """The measured rate now, and of how many devices it is if it is not of all that a running daemon meters."""
    if (rate := status["measuredFlopPerSecond"]) is None:
        return format_rate(None)
    ours = [
        one for one in status["devices"] if one.get("metered") and (one["gap"] or {}).get("reason") not in ELSEWHERE
    ]
    measured = sum(one["measuredFlopPerSecond"] is not None for one in ours)
    return format_rate(int(rate)) + (f", of {measured} of {len(ours)} devices" if measured < len(ours) else "")


def coverage_text(status: Mapping[str, Any]) -> str:
    known, job = Fraction(status["knownSeconds"]), Fraction(status["jobSeconds"])
    gaps = [device["gapSecondsByReason"] for device in status["devices"]]
    elsewhere = sum(Fraction(by_reason.get(reason, 0)) for by_reason in gaps for reason in ELSEWHERE)
    return coverage_words(known / job if job else None, job, Fraction(elsewhere), is_open=any(map(may_be_longer, gaps)))


def stopped_text(status: Mapping[str, Any]) -> str:
    """A warning if the daemon ended and was started again later; else empty."""
    stopped = status["stoppedSeconds"]
    stops_ns = [-1 if stopped is None else int(Fraction(stopped) * NS_PER_S)]
    return daemon_stopped_text(stops_ns, by_wall_clock=status.get("stoppedByWallClock"))


def gaps_text(devices: Sequence[Mapping[str, Any]]) -> str:
    """The gap time of all devices by reason, the longest first."""
    total: dict[str, Fraction] = {}
    for device in devices:
        for reason, seconds in device["gapSecondsByReason"].items():
            total[reason] = total.get(reason, Fraction(0)) + Fraction(seconds)
    longest = sorted(total.items(), key=lambda item: -item[1])
    if not devices:
        return "unknown: no device is metered"
    return ", ".join(f"{gap_time({reason: seconds})} {one_line(reason)}" for reason, seconds in longest) or "none"


def gap_time(seconds_by_reason: Mapping[str, Any]) -> str:
    """The sum of gaps; the least that it can be if some are of unknown length."""
    least = "at least " if may_be_longer(seconds_by_reason) else ""
    return least + format_duration(sum(map(Fraction, seconds_by_reason.values()), Fraction(0)))


def activity_text(device: Mapping[str, Any]) -> str:
    """The current activity of a device; empty if a journal was read."""
    rate, busy, clock = (device.get(name) for name in ("measuredFlopPerSecond", "utilizationRatio", "smClockMhz"))
    active = sorted(device.get("pipeActivityRatio", {}).items(), key=lambda item: -item[1])
    parts = [
        *([] if rate is None else [format_rate(int(rate))]),
        *(f"{one_line(pipe)} {100 * ratio:.0f} %" for pipe, ratio in active if ratio >= 0.005),
        *([] if busy is None else [f"{100 * busy:.0f} % busy"]),
        *([] if clock is None else [f"{clock} MHz"]),
    ]
    return ", ".join(parts)


def measured_text(device: Mapping[str, Any]) -> str:
    """The measured FLOP of a device; without any, whether there is an upper bound."""
    measured, high = (device["executed"][bound] for bound in ("measured", "high"))
    if measured is not None:
        return format_flop(int(measured))
    return "no bound" if high is None else "ceiling only"


def run_text(status: Mapping[str, Any]) -> str:
    ended = f", ended: {one_line(say('end.reason', status['endReason']))}" if status["endReason"] else ""
    starts = status["daemonStarts"]
    again = "" if starts == 1 else f" (started {'twice' if starts == 2 else f'{starts} times'})"
    return f"{one_line(status['run'])} on {one_line(status['node'])}, daemon {status['daemon']}{again}{ended}"


def _sources(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    state = {True: " up", False: " DOWN", None: ""}
    return [
        f"{one_line(one['name'])}{state[one['up']]}" + (f": {one_line(one['reason'])}" if one["reason"] else "")
        for one in sources
    ]


def _devices(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            str(device["index"]),
            one_line(device["model"])[:_MODEL_COLUMNS],
            ",".join(device["evidence"]),
            measured_text(device),
            gap_time(device["gapSecondsByReason"]),
        )
        for device in devices
    ]
    head, *lines = table([("device", "model", "evidence", "measured", "gaps"), *rows], right=(0, 3, 4))
    now = [wrapped(text, "     ") if (text := activity_text(device)) else [] for device in devices]
    return [head, *(line for first, more in zip(lines, now, strict=True) for line in (first, *more))]
