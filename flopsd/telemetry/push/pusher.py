"""The pushing process: pages from the daemon's pipe, or scraped from an address, go to a queue for each receiver."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial

from flopsd.errors import PushError
from flopsd.settings.push_targets import Target
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.signals import awaited
from flopsd.telemetry.bounded_http import daemon_request, fetch
from flopsd.telemetry.push.frames import MAX_PAGE_BYTES, FrameError, FrameReader, Page
from flopsd.telemetry.push.http import Http
from flopsd.telemetry.push.pages import parse_page
from flopsd.telemetry.push.queue import Sender, SendQueue
from flopsd.telemetry.push.states import PushState

log = logging.getLogger("flopsd")


class Pusher:
    def __init__(
        self, targets: Sequence[Target], environment: Mapping[str, str], clock: Clock, *, report: bool
    ) -> None:
        """`report`: print the state of the targets on stdout, for the daemon."""
        self._clock, self._report = clock, report
        self._queues = [
            SendQueue(target.name, partial(_open_sender, target, environment), clock, self._print_state)
            for target in targets
        ]
        self._complaint = ""

    def offer(self, page: Page) -> None:
        try:
            parsed = parse_page(page)
        except PushError as fault:
            if str(fault) != self._complaint:
                log.error("NOT PUSHED: %s", fault)
            self._complaint = str(fault)
            return
        states = [queue.state for queue in self._queues]
        for queue in self._queues:
            queue.offer(parsed, states)

    def finish(self) -> bool:
        """Send the waiting pages within ten seconds; return whether all went through."""
        deadline_ns = self._clock.boottime_ns() + 10 * NS_PER_S
        for queue in self._queues:
            queue.finish(deadline_ns)
        for queue in self._queues:
            self._clock.wait(queue.done, (deadline_ns - self._clock.boottime_ns()) / NS_PER_S)
        return all(queue.all_sent for queue in self._queues)

    def _print_state(self, state: PushState) -> None:
        if not self._report:
            return
        try:
            os.write(1, state.line())  # short enough for an atomic write
        except OSError:
            pass  # the daemon is busy, or gone


def run_fed(targets: Sequence[Target], environment: Mapping[str, str], clock: Clock) -> bool:
    """Push the pages from stdin until the last has gone through, and return whether it has. Without a last page the
    daemon was killed: then pushing stops, since its successor pushes newer pages."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a signal to the group is for the daemon, which then closes the pipe
    os.set_blocking(1, False)
    pusher, reader = Pusher(targets, environment, clock, report=True), FrameReader()
    while data := os.read(0, 1 << 16):
        try:
            pages = reader.feed(data)
        except FrameError as fault:
            log.error("the daemon's pipe: %s", fault)
            return False
        for page in pages:
            pusher.offer(page)
            if page.last:
                return pusher.finish()
    return False


def run_scraping(
    url: str, every_seconds: float, targets: Sequence[Target], environment: Mapping[str, str], clock: Clock
) -> bool:
    """Push the page at `url` every `every_seconds` until SIGTERM or SIGINT. Return whether the last page went through.
    The URL may contain user and password. Raises ConfigError."""
    request = daemon_request(url.rstrip("/").removesuffix("/metrics") + "/metrics")
    with awaited(signal.SIGTERM, signal.SIGINT) as wait:  # before the queues' threads start
        pusher, complaint, stopping = Pusher(targets, environment, clock, report=False), "", False
        due_ns = clock.boottime_ns()
        while True:
            try:
                pusher.offer(_scrape(request, clock))
                complaint = ""
            except (OSError, ValueError, http.client.HTTPException) as fault:
                if isinstance(fault, urllib.error.HTTPError):
                    fault.close()
                if str(fault) != complaint:
                    why = fault.reason if type(fault) is urllib.error.URLError else fault
                    log.error("cannot read %s: %s; it is tried again", request.full_url, why)
                complaint = str(fault)
            if stopping:
                return pusher.finish() and not complaint
            due_ns = max(due_ns + round(every_seconds * NS_PER_S), clock.boottime_ns())
            stopping = wait((due_ns - clock.boottime_ns()) / NS_PER_S) is not None


def _scrape(request: urllib.request.Request, clock: Clock) -> Page:
    text = fetch(request, 5.0, MAX_PAGE_BYTES + 1)
    if len(text) > MAX_PAGE_BYTES:
        raise ValueError("the page is too large")
    return Page(text, clock.wall_ns())


def _open_sender(target: Target, environment: Mapping[str, str]) -> Sender:
    if target.kind == "pushgateway":
        from flopsd.telemetry.push.pushgateway import Gateway

        return Gateway(target, Http(target, environment))
    try:
        if target.kind == "otlp":
            from flopsd.telemetry.push.otlp import Otlp

            return Otlp(target, Http(target, environment))
        from flopsd.telemetry.push.remote_write import RemoteWrite, signer

        return RemoteWrite(target, Http(target, environment, signer(target)))
    except ImportError as fault:
        raise PushError(
            "pushing by OTLP or remote write needs the packages of the extra 'push', signing for AWS those of 'kms'",
            reason="not_possible",
            final=True,
            hint="pip install 'flopsd[push]'",
        ) from fault
