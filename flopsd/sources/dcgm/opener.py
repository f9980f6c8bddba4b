"""Opens the exporter that the options name; a machine without one does not import what reads its page."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flopsd.errors import SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.system.clock import NS_PER_S

if TYPE_CHECKING:
    from flopsd.sources.dcgm.source import DcgmSource

_CONNECT_SECONDS = 2.0


def open_source(settings: SourceSettings) -> DcgmSource:
    """The exporter named in the settings. Raises SourceUnavailableError: none there, or something else is."""
    url, seconds = str(settings.options["url"]), float(settings.options["interval_seconds"])
    _require_listener(url)
    from flopsd.sources.dcgm.source import DcgmSource
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
    """Raises SourceUnavailableError: absent where the address is right and no server listens."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SourceUnavailableError(
            f"{url!r} is no address of an exporter", hint="expected such as http://127.0.0.1:9400/metrics"
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError as fault:
        raise SourceUnavailableError(f"no exporter answers at {url}: {fault.strerror or fault}", absent=True) from fault
    except OSError as fault:
        raise SourceUnavailableError(f"no exporter answers at {url}: {fault.strerror or fault}") from fault
