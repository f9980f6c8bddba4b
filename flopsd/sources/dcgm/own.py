"""Decides whether flopsd starts a dcgm-exporter of its own: only if counters are open and nothing else uses them."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial

from flopsd.errors import SourceUnavailableError
from flopsd.settings.platform import find_context
from flopsd.sources import Source, SourceSettings
from flopsd.sources.dcgm.own_source import OwnDcgmSource
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.sources.nvml.counter_servers import PROFILERS, SERVERS, running
from flopsd.sources.nvml.profiling_advice import advice, words_of
from flopsd.sources.nvml.sm_clock import open_clocks
from flopsd.sources.nvml.without_gpm import gpus_without_gpm

_INTERVAL_SECONDS = 5.0  # several reads per collection, so that none is missed


def open_own(
    settings: SourceSettings, path: str, fault: SourceUnavailableError, theirs_seconds: float,
    users: Collection[int] | None = None, *, is_asked: bool,
) -> Source:  # fmt: skip
    """Return a source that starts the program at `path`. `fault`: why no exporter is read. `theirs_seconds`: how often
    another exporter would collect. `users`: whose that may be. `is_asked`: the setting names the program. Raises
    SourceUnavailableError."""
    clock, peaks = settings.clock, settings.peaks
    devices, access = gpus_without_gpm(clock, peaks)
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

    def read(url: str, seconds: float = seconds, users: Collection[int] | None = None) -> DcgmSource:
        return DcgmSource(clock, peaks, url, seconds, settings.origins, partial(open_clocks, clock, peaks), users)

    read_other = None if is_asked else partial(read, str(settings.options["url"]), theirs_seconds, users)
    return OwnDcgmSource(clock, devices, path, round(seconds * 1000), read, remedy, read_other)
