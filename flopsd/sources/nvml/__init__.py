"""NVIDIA GPUs through NVML: running cycle counters or percentages of GPM on Hopper and newer, including MIG slices; a
ceiling from utilisation on all other GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flopsd.core.model import Evidence
from flopsd.errors import SourceUnavailableError
from flopsd.sources import Package, Source, SourceInfo, SourceSettings

_SINCE_12_550_52 = "nvmlDeviceGetComputeRunningProcesses_v2"

if TYPE_CHECKING:
    from flopsd.sources.ownership.rule import Job, VendorDevices


def _open(settings: SourceSettings) -> Source:
    import pynvml

    from flopsd.sources.nvml.source import NvmlSource

    if not hasattr(pynvml, _SINCE_12_550_52):
        raise SourceUnavailableError(
            f"the module {pynvml.__file__} is older than nvidia-ml-py 12.550.52",
            hint="pip install --upgrade nvidia-ml-py; and if the distribution `pynvml` is older than 12, "
            "pip uninstall pynvml: it hides the module of nvidia-ml-py",
        )
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
