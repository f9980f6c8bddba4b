"""Whether the driver opens its profiling counters to this process: by these alone a GPU before Hopper is measured.

They are open to everybody where the module was loaded with NVreg_RestrictProfilingToAdminUsers=0, and else to who has
CAP_SYS_ADMIN in the first user namespace, in confidential computing to nobody. CAP_PERFMON is enough for the open
modules of driver 580; of other drivers that is not known. Sources: NVIDIA, ERR_NVGPUCTRPERM; open-gpu-kernel-modules
580, os_check_access and kern_profiler_v2.c. Never tried on a GPU.

And whether its MIG capabilities are open: `monitor` to read slices, `config` to make them. Each is a file under
/proc/driver/nvidia/capabilities that names a device file, which who may read it has; CAP_SYS_ADMIN has all of them.
Source: NVIDIA, MIG user guide, "Device Nodes and Capabilities". Never tried on a GPU either.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from flopsd.system.file_presence import exists

# What the module prints of the setting: the open one by its inner name, older ones by the name that is set.
_NAMES = ("RmProfilingAdminOnly", "RestrictProfilingToAdminUsers", "NVreg_RestrictProfilingToAdminUsers")
_SYS_ADMIN, _PERFMON = 1 << 21, 1 << 38  # capability(7)
_FIRST_NAMESPACE = ["0", "0", "4294967295"]
OPEN, CLOSED, ABSENT = "open", "closed", "absent"


class ProfilingAccess(Enum):
    """Open or not, and by what; the value is in the ledger."""

    OPEN_TO_ALL = "open_to_all"
    OPEN_BY_CAPABILITY = "open_by_capability"
    PERFMON_ONLY = "perfmon_only"  # it has CAP_PERFMON, which not every driver is known to accept
    NO_CAPABILITY = "no_capability"
    USER_NAMESPACE = "user_namespace"  # it has a capability, in a user namespace that is not the first
    CONFIDENTIAL_COMPUTING = "confidential_computing"
    UNKNOWN = "unknown"  # the module's parameters cannot be read

    @property
    def is_open(self) -> bool | None:
        """None: not known."""
        if self in (ProfilingAccess.UNKNOWN, ProfilingAccess.PERFMON_ONLY):
            return None
        return self in (ProfilingAccess.OPEN_TO_ALL, ProfilingAccess.OPEN_BY_CAPABILITY)


def profiling_access(is_confidential: bool, root: Path = Path("/")) -> ProfilingAccess:
    """The access of this process. `root` is prefixed to every file that is read."""
    if is_confidential:
        return ProfilingAccess.CONFIDENTIAL_COMPUTING
    parameters = _fields_of(root / "proc/driver/nvidia/params")
    admin_only = next((parameters[name] for name in _NAMES if name in parameters), None)
    if admin_only == "0":
        return ProfilingAccess.OPEN_TO_ALL
    if admin_only != "1":
        return ProfilingAccess.UNKNOWN
    try:
        capabilities = _effective_capabilities(root)
        is_first = (root / "proc/self/uid_map").read_text().split() == _FIRST_NAMESPACE
    except (OSError, ValueError):
        return ProfilingAccess.UNKNOWN
    if not capabilities & (_SYS_ADMIN | _PERFMON):
        return ProfilingAccess.NO_CAPABILITY
    if not is_first:
        return ProfilingAccess.USER_NAMESPACE
    return ProfilingAccess.OPEN_BY_CAPABILITY if capabilities & _SYS_ADMIN else ProfilingAccess.PERFMON_ONLY


def mig_capability(name: str, root: Path = Path("/")) -> str:
    """`open`, `closed`, or `absent`: a driver without MIG, or a container that is given none of its capabilities."""
    file = root / "proc/driver/nvidia/capabilities/mig" / name
    if not exists(file):
        return ABSENT
    minor = _fields_of(file).get("DeviceFileMinor", "")
    device = root / f"dev/nvidia-caps/nvidia-cap{minor}" if minor.isdecimal() else file
    is_open = _effective_capabilities(root) & _SYS_ADMIN or os.access(device, os.R_OK)
    return OPEN if is_open else CLOSED


def _effective_capabilities(root: Path) -> int:
    """Of this process, as bits. Raises ValueError for what is not a number."""
    return int(_fields_of(root / "proc/self/status").get("CapEff", "0"), 16)


def _fields_of(path: Path) -> dict[str, str]:
    """The lines `name: value` of a file; none where it cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
