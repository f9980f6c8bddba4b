"""The hardware of a planned training: instances or devices, their peak, the time they need and its cost."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from flopsd.core.architecture import Bounds
from flopsd.core.dataclass import dataclass
from flopsd.core.part import Part
from flopsd.core.peaks import PeakTable
from flopsd.core.rounding import format_rate
from flopsd.errors import UnknownDeviceError

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Hardware:
    """`instances` of a type or a part, with `devices` of one part of the peak table in total. The peaks are sums of
    their dense datasheet peaks in one number format. `price`: of one instance, in USD an hour."""

    name: str
    instances: int
    part: str
    devices: int
    number_format: str
    peak_flop_per_s: int
    disputed_peak_flop_per_s: int  # by other sources if they differ, else the same
    doubts: tuple[str, ...]
    price: Fraction | None


@dataclass(frozen=True, slots=True)
class Mfu:
    """The share of the datasheet peak that goes into required FLOP. `source` states whether it was measured."""

    low: Fraction
    high: Fraction
    source: str


@dataclass(frozen=True, slots=True)
class Need:
    """Wall-clock hours, from the least FLOP at the best MFU to the most FLOP at the worst, and their cost in USD."""

    hours: tuple[Fraction, Fraction]
    usd: tuple[Fraction, Fraction] | None


def need_of(required: Bounds, hardware: Hardware, mfu: Mfu) -> Need:
    """The need from `required.low` FLOP at the higher end of the MFU to `required.high` at its lower end."""
    hours = (
        required.low / (_HOUR_S * hardware.disputed_peak_flop_per_s * mfu.high),
        required.high / (_HOUR_S * hardware.peak_flop_per_s * mfu.low),
    )
    if hardware.price is None:
        return Need(hours, None)
    each = hardware.instances * hardware.price
    return Need(hours, (each * hours[0], each * hours[1]))


def hardware_from(
    table: PeakTable, name: str, count: int, devices: int | None, number_format: str, price: Fraction | None
) -> Hardware:
    """`count` instances of a SageMaker type with `devices` each, or `count` devices of a part of the table, by its id
    or its driver name. `price`: of one instance or device in USD an hour. Raises UnknownDeviceError if the table does
    not have the name, the number of devices or the format's peak."""
    instance = table.instances.get(name)
    by_name = {name: part for part in table.parts.values() for name in (*part.names, part.id)}
    part = by_name.get(name if instance is None else instance.accelerator)
    if part is None:
        raise UnknownDeviceError(
            f"{name!r:.60} is neither a SageMaker instance type nor a part in the peak table",
            hint=_hint(table, name),
        )
    each = 1 if instance is None else devices or instance.count
    if each is None:
        raise UnknownDeviceError(
            f"no source has the number of accelerators of {name}", hint="give it with --devices-per-instance"
        )
    peak = peak_flop_per_s(part, number_format)
    if peak is None:
        known = dict.fromkeys(of for _, of, _ in part.datasheet_peaks())
        raise UnknownDeviceError(
            f"the peak table has no datasheet peak of {part.id} in {number_format}",
            hint=f"it has {', '.join(known) or 'none'}: choose with --format",
        )
    doubts = []
    rates = f"the rates of {part.id} are {part.status}"
    if peak[1] > peak[0]:
        doubts.append(f"{rates}: the shortest time assumes {format_rate(peak[1])} each, as others publish it")
    elif part.status != "published":
        doubts.append(rates)
    if instance is not None and devices is None and instance.status != "published":
        doubts.append(f"the number of accelerators of {name}, {each}, is {instance.status}")
    devices_in_all = count * each
    return Hardware(
        name, count, part.id, devices_in_all, number_format, devices_in_all * peak[0], devices_in_all * peak[1],
        tuple(doubts), price,
    )  # fmt: skip


def _hint(table: PeakTable, name: str) -> str:
    typed = name.lower().replace(" ", "-")
    if near := [one for one in (*table.parts, *table.instances) if typed in one]:
        return f"did you mean {' or '.join(near)}?"
    return f"parts: {', '.join(table.parts)}; or an instance type such as ml.p5.48xlarge; how many is --count"


def peak_flop_per_s(part: Part, number_format: str, slice_sm_count: int | None = None) -> tuple[int, int] | None:
    """The dense datasheet peak of a device, or of a MIG slice of so many SMs: by the table, and the highest by a
    disputed rate. None if the table has no peak in that format."""
    disputed = replace(
        part, tensor_flop_per_cycle={**part.tensor_flop_per_cycle, **part.disputed_tensor_flop_per_cycle}
    )
    found = [{of: peak for _, of, peak in one.datasheet_peaks(slice_sm_count)} for one in (part, disputed)]
    if number_format not in found[0]:
        return None
    return found[0][number_format], max(one[number_format] for one in found)
