"""The tasks alongside the metering: web and session servers, progress and metric lines, thresholds, seals, push."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.core.model import UNBOUNDED
from flopsd.core.policy.finding import Finding, Verdict
from flopsd.core.rounding import Towards, format_duration, format_flop, format_rate
from flopsd.core.session_protocol import Event, NotServed
from flopsd.daemon.device_log import DeviceLog
from flopsd.daemon.ledgers.custody import Custody
from flopsd.daemon.sessions.server import KEPT_OUT_NS, SessionServer
from flopsd.daemon.writing.writer import Writer
from flopsd.errors import ConfigError, ListenError
from flopsd.report.numbers import percent
from flopsd.report.rule_words import doubt, what_follows
from flopsd.report.terminal import sentence
from flopsd.settings.parsers import parse_listen
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.file_presence import exists
from flopsd.system.progress import ProgressLine, is_screen
from flopsd.system.socket_thread import SocketThread
from flopsd.system.streams import say
from flopsd.telemetry.metric_lines import MetricLines
from flopsd.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from flopsd.telemetry.families import Family
    from flopsd.telemetry.http.scrapes import Scrapes
    from flopsd.telemetry.push.feed import Feed
    from flopsd.telemetry.target_file import TargetFile

log = logging.getLogger("flopsd")
REBIND_SECONDS = 10
PROGRESS_SECONDS = 5
THRESHOLD_SECONDS = 60
STEPS_PPM = (500_000, 800_000, 950_000)  # of a threshold; reaching each is logged


class SessionServerTask:
    """The session server: retried until its socket can be opened, and started again if the socket is removed."""

    def __init__(
        self, path: Path | None, uids: Sequence[int], post: Callable[[Event], None], clock: Clock,
        known: Mapping[str, int], is_behind: Callable[[], bool], since_ns: tuple[int, int] | None = None,
        run_key: str = "",
    ) -> None:  # fmt: skip
        """No server if `path` is None. The other arguments are those of `SessionServer`."""
        self._path, self._uids, self._post, self._clock, self._known = path, uids, post, clock, known
        self._is_behind, self._since_ns, self._run_key = is_behind, since_ns, run_key
        self._server: SessionServer | None = None
        self._next_ns, self._has_logged = clock.boottime_ns(), False
        self._closed_since_ns = 0  # since when the socket cannot be opened
        self.opened_ns = 0

    def each_tick(self, thread: SocketThread) -> None:
        """Start the server in `thread` when that is due."""
        if self._path is None or self._clock.boottime_ns() < self._next_ns:
            return
        if self._server is not None:
            self._next_ns = self._clock.boottime_ns() + REBIND_SECONDS * NS_PER_S
            if self._server.keeps_out():
                self._post(NotServed())
            if not self._is_removed(self._server, self._path):
                return
            if not self.stop():
                self._post(NotServed())
            self._known, self._server = self._server.known, None
        server = SessionServer(
            self._path, self._uids, self._post, self._clock, self._known, self._is_behind, self._since_ns, self._run_key
        )
        try:
            server.start(thread)
        except ListenError as fault:
            if not self._has_logged:
                log.error(
                    "%s; training processes cannot connect; metering goes on without their declarations and flopsd "
                    "tries again every %d s",
                    fault.with_hint,
                    REBIND_SECONDS,
                )
            now_ns = self._clock.boottime_ns()
            self._has_logged, self._next_ns = True, now_ns + REBIND_SECONDS * NS_PER_S
            self._closed_since_ns = self._closed_since_ns or now_ns
            if now_ns - self._closed_since_ns >= KEPT_OUT_NS:
                self._post(NotServed())
            return
        self._server, self._has_logged, self._closed_since_ns = server, False, 0
        self.opened_ns = self._clock.boottime_ns()
        log.info("training processes can connect at %s", self._path)

    def _is_removed(self, server: SessionServer, path: Path) -> bool:
        """Whether the socket's file was deleted, as when a temporary folder is cleaned up: clients reconnect to a new
        one. If something else is in its place they could not, so the connected ones are kept."""
        try:
            if path.stat().st_ino == server.inode:
                return False
        except OSError:
            if exists(path.parent) and not exists(path):
                log.warning("%s was removed; it is opened again, and training processes connect again", path)
                return True
        if not self._has_logged:
            log.error("%s was replaced or removed; processes that start from now on cannot declare anything", path)
        self._has_logged = True
        self._post(NotServed())
        return False

    def stop(self) -> bool:
        """Return whether all processes that wanted to connect have, as far as this is known."""
        if self._server is None:
            return not self._known
        self._server.stop()
        return not self._server.keeps_out(0)


class BackgroundTasks:
    """Runs all tasks in the daemon's thread, each when it is due. The web server starts once its port is free."""

    def __init__(
        self, writer: Writer, settings: Settings, clock: Clock, err: IO[str] | None, custody: Custody,
        sessions: SessionServerTask, feed: Feed | None, lines: MetricLines | None, stop_is_near: Callable[[], bool],
        target: TargetFile | None,
    ) -> None:  # fmt: skip
        self._custody, self._sessions, self._feed = custody, sessions, feed
        self._thresholds, self._sockets = ThresholdLog(clock), SocketThread(clock)
        self._lost = DeviceLog(clock, settings.device_precision)
        self._lines, self._stop_is_near = lines, stop_is_near
        self._writer, self._settings, self._clock, self._err = writer, settings, clock, err
        self._bound = settings.listen is None
        self._next_bind_ns = self._begin_ns = clock.boottime_ns()
        self._next_progress_ns = self._begin_ns + PROGRESS_SECONDS * NS_PER_S
        self._has_logged = False
        self._scrapes: Scrapes | None = None
        self._target = target
        self._run_due()

    def each_tick(self) -> None:
        self._run_due()
        if self._feed is not None:
            self._feed.each_tick()  # not in __init__: what it loads and starts would delay the first reading

    def end(self, ended_ns: int, at_most_seconds: float) -> None:
        """Let a scrape show the end of the run at `ended_ns`, if scrapes come often enough; then remove the target."""
        self._wait_for_scrape(ended_ns, at_most_seconds)
        if self._target is not None:
            self._target.remove()

    def _wait_for_scrape(self, ended_ns: int, at_most_seconds: float) -> None:
        if self._scrapes is None or at_most_seconds <= 0:
            return
        shown: AbstractContextManager[object] = nullcontext()
        if self._err is not None and is_screen(self._err):
            shown = ProgressLine(self._err, self._clock, "flopsd: waiting for the last scrape", is_shown=True)
        with shown:
            self._scrapes.wait_for_one_since(ended_ns, at_most_seconds, is_discovered=self._target is not None)

    def _run_due(self) -> None:
        self._custody.each_tick(self._writer, stop_is_near=self._stop_is_near())
        if self._lines is not None:
            self._lines.each_tick(self._writer.snapshot)
        self._sessions.each_tick(self._sockets)
        self._thresholds.each_tick(self._writer.snapshot)
        self._lost.each_tick(self._writer.snapshot)
        now_ns = self._clock.boottime_ns()
        if not self._bound and now_ns >= self._next_bind_ns:
            self._bind()
            self._next_bind_ns = now_ns + REBIND_SECONDS * NS_PER_S
        if now_ns >= self._next_progress_ns and self._err is not None:
            say(self._err, progress_line(self._writer.snapshot, (now_ns - self._begin_ns) // NS_PER_S) + "\n")
            self._next_progress_ns = now_ns + PROGRESS_SECONDS * NS_PER_S

    def _bind(self) -> None:
        assert self._settings.listen is not None
        host, ports = parse_listen(self._settings.listen)
        file = self._settings.web_config
        try:
            from flopsd.telemetry.http.access import Access
            from flopsd.telemetry.http.server import WebServer

            access = Access(None if file is None else Path(file))
            server = WebServer(host or "0.0.0.0", ports, self._snapshot, access, self._clock, self._push_metrics)
            server.start(self._sockets)
        except (OSError, RuntimeError, ConfigError) as fault:
            if not self._has_logged:
                log.error(
                    "cannot listen on %s: %s; metering goes on without /metrics, and flopsd tries again every %d s; "
                    "free the port or give another --listen",
                    self._settings.listen,
                    "; ".join(fault.problems) if isinstance(fault, ConfigError) else getattr(fault, "strerror", fault),
                    REBIND_SECONDS,
                )
            self._has_logged = True
            return
        self._bound, self._scrapes = True, server.scrapes
        log.info("metrics at %s/metrics", server.url)
        if self._target is not None:
            self._target.start(server.url)

    def _snapshot(self) -> Snapshot:
        return self._custody.with_journal_state(self._writer.snapshot)

    def _push_metrics(self) -> Iterable[Family]:
        if self._feed is None:
            return ()
        from flopsd.telemetry.push.states import metrics

        return metrics(self._feed.states)


def progress_line(snapshot: Snapshot, seconds: int) -> str:
    """Return one line with the state of the run, for a terminal or a service manager."""
    figures, rate, coverage = snapshot.view.figures, snapshot.rate_flop_per_s, snapshot.view.coverage_ppm
    is_open = any(reason in device.gap_ns_by_reason for device in snapshot.view.devices for reason in UNBOUNDED)
    most = "at most " if is_open else ""  # gaps of unknown length
    return "  ".join(
        (
            "REPLAY, no hardware:" if snapshot.replay else "flopsd:",
            format_duration(seconds),
            f"measured {format_flop(figures.measured_flop)}",
            f"at most {format_flop(figures.high_flop, Towards.UP)}",
            "rate unknown" if rate is None else format_rate(rate),
            "coverage unknown" if coverage is None else f"coverage {most}{percent(coverage, Towards.DOWN)}",
        )
    )


class ThresholdLog:
    """Logs once that a run reached a step towards a threshold that applies to it; checked once a minute. Steps count
    what is certain (`low`) or measured, never an upper bound."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._next_ns = clock, clock.boottime_ns()
        self._logged = set[tuple[str, str, int | Verdict]]()

    def each_tick(self, snapshot: Snapshot) -> None:
        now_ns = self._clock.boottime_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + THRESHOLD_SECONDS * NS_PER_S
        for finding in snapshot.view.findings:
            self._check(finding, "REPLAY, no hardware: " if snapshot.replay else "")

    def _check(self, finding: Finding, of: str) -> None:
        low, measured, _ = finding.share_ppm
        share, by = max((low or 0, "lower bound"), (measured or 0, "measurement"))
        reached: int | Verdict | None = finding.state
        if finding.state is not Verdict.ABOVE:
            reached = max((step for step in STEPS_PPM if share >= step), default=None)
        rule = finding.rule
        if reached is None or (finding.policy, rule.id, reached) in self._logged:
            return
        self._logged.add((finding.policy, rule.id, reached))
        name, source = f"{finding.policy} {rule.id}", rule.citation
        if finding.state is Verdict.ABOVE:
            said = (_rests_on(finding), what_follows(rule), doubt(rule.status))
            words = " ".join(filter(None, said))
            log.warning("%sABOVE THE THRESHOLD of %s (%s)%s", of, name, source, f": {words}" if words else "")
            return
        log.warning(
            "%sthe run has reached %s of the threshold %s (%s)%s by its %s; `flopsd status` shows when it would be "
            "crossed",
            of,
            percent(share, Towards.DOWN),
            name,
            source,
            "" if finding.applies else ", if that applies,",
            by,
        )


def _rests_on(finding: Finding) -> str:
    """What a certain state rests on besides readings, as a sentence; else empty."""
    if finding.rests_on is None:
        return ""
    from flopsd.report.claims import BY_COUNT_ALONE  # only when needed: the daemon keeps it in memory

    return sentence(BY_COUNT_ALONE)
