"""Questions that only hardware answers, asked once a run beside the loads. Each answer holds the observation, with
NVML's own codes."""

from typing import Any

from flopsd.system.clock import NS_PER_S
from tests.hardware import operators, tools
from tests.hardware.raw import ANY_TENSOR, Gpu

ELAPSED, MMA = 248, 250
_ASKED = (ANY_TENSOR, ELAPSED, MMA)
_SETTLE_SECONDS = 0.3  # GPM renews its counters every 100 ms
_BLIND_SECONDS = 1.0


def before(gpu: Gpu) -> dict[str, Any]:
    """Probes made before flopsd runs, since flopsd switches streaming on."""
    return {
        "uptime_seconds": gpu.clock.boottime_ns() / NS_PER_S,
        "streaming": gpu.streaming(),
        "clock_buffer": gpu.clock_buffer(),
    }


def after(gpu: Gpu, *, change_settings: bool, torch_device: str | None = None) -> dict[str, Any]:
    """Probes made after flopsd has ended: one of these blinds every reader of the GPU for a moment, where that is
    allowed.

    `torch_device` is the GPU as PyTorch names it; None if it is simulated.
    """
    found = {"frozen": _frozen(gpu), "blinded": _blinded(gpu) if change_settings else None}
    found |= {"dcgm": tools.dcgm(gpu), "nsight": tools.nsight()}
    found["operators"] = None if torch_device is None else operators.counted(torch_device)
    gpu.free()
    return found


def _frozen(gpu: Gpu) -> dict[str, Any]:
    """Two samples closer together than GPM's renewal: the appearance of counters that do not move."""
    first, second = gpu.sample(), gpu.sample()
    apart_ns = second[0] - first[0] if first is not None and second is not None else None
    return {"ms": None if apart_ns is None else apart_ns / 1e6, "metrics": gpu.metrics(first, second, _ASKED)}


def _blinded(gpu: Gpu) -> dict[str, Any]:
    """Streaming switched off and on again: the results of two samples meanwhile, and afterwards."""
    status = gpu.set_streaming(on=False)
    try:
        off = gpu.sample_after(_SETTLE_SECONDS), gpu.sample_after(_BLIND_SECONDS)
    finally:
        gpu.set_streaming(on=True)
    on = gpu.sample_after(_SETTLE_SECONDS), gpu.sample_after(_BLIND_SECONDS)
    return {"status": status, "off": gpu.metrics(*off, _ASKED), "on": gpu.metrics(*on, _ASKED)}
