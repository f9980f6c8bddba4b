"""One load after another, each bracketed by two marks of flopsd and by raw samples; and flopsd's figures between the
marks."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from threading import Event
from typing import Any, TypeVar

from flopsd.core.figures import Figures
from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.model import PPM, Precision
from flopsd.core.part import INTEGER_FORMATS
from flopsd.core.peaks import PeakTable
from flopsd.core.rows import Rating, rows, total_of
from flopsd.core.tally import Tally
from flopsd.core.values import text_or_none
from flopsd.system.clock import NS_PER_S, Clock
from tests.hardware.loads import Done, Knobs, Load, MissedError, Spec, UnavailableError
from tests.hardware.meter import Mark, Meter
from tests.hardware.raw import ANY_TENSOR, Gpu, Sampled, Watch, mean_mhz

# Formats that their pipe does not identify: undeclared, they are counted as BF16.
DECLARED = ("bf16", "fp16", "tf32", "fp8")

K = TypeVar("K", bound=Hashable)


def between(before: Tally, after: Tally) -> Tally:
    """The growth from `before` to `after`."""
    energy = None if after.energy_mj is None else after.energy_mj - (before.energy_mj or 0)
    return Tally(
        begin_ns=before.watermark_ns,
        watermark_ns=after.watermark_ns,
        active_sm_cycles=_less(after.active_sm_cycles, before.active_sm_cycles),
        counted_flop=after.counted_flop - before.counted_flop,
        busy_sm_cycles=after.busy_sm_cycles - before.busy_sm_cycles,
        observed_ns=_less(after.observed_ns, before.observed_ns),
        gap_ns=_less(after.gap_ns, before.gap_ns),
        recovered_ns=_less(after.recovered_ns, before.recovered_ns),
        uncertainty_sm_cycles=_less(after.uncertainty_sm_cycles, before.uncertainty_sm_cycles),
        square_sum=_less(after.square_sum, before.square_sum),
        unread_ns=_less(after.unread_ns, before.unread_ns),
        energy_mj=energy,
    )


def _less(after: Mapping[K, int], before: Mapping[K, int]) -> dict[K, int]:
    grown = {key: amount - before.get(key, 0) for key, amount in after.items()}
    return {key: amount for key, amount in grown.items() if amount}


def rating(entry: DeviceEntry, table: PeakTable, number_format: str | None) -> Rating:
    """The conversion of the device's cycles to FLOP, with or without the load's number format declared."""
    part = table.parts.get(entry.part_id or "")
    limits = table.limits(entry.device, part) if part is not None else None
    precision = Precision(((number_format, PPM),), "tests.hardware") if number_format in DECLARED else None
    return Rating(part, limits, precision, table)


def metered(
    before: Mark, after: Mark, entry: DeviceEntry, table: PeakTable, number_format: str | None
) -> dict[str, Any]:
    """The `metered` object of a result; see results.py."""
    tally, rated = between(before.tally, after.tally), rating(entry, table, number_format)
    integers = number_format in INTEGER_FORMATS  # then the load executes integer operations, which are not FLOP
    exported = after.exported(integers=integers) - before.exported(integers=integers)

    def figures(rated: Rating) -> Figures:
        return total_of(rows(tally, rated), tally, integers=integers)

    pipes = [
        {
            "evidence": row.evidence.value,
            "pipe": row.pipe.value,
            "precision": row.precision,
            "sm_cycles": str(row.sm_cycles),
            "flop": text_or_none((row.integers if integers else row.figures).measured_flop),
        }
        for row in rows(tally, rated)
        if row.pipe is not None and row.sm_cycles
    ]
    return {
        "from_ns": tally.begin_ns,
        "to_ns": tally.watermark_ns,
        "declared": bounds(figures(rated)),
        "undeclared": bounds(figures(rating(entry, table, None))),
        "exported_flop": exported,
        "pipes": sorted(pipes, key=lambda pipe: -int(pipe["flop"] or 0)),
        "observed_seconds": {evidence.value: ns / NS_PER_S for evidence, ns in tally.observed_ns.items()},
        "gap_seconds": {reason.value: ns / NS_PER_S for reason, ns in tally.gap_ns.items()},
        "energy_joules": None if tally.energy_mj is None else tally.energy_mj / 1000,
    }


def bounds(figures: Figures) -> dict[str, str | None]:
    return dict(figures.for_ledger())


ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything needed to measure a load. `settle_ns`: how long a counter may lag behind the work."""

    meter: Meter
    gpu: Gpu
    entry: DeviceEntry
    table: PeakTable
    clock: Clock
    knobs: Knobs
    settle_ns: int


