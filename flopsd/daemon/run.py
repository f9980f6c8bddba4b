"""`flopsd run`: one run from its settings to its sealed ledger. Recover, open sources, meter, close, seal."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from flopsd.core.companions import PEAKS, POLICY, companion_name
from flopsd.core.session_protocol import NotServed
from flopsd.daemon.background import BackgroundTasks, SessionServerTask, progress_line
from flopsd.daemon.continued_run import continue_run, known_journal, report_to_launcher
from flopsd.daemon.ledger_places import copy_destinations, state_dir
from flopsd.daemon.ledgers.copying import keep_journal, seconds_left
from flopsd.daemon.ledgers.custody import Commands, Custody
from flopsd.daemon.ledgers.sealing import seal_own
from flopsd.daemon.loop import Daemon
from flopsd.daemon.open_sources import SourceOpener, cores_per_chip, open_sources
from flopsd.daemon.outputs import emitter, feed_of, target_file
from flopsd.daemon.recovery.code_secrets import CodeSecrets, read_secret
from flopsd.daemon.stop_requests import StopRequests
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import FlopsdError, JournalError
from flopsd.journal.journal import Journal
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import RUN_LOCK_NAME, StateDir, take_lock
from flopsd.settings.client_socket import SOCKET_NAME, socket_path
from flopsd.settings.data_files import is_packaged, read_policies
from flopsd.settings.load import declared_of
from flopsd.settings.locations import S3Location
from flopsd.settings.platform import find_context
from flopsd.settings.schema import CONTAINER, Settings
from flopsd.sources import SourceSettings
from flopsd.sources.ownership.rule import Job
from flopsd.sources.peak_rows import table_of
from flopsd.system.atomic_files import replace_file
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.sd_notify import Notifier
from flopsd.system.users import find_user
from flopsd.telemetry.metric_lines import MetricLines

log = logging.getLogger("flopsd")


def run_daemon(
    settings: Settings, environment: Mapping[str, str], clock: Clock, out: IO[str], err: IO[str], commands: Commands, *,
    progress: bool, lifeline: int | None, head_file: int | None, job_began_ns: int | None, run_lock: int | None,
) -> bool:  # fmt: skip
    """Meter until stopped, then seal. Return True if the journal is complete, sealed and copied. Under a launcher,
    start even without a source, and ignore a failed copy, since the launcher would only seal again. Raises FlopsdError
    when the daemon cannot start.

    What the daemon shares with the launcher of `flopsd exec`, all None without one: `lifeline`: a pipe, see
    StopRequests; `head_file`: an open file that names the records that earlier daemon starts wrote and the journal must
    contain; `job_began_ns`: when it started the job, by the clock since boot; `run_lock`: see RUN_LOCK_NAME."""
    secrets = CodeSecrets(read_secret(lifeline))
    # Data files, platform, sources.
    starts_anyway = lifeline is not None or settings.wait_for_source
    rated = table_of(settings.peaks, settings.sources, _without_rows if starts_anyway else None)
    table, judged, declared = rated.table, read_policies(settings.policies), declared_of(settings)
    policies = tuple(policy for policy, _ in judged)
    context = find_context(environment)
    job_user = _job_user(settings, lifeline)
    is_shared = lifeline is not None and job_user != os.geteuid()
    socket = socket_path(settings.client_socket, _socket_folder(settings, environment, lifeline), shared=is_shared)
    origins: dict[str, str] = {}  # filled from the journal, before any source is read
    root_pid = os.getppid() if lifeline is not None else None  # the launcher, whose child the job is
    job = Job(environment, context.job_name, root_pid, cores_per_chip(context, table))
    open_all = SourceOpener(settings, SourceSettings(clock, table, origins=origins), job)
    sources = open_sources(open_all, later=starts_anyway)
    stop_requests = StopRequests(lifeline)  # a signal before this line ends the process, and nothing is lost
    folder = StateDir(state_dir(settings, environment))
    folder.acquire()
    if run_lock is None:
        run_lock = take_lock(folder.path, RUN_LOCK_NAME)
    _keep(folder, PEAKS, table.sha256, rated.data)
    for policy, data in judged:
        _keep(folder, POLICY, policy.sha256, data)
    journal = Journal(folder)
    try:
        before = continue_run(settings, context, table, journal, clock, secrets, known_journal(head_file))
        origins.update(before.origins)
        context, run = before.context, before.run
        custody = Custody(
            settings, environment, folder, clock, lambda: journal.head, commands,
            resumed=bool(before.recovered.history.incarnations),
        )  # fmt: skip
        wanted = WriterSettings.of(settings, tuple(sources), declared, policies, before.isolation(settings, job_user))

        def report() -> None:
            if head_file is not None:
                report_to_launcher(head_file, journal.as_known_journal(run))

        writer = Writer(
            journal,
            table,
            wanted.continuing(before.recovered.history),
            context,
            clock,
            emitter(settings, out, err, custody.checkpointed),
            report,
            secrets.key,
        )
        before.begin(writer, job_began_ns)
        del before  # the history takes memory
        # Under exec the service manager's main process is the launcher.
        notifier = Notifier(environment if lifeline is None else {}, clock)
        daemon = Daemon(writer, sources, clock, settings.interval_seconds, notifier.ping_seconds)
        if socket is not None and socket.name != SOCKET_NAME and settings.client_socket is None and not is_shared:
            log.warning(
                "the path of %s is too long for a socket in it; training processes connect at %s instead; they find it "
                "by themselves",
                folder.path,
                socket,
            )
        client_uids = (*settings.client_uids, *([job_user] if is_shared and job_user is not None else []))
        sessions = SessionServerTask(
            socket,
            client_uids,
            daemon.post_event,
            clock,
            writer.known_sessions,
            daemon.is_behind,
            writer.sessions_since_ns,
            writer.run_key,
        )
        feed = feed_of(settings, commands.push, lambda: custody.with_journal_state(writer.snapshot), clock)
        every = settings.metric_line_seconds
        lines = MetricLines(out, every, writer.snapshot, clock) if every else None
        _check_s3_extra(settings)
        log.info("run %s, daemon start %d, journal %s", run, writer.snapshot.view.start, folder.journal)
        stop_requests.attach(daemon, settings, clock)
        target = target_file(settings, environment, run, context.node, clock)
        custody.rotate(writer)
        beside = (custody, sessions, feed, lines, lambda: stop_requests.is_near, target)
        background = BackgroundTasks(writer, settings, clock, err if progress else None, *beside)
        begin_ns = clock.boottime_ns()

        def each_tick() -> None:
            background.each_tick()
            snapshot = writer.snapshot
            notifier.each_tick(
                lambda: snapshot.ready, lambda: progress_line(snapshot, (clock.boottime_ns() - begin_ns) // NS_PER_S)
            )
            if daemon.stopped_ns is not None:
                notifier.stopping()

        # Meter until stopped, then close and seal.
        try:
            why = daemon.run(each_tick)
            notifier.stopping()
        finally:
            all_were_served = sessions.stop()
            daemon.take_last_events()
            custody.stop()
        if not all_were_served or any(map(_may_run, writer.awaited_processes(sessions.opened_ns))):
            writer.take_event(NotServed())
        if not (durable := writer.close(why, stop_requests.child_exit_code)):
            log.error("the journal lacks the end of the run, and all that was metered since it could last be written")
            if settings.seal and lifeline is None:  # a launcher seals what the journal holds
                _keep_elsewhere(settings, folder, clock, daemon.stopped_ns)
        closed_ns = clock.boottime_ns()
        if lines is not None:
            lines.write(writer.snapshot)
        if feed is not None:
            feed.finish()  # the last push runs while we seal
        sealed = copied = not settings.seal
        if settings.seal and durable:
            ended_ns = clock.boottime_ns() if daemon.stopped_ns is None else daemon.stopped_ns
            disclosed = [*secrets.kept, *stop_requests.code_secrets]
            sealed, copied = seal_own(
                settings, folder, clock, ended_ns, err, environment, journal.head, disclosed, custody.refused_pin
            )
            try:
                if closed_segments(folder):
                    from flopsd.daemon.ledgers.closed_segments import seal_left  # it imports the packages that sign

                    copied &= seal_left(settings, folder, clock, ended_ns, environment, custody.refused_pin)
            except JournalError as fault:
                log.error("%s; %s", fault, fault.hint)
                copied = False
        if feed is not None:
            from flopsd.telemetry.push.feed import LAST_PUSH_SECONDS

            feed.end(min(LAST_PUSH_SECONDS, max(0.0, seconds_left(settings, clock, daemon.stopped_ns))))
    finally:
        journal.close()
        folder.release()
        os.close(run_lock)
    # When the platform may soon kill everything, the launcher has no time left.
    left = 0.0 if stop_requests.is_near else seconds_left(settings, clock, daemon.stopped_ns)
    background.end(closed_ns, min(settings.last_scrape_seconds, left))
    return durable and sealed and (copied or lifeline is not None)


def _job_user(settings: Settings, lifeline: int | None) -> int | None:
    """Return the job's uid: --job-user's, or else our own under a launcher. None: unknown, or no account here."""
    if settings.job_user == CONTAINER:
        return None
    if settings.job_user is None:
        return None if lifeline is None else os.geteuid()
    try:
        return find_user(settings.job_user).uid
    except KeyError:
        log.warning("--job-user: there is no user %r; the user of the job is recorded as not known", settings.job_user)
        return None


def _may_run(pid: int | None) -> bool:
    """Whether there may be such a process; None: in a namespace that the daemon cannot see."""
    try:
        if pid is not None:
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _without_rows(fault: FlopsdError) -> None:
    log.error("%s; %s; metering goes on without these rows: the time of their devices is a gap", fault, fault.hint)


def _keep(folder: StateDir, kind: str, sha256: str, data: bytes) -> None:
    """Save a peak table or policy that is not flopsd's own next to the journal: its file may be edited, or its plug-in
    uninstalled, before the last seal."""
    if is_packaged(sha256):
        return
    try:
        replace_file(folder.companion(kind, sha256), data, 0o600)
    except OSError as fault:
        log.error(
            "cannot keep %s in %s: %s; metering goes on, but the seal needs --%s with a file of SHA-256 %s",
            companion_name(kind, sha256),
            folder.path,
            fault.strerror,
            kind,
            sha256,
        )


def _keep_elsewhere(settings: Settings, folder: StateDir, clock: Clock, stopped_ns: int | None) -> None:
    """Copy a journal that cannot be sealed, say for a full disk: the machine may be deleted when the run ends."""
    try:
        log.error("%s", keep_journal(settings, folder, clock, stopped_ns))
    except FlopsdError as fault:
        log.error("%s; %s", fault, fault.hint)


def _socket_folder(settings: Settings, environment: Mapping[str, str], lifeline: int | None) -> Path:
    """Return the folder of the socket for training processes: a service's folder in /run, which other users can enter,
    or else the state folder. Under exec always the state folder, since the launcher passes that path to the job."""
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(runtime) if runtime and lifeline is None else state_dir(settings, environment)


def _check_s3_extra(settings: Settings) -> None:
    """Log at the start, not after weeks, that a copy to S3 will fail because a package is missing."""
    if settings.seal and any(isinstance(place, S3Location) for place in copy_destinations(settings, "run", "node")):
        from flopsd.attestation.storage.s3 import NEEDS_EXTRA, is_installed

        if not is_installed():
            log.error("the ledger will not be copied: %s; %s", *NEEDS_EXTRA)
