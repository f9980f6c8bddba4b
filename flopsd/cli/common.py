"""Code that the verbs share.

A verb returns its exit code: 0 success, 1 failure, 2 usage, 3 not verified, 4 no source. Data goes to stdout, messages
to stderr. Each verb imports its dependencies when it runs, so that metering does not load the signing packages.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from flopsd.errors import LedgerError
from flopsd.report.terminal import one_line
from flopsd.settings.schema import SETTINGS, Setting, Settings
from flopsd.system.clock import SystemClock
from flopsd.system.file_presence import exists, is_file, is_folder, is_link
from flopsd.system.streams import say, with_priority

if TYPE_CHECKING:
    from flopsd.cli.parser import Parser
    from flopsd.settings.load import Layers
    from flopsd.sources.registry import KnownSources
    from flopsd.system.progress import ProgressLine

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"
OK, FAILED, USAGE, NOT_VERIFIED, NO_SOURCE = 0, 1, 2, 3, 4
# The settings that `seal` needs; `exec` passes them on to it.
SEAL_KEYS = (
    "state_dir", "run_id", "key", "ledger", "ledger_copies", "peaks", "policies", "stop_seconds", "evidence",
    "timestamp_url", "witness_url", "rotate_every", "keep_segments",
)  # fmt: skip

NICENESS = 10
PUSH_KEYS = ("pushes", "push_every_seconds")


def positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 999999999, in digits")
    return int(text)


def add_repeatable(
    parser: argparse.ArgumentParser, flag: str, metavar: str, text: str, *, needed: bool = False
) -> None:
    """Add an option that may be given several times; its value is a list, empty by default."""
    default: list[str] | None = None if needed else []
    parser.add_argument(
        flag, action="append", required=needed, default=default, metavar=metavar, help=f"{text}; repeatable"
    )


def write_output(file: str | None, text: str, read: Sequence[Path]) -> None:
    """Write to `file`, or to stdout if it is None. A regular file is replaced atomically; a device, a FIFO or the
    target of a link, such as /dev/stdout, is written to, as by a shell. Raises LedgerError, also for a file that was
    `read` for the output, and for any ledger, journal or key, which cannot be made again."""
    if file is None:
        sys.stdout.write(text)
        return
    from flopsd.system.atomic_files import replace_file

    path = Path(file)
    try:
        hint = "nothing was changed; give -o another name"
        if any(exists(path) and exists(one) and path.samefile(one) for one in read):
            raise LedgerError(f"{file} is an input of this command", hint=hint)
        if _is_evidence(path):
            raise LedgerError(f"{file} is a ledger, a journal or a key", hint=hint)
        if is_link(path) or (exists(path) and not (is_file(path) or is_folder(path))):
            path.write_text(text, encoding="utf-8")
        else:
            replace_file(path, text.encode("utf-8"))
    except OSError as fault:
        raise LedgerError(
            f"cannot write {file}: {fault.strerror}", hint="name a file in a folder that can be written"
        ) from fault


def _is_evidence(path: Path) -> bool:
    """Whether the file begins as a ledger, a journal or a key does. Raises OSError."""
    if not is_file(path):
        return False
    with path.open("rb") as file:
        begins = rb'\{\s*"payload(Type)?":|\{"h":|-----BEGIN [A-Z ]*KEY-----'
        return re.match(begins, file.read(80)) is not None


def note(text: str, level: int = logging.INFO) -> None:
    """Print a message for the user on stderr; `level` is its priority if stderr is systemd's journal."""
    say(sys.stderr, with_priority(f"flopsd: {one_line(text)}\n", level, sys.stderr))


def remarks(arguments: argparse.Namespace) -> Callable[[str], None]:
    """The function that prints a verb's remarks (not errors): to stderr, or nowhere with -q."""
    return (lambda _: None) if arguments.quiet else note


def waiting(arguments: argparse.Namespace, title: str) -> ProgressLine:
    """A progress line on stderr for slow work; none with -q, or if stderr is not a terminal."""
    from flopsd.system.progress import ProgressLine, is_screen

    is_shown = not arguments.quiet and is_screen(sys.stderr)
    return ProgressLine(sys.stderr, SystemClock(), f"flopsd: {one_line(title)}", is_shown=is_shown)


def verbosity_flags(arguments: argparse.Namespace) -> list[str]:
    """The -q or -v that was given, for passing to another process."""
    return ["--quiet"] if arguments.quiet else ["--verbose"] if arguments.verbose else []


def be_nice() -> None:
    """Lower the priority, since the processors belong to the job. Services may be denied this, which is no error."""
    try:
        os.nice(NICENESS)
    except OSError:
        pass


def end_with(lifeline: int | None) -> None:
    """Kill this process as soon as the daemon that started it has ended, which closes the pipe `lifeline`: the next
    daemon, or the launcher, seals and copies too, to the same places. A kill at any point is safe."""
    if lifeline is not None:
        with suppress(RuntimeError):  # no more threads
            threading.Thread(target=_end_after, args=(lifeline,), daemon=True).start()


def _end_after(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def add_settings(
    parser: argparse.ArgumentParser, settings: Sequence[Setting], sources: KnownSources | None = None
) -> None:
    """Add --config, the flags of `settings`, and under a heading that lists `sources` their options."""
    parser.usage = parser.usage or f"{parser.prog} [options]"  # otherwise it would be longer than a screen
    parser.add_argument("--config", metavar="FILE", help="settings file (also FLOPSD_CONFIG)")
    _add_flags(parser, settings)
    if sources is not None:
        listed = "\n".join(f"{info.name}: {info.title}" for info in sources.infos)
        _add_flags(parser.add_argument_group("sources", listed), sources.settings)


def _add_flags(parser: argparse._ActionsContainer, settings: Sequence[Setting]) -> None:
    for setting in settings:
        if setting.key == "seal":
            text = "do not seal a ledger at the end (also FLOPSD_SEAL=false)"
            parser.add_argument("--no-seal", dest="seal", action="store_const", const="false", help=text)
            continue
        action = "append" if setting.repeatable else "store"
        text = f"{setting.help}{'; repeatable' if setting.repeatable else ''} [{setting.variable}]"
        parser.add_argument(setting.flag, dest=setting.key, metavar=setting.metavar, help=text, action=action)


def settings_of(arguments: argparse.Namespace) -> Settings:
    return effective(layers_of(arguments))


def effective(layers: Layers) -> Settings:
    from flopsd.settings.load import settings_of_layers
    from flopsd.settings.platform import find_context
    from flopsd.settings.sagemaker_defaults import with_defaults

    return with_defaults(settings_of_layers(layers), find_context(os.environ))


def layers_of(arguments: argparse.Namespace) -> Layers:
    """The values given by file, variables and flags. An unknown setting may belong to an unusable plug-in."""
    from flopsd.settings.load import read_layers

    sources = sources_of(arguments)
    layers = read_layers(flags_of(arguments), os.environ, getattr(arguments, "config", None), sources.settings)
    if layers.problems:
        layers.problems.extend(map(str, sources.faults))
    return layers


def sources_of(arguments: argparse.Namespace) -> KnownSources:
    """The declarations of the installed sources, as read when the command line was parsed, if its verb takes them."""
    from flopsd.sources.registry import known_sources

    return arguments.sources_known or known_sources()


def flags_of(arguments: argparse.Namespace) -> dict[str, object]:
    keys = [setting.key for setting in (*SETTINGS, *sources_of(arguments).settings)]
    return {key: getattr(arguments, key) for key in keys if getattr(arguments, key, None) is not None}
