"""`run` and `exec`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import flopsd
from flopsd.cli.common import (
    FAILED,
    OK,
    PUSH_KEYS,
    SEAL_KEYS,
    Verbs,
    add_settings,
    effective,
    layers_of,
    settings_of,
    sources_of,
    verbosity_flags,
)
from flopsd.errors import ConfigError, JournalError, SigningKeyError
from flopsd.settings.schema import BY_KEY, CONTAINER, SETTINGS, Setting, Settings
from flopsd.system.clock import SystemClock, rfc3339
from flopsd.system.process_memory import started

if TYPE_CHECKING:
    from flopsd.sources.registry import KnownSources
    from flopsd.system.users import User

ME = (sys.executable, str(Path(flopsd.__file__).with_name("__main__.py")))  # -m would search the job's folder first


def add(verbs: Verbs, sources: KnownSources) -> None:
    run = verbs.add_parser(
        "run",
        help="meter in the foreground until SIGTERM, SIGINT or SIGHUP, then seal",
        description="Meters the accelerators of this machine in the foreground. On SIGTERM, SIGINT or "
        "SIGHUP (the terminal is closed) it takes a final reading, seals the ledger and exits with 0.",
    )
    add_settings(run, SETTINGS, sources)
    run.add_argument(
        "--progress",
        action="store_true",
        help="print a progress line on stderr every 5 s, even if that is not a terminal",
    )
    run.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)
    run.add_argument("--head-file", type=int, help=argparse.SUPPRESS)
    run.add_argument("--job-began", type=int, help=argparse.SUPPRESS)
    run.add_argument("--files-at-start", type=int, help=argparse.SUPPRESS)
    run.add_argument("--run-lock", type=int, help=argparse.SUPPRESS)
    run.set_defaults(run=_run)

    execute = verbs.add_parser(
        "exec",
        help="run a command, meter it, seal, and return its exit code",
        usage="flopsd exec [options] -- COMMAND [ARG ...]",
        description="Runs COMMAND with a metering daemon and forwards signals to the command's process group. "
        "Returns the exit code of COMMAND (128 + N for signal N), whatever happens to the metering.",
    )
    add_settings(execute, [setting for setting in SETTINGS if setting.key != "duration_seconds"], sources)
    execute.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments, after --")
    execute.set_defaults(run=_exec)


def _run(arguments: argparse.Namespace) -> int:
    from flopsd.daemon.ledgers.custody import Commands
    from flopsd.daemon.run import run_daemon
    from flopsd.settings.load import check_needs

    if arguments.files_at_start is not None:
        from flopsd.cli.files_at_start import use_files_at_start

        use_files_at_start(arguments)
    progress = (arguments.progress or sys.stderr.isatty()) and not arguments.quiet
    loud = verbosity_flags(arguments)
    key = [*ME, "key", "check", "--json", *_given(arguments, [BY_KEY["state_dir"]])]
    key += [arguments.key] if arguments.key else []
    seal = [*ME, "seal", "--rolling", *loud, *_given(arguments, [BY_KEY[key] for key in SEAL_KEYS])]
    push = [*ME, "push", "--fed", *loud, *_given(arguments, [BY_KEY[key] for key in PUSH_KEYS])]
    copy = [*ME, "copy", "--background", *loud, *_given(arguments, [BY_KEY["state_dir"]])]
    files = () if arguments.files_at_start is None else (arguments.files_at_start,)
    seal += [f"--files-at-start={one}" for one in files]
    settings, clock = settings_of(arguments), SystemClock()
    if arguments.lifeline is None:  # otherwise the launcher checked, and the job is running
        check_needs(settings)
        _check_web(settings)
    _check_key(settings, goes_on=arguments.lifeline is not None or settings.wait_for_source)
    commands = Commands(key, seal, push, copy, files)
    started()
    succeeded = run_daemon(
        settings, os.environ, clock, sys.stdout, sys.stderr, commands,
        progress=progress, lifeline=arguments.lifeline, head_file=arguments.head_file, job_began_ns=arguments.job_began,
        run_lock=arguments.run_lock,
    )  # fmt: skip
    return OK if succeeded else FAILED


def _exec(arguments: argparse.Namespace) -> int:
    from flopsd.cli.files_at_start import remember
    from flopsd.daemon.launcher import Launcher
    from flopsd.journal.state_dir import RUN_LOCK_NAME, take_lock
    from flopsd.settings.client_socket import VARIABLE, socket_path
    from flopsd.settings.load import SECRETS, check_needs
    from flopsd.settings.platform import default_state_dir, find_context, metered_by_task, new_run_id

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ConfigError(["exec: no command given"], hint="flopsd exec [options] -- python train.py")
    layers = layers_of(arguments)
    settings = effective(layers)
    check_needs(settings)
    _check_web(settings)
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    user = _job_user(settings)
    state = Path(settings.state_dir or default_state_dir(os.environ))
    socket = socket_path(settings.client_socket, state, shared=user is not None)
    if socket is not None:
        environment[VARIABLE] = str(socket)
    task = metered_by_task(os.environ)
    if task is not None:
        return _replace_process(command, environment, user, task)
    clock = SystemClock()
    # Chosen here, so that a restarted daemon continues the same run.
    run_id = settings.run_id or find_context(os.environ).job_name or new_run_id(rfc3339(clock.wall_ns()))
    files, locks = remember(settings, layers.file, state), list[int]()
    with suppress(JournalError):  # the daemon tries again, and logs it
        locks.append(take_lock(state, RUN_LOCK_NAME))
    run = ["--run-id", run_id, "--files-at-start", str(files), *verbosity_flags(arguments)]
    of_run = [s for s in (*SETTINGS, *sources_of(arguments).settings) if s.key != "run_id"]
    of_seal = _given(arguments, [BY_KEY[key] for key in SEAL_KEYS if key != "run_id"])
    started()
    launcher = Launcher(
        daemon_command=[*ME, "run", *run, *(f"--run-lock={lock}" for lock in locks), *_given(arguments, of_run)],
        seal_command=[*ME, "seal", "--at-end", *run, *of_seal] if settings.seal else None,
        clock=clock,
        stop_seconds=settings.stop_seconds,
        log=logging.getLogger("flopsd").error,
        user=user,
        files=(files, *locks),
        window_seconds=settings.stop_window_seconds,
    )
    return launcher.run(command, environment)


def _job_user(settings: Settings) -> User | None:
    """The user as whom `exec` starts the job; None: this process's own user. Raises ConfigError."""
    from flopsd.system.users import find_user

    if settings.job_user is None:
        return None
    if settings.job_user == CONTAINER:
        raise ConfigError(
            ["--job-user container does not apply to `exec`, which starts the job itself"],
            hint="use it with `flopsd run` in a sidecar",
        )
    try:
        user = find_user(settings.job_user)
    except KeyError:
        raise ConfigError(
            [f"--job-user: there is no user {settings.job_user!r}"], hint="check the name with `id NAME`"
        ) from None
    if user.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ConfigError(
            ["--job-user: only root can start a job as another user"],
            hint="leave --job-user out, or start flopsd exec as root",
        )
    return user


