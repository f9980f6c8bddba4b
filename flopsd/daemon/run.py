"""Puts a daemon together from settings, runs it to its end, and seals. What `flopsd run` is."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flopsd.core.declarations import OperatorDeclarations
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.evaluate import Policy
from flopsd.daemon.background import BackgroundTasks, SessionServerTask, progress_line
from flopsd.daemon.finish import close, state_dir
from flopsd.daemon.ledger_destinations import RESERVE_SECONDS, copy_destinations, local_ledger
from flopsd.daemon.loop import Daemon
from flopsd.daemon.open_sources import SourceOpener, cores_per_chip, open_sources, source_options
from flopsd.daemon.recovery import choose_run, recover
from flopsd.daemon.restore_attempt import restore
from flopsd.daemon.rolling_seal import RollingSeals, shown
from flopsd.daemon.writer import Writer, WriterSettings
from flopsd.journal.journal import Journal, Recovery
from flopsd.journal.state_dir import StateDir
from flopsd.settings.client_socket import SOCKET_NAME, socket_path
from flopsd.settings.data_files import load_policies
from flopsd.settings.load import load_peaks, settings_sha256
from flopsd.settings.locations import S3Location
from flopsd.settings.platform import Context, find_context
from flopsd.settings.schema import Settings, declared_of
from flopsd.sources import SourceSettings
from flopsd.sources.ownership.open import Job
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.sd_notify import Notifier
from flopsd.system.streams import say
from flopsd.telemetry.metric_lines import MetricLines
from flopsd.telemetry.push.feed import LAST_PUSH_SECONDS, Feed

log = logging.getLogger("flopsd")


@dataclass(frozen=True, slots=True)
class Supervision:
    """Under `flopsd exec` the daemon starts without a source too, and ends with the pipe that the launcher holds."""

    lifeline: int


def run_daemon(
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    out: IO[str],
    err: IO[str],
    supervision: Supervision | None = None,
    progress: bool = False,
    seal_command: Sequence[str] = (),
    push_command: Sequence[str] = (),
) -> bool:
    """Meter until told to stop, then seal. True if all went well, the seal included. Under supervision a sealed
    ledger that could not be copied is well too: sealing it once more would not help.

    `seal_command` makes a rolling seal, in a process of its own; without one there is none. `push_command` likewise
    pushes the metrics that come through its stdin.
    Raises FlopsdError when it cannot begin.
    """
    table, policies, declared = load_peaks(settings.peaks), load_policies(settings.policies), declared_of(settings)
    context = find_context(environment)
    client_socket = socket_path(settings.client_socket, _meeting_folder(settings, environment, supervision))
    origins: dict[str, str] = {}  # filled from the journal, before any source is read
    root_pid = os.getppid() if supervision is not None else None  # the launcher, whose child the job is
    job = Job(environment, context.job_name, root_pid, cores_per_chip(context, table))
    open_all = SourceOpener(settings, SourceSettings(clock, table, source_options(settings), origins), job)
    sources = open_sources(open_all, later=supervision is not None or settings.wait_for_source)
    # From here on a signal is a regular end; before, there is nothing to lose.
    ending = _Ending(supervised=supervision is not None)
    folder = StateDir(state_dir(settings, environment))
    folder.acquire()
    journal = Journal(folder)
    try:
        restored = _restore(settings, folder, context, table)
        found = recover(journal, clock)
        origins.update(found.origins(context.boot_id))
        run, history = choose_run(journal, found, settings.run_id or context.job_name, context.node, table, clock)
        rolling = _rolling(settings, seal_command, clock, resumed=bool(history.incarnations))
        emit = _emitter(settings, out, err, rolling)
        writer = Writer(
            journal, table, _writer_settings(settings, tuple(sources), declared, policies), context, clock, emit
        )
        writer.begin(run, history, found.recovery or restored)
        del history, found
        # Under exec the manager's main process is the launcher, and may be the job's own concern.
        notifier = Notifier(environment if supervision is None else {}, clock)
        daemon = Daemon(writer, sources, clock, settings.interval_seconds, notifier.ping_seconds)
        if client_socket is not None and settings.client_socket is None and client_socket.name != SOCKET_NAME:
            log.warning(
                "the path of %s is too long for a socket in it: training processes meet it elsewhere", folder.path
            )
        ear = SessionServerTask(client_socket, settings.client_uids, daemon.hear, clock)
        feed = _feed(settings, push_command, writer, rolling, clock)
        every = settings.metric_line_seconds
        lines = MetricLines(out, every, writer.snapshot, clock) if every else None
        _tell_missing_extra(settings)
        log.info("run %s, incarnation %d, journal %s", run, writer.snapshot.incarnation, folder.journal)
        ending.attach(daemon, settings, clock, supervision)
        shown = err if progress else None
        companions = BackgroundTasks(writer, settings, clock, shown, rolling, ear, feed, lines, ending.is_near)
        begin_ns = clock.boottime_ns()

        def each_tick() -> None:
            companions.each_tick()
            seen = writer.snapshot
            notifier.each_tick(seen.ready, lambda: progress_line(seen, (clock.boottime_ns() - begin_ns) // NS_PER_S))
            if daemon.stopped_ns is not None:
                notifier.stopping()

        try:
            why = daemon.run(each_tick)
            notifier.stopping()
        finally:
            ear.stop()
            if rolling is not None:
                rolling.stop()
        durable = writer.close(why, ending.child_exit_code)
        if lines is not None:
            lines.tell(writer.snapshot)
        if feed is not None:
            feed.finish()  # it is pushed while we seal
        sealed = copied = not settings.seal
        if settings.seal and durable:
            ended_ns = clock.boottime_ns() if daemon.stopped_ns is None else daemon.stopped_ns
            sealed, copied = close(settings, folder, run, context.node, clock, ended_ns, err, environment)
        if feed is not None:
            feed.end(_seconds_left(settings, clock, daemon.stopped_ns))
    finally:
        journal.close()
        folder.release()
    return durable and sealed and (copied or supervision is not None)


def _restore(settings: Settings, folder: StateDir, context: Context, table: PeakTable) -> Recovery | None:
    """What an earlier attempt of this run saved, where its ledgers were copied to a folder that outlives machines."""
    run = settings.run_id or context.job_name
    if run is None:
        return None
    places = [place for place in copy_destinations(settings, run, context.node) if isinstance(place, Path)]
    ledger = local_ledger(settings, folder.path, run, context.node)
    return restore(folder, places, ledger, run, context.node, table.sha256) if places else None


def _meeting_folder(settings: Settings, environment: Mapping[str, str], supervision: Supervision | None) -> Path:
    """Where the socket for training processes lies: a service's own folder in /run, which other users can enter, else
    the state folder. Under exec it is the launcher that tells the job, and knows the state folder only."""
    told = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(told) if told and supervision is None else state_dir(settings, environment)


def _tell_missing_extra(settings: Settings) -> None:
    """Now, since at the end of a run of weeks it is late to hear of it."""
    if settings.seal and any(isinstance(place, S3Location) for place in copy_destinations(settings, "run", "node")):
        from flopsd.attestation.storage.s3 import NEEDS_EXTRA, is_installed

        if not is_installed():
            log.error("the ledger will not be copied: %s; %s", *NEEDS_EXTRA)


def _rolling(settings: Settings, command: Sequence[str], clock: Clock, *, resumed: bool) -> RollingSeals | None:
    every = settings.seal_every_seconds
    if not settings.seal or not command or every is None:
        return None
    # A reading may be late for a checkpoint by as much as an interval.
    between = min(settings.checkpoint_seconds, every) + settings.interval_seconds
    return RollingSeals(command, every, between, clock, overdue=resumed)


def _feed(
    settings: Settings, command: Sequence[str], writer: Writer, rolling: RollingSeals | None, clock: Clock
) -> Feed | None:
    """Nothing of it is loaded unless something is pushed."""
    if not settings.pushes or not command:
        return None

    def render() -> bytes:
        from flopsd.telemetry.prometheus import Exposition

        # Two pages in a row share nothing that is worth keeping: the daemon is short of memory, not of time.
        return Exposition().render(shown(writer.snapshot, rolling, clock), "")[0]

    return Feed(command, settings.push_every_seconds, render, clock)


def _seconds_left(settings: Settings, clock: Clock, stopped_ns: int | None) -> float:
    """Of the time that stopping may take; the pusher gives up by itself before."""
    now_ns = clock.boottime_ns()
    used_seconds = (now_ns - (stopped_ns or now_ns)) / NS_PER_S
    return min(LAST_PUSH_SECONDS, max(0.0, settings.stop_seconds - used_seconds - RESERVE_SECONDS))


def _writer_settings(
    settings: Settings, sources: tuple[str, ...], declared: OperatorDeclarations, policies: tuple[Policy, ...]
) -> WriterSettings:
    return WriterSettings(
        round(settings.interval_seconds * NS_PER_S),
        # Only what is in the journal is sealed, so checkpoints come as often as rolling seals at least.
        round(min(settings.checkpoint_seconds, settings.seal_every_seconds or 3600) * NS_PER_S),
        settings_sha256(settings),
        settings.precision,
        sources,
        settings.device_precision,
        declared,
        policies,
    )


def _emitter(settings: Settings, out: IO[str], err: IO[str], rolling: RollingSeals | None) -> Callable[[str], None]:
    stream = {"stdout": out, "stderr": err, "off": None}[settings.checkpoint_output]

    def emit(line: str) -> None:
        if rolling is not None:
            rolling.checkpointed()
        if stream is not None and not say(stream, line + "\n"):
            log.warning("nobody reads the checkpoint lines")

    return emit


class _Ending:
    """Whatever can end a run: signals, --duration, the launcher's pipe. A signal that comes too early is kept.

    Under supervision a signal ends nothing: whoever stops a service or a Slurm step signals all of its processes, and
    the job goes on until it has saved its state.
    """

    def __init__(self, *, supervised: bool) -> None:
        self.child_exit_code: int | None = None
        self._supervised, self._near = supervised, False
        self._daemon: Daemon | None = None
        self._early = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def is_near(self) -> bool:
        """Whether the job was asked to stop, so that all may be killed soon."""
        return self._near

    def attach(self, daemon: Daemon, settings: Settings, clock: Clock, supervision: Supervision | None) -> None:
        """Let what was asked for, and what is yet to be, stop `daemon`."""
        self._daemon = daemon
        if self._early:
            daemon.stop(self._early)
        if supervision is not None:  # under exec the job decides how long
            self._start("lifeline", lambda: self._watch_lifeline(supervision.lifeline, daemon))
        elif settings.duration_seconds is not None:
            seconds = settings.duration_seconds
            self._start("duration", lambda: self._stop_after(seconds, clock, daemon))

    def _on_signal(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if self._supervised:
            self._near = True
        elif self._daemon is None:
            self._early = self._early or name
        else:
            self._daemon.stop(name)

    @staticmethod
    def _start(name: str, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=name, daemon=True).start()

    @staticmethod
    def _stop_after(seconds: float, clock: Clock, daemon: Daemon) -> None:
        clock.wait(threading.Event(), seconds)
        daemon.stop("duration")

    def _watch_lifeline(self, lifeline: int, daemon: Daemon) -> None:
        with os.fdopen(lifeline, "r", encoding="ascii") as pipe:
            for line in pipe:
                if line.startswith("exit "):
                    self.child_exit_code = int(line.removeprefix("exit "))
                    daemon.stop("job ended")
                    return
                self._near = True
        daemon.stop("launcher gone")
