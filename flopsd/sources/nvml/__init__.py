"""NVIDIA GPUs through NVML: running cycle counters or percentages of GPM on Hopper and newer, including MIG slices; a
ceiling from utilisation on all other GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flopsd.core.model import Evidence
from flopsd.sources import Package, Source, SourceInfo, SourceSettings

if TYPE_CHECKING:
    from flopsd.sources.ownership.rule import Job, VendorDevices


def _open(settings: SourceSettings) -> Source:
    import pynvml

    from flopsd.sources.nvml.source import NvmlSource

    return NvmlSource(pynvml, settings)


def ownership(job: Job) -> VendorDevices:  # noqa: ARG001, every source's has it
    from flopsd.sources.nvml.ownership import NvidiaDevices

    return NvidiaDevices()


SOURCE = SourceInfo(
    name="nvml",
    title="NVIDIA GPUs, through the driver's NVML",
    open=_open,
    vendor="nvidia",
    ownership=ownership,
    evidence=(Evidence.CYCLES, Evidence.ACTIVITY, Evidence.UTILIZATION),
    packages=(Package("pynvml", "nvidia-ml-py", "flopsd[nvml]"),),
    remedy="load the NVIDIA driver (nvidia-smi lists the GPUs); in a container use the NVIDIA runtime",
)