def _replace_process(command: Sequence[str], environment: dict[str, str], user: User | None, task: int) -> int:
    """Replace this process by the command. Used in a Slurm task other than the one that meters the node: two daemons
    would count each device twice."""
    from flopsd.daemon.launcher import cannot_run

    log = logging.getLogger("flopsd")
    log.info("Slurm task %d of this node: its devices are metered by task 0", task)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these signals, which the command would inherit
        signal.signal(number, signal.SIG_DFL)
    if user is not None:
        environment |= user.environment()
        os.setgroups(user.groups)
        os.setgid(user.gid)
        os.setuid(user.uid)
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as fault:
        return cannot_run(command, fault, log.error)


def _check_web(settings: Settings) -> None:
    """Raise ConfigError at the start, rather than at the first request, if the web configuration is unusable."""
    if settings.web_config is not None and settings.listen is not None:
        from flopsd.telemetry.http.access import Access

        Access(Path(settings.web_config))


def _check_key(settings: Settings, *, goes_on: bool) -> None:
    """Raise ConfigError at the start, rather than at the end of the run, if --key is unusable. With `goes_on` it is not
    checked, since the run can still be sealed with another key: under exec, where the job is already running, and in a
    sidecar, whose key may arrive later. The daemon then logs the problem."""
    from flopsd.attestation.signing.keys import check_key

    if not settings.seal or settings.key is None or goes_on:
        return
    try:
        check_key(settings.key, os.environ)
    except SigningKeyError as fault:
        raise ConfigError([f"--key: {fault}"], hint=fault.hint) from fault


def _given(arguments: argparse.Namespace, settings: Sequence[Setting]) -> list[str]:
    """--config and the flags of `settings` as given on the command line, for passing to another process."""
    flags = ["--config", arguments.config] if arguments.config else []
    for setting in settings:
        value = getattr(arguments, setting.key, None)
        if setting.key == "seal" and value is not None:
            flags.append("--no-seal")
        elif value is not None:
            flags += [part for one in (value if isinstance(value, list) else [value]) for part in (setting.flag, one)]
    return flags
