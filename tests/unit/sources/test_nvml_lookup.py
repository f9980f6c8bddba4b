"""The processes that NVML lists for a single question, whether or not a source of this process uses NVML."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from flopsd.sources.nvml.ownership import NvmlProcesses
from tests.support.nvml_answers import NvmlFault

NOT_HERE, UNINITIALIZED, LOST = (
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_GPU_IS_LOST,
)
NOT_SUPPORTED, NO_FUNCTION = pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND


class Library:
    """A library with one GPU. `errors` by the kind of processes, or for any call by "". `users`: of NVML."""

    NVMLError = NvmlFault

    def __init__(self, users: int, **errors: int) -> None:
        self.users, self.starts, self._errors = users, 0, errors
        for kind, pids in (("Compute", (11, 12)), ("Graphics", (12, 13)), ("MPSCompute", (14,))):
            for version in "23":
                name = f"nvmlDeviceGet{kind}RunningProcesses_v{version}"
                setattr(self, name, self._listing({kind, kind + version}, pids))

    def _listing(self, keys: set[str], pids: tuple[int, ...]) -> Callable[[str], list[SimpleNamespace]]:
        def listing(handle: str) -> list[SimpleNamespace]:
            assert handle == "handle of GPU-1"
            for key in keys & self._errors.keys():
                raise NvmlFault(self._errors[key])
            return [SimpleNamespace(pid=pid) for pid in pids]

        return listing

    def nvmlInit(self) -> None:  # noqa: N802
        if "start" in self._errors:
            raise NvmlFault(self._errors["start"])
        self.users, self.starts = self.users + 1, self.starts + 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.users -= 1

    def nvmlDeviceGetHandleByUUID(self, uid: str) -> str:  # noqa: N802
        if not self.users:
            raise NvmlFault(UNINITIALIZED)
        if "handle" in self._errors:
            raise NvmlFault(self._errors["handle"])
        return f"handle of {uid}"


@pytest.mark.parametrize("users", [0, 2])
@pytest.mark.parametrize(
    ("errors", "pids"),
    [
        ({}, {11, 12, 13, 14}), ({"Graphics": NOT_SUPPORTED}, {11, 12, 14}), ({"MPSCompute": NO_FUNCTION}, {11, 12, 13}),
        ({"Graphics": LOST}, None), ({"MPSCompute": NOT_HERE}, None), ({"Compute": NOT_SUPPORTED}, None),
        ({"Compute2": NO_FUNCTION}, {11, 12, 13, 14}), ({"handle": LOST}, None), ({"start": LOST}, {11, 12, 13, 14}),
    ],
)  # fmt: skip
def test_processes_of_every_kind_that_the_driver_knows(
    monkeypatch: pytest.MonkeyPatch, users: int, errors: dict[str, int], pids: set[int] | None
) -> None:
    """If NVML is unused it is started for the question, and shut down."""
    library = Library(users, **errors)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    is_started = users > 0 or "start" not in errors
    assert NvmlProcesses().on("GPU-1") == (pids if is_started else None)
    assert (library.users, library.starts) == (users, 1 if users == 0 and is_started else 0)


@pytest.mark.parametrize("module", [None, SimpleNamespace()])
def test_without_a_new_module_no_process_list_is_known(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert NvmlProcesses().on("GPU-1") is None
