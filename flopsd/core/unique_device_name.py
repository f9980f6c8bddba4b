"""Names of devices that are unique across machines. Pure."""

from __future__ import annotations

import re

from flopsd.core.model import Device

_HEX_RUN = re.compile("[0-9a-fA-F]{8}")


def unique_device_name(device: Device, node: str) -> str:
    """A device's name, unique across machines: every machine may have a `neuron0`, but a UUID or serial is unique."""
    if device.serial is not None or _HEX_RUN.search(device.uid):
        return device.uid
    return f"{node}/{device.uid}"
