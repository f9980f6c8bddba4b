"""Answers from the probes made once a run: buffer, streaming, frozen counters, and the values of other tools."""

from collections.abc import Mapping
from typing import Any

from flopsd.settings.data_files import load_peaks
from tests.hardware.raw import NAMES
from tests.hardware.tools import GPM_OF_FIELD, PIPE_METRICS

Facts = Mapping[str, Any]


class NotAnsweredError(Exception):
    """Why a question has no answer from this run."""


def clock_buffer(document: Facts, _: Mapping[str, str]) -> str:
    found = _probe(document, "clock_buffer")
    if found["status"]:
        return f"none: NVML answers with status {found['status']}"
    count, span_ms = found["samples"], found["span_ms"]
    if count < 2:
        return f"answered, with samples: {count}"
    low, high = found["mhz"]
    return f"yes: {count} samples, {span_ms / (count - 1):.1f} ms apart on average, {low} to {high} MHz"


def streaming(document: Facts, _: Mapping[str, str]) -> str:
    state, uptime = _probe(document, "streaming"), document["probes"]["uptime_seconds"]
    if state is None:
        raise NotAnsweredError("the driver does not tell whether GPM streams")
    return (
        f"{'on' if state else 'off'} before flopsd ran, {uptime:.0f} s after boot; whether another process had switched "
        "it before is not known"
    )


def stuck(document: Facts, _: Mapping[str, str]) -> str:
    frozen, blinded = _probe(document, "frozen"), document["probes"]["blinded"]
    if frozen["ms"] is None:
        raise NotAnsweredError("GPM gives no sample")
    said = f"two samples {frozen['ms']:.2f} ms apart, faster than counters are renewed: {_seen(frozen['metrics'])}"
    if blinded is None:
        return (
            f"{said}; switching streaming off was not tried, since it is global to the machine: --change-settings does"
        )
    if blinded["status"]:
        return f"{said}; streaming cannot be switched off (status {blinded['status']})"
    return f"{said}; with streaming off: {_seen(blinded['off'])}; on again: {_seen(blinded['on'])}"


def nsight(document: Facts, _: Mapping[str, str]) -> str:
    found = _probe(document, "nsight")
    if "why" in found:
        raise NotAnsweredError(found["why"])
    part = load_peaks().parts.get(document["device"]["part"] or "")
    rates = {} if part is None else part.tensor_flop_per_cycle
    total = PIPE_METRICS[0]
    seen, missed = [], []
    for name, one in found["formats"].items():
        cycles = one.get("cycles", {})
        if not cycles.get(total):
            missed.append(f"{name}: {one.get('why', 'no tensor cycles')}")
            continue
        moved = [
            metric.removeprefix("sm__pipe_tensor_op_").partition("_")[0]
            for metric in PIPE_METRICS[1:-1]
            if cycles.get(metric)
        ]
        against = f" (table {rates[name]})" if name in rates else ""
        seen.append(
            f"{name} {int(one['flop']) / cycles[total]:.1f} a tensor cycle{against}, {' and '.join(moved) or 'no sub-pipe'}"
        )
    if not seen:
        raise NotAnsweredError("; ".join(missed))
    return "; ".join([*seen, *missed])


def dcgm(document: Facts, _: Mapping[str, str]) -> str:
    found = _probe(document, "dcgm")
    if "why" in found:
        raise NotAnsweredError(found["why"])
    outside, compared = [], 0
    for text, one in found["counters"].items():
        field, low, high = int(text), one["before"], one["after"]
        if low is None or high is None:
            continue
        compared += 1
        if not low <= one["dcgm"] <= high:
            outside.append(f"{field} says {one['dcgm']}, {NAMES[GPM_OF_FIELD[field]]} {low} to {high}")
    if not compared:
        raise NotAnsweredError("GPM gives no running counters to hold DCGM's fields against")
    if outside:
        return f"{compared - len(outside)} of {compared} agree; " + "; ".join(outside)
    return f"all {compared} fields that both have lie between GPM's values just before and just after"


def operators(document: Facts, _: Mapping[str, str]) -> str:
    if (ways := _probe(document, "operators")) is None:
        raise NotAnsweredError("the driver was simulated")
    return "; ".join(f"{way}: {_counted(one)}" for way, one in ways.items())


def _counted(one: Facts) -> str:
    """The text for one way of launching."""
    if one["fault"] is not None:
        return str(one["fault"])
    queued = "" if one["queued"] is None else "; {} of {} steps were queued at the end".format(*one["queued"])
    words = f" ({', '.join(one['words'])})" if one["words"] else ""
    return f"{one['flop'] / one['known']:.4f} of the products{words}{queued}"


def windows(document: Facts, _: Mapping[str, str]) -> str:
    found = _probe(document, "windows")
    if "why" in found:
        raise NotAnsweredError(found["why"])
    first, *more = found["windows"]
    if first["ended"] is not None:
        return f"the first ended with {first['ended']}"
    whole = sum(ns for one in found["windows"] for ns, _ in one["kernels"].values())
    other = sum(one["kernels"].get("other", [0, 0])[0] for one in found["windows"])
    costs = ", ".join(f"{one['cost_ms']:.0f}" for one in (first, *more))
    return (
        f"opening and reading took {costs} ms; a step {found['without_ms']:.1f} ms without, {more[-1]['step_ms']:.1f} "
        f"with one and what it costs, {found['after_ms']:.1f} after them; {100 - 100 * other / max(1, whole):.1f} % of the "
        f"kernels' time has a class; a profiler of the training saw {found['their_kernels']} kernels, and "
        f"{found['beside']} window was left out beside it"
    )


def _probe(document: Facts, name: str) -> Any:
    if "probes" not in document:
        raise NotAnsweredError("the suite that made these results did not ask")
    if name not in document["probes"]:
        raise NotAnsweredError("it is asked when all loads are done")
    return document["probes"][name]


def _seen(metrics: Facts) -> str:
    """Name and value of each metric, or NVML's status."""
    return ", ".join(
        f"{NAMES[int(metric)]} {_value(one) if one['status'] == 0 else 'status ' + str(one['status'])}"
        for metric, one in metrics.items()
    )


def _value(one: Facts) -> str:
    return "is not a number" if one["value"] is None else f"{one['value']:.6g}"
