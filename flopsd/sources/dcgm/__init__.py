"""NVIDIA GPUs through a dcgm-exporter that runs already: activity where NVML has none (A100, A10G, L4, T4, V100).

Only its text is read. No DCGM engine is started and none is asked: the profiling counters of these GPUs have
one owner on a machine.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flopsd.errors import SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.dcgm.exposition import DEFAULT_INTERVAL_SECONDS
from flopsd.system.clock import NS_PER_S

if TYPE_CHECKING:
    from flopsd.sources.dcgm.source import DcgmSource

DEFAULT_URL = "http://127.0.0.1:9400/metrics"
_CONNECT_SECONDS = 2.0
_START_IT = (
    "start NVIDIA's dcgm-exporter (with the capability SYS_ADMIN on A100 and older), or give --dcgm-url its address; "
    "its CSV must list DCGM_FI_PROF_PIPE_TENSOR_ACTIVE and DCGM_FI_DEV_SM_CLOCK, better also 1006-1008 and 1013-1015"
)


def open_source(settings: SourceSettings) -> DcgmSource:
    """The exporter named in the settings. Raises SourceUnavailableError: none there, or something else is."""
    told_url, told_seconds = settings.options.get("dcgm_url"), settings.options.get("dcgm_interval_seconds")
    url = DEFAULT_URL if told_url is None else str(told_url)
    seconds = DEFAULT_INTERVAL_SECONDS if told_seconds is None else float(told_seconds)
    _require_listener(url)
    from flopsd.sources.dcgm.source import DcgmSource  # a machine without an exporter does not pay for it
    from flopsd.sources.nvml.sm_clock import open_clocks

    return DcgmSource(
        settings.clock,
        settings.peaks,
        url,
        seconds,
        settings.origins,
        lambda: open_clocks(settings.clock, settings.peaks, round(4 * seconds * NS_PER_S)),
    )


def _require_listener(url: str) -> None:
    """Raises SourceUnavailableError: absent where the address is right and nobody listens."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SourceUnavailableError(f"{url!r} is no address of an exporter", hint=f"such as {DEFAULT_URL}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError as fault:
        raise SourceUnavailableError(f"no answer from {url}: {fault}", hint=_START_IT, absent=True) from fault
    except OSError as fault:
        raise SourceUnavailableError(f"no answer from {url}: {fault}", hint=_START_IT) from fault
