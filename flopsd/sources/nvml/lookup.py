"""What NVML reports of a GPU beside readings: its index, a slice's GPU instance, the processes on it.

NVML is shared with the source that reads it, which starts and stops it; here it is started for one question
only, where no source of this process uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flopsd.core.model import DeviceUid

_UNINITIALIZED, _NOT_SUPPORTED, _FUNCTION_NOT_FOUND = 1, 3, 13


class NvmlLookup:
    """Answers by the pynvml module, or None throughout where it is missing."""

    def __init__(self, lib: Any = None) -> None:
        """`lib` is the pynvml module; None imports it."""
        if lib is None:
            with suppress(ImportError):
                import pynvml

                lib = pynvml
        self._lib = lib

    def index(self, uid: DeviceUid) -> int | None:
        found = self._ask(lambda lib: lib.nvmlDeviceGetIndex(lib.nvmlDeviceGetHandleByUUID(uid)))
        return None if found is None else int(found)

    def gpu_instance(self, uid: DeviceUid) -> int | None:
        found = self._ask(lambda lib: lib.nvmlDeviceGetGpuInstanceId(lib.nvmlDeviceGetHandleByUUID(uid)))
        return None if found is None else int(found)

    def processes(self, uid: DeviceUid) -> frozenset[int] | None:
        """The process ids on a device: compute, graphics, clients of MPS. None: NVML does not list them.

        Whose pid namespace they are in depends on the driver, see `ownership/processes.py`.
        """
        found: frozenset[int] | None = self._ask(lambda lib: _pids(lib, lib.nvmlDeviceGetHandleByUUID(uid)))
        return found

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        lib = self._lib
        if lib is None:
            return None
        try:
            try:
                return question(lib)
            except lib.NVMLError as fault:
                if fault.value != _UNINITIALIZED:
                    return None
            lib.nvmlInit()
            try:
                return question(lib)
            finally:
                lib.nvmlShutdown()
        except lib.NVMLError:
            return None


def _pids(lib: Any, handle: Any) -> frozenset[int]:
    pids = _running(lib, "Compute", handle)
    for kind in ("Graphics", "MPSCompute"):
        try:
            pids |= _running(lib, kind, handle)
        except lib.NVMLError as fault:
            if fault.value not in (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND):
                raise
    return pids


def _running(lib: Any, kind: str, handle: Any) -> frozenset[int]:
    """The versioned call: for the plain one pynvml raises what is no NVMLError where the driver lacks it."""
    return frozenset(int(process.pid) for process in getattr(lib, f"nvmlDeviceGet{kind}RunningProcesses_v3")(handle))
