"""The file by which Prometheus finds this daemon: file-based service discovery, a file for each run and node.

It is written and removed in a thread of its own, since the folder may be on a file system that hangs.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from flopsd.settings.locations import named
from flopsd.system.atomic_files import replace_file
from flopsd.system.clock import Clock

log = logging.getLogger("flopsd")
RETRY_SECONDS = 10.0
REMOVE_SECONDS = 2.0


class TargetFile:
    """`FOLDER/RUN.NODE.json` with one target, from `start` until `remove`. The folder is not created: what is missing
    may be a mount. `more`: labels besides run and node, which are those of pushed series."""

    def __init__(self, folder: Path, run: str, node: str, more: Mapping[str, str], clock: Clock) -> None:
        self.path = folder / named("{run}.{node}.json", run, node)
        self._labels = {"instance": f"{node}/{run}", "run_id": run, "node": node, **more}
        self._clock, self._ended = clock, threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        """Write that /metrics is served at `url`; again and again until that succeeds."""
        self._thread = threading.Thread(target=self._keep, args=(self._target(url),), name="target-file", daemon=True)
        self._thread.start()

    def remove(self) -> None:
        """Remove the file; waits for that, but not for a file system that hangs."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(REMOVE_SECONDS)

    def _target(self, url: str) -> bytes:
        found = urllib.parse.urlsplit(url)
        host = found.hostname or ""
        if ipaddress.ip_address(host).is_unspecified:
            host = socket.gethostname()
        address = f"[{host}]:{found.port}" if ":" in host else f"{host}:{found.port}"
        labels = {**self._labels, **({"__scheme__": "https"} if found.scheme == "https" else {})}
        return json.dumps([{"targets": [address], "labels": labels}], indent=1).encode()

    def _keep(self, target: bytes) -> None:
        has_logged = False
        while True:
            try:
                replace_file(self.path, target, 0o644)
                break
            except OSError as fault:
                if not has_logged:
                    log.error(
                        "cannot write %s: %s; Prometheus cannot find this run by it; metering goes on and flopsd "
                        "tries again every %d s",
                        self.path,
                        fault.strerror,
                        RETRY_SECONDS,
                    )
                has_logged = True
            if self._clock.wait(self._ended, RETRY_SECONDS):
                return
        self._ended.wait()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as fault:
            log.error("cannot remove %s: %s; Prometheus keeps scraping this run", self.path, fault.strerror)
