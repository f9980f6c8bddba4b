"""Plausibility check: energy per measured FLOP compared with published runs of the part. Not a bound. Pure.

A device is compared if its energy and work counters cover the same time, and its tensor work is counted in the format
of the published runs; up to one hundredth of each may differ. Comparisons add up over devices and ledgers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add
from typing import Any, NamedTuple

from flopsd.core.ledger.run_view import DeviceView
from flopsd.core.model import PPM, Evidence
from flopsd.core.part import MEASURED_FORMAT, TENSOR_PIPES
from flopsd.core.rows import UNDECLARED, Row
from flopsd.core.values import ceil_div, joules, millijoules, nanoseconds, seconds, text_or_none, whole_number

NAME = "energy/executed"
ABOVE = "ENERGY_ABOVE_PUBLISHED_RUNS"
BELOW = "ENERGY_BELOW_PUBLISHED_RUNS"
FJ_PER_MJ = 10**12
# The most of a device's time that may lack either energy or counted work: the first reading has no energy, since a
# counter that runs from driver load gives differences only from the second reading on. Also the most of its tensor work
# that may be in another format.
APART_PPM = 10_000
_COUNTERS = (Evidence.CYCLES, Evidence.ACTIVITY)


class Published(NamedTuple):
    """The reference of a comparison: femtojoules per FLOP of published runs of a part in a tensor format."""

    part: str
    precision: str
    low_fj: int
    high_fj: int


class ComparedEnergy(NamedTuple):
    """Energy and measured FLOP of some devices over the same time."""

    energy_mj: int
    device_ns: int
    measured_flop: int
    doubt_flop: int  # how far off `measured_flop` may be by margins and clock, either way

    def __add__(self, other: ComparedEnergy) -> ComparedEnergy:  # type: ignore[override]  # no list of four numbers
        return ComparedEnergy(*map(add, self, other))

    def for_ledger(self, published: Published) -> dict[str, Any]:
        energy_fj, least = self.energy_mj * FJ_PER_MJ, self.measured_flop - self.doubt_flop
        low = energy_fj // (self.measured_flop + self.doubt_flop)
        high = ceil_div(energy_fj, least) if least > 0 else None
        warning = ABOVE if low > published.high_fj else BELOW if high is not None and high < published.low_fj else None
        return {
            "name": NAME,
            "part": published.part,
            "precision": published.precision,
            "publishedFjPerFlop": {"low": str(published.low_fj), "high": str(published.high_fj)},
            "deviceSeconds": seconds(self.device_ns),
            "energyJoules": joules(self.energy_mj),
            "measuredFlop": str(self.measured_flop),
            "doubtFlop": str(self.doubt_flop),
            "fjPerFlop": {
                "low": str(low),
                "measured": str(energy_fj // self.measured_flop),
                "high": text_or_none(high),
            },
            "withinMargin": warning is None,
            "warning": warning,
        }


Comparisons = Mapping[Published, ComparedEnergy]


def compared(devices: Iterable[DeviceView]) -> dict[Published, ComparedEnergy]:
    """The comparable sums of the devices, by the published runs to compare with."""
    return sum_comparisons(found for device in devices if (found := _of_device(device)))


def sum_comparisons(parts: Iterable[Comparisons]) -> dict[Published, ComparedEnergy]:
    found: dict[Published, ComparedEnergy] = {}
    for part in parts:
        for published, one in part.items():
            found[published] = found[published] + one if published in found else one
    return found


def energy_for_ledger(found: Comparisons) -> list[dict[str, Any]]:
    return [found[published].for_ledger(published) for published in sorted(found)]


def energy_from(reconciliation: Iterable[Mapping[str, Any]]) -> dict[Published, ComparedEnergy]:
    """The inverse of `energy_for_ledger`; the list may have other comparisons too. Raises KeyError, TypeError or
    ValueError on anything else."""
    found = []
    for entry in reconciliation:
        if entry["name"] == NAME:
            low, high = (whole_number(entry["publishedFjPerFlop"][end]) for end in ("low", "high"))
            flop, doubt = whole_number(entry["measuredFlop"]), whole_number(entry["doubtFlop"])
            if not flop or not isinstance(entry["withinMargin"], bool):  # 1 would equal true
                raise ValueError("a comparison of energy needs measuredFlop above 0 and withinMargin true or false")
            one = ComparedEnergy(millijoules(entry["energyJoules"]), nanoseconds(entry["deviceSeconds"]), flop, doubt)
            found.append({Published(str(entry["part"]), str(entry["precision"]), low, high): one})
    return sum_comparisons(found)


def _of_device(device: DeviceView) -> Comparisons | None:
    part, energy_mj, span_ns = device.rated[-1].rating.part, device.energy_mj, device.job_ns
    if part is None or energy_mj is None or any(one.rating.part is not part for one in device.rated):
        return None
    energy_ns = sum([tally.energy_ns for tally in device.tallies])
    known_ns = sum([tally.known_ns(evidence) for tally in device.tallies for evidence in _COUNTERS])
    if ((span_ns - energy_ns) + (span_ns - known_ns)) * PPM > span_ns * APART_PPM:
        return None
    if any(tally.unread_ns.get(pipe) for tally in device.tallies for pipe in TENSOR_PIPES):
        return None
    rows = [row for row in device.rows if row.evidence in _COUNTERS and row.sm_cycles]
    known = part.energy.get(precision := _format(rows))
    flop = [row.figures.measured_flop for row in rows]
    measured = sum(one or 0 for one in flop)
    if known is None or None in flop or not measured:
        return None
    doubt = sum(
        ceil_div((row.figures.measured_flop or 0) * (row.margin_ppm or 0), PPM) + row.clock_uncertainty_flop
        for row in rows
    )
    published = Published(part.id, precision, known.low_fj, known.high_fj)
    return {published: ComparedEnergy(energy_mj, span_ns, measured, doubt)}


def _format(rows: Iterable[Row]) -> str:
    """The format in which nearly all tensor work, integers included, is counted; empty if there is none."""
    cycles: dict[str, int] = {}
    for row in rows:
        if row.pipe in TENSOR_PIPES:
            name = MEASURED_FORMAT if row.precision == UNDECLARED else row.precision
            cycles[name] = cycles.get(name, 0) + row.sm_cycles
    most = max(cycles, key=lambda name: (cycles[name], name), default="")
    others = sum(cycles.values()) - cycles.get(most, 0)
    return most if others * PPM <= sum(cycles.values()) * APART_PPM else ""
