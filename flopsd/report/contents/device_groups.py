"""Group devices with the same facts, so that these are shown once and not for each device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from flopsd.core.dataclass import dataclass
from flopsd.report.contents.model import Fact, ReportDevice

_HEAD, _TAIL = 12, 4  # characters of a long identifier that are kept: `GPU-3f2a9c00…a000`


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """Neighbouring devices, and their indices: `0 to 3, 6`."""

    indices: str
    devices: tuple[ReportDevice, ...]

    @property
    def first(self) -> ReportDevice:
        return self.devices[0]


def alike(devices: Iterable[ReportDevice]) -> tuple[DeviceGroup, ...]:
    """Groups of neighbours of one model with the same evidence and note."""
    return _grouped(devices, lambda one: (one.model, one.evidence, one.note))


def equal(devices: Iterable[ReportDevice]) -> tuple[DeviceGroup, ...]:
    """Groups of neighbours whose figures, coverage and energy are equal too."""
    return _grouped(devices, lambda one: (one.model, one.evidence, one.note, one.value, one.observed, one.energy))


def shared_facts(devices: Sequence[ReportDevice]) -> tuple[Fact, ...]:
    """The facts that all of several devices share."""
    if len(devices) < 2:
        return ()
    return tuple(fact for fact in devices[0].facts if all(fact in one.facts for one in devices))


def shortened(identifier: str) -> str:
    """The two ends of a long identifier, such as a UUID."""
    short = f"{identifier[:_HEAD]}…{identifier[-_TAIL:]}"
    return short if len(short) < len(identifier) else identifier


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as text, with consecutive ones as a range: `0 to 3, 6`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in spans)


def _grouped(devices: Iterable[ReportDevice], key: Callable[[ReportDevice], object]) -> tuple[DeviceGroup, ...]:
    groups = (tuple(found) for _, found in groupby(devices, key))
    return tuple(DeviceGroup(ranges(one.index for one in found), found) for found in groups)
