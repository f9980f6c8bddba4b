"""AWS Trainium and Inferentia2: FLOP as the Neuron runtime counts them, through neuron-monitor or sysfs.

The figure is executions x the compiled graph's multiply-adds x 2, counted in software by libnrt: model FLOP of the
Tensor Engine, regardless of the number format. It is not known whether every NKI kernel is counted, so a core that is
busy without FLOP is a gap. See `flopsd.sources.neuron.document` for the sources.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from flopsd.core.model import Evidence
from flopsd.errors import SourceUnavailableError
from flopsd.settings import parsers
from flopsd.sources import SourceInfo, SourceOption, SourceSettings

if TYPE_CHECKING:
    from flopsd.sources.neuron.source import NeuronSource
    from flopsd.sources.ownership.rule import Job, VendorDevices

_INSTALLED = "/opt/aws/neuron/bin/neuron-monitor"


def open_source(settings: SourceSettings) -> NeuronSource:
    """Open the Neuron chips of this machine; without any, do not import the code that reads them. Tests set the options
    `sysfs` and `module`, the driver's sysfs folders, which are not settings. Raises SourceUnavailableError with the
    remedy. May wait some seconds for the first document."""
    from flopsd.sources.neuron.sysfs import Tree, has_device_node

    options = settings.options
    if options.get("monitor") == "off":
        raise SourceUnavailableError("neuron_monitor is off", absent=True)
    tree, monitor = Tree(options.get("sysfs"), options.get("module")), options.get("monitor")
    if not (monitor or tree.chips or has_device_node()):  # AWS's images for GPUs have neuron-monitor too
        raise SourceUnavailableError("no Neuron device was found", absent=True)
    if monitor and shutil.which(str(monitor)) is None:
        raise SourceUnavailableError(f"{monitor} is not an executable", hint="give the path of neuron-monitor")
    if not monitor:
        monitor = _INSTALLED if os.access(_INSTALLED, os.X_OK) else shutil.which("neuron-monitor")
    if monitor is None and not tree.chips:
        raise SourceUnavailableError("no neuron-monitor was found, and the driver's sysfs shows no chip")
    from flopsd.sources.neuron.source import NeuronSource

    return NeuronSource(settings.clock, settings.peaks, tree, monitor)


def _ownership(job: Job) -> VendorDevices:
    from flopsd.sources.neuron.ownership import NeuronDevices

    return NeuronDevices(job.cores_per_chip, job.environment)


SOURCE = SourceInfo(
    name="neuron",
    title="AWS Trainium and Inferentia2, through neuron-monitor or the driver's sysfs",
    open=open_source,
    vendor="aws",
    ownership=_ownership,
    evidence=(Evidence.COUNT,),
    options=(
        SourceOption(
            "monitor",
            "FILE|off",
            "AWS's neuron-monitor; off: Neuron devices are not looked for",
            parsers.text_or_off,
            default_text=f"{_INSTALLED}, else the one on PATH",
        ),
    ),
    remedy="on Trainium and Inferentia install aws-neuronx-tools; in a container mount /opt/aws/neuron and give it "
    "/dev/neuron*",
)
