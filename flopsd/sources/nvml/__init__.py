"""NVIDIA GPUs through NVML: running cycle counters or percentages of GPM on Hopper and newer, MIG slices included; a
ceiling from utilisation on everything else.
"""

from __future__ import annotations

from flopsd.core.model import Evidence
from flopsd.sources import Package, Source, SourceInfo, SourceSettings


def _open(settings: SourceSettings) -> Source:
    from flopsd.sources.nvml.source import open_source

    return open_source(settings)


SOURCE = SourceInfo(
    name="nvml",
    title="NVIDIA GPUs, through the driver's NVML",
    open=_open,
    vendor="nvidia",
    evidence=(Evidence.CYCLES, Evidence.ACTIVITY, Evidence.UTILIZATION),
    packages=(Package("pynvml", "nvidia-ml-py", "flopsd[nvml]"),),
    remedy="load the NVIDIA driver (nvidia-smi lists the GPUs); in a container use the NVIDIA runtime",
)
