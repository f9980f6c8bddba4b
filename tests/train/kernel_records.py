"""PyTorch's own profiler on the CPU with a GPU's records in its results, and such records from real traces."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TRACES = json.loads((Path(__file__).parents[1] / "samples" / "kernel_names_real.json").read_text(encoding="utf-8"))
H100 = next(trace for trace in TRACES if "Qwen" in trace["file"])


@dataclass(frozen=True)
class Kernel:
    """A record with the members that Kineto's have in PyTorch from 2.4 on (torch/_C/_autograd.pyi)."""

    called: str
    lasted_ns: int
    index: int = 0
    type: str = "CUDA"

    def name(self) -> str:
        return self.called

    def duration_ns(self) -> int:
        return self.lasted_ns

    def device_index(self) -> int:
        return self.index

    def device_type(self) -> Any:
        import torch

        return getattr(torch.autograd.DeviceType, self.type)


class Range(Kernel):
    """A range named by the training, with kernels in it."""

    def is_user_annotation(self) -> bool:
        return True


def records_of(trace: dict[str, Any]) -> list[Kernel]:
    """One record per launch, all launches of a name equally long."""
    return [Kernel(name, ns // count) for name, count, ns in trace["kernels"] for _ in range(count)]


def profiler_with(events: Sequence[Kernel], before: Callable[[str], object] = str) -> Any:
    """A real profiler, started and stopped normally; `before` gets "start" or "stop" first."""
    import torch

    real = torch.profiler._KinetoProfile(activities=[torch.profiler.ProfilerActivity.CPU])

    def call(name: str) -> None:
        before(name)
        getattr(real, name)()

    def found() -> list[Any]:
        return [*real.profiler.kineto_results.events(), *events]

    results = SimpleNamespace(kineto_results=SimpleNamespace(events=found))
    return SimpleNamespace(start=lambda: call("start"), stop=lambda: call("stop"), profiler=results)
