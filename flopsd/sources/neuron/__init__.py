"""AWS Trainium and Inferentia2: FLOP as the Neuron runtime counts them, through neuron-monitor or sysfs.

The figure is executions x the compiled graph's multiply-adds x 2, accounted in software by libnrt: model FLOP
of the Tensor Engine, blind to the number format. Whether every NKI kernel is in it is not known, so a core that
is busy without FLOP is a gap. See `flopsd.sources.neuron.document` for the sources.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from flopsd.errors import SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.neuron.chips import INSTALL
from flopsd.sources.neuron.sysfs import Tree

if TYPE_CHECKING:
    from flopsd.sources.neuron.source import NeuronSource

INSTALLED = "/opt/aws/neuron/bin/neuron-monitor"


def open_source(settings: SourceSettings) -> NeuronSource:
    """The Neuron chips of this machine.

    Options: `neuron_monitor` is the executable's path (default: AWS's, else the one on PATH), `neuron_sysfs`
    and `neuron_module` the driver's sysfs folders. Raises SourceUnavailableError with the remedy; it may wait
    some seconds for the first document.
    """
    options = settings.options
    tree = Tree(options.get("neuron_sysfs"), options.get("neuron_module"))
    monitor = _find_monitor(options.get("neuron_monitor"))
    if monitor is None and not tree.chips:
        raise SourceUnavailableError("no Neuron device and no neuron-monitor is found here", hint=INSTALL, absent=True)
    from flopsd.sources.neuron.source import NeuronSource  # a machine without Neuron does not pay for it

    return NeuronSource(settings.clock, settings.peaks, tree, monitor)


def _find_monitor(named: object) -> str | None:
    if named:
        if shutil.which(str(named)) is None:
            raise SourceUnavailableError(f"{named} is no executable", hint="give the path of neuron-monitor")
        return str(named)
    return INSTALLED if os.access(INSTALLED, os.X_OK) else shutil.which("neuron-monitor")
