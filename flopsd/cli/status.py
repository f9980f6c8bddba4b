"""`status` and `doctor`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flopsd.cli.common import NO_SOURCE, OK, Verbs, add_settings, add_source_settings, layers_of, settings_of
from flopsd.settings.schema import SETTINGS
from flopsd.system.clock import SystemClock

if TYPE_CHECKING:
    from flopsd.sources.registry import KnownSources

_DOCTORS = (
    "sources", "devices", "state_dir", "listen", "peaks", "key", "ledger",
    "ledger_copies", "timestamp_url",
)  # fmt: skip


def add(verbs: Verbs, sources: KnownSources) -> None:
    status = verbs.add_parser(
        "status",
        help="show totals, rate, coverage and sources of a run",
        description="Reads a daemon's state folder, or asks the running daemon, which also reports what its "
        "devices do at this moment and why a source is down.",
    )
    place = status.add_mutually_exclusive_group()
    place.add_argument("--state-dir", metavar="DIR", help="the daemon's state folder (default: as for run)")
    place.add_argument(
        "--url",
        metavar="URL",
        help="the daemon's address, such as http://127.0.0.1:10188 or https://USER:PASSWORD@HOST:PORT",
    )
    status.add_argument("--peaks", metavar="FILE", help="the run's peak table, where it is not a packaged one")
    status.add_argument(
        "--policy",
        action="append",
        metavar="FILE",
        dest="policies",
        default=argparse.SUPPRESS,
        help="a policy that the run is held against, where it is not a packaged one; repeatable",
    )
    shape = status.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    shape.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="show them again every so often (default: 2), until Ctrl-C",
    )
    status.set_defaults(run=_status)

    doctor = verbs.add_parser(
        "doctor",
        help="show which sources can meter on this machine, and how to fix the others",
        description="For each device the evidence it would give, why not a better one, and what to do for it. "
        "Exit 0: a source can meter here. Exit 4: none can.",
    )
    add_settings(doctor, [setting for setting in SETTINGS if setting.key in _DOCTORS])
    add_source_settings(doctor, sources)
    doctor.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    doctor.set_defaults(run=_doctor)


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 86_400:
        raise argparse.ArgumentTypeError("must be between 0.1 and 86400 seconds")
    return number


def _status(arguments: argparse.Namespace) -> int:
    from flopsd.settings.load import settings_of_layers
    from flopsd.telemetry.status_client import from_state_dir, from_url
    from flopsd.telemetry.status_text import status_text

    settings = settings_of_layers(layers_of(arguments))

    def read() -> dict[str, Any]:
        if arguments.url:
            return from_url(arguments.url)
        return from_state_dir(settings.state_dir, os.environ, settings.peaks, settings.policies)

    if arguments.watch is not None:
        from flopsd.cli.watch import watch

        watch(lambda: status_text(read()), arguments.watch, SystemClock(), sys.stdout, os.environ.get("TERM", ""))
        return OK
    print(json.dumps(read()) if arguments.json else status_text(read()), end="\n" if arguments.json else "")
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from flopsd.cli.doctor import can_meter, doctor_text, examine

    checks = examine(settings_of(arguments), os.environ, SystemClock())
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        print(doctor_text(checks), end="")
    return OK if can_meter(checks) else NO_SOURCE
