"""Sums of counters that depend on the content of tensors: they stay on the device until they are read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch

MAX_KEPT = 64  # tensors of one element, before they are added up on their device


@dataclass(slots=True)
class _Sum:
    """`whole`, and tensors of one element: to add to it, and to take from it."""

    whole: int = 0
    added: list[Any] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)


class DeviceSums:
    """Sums by phase and counter."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], _Sum] = defaultdict(_Sum)

    def add(self, phase: str, counter: str, value: Any) -> None:
        """Add a tensor of one element."""
        self._keep(self._sums[phase, counter].added, value)

    def add_rest(self, phase: str, counter: str, whole: int, value: Any) -> None:
        """Add `whole` less a tensor of one element."""
        one = self._sums[phase, counter]
        one.whole += whole
        self._keep(one.taken, value)

    def move(self, phase: str, to: str) -> None:
        """Add the sums of `phase` to those of another one."""
        for key in [key for key in self._sums if key[0] == phase]:
            moved, one = self._sums.pop(key), self._sums[to, key[1]]
            one.whole += moved.whole
            one.added += moved.added
            one.taken += moved.taken

    def take(self) -> dict[str, dict[str, int]]:
        """Counters by phase since the last call. Waits for the devices."""
        sums, self._sums = self._sums, defaultdict(_Sum)
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for (phase, counter), one in sums.items():
            found[phase][counter] = one.whole + _read(one.added) - _read(one.taken)
        return found

    def _keep(self, values: list[Any], value: Any) -> None:
        values.append(value)
        if len(values) >= MAX_KEPT:
            values[:] = _added_up(values)


def _read(values: list[Any]) -> int:
    return sum(int(value.item()) for value in _added_up(values))


def _added_up(values: list[Any]) -> list[Any]:
    """One for each device."""
    by_device: dict[Any, list[Any]] = defaultdict(list)
    for value in values:
        by_device[value.device].append(value)
    # Of a sum that was made in inference mode no later one could be made outside of it.
    with torch.inference_mode(False), torch.no_grad():
        return [torch.stack(several).sum() for several in by_device.values()]
