"""A device's name among all machines. Pure."""

from __future__ import annotations

import re

from flopsd.core.model import Device

_HEX_RUN = re.compile("[0-9a-fA-F]{8}")


def lasting_name(device: Device, node: str) -> str:
    """A device's name among all machines: `neuron0` is one on every machine, a UUID or serial is not."""
    if device.serial is not None or _HEX_RUN.search(device.uid):
        return device.uid
    return f"{node}/{device.uid}"
