"""AWS Trainium and Inferentia2: FLOP as the Neuron runtime counts them, through neuron-monitor or sysfs.

The figure is executions x the compiled graph's multiply-adds x 2, counted in software by libnrt: model FLOP of the
Tensor Engine, blind to the number format. Whether every NKI kernel is in it is not known, so a core that is busy
without FLOP is a gap. See `flopsd.sources.neuron.document` for the sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flopsd.core.model import Evidence
from flopsd.settings import parsers
from flopsd.sources import Source, SourceInfo, SourceOption, SourceSettings

if TYPE_CHECKING:
    from flopsd.sources.ownership.rule import Job, VendorDevices


def _open(settings: SourceSettings) -> Source:
    from flopsd.sources.neuron.opener import open_source

    return open_source(settings)


def _ownership(job: Job) -> VendorDevices:
    from flopsd.sources.neuron.ownership import NeuronDevices

    return NeuronDevices(job.cores_per_chip)


SOURCE = SourceInfo(
    name="neuron",
    title="AWS Trainium and Inferentia2, through neuron-monitor or the driver's sysfs",
    open=_open,
    vendor="aws",
    ownership=_ownership,
    evidence=(Evidence.COUNT,),
    options=(
        SourceOption(
            "monitor",
            "FILE",
            "AWS's neuron-monitor",
            parsers.text,
            default_text="/opt/aws/neuron/bin/neuron-monitor, else the one on PATH",
        ),
    ),
    remedy="on Trainium and Inferentia install aws-neuronx-tools; in a container mount /opt/aws/neuron and give it "
    "/dev/neuron*",
)
