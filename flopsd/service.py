"""Puts a daemon together from settings, runs it to its end, and seals. What `flopsd run` is."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.clock import NS_PER_S, Clock
from flopsd.config import config_dir, load_peaks, settings_sha256
from flopsd.context import Context, default_state_dir, find_context
from flopsd.core.flop import format_flop
from flopsd.core.peaks import PeakTable
from flopsd.core.sessions import Event
from flopsd.daemon import Daemon
from flopsd.delivery import copy_places, copy_seconds, local_ledger
from flopsd.errors import FlopsdError, LedgerError, ListenError, SourceUnavailableError
from flopsd.evidence import Wanted
from flopsd.journal import Journal, StateDir
from flopsd.listening import Listener
from flopsd.meeting import SOCKET_NAME, socket_path
from flopsd.ownership.opening import Job, own_if_asked
from flopsd.parse import parse_listen
from flopsd.places import S3Place
from flopsd.rolling import RollingSeals
from flopsd.runs import choose_run, recover
from flopsd.settings import Settings
from flopsd.snapshot import Snapshot
from flopsd.sources import PROBED, Source, SourceSettings, open_source
from flopsd.writer import Writer, WriterSettings

if TYPE_CHECKING:
    from flopsd.seal import Sealed
    from flopsd.storage.copies import Copy

log = logging.getLogger("flopsd")
REBIND_SECONDS = 10
PROGRESS_SECONDS = 5
NEW_KEY = "no --key was given: made the Ed25519 key %s (mode 0600); whoever reads it can sign in your name"


@dataclass(frozen=True, slots=True)
class Supervision:
    """Under `flopsd exec` the daemon starts without a source too, and ends with the pipe that the launcher holds."""

    lifeline: int


def state_dir(settings: Settings, environment: Mapping[str, str]) -> Path:
    return Path(settings.state_dir) if settings.state_dir else default_state_dir(environment)


def run_daemon(
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    out: IO[str],
    err: IO[str],
    supervision: Supervision | None = None,
    progress: bool = False,
    seal_command: Sequence[str] = (),
) -> bool:
    """Meter until told to stop, then seal. True if all went well, the seal included. Under supervision a sealed
    ledger that could not be copied is well too: sealing it once more would not help.

    `seal_command` makes a rolling seal, in a process of its own; without one there is none.
    Raises FlopsdError when it cannot begin.
    """
    table = load_peaks(settings.peaks)
    context = find_context(environment)
    client_socket = socket_path(settings.client_socket, state_dir(settings, environment))
    origins: dict[str, str] = {}  # filled from the journal, before any source is read
    root_pid = os.getppid() if supervision is not None else None  # the launcher, whose child the job is
    job = Job(environment, context.job_name, root_pid, cores_per_chip(context, table))
    open_all = Opening(settings, SourceSettings(clock, table, source_options(settings), origins), job)
    sources = _sources(open_all, supervised=supervision is not None)
    ending = _Ending()  # from here on a signal is a regular end; before, there is nothing to lose
    folder = StateDir(state_dir(settings, environment))
    folder.acquire()
    journal = Journal(folder)
    try:
        found = recover(journal, clock)
        origins.update(found.origins(context.boot_id))
        run, history = choose_run(journal, found, settings.run_id or context.job_name, context.node, table, clock)
        rolling = _rolling(settings, seal_command, clock, resumed=bool(history.incarnations))
        emit = _emitter(settings, out, err, rolling)
        writer = Writer(journal, table, _writer_settings(settings, tuple(sources)), context, clock, emit)
        writer.begin(run, history, found.recovery)
        del history, found
        daemon = Daemon(writer, sources, clock, settings.interval_seconds)
        if client_socket is not None and settings.client_socket is None and client_socket.name != SOCKET_NAME:
            log.warning(
                "the path of %s is too long for a socket in it: training processes meet it elsewhere", folder.path
            )
        ear = _Ear(client_socket, settings.client_uids, _unheard, clock)
        _tell_missing_extra(settings)
        log.info("run %s, incarnation %d, journal %s", run, writer.snapshot.incarnation, folder.journal)
        ending.attach(daemon, settings, clock, supervision)
        try:
            why = daemon.run(_Companions(writer, settings, clock, err if progress else None, rolling, ear).each_tick)
        finally:
            ear.stop()
            if rolling is not None:
                rolling.stop()
        durable = writer.close(why, ending.child_exit_code)
        sealed = copied = not settings.seal
        if settings.seal and durable:
            last = _seal(settings, folder, run, context.node, clock, err, environment)
            sealed = last is not None
            copied = last is not None and _copy(settings, last, clock, daemon.stopped_ns, err)
    finally:
        journal.close()
        folder.release()
    return durable and sealed and (copied or supervision is not None)


def _unheard(event: Event) -> None:
    log.debug("%s", event)


def _tell_missing_extra(settings: Settings) -> None:
    """Now, since at the end of a run of weeks it is late to hear of it."""
    if settings.seal and any(isinstance(place, S3Place) for place in copy_places(settings, "run", "node")):
        from flopsd.storage.s3 import NEEDS_EXTRA, is_installed

        if not is_installed():
            log.error("the ledger will not be copied: %s; %s", *NEEDS_EXTRA)


def _rolling(settings: Settings, command: Sequence[str], clock: Clock, *, resumed: bool) -> RollingSeals | None:
    every = settings.seal_every_seconds
    if not settings.seal or not command or every is None:
        return None
    # A reading may be late for a checkpoint by as much as an interval.
    between = min(settings.checkpoint_seconds, every) + settings.interval_seconds
    return RollingSeals(command, every, between, clock, overdue=resumed)


def _sources(opening: Opening, *, supervised: bool) -> dict[str, Callable[[], Source]]:
    """How to open each source. Unsupervised, they are opened here and now, so that a failure is an exit code;
    of those that are only probed for, one is enough."""
    probed = opening.settings.sources == ("probe",)
    openers: dict[str, Callable[[], Source]] = {}
    absent: list[SourceUnavailableError] = []
    for name in PROBED if probed else opening.settings.sources:
        openers[name] = _Opener(name, opening)
        if supervised:
            continue
        try:
            openers[name] = _Opened(openers[name](), openers[name])
        except SourceUnavailableError as fault:
            if not (probed and fault.absent):
                raise
            absent.append(fault)
    if not supervised and len(absent) == len(openers):
        raise SourceUnavailableError(
            "no accelerator is found here: " + "; ".join(map(str, absent)),
            hint=f"{absent[0].hint}; `flopsd doctor` says more, `flopsd run --source replay` shows how it would look",
        )
    return openers


def cores_per_chip(context: Context, table: PeakTable) -> int | None:
    known = table.instances.get(context.instance_type or "")
    return None if known is None else table.parts[known.accelerator].cores_per_chip


def source_options(settings: Settings) -> dict[str, object]:
    """What sources may know of the settings, by their keys; None is a source's own default."""
    return {
        "replay_file": settings.replay_file or str(config_dir() / "recordings" / "h100x2.jsonl"),
        "dcgm_url": settings.dcgm_url,
        "dcgm_interval_seconds": settings.dcgm_interval_seconds,
        "neuron_monitor": settings.neuron_monitor,
    }


