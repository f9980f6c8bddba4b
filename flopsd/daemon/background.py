"""What goes on beside the metering: web front, ear for training processes, progress, rolling seals, pushing, metric
lines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.core.flop import format_flop
from flopsd.core.rounding import Towards
from flopsd.core.session_protocol import Event
from flopsd.daemon.rolling_seal import RollingSeals, shown
from flopsd.daemon.session_server import SessionServer
from flopsd.daemon.writer import Writer
from flopsd.errors import ConfigError, ListenError
from flopsd.report.ledger_text import share_text
from flopsd.settings.parsers import parse_listen
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.streams import say
from flopsd.telemetry.metric_lines import MetricLines
from flopsd.telemetry.push.feed import Feed
from flopsd.telemetry.push.states import metrics
from flopsd.telemetry.snapshot import Snapshot
from flopsd.telemetry.threshold_log import ThresholdLog

if TYPE_CHECKING:
    from prometheus_client import Metric

log = logging.getLogger("flopsd")
REBIND_SECONDS = 10
PROGRESS_SECONDS = 5


class SessionServerTask:
    """The listener for training processes, opened again and again where its socket cannot be had."""

    def __init__(self, path: Path | None, uids: Sequence[int], post: Callable[[Event], None], clock: Clock) -> None:
        """None listens to nobody."""
        self._path, self._uids, self._post, self._clock = path, uids, post, clock
        self._listener: SessionServer | None = None
        self._next_ns, self._complained = clock.boottime_ns(), False

    def each_tick(self) -> None:
        if self._path is None or self._listener is not None or self._clock.boottime_ns() < self._next_ns:
            return
        listener = SessionServer(self._path, self._uids, self._post, self._clock)
        try:
            listener.start()
        except ListenError as fault:
            if not self._complained:
                log.error(
                    "%s%s; metering goes on without declarations and tries again every %d s",
                    fault,
                    f"; {fault.hint}" if fault.hint else "",
                    REBIND_SECONDS,
                )
            self._complained, self._next_ns = True, self._clock.boottime_ns() + REBIND_SECONDS * NS_PER_S
            return
        self._listener = listener
        log.info("training processes are heard at %s", self._path)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.stop()


class BackgroundTasks:
    """What goes on beside the metering: the web front, bound again where its port is taken, progress, rolling seals."""

    def __init__(
        self,
        writer: Writer,
        settings: Settings,
        clock: Clock,
        err: IO[str] | None,
        rolling: RollingSeals | None,
        ear: SessionServerTask,
        feed: Feed | None,
        lines: MetricLines | None,
        near_the_end: Callable[[], bool],
    ) -> None:
        self._rolling, self._ear, self._feed, self._watch = rolling, ear, feed, ThresholdLog(clock)
        self._lines, self._near_the_end = lines, near_the_end
        self._writer, self._settings, self._clock, self._err = writer, settings, clock, err
        self._bound = settings.listen is None
        self._next_bind_ns = self._begin_ns = clock.boottime_ns()
        self._next_progress_ns = self._begin_ns + PROGRESS_SECONDS * NS_PER_S
        self._complained = False
        self._look_after_all()

    def each_tick(self) -> None:
        self._look_after_all()
        if self._feed is not None:
            self._feed.each_tick()  # not before the first message: what it loads and starts would delay metering

    def _look_after_all(self) -> None:
        if self._rolling is not None:
            if self._near_the_end() and self._rolling.hurry():
                self._writer.checkpoint()
            self._rolling.each_tick()
        if self._lines is not None:
            self._lines.each_tick(self._writer.snapshot)
        self._ear.each_tick()
        self._watch.each_tick(self._writer.snapshot)
        now_ns = self._clock.boottime_ns()
        if not self._bound and now_ns >= self._next_bind_ns:
            self._bind()
            self._next_bind_ns = now_ns + REBIND_SECONDS * NS_PER_S
        if now_ns >= self._next_progress_ns and self._err is not None:
            say(self._err, progress_line(self._writer.snapshot, (now_ns - self._begin_ns) // NS_PER_S) + "\n")
            self._next_progress_ns = now_ns + PROGRESS_SECONDS * NS_PER_S

    def _bind(self) -> None:
        from flopsd.telemetry.http.access import Access
        from flopsd.telemetry.http.server import WebServer

        assert self._settings.listen is not None
        host, port = parse_listen(self._settings.listen)
        file = self._settings.web_config
        try:
            access = Access(None if file is None else Path(file))
            server = WebServer(host or "0.0.0.0", port, self._shown, access, self._clock, self._more)
        except (OSError, ConfigError) as fault:
            if not self._complained:
                log.error(
                    "cannot listen on %s: %s; metering goes on without /metrics and tries again every %d s",
                    self._settings.listen,
                    fault.strerror if isinstance(fault, OSError) else "; ".join(fault.problems),
                    REBIND_SECONDS,
                )
            self._complained = True
            return
        server.start()
        self._bound = True
        log.info("metrics at %s/metrics", server.url)

    def _shown(self) -> Snapshot:
        return shown(self._writer.snapshot, self._rolling, self._clock)

    def _more(self) -> Iterable[Metric]:
        return () if self._feed is None else metrics(self._feed.states)


def progress_line(snapshot: Snapshot, seconds: int) -> str:
    """One line on how the run stands."""
    figures, rate, coverage = snapshot.figures(), snapshot.rate_flop_per_s(), snapshot.coverage_ppm()
    return "  ".join(
        (
            "REPLAY, no hardware:" if snapshot.replay else "flopsd:",
            f"{seconds:4d} s",
            f"measured {format_flop(figures.measured_flop)}",
            f"at most {format_flop(figures.high_flop, towards=Towards.UP)}",
            "rate unknown" if rate is None else format_flop(rate, "FLOP/s"),
            "coverage unknown" if coverage is None else f"coverage {share_text(coverage, Towards.DOWN)}",
        )
    )