def measure(bench: Bench, load: Load) -> dict[str, Any]:
    """The result of one load; its errors are in the result, and the next load can run. Raises MeterError."""
    facts = described(load.spec)
    try:
        with bench.knobs.applied(load.spec.setting):
            for _ in range(ATTEMPTS):
                load.prepare()
                try:
                    return {**facts, "status": "done", "reason": None, **_bracketed(bench, load)}
                except MissedError as fault:
                    facts["reason"] = str(fault)
                finally:
                    load.release()
                    bench.gpu.free()
        return {**facts, "status": "failed"}
    except UnavailableError as fault:
        return {**facts, "status": "unavailable", "reason": str(fault)}
    except RuntimeError as fault:  # raised by PyTorch for a fault of the device
        return {**facts, "status": "failed", "reason": f"{type(fault).__name__}: {str(fault)[:200]}"}


def described(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.name, "kind": spec.kind, "format": spec.format, "size": spec.size, "variant": spec.variant,
        "setting": spec.setting, "seconds_asked": spec.seconds, "reason": None,
    }  # fmt: skip


def _bracketed(bench: Bench, load: Load) -> dict[str, Any]:
    gpu, meter = bench.gpu, bench.meter
    earlier = gpu.sample()
    before = meter.mark(gpu.uid, bench.clock.boottime_ns() + bench.settle_ns)
    stop, watch = Event(), Watch()
    begin = gpu.sample()
    thread = gpu.watch(stop, watch)
    try:
        done = load.run()
    finally:
        stop.set()
        thread.join()
    if done.begin_ns < before.tally.watermark_ns:
        raise MissedError(f"{load.spec.name}: it began before flopsd's totals were taken")
    after = meter.mark(gpu.uid, done.end_ns + bench.settle_ns)
    return {
        **_compared(bench, load.spec, done, before, after),
        **_watched(watch),
        "raw": _raw(gpu, earlier, begin, gpu.sample(), watch),
    }


def _compared(bench: Bench, spec: Spec, done: Done, before: Mark, after: Mark) -> dict[str, Any]:
    stated = metered(before, after, bench.entry, bench.table, spec.format)
    declared = {name: None if text is None else int(text) for name, text in stated["declared"].items()}
    measured, high = declared["measured"], declared["high"]
    first = stated["pipes"][0] if stated["pipes"] else None
    comparable = bool(done.flop) and measured is not None
    main = None
    if comparable and first is not None and first["flop"] is not None:
        main = {"pipe": first["pipe"], "evidence": first["evidence"], "ratio": int(first["flop"]) / done.flop}
    return {
        "begin_ns": done.begin_ns,
        "end_ns": done.end_ns,
        "steps": done.steps,
        "flop_per_step": str(done.flop_per_step),
        "counted_flop_per_step": None if done.counted_flop_per_step is None else str(done.counted_flop_per_step),
        "true_flop": str(done.flop),
        "metered": stated,
        "ratio": measured / done.flop if comparable and measured is not None else None,
        "main": main,
        "inside": None if high is None else (declared["low"] or 0) <= done.flop <= high,
    }


def _watched(watch: Watch) -> dict[str, Any]:
    mhz, mean = [clock for _, clock in watch.clock], mean_mhz(watch)
    return {
        "clock_mhz": None if mean is None else {"mean": mean, "min": min(mhz), "max": max(mhz), "readings": len(mhz)},
        "power_watts": sum(watch.power_mw) / len(watch.power_mw) / 1000 if watch.power_mw else None,
        "event_reasons": watch.reasons,
        "watch_fault": watch.fault or None,
    }


def _raw(gpu: Gpu, earlier: Sampled, begin: Sampled, end: Sampled, watch: Watch) -> dict[str, Any]:
    inner = watch.samples
    return {
        "whole": gpu.triple(earlier, begin, end),
        "steady": gpu.triple(begin, inner[0], inner[-1]) if len(inner) > 1 else None,
        "spacings": [
            {"ms": (b[0] - a[0]) / 1e6, "any_tensor": gpu.metrics(a, b, (ANY_TENSOR,))[str(ANY_TENSOR)]}
            for a, b in pairwise(inner)
        ],
    }