@dataclass(frozen=True, slots=True)
class Opening:
    """What every source is opened with."""

    settings: Settings
    source: SourceSettings
    job: Job

    def open(self, name: str) -> Source:
        """A source by name, with this job's devices only. Raises SourceUnavailableError."""
        try:
            source = open_source(name, self.source)
        except SourceUnavailableError as fault:
            # What was asked for by name and is not here is a fault; what was only probed for is not.
            fault.absent = fault.absent and self.settings.sources == ("probe",)
            raise
        if name == "replay":
            return source  # its devices are nobody's
        return own_if_asked(source, self.settings.devices, self.job, self.source.clock)


@dataclass(slots=True)
class _Opener:
    """Opens one source by name, as often as it is asked."""

    name: str
    opening: Opening

    def __call__(self) -> Source:
        return self.opening.open(self.name)


@dataclass(slots=True)
class _Opened:
    """Gives an already open source once, and opens anew after that."""

    source: Source | None
    again: Callable[[], Source]

    def __call__(self) -> Source:
        source, self.source = self.source, None
        return source if source is not None else self.again()


def _writer_settings(settings: Settings, sources: tuple[str, ...]) -> WriterSettings:
    return WriterSettings(
        round(settings.interval_seconds * NS_PER_S),
        # Only what is in the journal is sealed, so checkpoints come as often as rolling seals at least.
        round(min(settings.checkpoint_seconds, settings.seal_every_seconds or 3600) * NS_PER_S),
        settings_sha256(settings),
        settings.precision,
        sources,
        settings.device_precision,
    )


