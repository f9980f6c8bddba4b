"""Declare the FLOP of operators, in one session per device, with NVML's names of devices."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from flopsd.core.declarations import DEVICE_VARIABLE, MAX_TEXT
from flopsd.core.declared_facts import MAX_LEFT_OUT
from flopsd.core.model import PPM
from flopsd.core.values import added
from flopsd.integrations.operators.mode import Device, OperatorFlop
from flopsd.integrations.phase_of import UNSETTLED

_STEP_PPM = 10_000


def device_uuid(device: Device) -> str | None:
    """NVML's UUID of an accelerator; None for other devices, and if it is not known."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    properties = torch.cuda.get_device_properties(device)
    uuid = getattr(properties, "uuid", None)
    name = None if uuid is None else ("MIG-" if " MIG " in properties.name else "GPU-") + str(uuid)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    # CUDA gives a process one MIG instance. Its name may be abbreviated, and older drivers report the GPU's UUID.
    return visible if visible.startswith("MIG-") and not (name or "").startswith(visible) else name


class DeviceSessions:
    """The sessions by device; that of `client` is the first device's. `device`: the UUID to declare for all work,
    whatever PyTorch reports: for stand-ins and tests on a CPU."""

    def __init__(self, client: Any, device: str | None = None, *, declares_precision: bool = True) -> None:
        self._client, self._device = client, device or os.environ.get(DEVICE_VARIABLE) or None
        self._declares_precision = declares_precision
        self._uuids: dict[Device, str | None] = {}
        self._sessions: dict[str, Any] = {}
        self._unsettled: dict[str, dict[str, int]] = {}
        self._words: dict[str, set[str]] = defaultdict(set)
        self._formats: dict[str, int] = defaultdict(int)

    def counts_on(self, device: Device) -> bool:
        """Whether work on `device` is counted."""
        return self._uuid(device) is not None

    def add(self, counted: OperatorFlop, phase: str) -> None:
        for counters in self.adding(counted, phase):
            counters()

    def adding(self, counted: OperatorFlop, phase: str) -> list[Callable[[], None]]:
        """Functions that each add the counts of one device."""
        by_uuid: dict[str, dict[str, int]] = {}
        for device, counters in counted.by_device().items():
            if (uuid := self._uuid(device)) is not None:
                by_uuid[uuid] = added(by_uuid.get(uuid, {}), counters)
        if phase == UNSETTLED:
            return [functools.partial(self._keep, uuid, counters) for uuid, counters in by_uuid.items()]
        return [self._session(uuid).counting(phase, **counters) for uuid, counters in by_uuid.items()]

    def count(self, device: Device, phase: str, counters: Mapping[str, int]) -> None:
        """Count in the session of `device`, if its UUID is known."""
        if (uuid := self._uuid(device)) is not None:
            self._session(uuid).count(phase, **counters)

    def settle(self, phase: str) -> None:
        """Declare the work without a phase in `phase`."""
        unsettled, self._unsettled = self._unsettled, {}
        for uuid, counters in unsettled.items():
            self._session(uuid).count(phase, **counters)
        if words := self._words.pop(UNSETTLED, set()):
            self.say(words, phase)

    def say(self, words: Iterable[str], phase: str) -> None:
        """Declare work of `phase` that is not counted, in words."""
        known = self._words[phase]
        if known.issuperset(words) or len(known) >= MAX_LEFT_OUT:
            return
        known.update(one[:MAX_TEXT] for one in sorted(words)[: MAX_LEFT_OUT - len(known)])
        for session in self._sessions.values() or (self._client,):
            session.declare(**self._left_out())

    def see_formats(self, counted: OperatorFlop) -> None:
        """Declare the shares of tensor-core formats, by the types of the operators' tensors."""
        for (_, name), flop in counted.flop.items():
            if name is not None:
                self._formats[name] += flop
        total = sum(self._formats.values())
        if not self._declares_precision or not total:
            return
        shares = {name: flop * PPM // total // _STEP_PPM * _STEP_PPM for name, flop in self._formats.items()}
        shares[max(shares, key=lambda name: shares[name])] += PPM - sum(shares.values())
        declared = {name: share for name, share in sorted(shares.items()) if share}
        for session in self._sessions.values():
            session.declare(precision=declared)

    def _uuid(self, device: Device) -> str | None:
        if self._device is not None:
            return self._device
        if device not in self._uuids:
            self._uuids[device] = device_uuid(device)
        return self._uuids[device]

    def _session(self, uuid: str) -> Any:
        if (session := self._sessions.get(uuid)) is None:
            session = self._client if not self._sessions else self._client.another_session()
            self._sessions[uuid] = session
            session.declare(device=uuid, **self._left_out())
        return session

    def _left_out(self) -> dict[str, Any]:
        found = {phase: sorted(words) for phase, words in self._words.items() if words and phase != UNSETTLED}
        return {"operators_not_counted": found} if found else {}

    def _keep(self, uuid: str, counters: Mapping[str, int]) -> None:
        self._unsettled[uuid] = added(self._unsettled.get(uuid, {}), counters)
