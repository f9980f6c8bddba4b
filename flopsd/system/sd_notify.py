"""Notifications to the service manager: systemd's sd_notify(3), over its datagram socket.

Nothing here raises or waits: metering is the same without a service manager.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Mapping

from flopsd.system.clock import NS_PER_S, Clock

log = logging.getLogger("flopsd")
# READY is sent by then, even without a reading: a manager that times out would kill a daemon that is metering.
READY_SECONDS = 10
STATUS_SECONDS = 30
STOP_SECONDS = 3600
_PINGS_A_TIMEOUT = 3  # sd_watchdog_enabled(3) asks for two; the third forgives a tick that comes late


class Notifier:
    """Sends ready, watchdog, status and stopping. One thread calls it, after each message that the daemon takes."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        self._address, self._clock = _address(environment.get("NOTIFY_SOCKET", "")), clock
        self._begin_ns = self._status_ns = self._ping_ns = clock.boottime_ns()
        timeout_ns = _watchdog_ns(environment) if self._address else None
        self._ping_every_ns = None if timeout_ns is None else timeout_ns // _PINGS_A_TIMEOUT
        self._ready = self._stopping = self._complained = False

    @property
    def ping_seconds(self) -> float | None:
        """The seconds between two watchdog pings; None if the manager has no watchdog."""
        return None if self._ping_every_ns is None else self._ping_every_ns / NS_PER_S

    def each_tick(self, has_read: Callable[[], bool], status: Callable[[], str]) -> None:
        """Send what is due. `has_read`: whether a device has been read. Both functions are called only when needed."""
        if self._address is None or self._stopping:
            return
        now_ns = self._clock.boottime_ns()
        if not self._ready:
            if not has_read() and now_ns - self._begin_ns < READY_SECONDS * NS_PER_S:
                return
            self._ready = self._send("READY=1")
            self._status_ns = now_ns
        if now_ns >= self._status_ns:
            self._send(f"STATUS={status()}")
            self._status_ns = now_ns + STATUS_SECONDS * NS_PER_S
        if self._ping_every_ns is not None and now_ns >= self._ping_ns:
            self._send("WATCHDOG=1")
            self._ping_ns = now_ns + self._ping_every_ns

    def stopping(self) -> None:
        """Announce the end: the rest, including the seal, may take as long as the manager's stop timeout."""
        if self._address is not None and not self._stopping:
            # systemd's watchdog stays on during a stop, which the stop timeout bounds: no ping may be due before that.
            watchdog = "" if self._ping_every_ns is None else f"\nWATCHDOG_USEC={STOP_SECONDS * 1_000_000}\nWATCHDOG=1"
            self._send(f"STOPPING=1\nSTATUS=final reading, then the seal{watchdog}")
        self._stopping = True

    def _send(self, message: str) -> bool:
        assert self._address is not None
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
                one.sendto(message.encode("utf-8", "replace"), self._address)
        except (OSError, ValueError) as fault:
            if not self._complained:
                log.warning(
                    "cannot notify the service manager at $NOTIFY_SOCKET: %s; metering goes on, and the manager may "
                    "show the service as starting",
                    fault,
                )
            self._complained = True
            return False
        return True


def _address(variable: str) -> str | None:
    """Return the socket's address; None if the variable is neither a path nor an abstract name."""
    if variable.startswith("@"):
        return "\0" + variable[1:]
    return variable if variable.startswith("/") else None


def _watchdog_ns(environment: Mapping[str, str]) -> int | None:
    """Return the watchdog timeout in ns; None if none applies to this process (sd_watchdog_enabled(3))."""
    timeout_us, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not re.fullmatch("[0-9]{1,18}", timeout_us) or int(timeout_us) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(timeout_us) * 1000
