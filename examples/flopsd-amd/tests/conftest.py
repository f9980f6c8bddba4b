"""The stand-in for libamd_smi.so, compiled for the amdsmi module that is installed, and what it simulates."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock

SOURCE = Path(__file__).parent / "standin" / "amd_smi.c"


@dataclass(frozen=True)
class Gpu:
    """One simulated GPU: busy for the first `busy_ms` of every `period_ms`."""

    busy_ms: int = 700
    period_ms: int = 1000
    partition: str = "SPX"
    status: int = 0
    metrics: str = "full"
    name: str = "AMD Instinct MI300X OAM"
    device_id: int = 0x74A1
    cus: int = 304
    max_mhz: int = 2100
    watts: int = 750

    def line(self, index: int) -> str:
        return (
            f"gpu 5aff74a1-0000-1000-80{index:02x}-000000000000 {self.device_id:x} {self.cus} {self.max_mhz} "
            f"{self.busy_ms} {self.period_ms} {self.watts} {self.partition} {self.status} {self.metrics} {self.name}"
        )

    def busy_ns(self, until_ns: int) -> int:
        """True busy time since time zero, in closed form."""
        period_ns, busy_ns = self.period_ms * 10**6, self.busy_ms * 10**6
        return until_ns // period_ns * busy_ns + min(until_ns % period_ns, busy_ns)


class Simulation(FakeClock):
    """Simulated GPUs and the clock that they run by."""

    def __init__(self, path: Path, *gpus: Gpu) -> None:
        super().__init__(boottime_ns=1000 * NS_PER_S)
        self.path, self.gpus, self.driver = path, list(gpus), 1
        self.write()

    def advance(self, ns: int) -> None:
        super().advance(ns)
        self.write()

    def change(self, index: int, **changed: object) -> None:
        self.gpus[index] = replace(self.gpus[index], **changed)  # type: ignore[arg-type]
        self.write()

    def write(self) -> None:
        lines = [f"driver {self.driver}", f"now_ns {self.boottime_ns()}"]
        self.path.write_text("\n".join(lines + [gpu.line(at) for at, gpu in enumerate(self.gpus)]) + "\n")


def compile_standin(folder: Path) -> Path:
    """A folder for ROCM_PATH: lib/libamd_smi.so with every symbol that the installed amdsmi module looks up."""
    found = importlib.util.find_spec("amdsmi")
    assert found is not None, "pip install 'flopsd-amd[test]'"
    assert found.origin is not None
    wrapper = Path(found.origin).with_name("amdsmi_wrapper.py").read_text()
    wanted = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper))
    here = set(re.findall(r"^int (amdsmi_\w+)\(", SOURCE.read_text(), re.MULTILINE))
    rest = folder / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 2; }}\n" for name in sorted(wanted - here)))
    (folder / "lib").mkdir()
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(folder / "lib" / "libamd_smi.so"),
         str(SOURCE), str(rest)],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def rocm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ROCM_PATH with the stand-in: the real amdsmi module loads it when it is first imported."""
    folder = compile_standin(tmp_path_factory.mktemp("rocm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCM_PATH", str(folder))
        patch.delenv("ROCM_HOME", raising=False)
        yield folder


@pytest.fixture
def simulation(rocm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:  # noqa: ARG001
    """Two MI300X, one of them busy all the time."""
    monkeypatch.setenv("AMDSMI_STANDIN", str(tmp_path / "gpus.txt"))
    return Simulation(tmp_path / "gpus.txt", Gpu(), Gpu(busy_ms=1000))
