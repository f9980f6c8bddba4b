"""NVIDIA GPUs through a dcgm-exporter that runs already: activity where NVML has none (A100, A10G, L4, T4, V100).

Only its page is read. No DCGM engine is started: the profiling counters of these GPUs have one owner on a machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flopsd.core.model import Evidence
from flopsd.settings import parsers
from flopsd.sources import Source, SourceInfo, SourceOption, SourceSettings

if TYPE_CHECKING:
    from flopsd.sources.ownership.rule import Job, VendorDevices


def _open(settings: SourceSettings) -> Source:
    from flopsd.sources.dcgm.opener import open_source

    return open_source(settings)


def _ownership(job: Job) -> VendorDevices:  # noqa: ARG001, every source's has it
    from flopsd.sources.nvml.ownership import NvidiaDevices

    return NvidiaDevices()


SOURCE = SourceInfo(
    name="dcgm",
    title="NVIDIA GPUs, through a running dcgm-exporter",
    open=_open,
    vendor="nvidia",
    ownership=_ownership,
    evidence=(Evidence.ACTIVITY, Evidence.UTILIZATION),
    options=(
        SourceOption(
            "url",
            "URL",
            "where a dcgm-exporter that runs already is scraped",
            parsers.url,
            default="http://127.0.0.1:9400/metrics",
        ),
        SourceOption(
            "interval_seconds",
            "SECONDS",
            "how often that exporter collects, its DCGM_EXPORTER_INTERVAL",
            parsers.seconds(0.1, 3600),
            default=30.0,
            default_text="30",
        ),
    ),
    remedy="start NVIDIA's dcgm-exporter (with the capability SYS_ADMIN on A100 and older), or give --dcgm-url its "
    "address; its CSV must list DCGM_FI_PROF_PIPE_TENSOR_ACTIVE and DCGM_FI_DEV_SM_CLOCK, better also 1006-1008 and "
    "1013-1015",
)
