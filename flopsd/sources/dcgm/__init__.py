"""NVIDIA GPUs through a dcgm-exporter: activity where NVML has none (A100, A10G, L4, T4, V100).

Only the page of an exporter is read. If none runs already, flopsd starts one: the profiling counters of these GPUs have
one owner on a machine.
"""

from __future__ import annotations

import os
import shutil
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flopsd.core.model import Evidence
from flopsd.errors import SourceUnavailableError
from flopsd.settings import parsers
from flopsd.sources import Source, SourceInfo, SourceOption, SourceSettings
from flopsd.sources.nvml import ownership

if TYPE_CHECKING:
    from flopsd.sources.dcgm.source import DcgmSource

_SECONDS = 2.0
_URL, _INTERVAL_SECONDS = "http://127.0.0.1:9400/metrics", 30.0
_PROGRAM, HOSTENGINE = "dcgm-exporter", "dcgm_hostengine"


def _open(settings: SourceSettings) -> Source:
    """Open the source. A machine without an exporter does not import the code that reads its page."""
    options = settings.options
    url, own = str(options["url"]), str(options.get("hostengine") or "auto")
    seconds = float(options.get("interval_seconds") or _INTERVAL_SECONDS)

    def read() -> DcgmSource:
        from flopsd.sources.dcgm.source import open_exporter

        return open_exporter(settings, url, seconds, trusted_users(url))

    try:
        _require_listener(url)
    except SourceUnavailableError as fault:
        program = own_program(own) if fault.absent and (url == _URL or own != "auto") else None
        if program is None:
            raise
        from flopsd.sources.dcgm.own import open_own

        return open_own(settings, program, fault, read if own == "auto" else None)
    return read()


def trusted_users(url: str) -> tuple[int, ...] | None:
    """Return the users whose exporter is trusted: root and our own at the default address; None: any user."""
    return (0, os.geteuid()) if url == _URL else None


def own_program(own: str | None) -> str | None:
    """Return the dcgm-exporter to start, by the setting. Raises SourceUnavailableError if it names no executable."""
    if own == "off":
        return None
    found = shutil.which(_PROGRAM if own in (None, "auto") else own)
    if found is None and own not in (None, "auto"):
        raise SourceUnavailableError(f"{own} is not an executable", hint="give a dcgm-exporter's path, auto or off")
    return found


def _require_listener(url: str) -> None:
    """Raises SourceUnavailableError, as absent if the address is right and no server listens."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SourceUnavailableError(
            f"{url!r} is not an address of an exporter", hint="expected such as http://127.0.0.1:9400/metrics"
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        _connect(parts.hostname, port)
    except OSError as fault:
        absent = isinstance(fault, ConnectionRefusedError)
        why = f"no exporter answers at {url}: {fault.strerror or fault}"
        raise SourceUnavailableError(why, absent=absent) from fault


def _connect(host: str, port: int) -> None:
    """Raises OSError. An IP address needs no resolver, whose libraries take 0.8 MB on a machine without an exporter."""
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
    title="NVIDIA GPUs, through dcgm-exporter",
    open=_open,
    vendor="nvidia",
    ownership=ownership,
    evidence=(Evidence.ACTIVITY, Evidence.UTILIZATION),
    options=(
        SourceOption("url", "URL", "address of a running dcgm-exporter", parsers.url, default=_URL),
        SourceOption(
            "interval_seconds",
            "SECONDS",
            "how often that exporter collects: its DCGM_EXPORTER_INTERVAL",
            parsers.seconds(0.1, 3600),
            default_text="30; 5 for one that flopsd starts",
        ),
        SourceOption(
            "hostengine",
            "auto|off|PATH",
            "whether flopsd starts a dcgm-exporter, with DCGM's engine in it, if none answers: auto starts the one in "
            "$PATH if a GPU needs it, this process may read the profiling counters and no other process uses them; a "
            "path starts that program, unless the counters are closed",
            parsers.text_or_off,
            default="auto",
        ),
    ),
    remedy="install NVIDIA's dcgm-exporter: flopsd starts it if it may read the profiling counters. Or start it "
    "yourself, with the capability SYS_ADMIN on A100 and older; --dcgm-url is its address. Its CSV must list "
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE and DCGM_FI_DEV_SM_CLOCK, better also the fields 1006-1008 and 1013-1015",
)
