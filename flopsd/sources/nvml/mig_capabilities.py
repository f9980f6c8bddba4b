"""Whether the driver's MIG capabilities are open to this process: `monitor` to read slices, `config` to make them.

Each is a file under /proc/driver/nvidia/capabilities that names a device file, which who may read it has; CAP_SYS_ADMIN
has all of them. Source: NVIDIA, MIG user guide, "Device Nodes and Capabilities". Never tried on a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

from flopsd.sources.nvml.profiling_access import SYS_ADMIN, effective_capabilities, fields_of

OPEN, CLOSED, ABSENT = "open", "closed", "absent"


def mig_capability(name: str, root: Path = Path("/")) -> str:
    """`open`, `closed`, or `absent`: a driver without MIG, or a container that is given none of its capabilities."""
    file = root / "proc/driver/nvidia/capabilities/mig" / name
    if not file.exists():
        return ABSENT
    minor = fields_of(file).get("DeviceFileMinor", "")
    device = root / f"dev/nvidia-caps/nvidia-cap{minor}" if minor.isdecimal() else file
    is_open = effective_capabilities(root) & SYS_ADMIN or os.access(device, os.R_OK)
    return OPEN if is_open else CLOSED
