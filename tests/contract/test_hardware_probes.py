"""The questions of `make hardware` once per run, on the stand-in driver and on stand-ins for dcgmi and ncu."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.hardware import probes
from tests.hardware.questions import QUESTIONS
from tests.hardware.raw import Gpu
from tests.hardware.tools import PIPE_METRICS, SIZE
from tests.support.paths import ROOT
from tests.support.scenario import LIBRARY, Fault, Scenario, Segment, h100
from tests.support.scenario import Gpu as SimulatedGpu
from tests.support.sim import SharedClock, simulated

LOAD = (Segment(1000, hmma=0.5, imma=0.1, fp32=0.2),)
DCGMI = """#!{python}
import ctypes, sys
ctypes.CDLL({library!r}, mode=ctypes.RTLD_GLOBAL)
sys.path.insert(0, {root!r})
from flopsd.system.clock import SystemClock
from tests.hardware.raw import CYCLE_IDS, Gpu
gpu = Gpu(None, SystemClock())
found = gpu.metrics(gpu.sample(), gpu.sample(), CYCLE_IDS)
fields = sys.argv[sys.argv.index("-e") + 1].split(",")
print("#Entity  " + " ".join(fields) + "\\nID")
print("GPU 0  " + " ".join("N/A" for _ in fields))
values = [found[str(int(f) - 1084 + 248)]["value"] for f in fields]
print("GPU 0  " + " ".join("N/A" if value is None else str(int(value) + 0) for value in values))
"""
NCU = """#!/bin/sh
for last; do :; done
[ "$last" = fp8 ] && echo "==ERROR== ERR_NVGPUCTRPERM" >&2 && exit 1
echo "==PROF== Profiling one kernel"
echo '{head}'
echo '"","",{units}'
echo '"0","gemm",{values}'
"""
CYCLES = 2 * SIZE**3 // 4096


def answers(document: dict[str, Any]) -> dict[str, str]:
    """The answers that a simulated driver can give."""
    return {subject: ask(document, {}) for subject, _, _, ask in QUESTIONS[9:14]}


@pytest.fixture
def opened(standin: Path, tmp_path: Path) -> Iterator[Callable[..., Gpu]]:
    """The suite's own view of a simulated GPU, five seconds after the epoch."""
    clock = SharedClock(tmp_path / "clock")
    with ExitStack() as stack:

        def open_it(gpu: SimulatedGpu) -> Gpu:
            stack.enter_context(simulated(standin, tmp_path, Scenario((gpu,)), clock))
            clock.advance(5_000_000_000)
            found = Gpu(None, clock)
            stack.callback(pynvml.nvmlShutdown)
            return found

        yield open_it


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, standin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dcgmi and ncu, with their output."""
    folder = tmp_path / "bin"
    folder.mkdir()
    library = str(standin / LIBRARY)
    program(folder, "dcgmi", DCGMI.format(python=sys.executable, library=library, root=str(ROOT)))
    rows = {"head": ("ID", "Kernel Name", *PIPE_METRICS), "units": ("cycle",) * len(PIPE_METRICS)}
    values = (f"{CYCLES:,}", f"{CYCLES:,}", "0", "n/a", "9,999")
    stated = {name: ",".join(f'"{cell}"' for cell in row) for name, row in {**rows, "values": values}.items()}
    program(folder, "ncu", NCU.format(**stated))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_each_probe_is_answered(opened: Callable[..., Gpu], tools: Path) -> None:
    gpu = opened(h100(LOAD, clock_samples_ms=20, counters="average"))
    document = {"probes": probes.before(gpu), "device": {"part": "h100-sxm5-80gb"}}
    document["probes"] |= probes.after(gpu, change_settings=True)
    assert gpu.streaming() == 1, "it is switched on again"
    stated = answers(document)
    program(tools, "dcgmi", (tools / "dcgmi").read_text().replace("+ 0)", "+ 10**15)"))
    document["probes"] |= probes.after(gpu, change_settings=False)
    off = answers(document)
    assert stated["clock buffer"].startswith("yes: ")
    assert ", 20.0 ms apart on average, 1755 to 1755 MHz" in stated["clock buffer"]
    assert stated["streaming"].startswith("on before flopsd ran, ")
    assert "with streaming off: ANY_TENSOR_UTIL 0, SM_CYCLES_ELAPSED 0" in stated["stuck"]
    assert "on again: ANY_TENSOR_UTIL 60, SM_CYCLES_ELAPSED " in stated["stuck"]
    assert "bf16 4096.0 a tensor cycle (table 4096), hmma; " in stated["Nsight"]
    assert "fp8: ==ERROR== ERR_NVGPUCTRPERM (exit code 1)" in stated["Nsight"]
    assert stated["DCGM"] == "all 9 fields that both have lie between GPM's values just before and just after"
    assert off["DCGM"].startswith("0 of 9 agree; 1084 says 1")
    assert off["stuck"].endswith("--change-settings does")


@pytest.mark.usefixtures("tools")
def test_a_driver_that_refuses_is_reported_with_its_status(opened: Callable[..., Gpu]) -> None:
    gpu = opened(h100(LOAD, (Fault(0, 10**9, "unsampled"),)))
    found = {**probes.before(gpu), **probes.after(gpu, change_settings=True)}
    assert found["clock_buffer"] == {"status": 3}
    assert found["frozen"]["ms"] is None
    assert found["blinded"]["off"]["5"] == {"status": None, "value": None}
    assert found["dcgm"] == {"why": "dcgmi gives none of the fields 1084 to 1096"}