def _emitter(settings: Settings, out: IO[str], err: IO[str], rolling: RollingSeals | None) -> Callable[[str], None]:
    stream = {"stdout": out, "stderr": err, "off": None}[settings.checkpoint_output]

    def emit(line: str) -> None:
        if rolling is not None:
            rolling.checkpointed()
        if stream is None:
            return
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            log.warning("nobody reads the checkpoint lines")

    return emit


class _Ending:
    """Whatever can end a run: signals, --duration, the launcher's pipe. A signal that comes too early is kept."""

    def __init__(self) -> None:
        self.child_exit_code: int | None = None
        self._daemon: Daemon | None = None
        self._early = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

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
        if self._daemon is None:
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
            line = pipe.readline().strip()
        if line.startswith("exit "):
            self.child_exit_code = int(line.removeprefix("exit "))
            daemon.stop("job ended")
        else:
            daemon.stop("launcher gone")


class _Ear:
    """The listener for training processes, opened again and again where its socket cannot be had."""

    def __init__(self, path: Path | None, uids: Sequence[int], post: Callable[[Event], None], clock: Clock) -> None:
        """None listens to nobody."""
        self._path, self._uids, self._post, self._clock = path, uids, post, clock
        self._listener: Listener | None = None
        self._next_ns, self._complained = clock.boottime_ns(), False

    def each_tick(self) -> None:
        if self._path is None or self._listener is not None or self._clock.boottime_ns() < self._next_ns:
            return
        listener = Listener(self._path, self._uids, self._post, self._clock)
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


