"""Sums of counters that depend on the content of tensors. They stay on the device until they are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import torch

from flopsd.core.dataclass import dataclass

MAX_KEPT = 64  # tensors of one element that are kept before they are added up on their device


@dataclass(slots=True)
class DeviceSum:
    """The sum of `whole` and the one-element tensors in `added`, less those in `taken`."""

    whole: int = 0
    added: list[Any] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> None:
        """Add a tensor of one element."""
        self.added.append(value)
        if len(self.added) >= MAX_KEPT:
            self.added = _sum_by_device(self.added)

    def add_rest(self, whole: int, value: Any) -> None:
        """Add `whole` less a tensor of one element."""
        self.whole += whole
        self.taken.append(value)
        if len(self.taken) >= MAX_KEPT:
            self.taken = _sum_by_device(self.taken)

    def read(self) -> int | None:
        """Return the sum, None if nothing was added, and reset it. Waits for the devices."""
        whole, added, taken = self.whole, self.added, self.taken
        self.whole, self.added, self.taken = 0, [], []
        return whole + _read(added) - _read(taken) if whole or added or taken else None


class DeviceSums:
    """Sums by phase and counter."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], DeviceSum] = defaultdict(DeviceSum)

    def of(self, phase: str, counter: str) -> DeviceSum:
        """The sum of a counter in a phase: the same object until the phase is moved."""
        return self._sums[phase, counter]

    def add(self, phase: str, counter: str, value: Any) -> None:
        """Add a tensor of one element."""
        self._sums[phase, counter].add(value)

    def hold(self, phase: str, found: Mapping[str, int]) -> None:
        """Add whole numbers, so that they are read together with the tensors of the same pass: only some of a pass's
        counters would contradict the others."""
        for counter, value in found.items():
            self._sums[phase, counter].whole += value

    def move(self, phase: str, to: str) -> None:
        """Add the sums of `phase` to those of phase `to`."""
        for key in [key for key in self._sums if key[0] == phase]:
            moved, one = self._sums.pop(key), self._sums[to, key[1]]
            one.whole += moved.whole
            one.added += moved.added
            one.taken += moved.taken

    def take(self) -> dict[str, dict[str, int]]:
        """The counters by phase since the last call. Waits for the devices."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for (phase, counter), one in self._sums.items():
            if (value := one.read()) is not None:
                found[phase][counter] = value
        return found


def _read(values: list[Any]) -> int:
    return sum(int(value.item()) for value in _sum_by_device(values))


def _sum_by_device(values: list[Any]) -> list[Any]:
    """The sums of the tensors, one per device."""
    by_device: dict[Any, list[Any]] = defaultdict(list)
    for value in values:
        by_device[value.device].append(value)
    # A sum made in inference mode could not be added to outside of it.
    with torch.inference_mode(False), torch.no_grad():
        return [torch.stack(several).sum() for several in by_device.values()]
