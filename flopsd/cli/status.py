"""`status` and `doctor`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from flopsd.cli.common import NO_SOURCE, OK, Verbs, add_settings, layers_of, settings_of, sources_of, waiting
from flopsd.errors import FlopsdError
from flopsd.report.terminal import shown, wrapped
from flopsd.settings.schema import SETTINGS
from flopsd.system.clock import Clock, SystemClock, rfc3339
from flopsd.system.signals import awaited

if TYPE_CHECKING:
    from flopsd.sources.registry import KnownSources

Status: TypeAlias = Mapping[str, Any]
_DOCTORS = (
    "sources", "devices", "state_dir", "listen", "peaks", "key", "ledger",
    "ledger_copies", "timestamp_url", "witness_url",
)  # fmt: skip
# The alternate screen without a cursor; the terminal's earlier content stays below it.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


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
    status.add_argument("--peaks", metavar="FILE", help="the run's peak table, if it is not a packaged one")
    status.add_argument(
        "--policy",
        action="append",
        metavar="FILE",
        dest="policies",
        default=argparse.SUPPRESS,
        help="a policy that the run is compared with, if it is not a packaged one; repeatable",
    )
    shape = status.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    shape.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="repeat every SECONDS (default: 2) until Ctrl-C",
    )
    status.set_defaults(run=_status)

    doctor = verbs.add_parser(
        "doctor",
        help="show which sources can meter on this machine, and how to fix the others",
        description="Shows for each device what evidence it would give, why not a better one, and what to do about it. "
        "The signing key is tried: it signs a few bytes, which logs in to a token if the key is in one. "
        "Exit 0: a source can meter here. Exit 4: none can.",
    )
    add_settings(doctor, [setting for setting in SETTINGS if setting.key in _DOCTORS], sources)
    doctor.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    doctor.set_defaults(run=_doctor)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 86_400:
        raise argparse.ArgumentTypeError("must be between 0.1 and 86400 seconds")
    return number


def _status(arguments: argparse.Namespace) -> int:
    from flopsd.settings.load import settings_of_layers
    from flopsd.telemetry.status_client import from_state_dir, from_url
    from flopsd.telemetry.status_text import status_text

    settings = settings_of_layers(layers_of(arguments))

    def read() -> Status:
        if arguments.url:
            return from_url(arguments.url)
        return from_state_dir(settings.state_dir, os.environ, settings.peaks, settings.policies)

    if arguments.watch is not None:
        watch(read, arguments.watch, SystemClock(), sys.stdout, os.environ.get("TERM", ""))
        return OK
    with waiting(arguments, "reading the status"):
        found = read()
    print(json.dumps(found) if arguments.json else status_text(found), end="\n" if arguments.json else "")
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from flopsd.cli.doctor import can_meter, doctor_text, examine

    with waiting(arguments, "looking for accelerators"):
        checks = examine(settings_of(arguments), os.environ, SystemClock(), sources_of(arguments))
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        print(doctor_text(checks), end="")
    return OK if can_meter(checks) else NO_SOURCE


def watch(read: Callable[[], Status], every_seconds: float, clock: Clock, out: IO[str], term: str) -> None:
    """Show the status repeatedly until SIGINT or SIGTERM. A terminal is restored afterwards; other outputs get one text
    after another, without control sequences. `read` returns the status. Raises FlopsdError only if the first read
    fails."""
    found: Status | FlopsdError = read()
    screen = out.isatty() and term not in ("", "dumb")
    with awaited(signal.SIGINT, signal.SIGTERM, signal.SIGTSTP) as wait:
        begin = _ENTER
        try:
            while True:
                at = f"{rfc3339(clock.wall_ns())[11:19]} UTC, every {every_seconds:g} s, Ctrl-C ends"
                out.write(begin + _picture(at, found, *_size()) if screen else f"{at}\n{_text(found)}\n")
                out.flush()
                begin, came = "", wait(every_seconds)
                if came == signal.SIGTSTP:
                    _leave(out, screen)
                    os.kill(os.getpid(), signal.SIGSTOP)
                    begin = _ENTER
                elif came is not None:
                    return
                try:
                    found = read()
                except FlopsdError as fault:  # the daemon may come back
                    found = fault
        finally:
            _leave(out, screen)


def _leave(out: IO[str], screen: bool) -> None:
    if screen:
        out.write(_LEAVE)
        out.flush()


def _text(found: Status | FlopsdError, size: tuple[int, int] | None = None) -> str:
    """The status, or why it cannot be read; fitted to columns and rows if given."""
    from flopsd.telemetry.status_screen import status_screen
    from flopsd.telemetry.status_text import status_text

    if isinstance(found, FlopsdError):
        texts = [str(found), found.hint]
        return shown(texts if size is None else [line for text in texts for line in wrapped(text, columns=size[0])])
    return status_text(found) if size is None else status_screen(found, *size)


def _picture(at: str, found: Status | FlopsdError, columns: int, height: int) -> str:
    """The text, overwriting the previous one and cut to the terminal, which may have been resized."""
    lines = [at, "", *_text(found, (columns, height - 2)).rstrip("\n").split("\n")]
    if len(lines) > height:
        lines = [*lines[: height - 1], f"… {len(lines) - height + 1} more lines"]
    return _HOME + "\n".join(_cut(line, columns) + _REST_OF_LINE for line in lines) + _REST_OF_SCREEN


def _cut(line: str, columns: int) -> str:
    """The line, cut to `columns`. A cut line ends with an ellipsis, so that a truncated figure does not look like
    another. It is ASCII: an encoding without `…` would replace it by an escape longer than the line."""
    return line if len(line) <= columns else f"{line[: max(0, columns - 3)]}..."[:columns]


def _size() -> tuple[int, int]:
    """The size of the terminal now; $COLUMNS and $LINES are from an earlier time."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return shutil.get_terminal_size()
    return size.columns or 80, size.lines or 24  # 0 by 0 if nobody set it, as under `docker exec -t` in a script