class _Companions:
    """What goes on beside the metering: the web front, bound again where its port is taken, progress, rolling seals."""

    def __init__(
        self,
        writer: Writer,
        settings: Settings,
        clock: Clock,
        err: IO[str] | None,
        rolling: RollingSeals | None,
        ear: _Ear,
    ) -> None:
        self._rolling, self._ear = rolling, ear
        self._writer, self._settings, self._clock, self._err = writer, settings, clock, err
        self._bound = settings.listen is None
        self._next_bind_ns = self._begin_ns = clock.boottime_ns()
        self._next_progress_ns = self._begin_ns + PROGRESS_SECONDS * NS_PER_S
        self._complained = False
        self.each_tick()

    def each_tick(self) -> None:
        if self._rolling is not None:
            self._rolling.each_tick()
        self._ear.each_tick()
        now_ns = self._clock.boottime_ns()
        if not self._bound and now_ns >= self._next_bind_ns:
            self._bind()
            self._next_bind_ns = now_ns + REBIND_SECONDS * NS_PER_S
        if now_ns >= self._next_progress_ns and self._err is not None:
            self._err.write(progress_line(self._writer.snapshot, (now_ns - self._begin_ns) // NS_PER_S) + "\n")
            self._err.flush()
            self._next_progress_ns = now_ns + PROGRESS_SECONDS * NS_PER_S

    def _bind(self) -> None:
        from flopsd.web import WebServer

        assert self._settings.listen is not None
        host, port = parse_listen(self._settings.listen)
        try:
            server = WebServer(host or "0.0.0.0", port, lambda: self._writer.snapshot)
        except OSError as fault:
            if not self._complained:
                log.error(
                    "cannot listen on %s: %s; metering goes on without /metrics and tries again every %d s",
                    self._settings.listen,
                    fault.strerror,
                    REBIND_SECONDS,
                )
            self._complained = True
            return
        server.start()
        self._bound = True
        log.info("metrics at %s/metrics", server.url)


def progress_line(snapshot: Snapshot, seconds: int) -> str:
    """One line on how the run stands."""
    figures, rate, coverage = snapshot.figures(), snapshot.rate_flop_per_s(), snapshot.coverage_ppm()
    return "  ".join(
        (
            "REPLAY, no hardware:" if snapshot.replay else "flopsd:",
            f"{seconds:4d} s",
            f"measured {format_flop(figures.measured_flop)}",
            f"at most {format_flop(figures.high_flop)}",
            "rate unknown" if rate is None else format_flop(rate, "FLOP/s"),
            "coverage unknown" if coverage is None else f"coverage {coverage / 10_000:.1f} %",
        )
    )


def _seal(
    settings: Settings,
    folder: StateDir,
    run: str,
    node: str,
    clock: Clock,
    err: IO[str],
    environment: Mapping[str, str],
) -> Sealed | None:
    """Seal at the end; a failure is told and loses nothing."""
    from flopsd.report import sealed_text
    from flopsd.seal import seal_journal
    from flopsd.signing.keys import ensure_key

    ledger = local_ledger(settings, folder.path, run, node)
    try:
        key, made = ensure_key(settings.key, folder.path)
        if made:
            log.warning(NEW_KEY, key)
        wanted = Wanted(settings.evidence, settings.timestamp_url, environment)
        sealed = seal_journal(folder.journal, key, ledger, clock, settings.peaks, wanted, lock=folder.seal_lock)
    except FlopsdError as fault:
        log.error(
            "NOT SEALED: %s; %s; the journal %s is whole: `flopsd seal` can still seal it",
            fault,
            fault.hint,
            folder.journal,
        )
        return None
    err.write(sealed_text(sealed))
    err.flush()
    return sealed


def _copy(settings: Settings, sealed: Sealed, clock: Clock, stopped_ns: int | None, err: IO[str]) -> bool:
    """Copy a sealed ledger within the time that stopping may take; true if a copy is at every place."""
    now_ns = clock.boottime_ns()
    copies = copy_sealed(settings, sealed, clock, (now_ns - (stopped_ns or now_ns)) / NS_PER_S)
    for copy in copies:
        if copy.fault is None:
            err.write(f"  copied to  {copy.place}\n")
        else:
            log.error("NOT COPIED to %s: %s; the ledger is whole at %s", copy.place, copy.fault, sealed.ledger)
    err.flush()
    return all(copy.fault is None for copy in copies)


def copy_sealed(
    settings: Settings, sealed: Sealed, clock: Clock, used_seconds: float, *, rolling: bool = False
) -> list[Copy]:
    """Copy a sealed ledger to where the settings say; `used_seconds` of the time for stopping are over."""
    places = copy_places(settings, sealed.run, sealed.node)
    if not places:
        return []
    from flopsd.storage.copies import copy_ledger

    return copy_ledger(sealed.ledger, places, clock, copy_seconds(settings, used_seconds), rolling=rolling)


def seal_state_dir(settings: Settings, environment: Mapping[str, str], clock: Clock) -> Sealed:
    """Seal the journal of a daemon that is no longer running, the last pending totals included.

    Raises StateDirBusyError while one runs, and what seal_journal raises.
    """
    from flopsd.seal import seal_journal
    from flopsd.signing.keys import ensure_key

    folder = StateDir(state_dir(settings, environment))
    if not folder.journal.is_file():
        raise LedgerError(
            f"there is no journal in {folder.path}", hint="give --state-dir the folder that the daemon wrote to"
        )
    folder.acquire()
    journal = Journal(folder)
    try:
        recovery = journal.recover("damaged.journal.jsonl")
        if recovery is not None:
            log.warning(
                "the journal was damaged at its end (%s): %d bytes left out", recovery.reason, recovery.cut_bytes
            )
        first = next(iter(journal.read()), None)
        if first is None:
            raise LedgerError(f"the journal in {folder.path} holds no whole record")
        if settings.run_id not in (None, first["run"]):
            raise LedgerError(
                f"the journal in {folder.path} is of run {first['run']!r}: nothing was metered of {settings.run_id!r}",
                hint="leave --run-id out to seal the run that is there",
            )
        ledger = local_ledger(settings, folder.path, str(first["run"]), str(first["node"]))
        key, made = ensure_key(settings.key, folder.path)
        if made:
            log.warning(NEW_KEY, key)
        wanted = Wanted(settings.evidence, settings.timestamp_url, environment)
        return seal_journal(folder.journal, key, ledger, clock, settings.peaks, wanted, lock=folder.seal_lock)
    finally:
        journal.close()
        folder.release()
