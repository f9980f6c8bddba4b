"""Decides whether flopsd starts a dcgm-exporter of its own: only if counters are open and nothing else uses them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from flopsd.errors import SourceUnavailableError
from flopsd.settings.platform import find_context
from flopsd.sources import Source, SourceSettings
from flopsd.sources.dcgm.own_source import OwnDcgmSource
from flopsd.sources.dcgm.source import DcgmSource, open_exporter
from flopsd.sources.nvml.counter_servers import PROFILERS, SERVERS, running
from flopsd.sources.nvml.profiling_advice import advice, words_of
from flopsd.sources.nvml.without_gpm import gpus_without_gpm

_INTERVAL_SECONDS = 5.0  # several reads per collection, so that none is missed


def open_own(
    settings: SourceSettings, path: str, fault: SourceUnavailableError, read_other: Callable[[], DcgmSource] | None
) -> Source:
    """Return a source that starts the program at `path`. `fault`: why no exporter is read. `read_other`: opens another
    exporter if one comes; None: a setting asks for this program. Raises SourceUnavailableError."""
    is_asked = read_other is None
    clock = settings.clock
    devices, access = gpus_without_gpm(clock, settings.peaks)
    remedy = advice(access, find_context(os.environ).platform)
    why_not, hint = "", remedy
    if access.is_open is False:
        why_not = f"the profiling counters are {words_of(access)}"
    elif not is_asked:
        others = sorted(set(running(SERVERS + PROFILERS).values()))
        if not devices:
            why_not, hint = "NVML shows no GPU that needs one", fault.hint
        elif not access.is_open:
            why_not = f"the profiling counters are {words_of(access)}"
        elif others:
            why_not, hint = f"{', '.join(others)} runs here", fault.hint
    if why_not:
        raise SourceUnavailableError(f"{fault}; flopsd does not start one: {why_not}", hint=hint, absent=not is_asked)
    seconds = float(settings.options.get("interval_seconds") or _INTERVAL_SECONDS)
    read = partial(open_exporter, settings, interval_seconds=seconds)
    return OwnDcgmSource(clock, devices, path, round(seconds * 1000), read, remedy, read_other)
