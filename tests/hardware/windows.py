"""Kernel windows on a real GPU, in a process of their own: their results and cost, and whether a profiler of the
training still works beside and after them.

`python -m tests.hardware.windows` prints it as JSON.
"""

import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from flopsd.core.kernel_windows import LAUNCHES_OF, NS_OF
from flopsd.system.clock import SystemClock
from tests.hardware.plan import TRANSFORMER

STEPS, WINDOWS, _SECONDS = 20, 4, 300


def windows() -> dict[str, Any]:
    """The result of `measured`, or {why}."""
    command = [sys.executable, "-m", "tests.hardware.windows"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as fault:
        return {"why": f"{type(fault).__name__}: {getattr(fault, 'stderr', None) or fault}"[-400:]}
    return found


class _Client:
    """A substitute for flopsd.client's."""

    current_phase = "train"

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.now_ns = SystemClock().boottime_ns

    def count(self, _phase: str, **counters: int) -> None:
        self.counted.update(counters)

    def declare(self, **_: object) -> None:
        pass


def measured(step: Callable[[], object], profile: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Steps without windows, in one each, after them, and beside a profiler of the training."""
    import torch

    from flopsd.integrations.kernel_windows import KernelWindows

    now_ns = SystemClock().boottime_ns

    def ms(*, within: Any = None) -> float:
        began_ns = now_ns()
        if within is not None:
            within.begin_step()
        step()
        if within is not None:
            within.end_step()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return (now_ns() - began_ns) / 1e6

    def due() -> tuple[Any, Counter[str]]:
        client = _Client()
        return KernelWindows(client, first_seconds=0, profile=profile), client.counted

    before, seen = statistics.median(ms() for _ in range(STEPS)), []
    for _ in range(WINDOWS):
        one, counted = due()
        took = ms(within=one)
        kernels = {kind: [counted[NS_OF[kind]], counted[LAUNCHES_OF[kind]]] for kind in NS_OF}
        seen.append({
            "ended": one.ended, "step_ms": took, "cost_ms": counted["kernel_window_cost_ns"] / 1e6,
            "kernels": {kind: both for kind, both in kernels.items() if both[1]},
        })  # fmt: skip
    after = statistics.median(ms() for _ in range(STEPS))
    beside, left_out = due()
    with torch.profiler.profile() as theirs:
        ms(within=beside)
    on_gpu = [one for one in theirs.events() if one.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "without_ms": before, "after_ms": after, "windows": seen, "beside": left_out["kernel_windows_skipped"],
        "their_events": len(theirs.events()), "their_kernels": len(on_gpu),
    }  # fmt: skip


def main() -> None:
    import torch

    from tests.hardware.torch_loads import training_step

    if not torch.cuda.is_available():
        print(json.dumps({"why": "this PyTorch sees no GPU"}))
        return
    print(json.dumps(measured(training_step(torch, TRANSFORMER, "cuda:0", checkpointing=False, lora=False))))


if __name__ == "__main__":
    main()
