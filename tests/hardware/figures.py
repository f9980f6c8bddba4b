"""From two marks to what flopsd metered between them: the product's own arithmetic on the difference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from flopsd.core.figures import Rating, rows, total_of
from flopsd.core.ledger.journal_codec import DeviceEntry
from flopsd.core.model import PPM, Figures, Precision, Tally
from flopsd.core.peaks import PeakTable
from flopsd.system.clock import NS_PER_S
from tests.hardware.meter import Mark

# Formats whose pipe does not tell them: without a declaration they are counted as BF16.
DECLARED = ("bf16", "fp16", "tf32", "fp8")

K = TypeVar("K", bound=Hashable)


def between(before: Tally, after: Tally) -> Tally:
    """What was counted from `before` to `after`."""
    energy = None if after.energy_mj is None else after.energy_mj - (before.energy_mj or 0)
    return Tally(
        begin_ns=before.watermark_ns,
        watermark_ns=after.watermark_ns,
        active_sm_cycles=_less(after.active_sm_cycles, before.active_sm_cycles),
        counted_flop=after.counted_flop - before.counted_flop,
        busy_sm_cycles=after.busy_sm_cycles - before.busy_sm_cycles,
        observed_ns=_less(after.observed_ns, before.observed_ns),
        gap_ns=_less(after.gap_ns, before.gap_ns),
        recovered_ns=after.recovered_ns - before.recovered_ns,
        uncertainty_sm_cycles=_less(after.uncertainty_sm_cycles, before.uncertainty_sm_cycles),
        unread_ns=_less(after.unread_ns, before.unread_ns),
        energy_mj=energy,
    )


def _less(after: Mapping[K, int], before: Mapping[K, int]) -> dict[K, int]:
    grown = {key: amount - before.get(key, 0) for key, amount in after.items()}
    return {key: amount for key, amount in grown.items() if amount}


def rating(entry: DeviceEntry, table: PeakTable, number_format: str | None) -> Rating:
    """How the device's cycles become FLOP, with the load's number format declared, or none."""
    part = table.parts.get(entry.part_id or "")
    limits = table.limits(entry.device, part) if part is not None else None
    precision = Precision(((number_format, PPM),), "tests.hardware") if number_format in DECLARED else None
    return Rating(part, limits, precision)


def metered(
    before: Mark, after: Mark, entry: DeviceEntry, table: PeakTable, number_format: str | None
) -> dict[str, Any]:
    """The `metered` object of a result; see results.py."""
    tally, rated = between(before.tally, after.tally), rating(entry, table, number_format)
    exported = sum(after.exported_flop.values()) - sum(before.exported_flop.values())
    pipes = [
        {
            "evidence": row.evidence.value,
            "pipe": row.pipe.value,
            "precision": row.precision,
            "sm_cycles": str(row.sm_cycles),
            "flop": None if row.figures.measured_flop is None else str(row.figures.measured_flop),
        }
        for row in rows(tally, rated, table)
        if row.pipe is not None and row.sm_cycles
    ]
    return {
        "from_ns": tally.begin_ns,
        "to_ns": tally.watermark_ns,
        "declared": bounds(total_of(rows(tally, rated, table), tally)),
        "undeclared": bounds(total_of(rows(tally, rating(entry, table, None), table), tally)),
        "exported_flop": exported,
        "pipes": sorted(pipes, key=lambda pipe: -int(pipe["flop"] or 0)),
        "observed_seconds": {evidence.value: ns / NS_PER_S for evidence, ns in tally.observed_ns.items()},
        "gap_seconds": {reason.value: ns / NS_PER_S for reason, ns in tally.gap_ns.items()},
        "energy_joules": None if tally.energy_mj is None else tally.energy_mj / 1000,
    }


def bounds(figures: Figures) -> dict[str, str | None]:
    texts = {"low": figures.low_flop, "measured": figures.measured_flop, "high": figures.high_flop}
    return {name: None if flop is None else str(flop) for name, flop in texts.items()}
