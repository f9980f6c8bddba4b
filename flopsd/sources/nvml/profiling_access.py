"""Whether the driver opens its profiling counters to this process: nothing else measures a GPU before Hopper.

They are open to everybody if the module was loaded with NVreg_RestrictProfilingToAdminUsers=0. Otherwise they are open
to a process with CAP_SYS_ADMIN in the first user namespace, and in confidential computing to none. CAP_PERFMON is
enough for the open modules of driver 580; for other drivers that is not known. Sources: NVIDIA, ERR_NVGPUCTRPERM;
open-gpu-kernel-modules 580, os_check_access and kern_profiler_v2.c. Never tried on a GPU.

Also whether MIG capabilities are open: `monitor` to read slices, `config` to make them. Each is a file under
/proc/driver/nvidia/capabilities that names a device file. A process that may read the device file has the capability;
CAP_SYS_ADMIN gives all. Source: NVIDIA, MIG user guide, "Device Nodes and Capabilities". Never tried on a GPU either.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from flopsd.system.file_presence import exists

# The names of the setting as modules print it: the open one prints its internal name, older ones the name that is set.
_NAMES = ("RmProfilingAdminOnly", "RestrictProfilingToAdminUsers", "NVreg_RestrictProfilingToAdminUsers")
_SYS_ADMIN, _PERFMON = 1 << 21, 1 << 38  # capability(7)
_FIRST_NAMESPACE = ["0", "0", "4294967295"]
OPEN, CLOSED, ABSENT = "open", "closed", "absent"


class ProfilingAccess(Enum):
    """Whether the counters are open, and why; the value is in the ledger."""

    OPEN_TO_ALL = "open_to_all"
    OPEN_BY_CAPABILITY = "open_by_capability"
    PERFMON_ONLY = "perfmon_only"  # the process has CAP_PERFMON, which not every driver is known to accept
    NO_CAPABILITY = "no_capability"
    USER_NAMESPACE = "user_namespace"  # the process has a capability, but not in the first user namespace
    CONFIDENTIAL_COMPUTING = "confidential_computing"
    UNKNOWN = "unknown"  # the module's parameters cannot be read

    @property
    def is_open(self) -> bool | None:
        """Whether the counters are open to this process; None: not known."""
        if self in (ProfilingAccess.UNKNOWN, ProfilingAccess.PERFMON_ONLY):
            return None
        return self in (ProfilingAccess.OPEN_TO_ALL, ProfilingAccess.OPEN_BY_CAPABILITY)


def profiling_access(is_confidential: bool, root: Path = Path("/")) -> ProfilingAccess:
    """Return the access of this process. `root` is prefixed to every file that is read."""
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
    """Return `open`, `closed`, or `absent`: a driver without MIG, or a container that got none of its capabilities."""
    file = root / "proc/driver/nvidia/capabilities/mig" / name
    if not exists(file):
        return ABSENT
    minor = _fields_of(file).get("DeviceFileMinor", "")
    device = root / f"dev/nvidia-caps/nvidia-cap{minor}" if minor.isdecimal() else file
    is_open = _effective_capabilities(root) & _SYS_ADMIN or os.access(device, os.R_OK)
    return OPEN if is_open else CLOSED


def _effective_capabilities(root: Path) -> int:
    """Return the capabilities of this process, as bits. Raises ValueError if they are not a number."""
    return int(_fields_of(root / "proc/self/status").get("CapEff", "0"), 16)


def _fields_of(path: Path) -> dict[str, str]:
    """Return the lines `name: value` of a file; none if it cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
