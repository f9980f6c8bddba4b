"""Finds neuron-monitor and the driver's sysfs; a machine without either does not import what reads them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from flopsd.errors import SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.neuron.sysfs import Tree

if TYPE_CHECKING:
    from flopsd.sources.neuron.source import NeuronSource

INSTALLED = "/opt/aws/neuron/bin/neuron-monitor"


def open_source(settings: SourceSettings) -> NeuronSource:
    """The Neuron chips of this machine.

    Options: `monitor` is the executable's path (default: AWS's, else the one on PATH); tests set `sysfs` and `module`,
    the driver's sysfs folders, which are no settings. Raises SourceUnavailableError with the remedy; it may wait some
    seconds for the first document.
    """
    options = settings.options
    tree = Tree(options.get("sysfs"), options.get("module"))
    monitor = _find_monitor(options.get("monitor"))
    if monitor is None and not tree.chips:
        raise SourceUnavailableError("no Neuron device and no neuron-monitor was found", absent=True)
    from flopsd.sources.neuron.source import NeuronSource

    return NeuronSource(settings.clock, settings.peaks, tree, monitor)


def _find_monitor(named: object) -> str | None:
    if named:
        if shutil.which(str(named)) is None:
            raise SourceUnavailableError(f"{named} is no executable", hint="give the path of neuron-monitor")
        return str(named)
    return INSTALLED if os.access(INSTALLED, os.X_OK) else shutil.which("neuron-monitor")
