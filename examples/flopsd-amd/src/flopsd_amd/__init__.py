"""AMD Instinct GPUs as a source for flopsd. What it declares; the source is in `flopsd_amd.source`."""

from __future__ import annotations

from pathlib import Path

from flopsd.core.model import Evidence
from flopsd.sources import Source, SourceInfo, SourceSettings


def _open(settings: SourceSettings) -> Source:
    from flopsd_amd.source import open_source

    return open_source(settings)


SOURCE = SourceInfo(
    name="amd",
    title="AMD Instinct GPUs, through AMD SMI",
    open=_open,
    vendor="amd",
    peaks=Path(__file__).with_name("peaks.yaml"),
    evidence=(Evidence.UTILIZATION,),
    remedy="load amdgpu; give this user the groups render and video, and a container /dev/kfd and /dev/dri",
)
