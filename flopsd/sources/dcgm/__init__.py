"""NVIDIA GPUs through a dcgm-exporter that runs already: activity where NVML has none (A100, A10G, L4, T4, V100).

Only its page is read. No DCGM engine is started: the profiling counters of these GPUs have one owner on a machine.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from flopsd.core.model import Evidence
from flopsd.errors import SourceUnavailableError
from flopsd.settings import parsers
from flopsd.sources import Source, SourceInfo, SourceOption, SourceSettings
from flopsd.sources.nvml import ownership
from flopsd.system.clock import NS_PER_S

_SECONDS = 2.0


def _open(settings: SourceSettings) -> Source:
    """A machine without an exporter does not import what reads its page."""
    url, seconds = str(settings.options["url"]), float(settings.options["interval_seconds"])
    _require_listener(url)
    from flopsd.sources.dcgm.source import DcgmSource
    from flopsd.sources.nvml.sm_clock import open_clocks

    clock, peaks = settings.clock, settings.peaks
    clocks = partial(open_clocks, clock, peaks, round(4 * seconds * NS_PER_S))
    return DcgmSource(clock, peaks, url, seconds, settings.origins, clocks)


def _require_listener(url: str) -> None:
    """Raises SourceUnavailableError: absent where the address is right and no server listens."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SourceUnavailableError(
            f"{url!r} is no address of an exporter", hint="expected such as http://127.0.0.1:9400/metrics"
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        _connect(parts.hostname, port)
    except OSError as fault:
        absent = isinstance(fault, ConnectionRefusedError)
        why = f"no exporter answers at {url}: {fault.strerror or fault}"
        raise SourceUnavailableError(why, absent=absent) from fault


def _connect(host: str, port: int) -> None:
    """Raises OSError. An address needs no resolver, whose libraries take 0.8 MB of a machine without an exporter."""
    import socket

    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        socket.create_connection((host, port), timeout=_SECONDS).close()
        return
    with socket.socket(family) as probe:
        probe.settimeout(_SECONDS)
        probe.connect((host, port))


SOURCE = SourceInfo(
    name="dcgm",
    title="NVIDIA GPUs, through a running dcgm-exporter",
    open=_open,
    vendor="nvidia",
    ownership=ownership,
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
