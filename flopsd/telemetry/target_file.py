"""The file by which Prometheus finds this daemon: file-based service discovery, one file per run and node.

A separate thread writes and removes it, since the folder may be on a file system that hangs.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError
from flopsd.settings.locations import named
from flopsd.system.atomic_files import replace_file
from flopsd.system.clock import Clock
from flopsd.system.regular_files import read_at_most

log = logging.getLogger("flopsd")
RETRY_SECONDS = 10.0
REMOVE_SECONDS = 2.0
_MOST_BYTES = 65_536


class TargetFile:
    """`FOLDER/RUN.NODE.json` with one target, from `start` until `remove`. The folder is not created: it may be a mount
    that is missing. `more`: labels besides run and node, which pushed series have too.

    A killed daemon leaves its file. Once another daemon serves at that address, Prometheus would scrape it under the
    dead daemon's labels, and the alert FlopsdDown would end: so this daemon removes such files."""

    def __init__(self, folder: Path, run: str, node: str, more: Mapping[str, str], clock: Clock) -> None:
        self.path = folder / named("{run}.{node}.json", run, node)
        self._labels = {"instance": f"{node}/{run}", "run_id": run, "node": node, **more}
        self._clock, self._ended = clock, threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        """Write that /metrics is served at `url`, and retry until that succeeds."""
        self._thread = threading.Thread(target=self._keep, args=(self._target(url),), name="target-file", daemon=True)
        self._thread.start()

    def remove(self) -> None:
        """Remove the file. Waits at most REMOVE_SECONDS: the file system may hang."""
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
                        "cannot write %s: %s; Prometheus cannot discover this run; metering goes on and flopsd "
                        "tries again every %d s",
                        self.path,
                        fault.strerror,
                        RETRY_SECONDS,
                    )
                has_logged = True
            if self._clock.wait(self._ended, RETRY_SECONDS):
                return
        self._remove_others(target)
        self._ended.wait()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as fault:
            log.error("cannot remove %s: %s; Prometheus keeps scraping this run", self.path, fault.strerror)

    def _remove_others(self, target: bytes) -> None:
        """Remove the files of this node's other runs that name this daemon's address."""
        mine = json.loads(target)
        try:
            names = os.listdir(self.path.parent)
        except OSError:
            names = []
        for path in (self.path.with_name(name) for name in names if name != self.path.name and name.endswith(".json")):
            try:
                theirs = parse_json(read_at_most(path, _MOST_BYTES), path.name)
                if _place(theirs) != _place(mine):
                    continue
                path.unlink()
            except (OSError, NotVerifiedError, ValueError, LookupError, TypeError) as fault:
                if isinstance(fault, PermissionError):
                    log.warning(
                        "cannot remove or read %s: %s; if it names the address %s, Prometheus scrapes this run under "
                        "that file's labels too: remove it",
                        path, fault.strerror, *_place(mine)[0],
                    )  # fmt: skip
                continue
            log.warning("removed %s: its daemon is gone, since this daemon now has its address", path)


def _place(targets: Any) -> tuple[list[str], str]:
    """The addresses and node of a file's only entry. Raises LookupError, TypeError or ValueError for other files."""
    (one,) = targets
    return one["targets"], one["labels"]["node"]
