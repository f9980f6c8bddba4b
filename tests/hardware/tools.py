"""Other tools' values of the same counters: DCGM's own fields, and Nsight Compute's pipe cycles.

`python -m tests.hardware.tools FORMAT` runs one product, for Nsight Compute to profile.
"""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from flopsd.system.clock import SystemClock
from tests.hardware.loads import Spec, gemm_flop
from tests.hardware.meter import ROOT
from tests.hardware.raw import CYCLE_IDS, Gpu

SIZE = 4096
TENSOR_FORMATS = ("fp64", "tf32", "bf16", "fp16", "fp8", "int8")
# The field numbers of DCGM 4.6 and the ids of GPM, in the same order.
GPM_OF_FIELD = {number: number - 1084 + 248 for number in (1084, *range(1086, 1091), *range(1094, 1097))}
PIPE_METRICS = (
    "sm__pipe_tensor_cycles_active.sum",
    *(f"sm__pipe_tensor_op_{kind}_cycles_active.sum" for kind in ("hmma", "imma", "dmma")),
    "sm__cycles_elapsed.sum",
)
_PRODUCT = "regex:gemm|cutlass|nvjet|xmma|wgmma"
_SECONDS = 120
_SETTLE_SECONDS = 0.3


def dcgm(gpu: Gpu) -> dict[str, Any]:
    """DCGM's cycle counters between two readings of GPM's: {why} or {counters: {field: {before, dcgm, after}}}."""
    if (program := shutil.which("dcgmi")) is None:
        return {"why": "dcgmi is not installed"}
    fields = list(GPM_OF_FIELD)
    before = _standing(gpu)
    command = [program, "dmon", "-e", ",".join(map(str, fields)), "-i", str(gpu.index), "-d", "1000", "-c", "3"]
    text, why = _run(command)
    after = _standing(gpu)
    rows = [line.split()[2:] for line in text.splitlines() if re.match(r"\s*GPU\s+[0-9]+\s", line)]
    stated = [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]
    known = [{field: int(float(value)) for field, value in row.items() if _is_number(value)} for row in stated]
    if not known or not known[-1]:
        return {"why": why or f"dcgmi gives none of the fields {fields[0]} to {fields[-1]}"}
    ends = {field: (before.get(gpm), after.get(gpm)) for field, gpm in GPM_OF_FIELD.items()}
    return {
        "counters": {
            str(field): {"before": ends[field][0], "dcgm": value, "after": ends[field][1]}
            for field, value in known[-1].items()
        }
    }


def nsight(formats: Sequence[str] = TENSOR_FORMATS) -> dict[str, Any]:
    """Pipe cycles of one product in each format by Nsight Compute: {why} or {formats: {format: {flop, cycles} or
    {why}}}. It needs permission to profile, and no other profiler."""
    if (program := shutil.which("ncu")) is None:
        return {"why": "Nsight Compute (ncu) is not installed"}
    found: dict[str, Any] = {}
    for name in formats:
        command = [
            program, "--csv", "--page", "raw", "--print-units", "base", "--metrics", ",".join(PIPE_METRICS),
            "--kernel-name", _PRODUCT, "--launch-count", "1", sys.executable, "-m", "tests.hardware.tools", name,
        ]  # fmt: skip
        text, why = _run(command)
        cycles = profiled(text)
        known = {"flop": str(gemm_flop(SIZE, SIZE, SIZE)), "cycles": cycles}
        found[name] = known if cycles else {"why": why or "no kernel of the product was profiled"}
    return {"formats": found}


def profiled(text: str) -> dict[str, float]:
    """The metrics of the first kernel in ncu's raw page, without those that this chip does not count."""
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[head:]))))
    kernels = [row for row in rows if (row.get("ID") or "").isdigit()]  # the first row holds units
    values = {name: (kernels[0].get(name) or "").replace(",", "") for name in PIPE_METRICS} if kernels else {}
    return {name: float(value) for name, value in values.items() if _is_number(value)}


def _standing(gpu: Gpu) -> dict[int, int]:
    """The values of GPM's running counters; none where they are differences."""
    a, b, c = (gpu.sample_after(_SETTLE_SECONDS) for _ in range(3))
    short, long = gpu.metrics(b, c, CYCLE_IDS), gpu.metrics(a, c, CYCLE_IDS)
    if not short["248"]["value"]:
        return {}
    values = {metric: (short[str(metric)]["value"], long[str(metric)]["value"]) for metric in CYCLE_IDS}
    return {metric: int(one) for metric, (one, other) in values.items() if one is not None and one == other}


def _run(command: Sequence[str]) -> tuple[str, str]:
    """A program's output, and the reason of its failure if it failed."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    try:
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=_SECONDS, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as fault:
        return "", f"{command[0]}: {type(fault).__name__}"
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return (
        done.stdout,
        f"{said[-1][:200] if said else 'no output'} (exit code {done.returncode})" if done.returncode else "",
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def _product(name: str) -> None:
    from tests.hardware.torch_loads import TorchLoad

    load = TorchLoad(Spec("gemm", name, SIZE, 0), "cuda:0", SystemClock())
    load.prepare()
    load.release()


if __name__ == "__main__":
    _product(sys.argv[1])
