"""The class of a kernel by its name, and the kernels of each device in a window, by class."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType

from flopsd.core.kernel_windows import LAUNCHES_OF, NS_OF

_RULES = Path(__file__).parent / "kernel_classes.json"
_MAX_NAMES = 4096  # names cached with their class; a process launches a few hundred


class KernelClasses:
    """The rules of kernel_classes.json. A name that matches no rule has the class `other`."""

    def __init__(self) -> None:
        rules = json.loads(_RULES.read_text(encoding="ascii"))["rules"]
        self._rules = [(re.compile(rule["pattern"]), str(rule["class"])) for rule in rules]
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        found = self._known.get(name)
        if found is None:
            found = next((kind for pattern, kind in self._rules if pattern.search(name)), "other")
            if len(self._known) < _MAX_NAMES:
                self._known[name] = found
        return found

    def counters_by_device(self, events: Iterable[Any], window_ns: int) -> Mapping[int, dict[str, int]]:
        """The counters of Kineto's events by device number. A record longer than the window does not belong to it."""
        found: dict[int, dict[str, int]] = {}
        for event in events:
            if event.device_type() != DeviceType.CUDA or _is_range(event):
                continue
            if not 0 <= (lasted_ns := event.duration_ns()) <= window_ns:
                continue
            counters, kind = found.setdefault(event.device_index(), {}), self.of(event.name())
            for name, more in ((NS_OF[kind], lasted_ns), (LAUNCHES_OF[kind], 1)):
                counters[name] = counters.get(name, 0) + more
        return found


def _is_range(event: Any) -> bool:
    """Whether an event is a range that the training named, not a kernel; PyTorch before 2.6 does not show it."""
    asked = getattr(event, "is_user_annotation", None)
    return asked is not None and bool(asked())
