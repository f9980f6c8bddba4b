"""The command line: verbs, flags and exit codes. The only place that exits.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not verified, 4 no source. Data goes to stdout, talk to stderr.
Each verb imports what it needs, so that metering does not carry the weight of signing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flopsd import __version__
from flopsd.clock import SystemClock
from flopsd.errors import ConfigError, FlopsdError, NotVerifiedError, SourceUnavailableError
from flopsd.settings import BY_KEY, SETTINGS, Setting, Settings

OK, FAILED, USAGE, NOT_VERIFIED, NO_SOURCE = 0, 1, 2, 3, 4
_DOCTORS = ("sources", "state_dir", "listen", "peaks", "dcgm_url", "dcgm_interval_seconds", "neuron_monitor")
SEAL_KEYS = ("state_dir", "run_id", "key", "ledger", "peaks")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _log_to_stderr(arguments.verb)
    try:
        code = int(arguments.run(arguments))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left; nothing more to say
        code = FAILED
    except FlopsdError as fault:
        code = _tell(fault)
    sys.exit(code)


def _tell(fault: FlopsdError) -> int:
    for line in str(fault).splitlines():
        print(f"flopsd: {line}", file=sys.stderr)
    if fault.hint:
        print(f"flopsd: hint: {fault.hint}", file=sys.stderr)
    if isinstance(fault, ConfigError):
        return USAGE
    if isinstance(fault, NotVerifiedError):
        return NOT_VERIFIED
    return NO_SOURCE if isinstance(fault, SourceUnavailableError) else FAILED


def _log_to_stderr(verb: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("flopsd: %(levelname)s: %(message)s"))
    logging.getLogger("flopsd").handlers[:] = [handler]
    logging.getLogger("flopsd").setLevel(logging.INFO if verb in ("run", "exec") else logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flopsd",
        description="Measures training compute from hardware counters and seals it in a signed ledger.",
        epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not verified, 4 no source.",
    )
    parser.add_argument("--version", action="version", version=f"flopsd {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    run = verbs.add_parser(
        "run",
        help="meter in the foreground until SIGTERM or SIGINT, then seal",
        description="Meters in the foreground; SIGTERM or SIGINT takes the final reading, seals and exits 0.",
    )
    _add_settings(run, SETTINGS)
    run.add_argument("--progress", action="store_true", help="show how it stands on stderr, terminal or not")
    run.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)
    run.set_defaults(run=_run)

    execute = verbs.add_parser(
        "exec",
        help="run a command, meter it, return its exit code, seal",
        usage="flopsd exec [options] -- COMMAND [ARG ...]",
        description="Runs COMMAND with a metering daemon beside it. Signals are forwarded to the command's "
        "process group and its exit code is returned (128 + N for signal N), whatever becomes of the metering.",
    )
    _add_settings(execute, [setting for setting in SETTINGS if setting.key != "duration_seconds"])
    execute.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments, after --")
    execute.set_defaults(run=_exec)

    seal = verbs.add_parser(
        "seal",
        help="seal the journal of a state folder into a ledger",
        description="Seals what the journal of a stopped or killed daemon holds.",
    )
    _add_settings(seal, [setting for setting in SETTINGS if setting.key in SEAL_KEYS])
    seal.set_defaults(run=_seal)

    verify = verbs.add_parser(
        "verify",
        help="verify a ledger: signatures, then every total again",
        description="Checks signatures, then recomputes every total from journal and peak table. "
        "Exit 0: verified. Exit 3: not, and the first reason why.",
    )
    verify.add_argument("ledger", metavar="LEDGER")
    verify.add_argument("--key", action="append", required=True, metavar="PUBLIC-KEY", help="PEM file; repeatable")
    verify.add_argument(
        "--threshold", type=_positive, default=1, metavar="N", help="how many of the keys must have signed"
    )
    verify.add_argument("--journal", metavar="FILE", help="the journal, where it does not lie beside the ledger")
    verify.add_argument(
        "--peaks", metavar="FILE", help="the peak table, where it is neither packaged nor beside the ledger"
    )
    verify.add_argument(
        "--allow-replay", action="store_true", help="accept a replay of a recording, which is no evidence"
    )
    verify.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    verify.set_defaults(run=_verify)

    status = verbs.add_parser(
        "status",
        help="totals, rate, coverage and sources of a run",
        description="Reads a running daemon's state folder, or its /metrics.",
    )
    place = status.add_mutually_exclusive_group()
    place.add_argument("--state-dir", metavar="DIR", help="the daemon's state folder (default: as for run)")
    place.add_argument("--url", metavar="URL", help="the daemon's address, such as http://127.0.0.1:10188")
    status.add_argument("--peaks", metavar="FILE", help="the run's peak table, where it is not a packaged one")
    status.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    status.set_defaults(run=_status)

    doctor = verbs.add_parser(
        "doctor",
        help="what works here, what does not, what to do",
        description="For each device the evidence it would give, why not a better one, and what to do for it. "
        "Exit 0: a source can meter here. Exit 4: none can.",
    )
    _add_settings(doctor, [setting for setting in SETTINGS if setting.key in _DOCTORS])
    doctor.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    doctor.set_defaults(run=_doctor)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings file (also FLOPSD_CONFIG)")
    for setting in settings:
        if setting.key == "seal":
            parser.add_argument(
                "--no-seal",
                dest="seal",
                action="store_const",
                const="false",
                help="do not seal a ledger at the end (also FLOPSD_SEAL=false)",
            )
            continue
        text = f"{setting.help} [{setting.variable}]"
        parser.add_argument(
            setting.flag,
            dest=setting.key,
            metavar=setting.metavar,
            help=text,
            action="append" if setting.repeatable else "store",
        )


def _settings(arguments: argparse.Namespace) -> Settings:
    from flopsd.config import load_settings

    return load_settings(_flags(arguments), os.environ, arguments.config)


def _flags(arguments: argparse.Namespace) -> dict[str, object]:
    return {s.key: getattr(arguments, s.key) for s in SETTINGS if getattr(arguments, s.key, None) is not None}


def _run(arguments: argparse.Namespace) -> int:
    from flopsd.service import Supervision, run_daemon

    progress = arguments.progress or sys.stderr.isatty()
    supervision = None if arguments.lifeline is None else Supervision(arguments.lifeline)
    return (
        OK
        if run_daemon(_settings(arguments), os.environ, SystemClock(), sys.stdout, sys.stderr, supervision, progress)
        else FAILED
    )


def _exec(arguments: argparse.Namespace) -> int:
    from flopsd.clock import rfc3339
    from flopsd.context import find_context, new_run_id
    from flopsd.launch import Launcher

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ConfigError(["exec: no command given"], hint="flopsd exec [options] -- python train.py")
    settings = _settings(arguments)
    clock = SystemClock()
    # Fixed here, so that a daemon that is started again continues the same run.
    run_id = settings.run_id or find_context(os.environ).job_name or new_run_id(rfc3339(clock.wall_ns()))
    config = ["--config", arguments.config] if arguments.config else []
    me, run = [sys.executable, "-m", "flopsd"], ["--run-id", run_id, *config]
    launcher = Launcher(
        daemon_command=[*me, "run", *run, *_given(arguments, [s for s in SETTINGS if s.key != "run_id"])],
        seal_command=[*me, "seal", *run, *_given(arguments, [BY_KEY[key] for key in SEAL_KEYS if key != "run_id"])]
        if settings.seal
        else None,
        clock=clock,
        stop_seconds=settings.stop_seconds,
        say=logging.getLogger("flopsd").error,
    )
    return launcher.run(command, os.environ)


def _given(arguments: argparse.Namespace, settings: Sequence[Setting]) -> list[str]:
    """The flags of `settings` that were given on the command line, to be given again."""
    flags: list[str] = []
    for setting in settings:
        value = getattr(arguments, setting.key, None)
        if setting.key == "seal" and value is not None:
            flags.append("--no-seal")
        elif value is not None:
            flags += [part for one in (value if isinstance(value, list) else [value]) for part in (setting.flag, one)]
    return flags


def _seal(arguments: argparse.Namespace) -> int:
    from flopsd.report import sealed_text
    from flopsd.service import seal_state_dir

    print(sealed_text(seal_state_dir(_settings(arguments), os.environ, SystemClock())), end="")
    return OK


def _verify(arguments: argparse.Namespace) -> int:
    from flopsd.report import verified_text
    from flopsd.seal import load_public
    from flopsd.verify import verify_ledger

    try:
        verified = verify_ledger(
            Path(arguments.ledger),
            [load_public(file) for file in arguments.key],
            threshold=arguments.threshold,
            journal=None if arguments.journal is None else Path(arguments.journal),
            peaks_file=arguments.peaks,
            allow_replay=arguments.allow_replay,
        )
    except NotVerifiedError as fault:
        if arguments.json:
            print(json.dumps({"verified": False, "reason": str(fault), "hint": fault.hint}))
        else:
            print(f"NOT VERIFIED: {fault}")
            if fault.hint:
                print(f"flopsd: hint: {fault.hint}", file=sys.stderr)
        return NOT_VERIFIED
    if arguments.json:
        print(
            json.dumps(
                {
                    "verified": True,
                    "keyids": verified.keyids,
                    "records": verified.records,
                    "replay": verified.replay,
                    "predicate": verified.statement["predicate"],
                }
            )
        )
    else:
        print(verified_text(verified), end="")
    return OK


def _status(arguments: argparse.Namespace) -> int:
    from flopsd.config import load_settings
    from flopsd.status import from_state_dir, from_url, status_text

    settings = load_settings(_flags(arguments), os.environ)
    told = from_url(arguments.url) if arguments.url else from_state_dir(settings.state_dir, os.environ, settings.peaks)
    print(json.dumps(told) if arguments.json else status_text(told), end="\n" if arguments.json else "")
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from flopsd.doctor import can_meter, doctor_text, examine

    checks = examine(_settings(arguments), os.environ, SystemClock())
    if arguments.json:
        print(json.dumps([check.as_dict() for check in checks]))
    else:
        print(doctor_text(checks), end="")
    return OK if can_meter(checks) else NO_SOURCE
