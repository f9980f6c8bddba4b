"""The command line: verbs, errors, exit codes. The only module that exits."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import TracebackType
from typing import NoReturn

from flopsd import __version__
from flopsd.cli.common import FAILED, NO_SOURCE, NOT_VERIFIED, OK, USAGE, note
from flopsd.cli.parser import Parser
from flopsd.errors import ArchitectureError, ConfigError, FlopsdError, NotVerifiedError, SourceUnavailableError
from flopsd.report.terminal import shown
from flopsd.settings.words import words_of
from flopsd.sources.registry import known_sources
from flopsd.system.streams import flush, last_flush, open_missing, say, set_encoding, with_priority

METERING = ("run", "exec")
NO_DATA = (*METERING, "seal", "push")  # their stdout carries only messages; failing to write one is no error
# The module of this package that implements each verb, in the order of --help.
VERBS = {
    "run": "run", "exec": "run", "seal": "seal", "copy": "copy", "verify": "verify", "report": "report",
    "merge": "merge", "key": "key", "countersign": "key", "export": "export", "estimate": "estimate", "push": "push",
    "status": "status", "doctor": "status", "sagemaker": "sagemaker", "config": "config", "completion": "config",
    "man": "config",
}  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_SOURCES = ("run", "status", "config")  # modules with verbs that take the options of sources


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit."""
    open_missing()
    set_encoding(sys.stdout)
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(words[0] if words else "")
    if not words:
        parser.print_help(sys.stderr)
        sys.exit(USAGE)
    arguments = parser.parse_args(words)
    arguments.words = words
    _log_to_stderr(arguments.verb, quiet=arguments.quiet, verbose=arguments.verbose)
    log = logging.getLogger("flopsd")
    log.debug("flopsd %s %s, Python %s", __version__, arguments.verb, sys.version.split()[0])
    try:
        code = int(arguments.run(arguments))
        if code == OK and arguments.verb not in NO_DATA:
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader closed the pipe
        code = FAILED
    except OSError as fault:
        if fault.filename is not None:  # raised where code only checked whether a file exists
            note(f"{fault.filename}: {fault.strerror}", logging.ERROR)
            note(f"hint: {_remedy(fault)}", logging.ERROR)
            log.debug("raised here", exc_info=fault)
        elif isinstance(fault, FileNotFoundError) and _is_folder_gone():
            note("the current folder was deleted, and a path that was given is relative to it", logging.ERROR)
            note("hint: run it in another folder, or give absolute paths", logging.ERROR)
        elif arguments.verb in NO_DATA or (fault.errno not in FULL and flush(sys.stdout)):
            raise  # the refused bytes may be lost even if the next write succeeds
        else:
            note(f"cannot write to standard output: {fault.strerror}", logging.ERROR)
        code = FAILED
    except FlopsdError as fault:
        code = _report(fault)
        log.debug("raised here", exc_info=fault)
    written = last_flush(sys.stdout)
    last_flush(sys.stderr)
    sys.exit(FAILED if code == OK and not written and arguments.verb not in NO_DATA else code)


def _is_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _remedy(fault: OSError) -> str:
    if isinstance(fault, PermissionError):
        return f"user {os.geteuid()} has no access there: run it as another user, such as the daemon's"
    return "free space on that disk" if fault.errno in FULL else "check that disk or file server, then run it again"


def _report(fault: FlopsdError) -> int:
    for line in (words_of(fault),) if isinstance(fault, ArchitectureError) else fault.lines:
        note(line, logging.ERROR)
    if fault.hint:
        note(f"hint: {fault.hint}", logging.ERROR)
    if isinstance(fault, ConfigError):
        return USAGE
    if isinstance(fault, NotVerifiedError):
        return NOT_VERIFIED
    return NO_SOURCE if isinstance(fault, SourceUnavailableError) else FAILED


def log_uncaught(_kind: type[BaseException], fault: BaseException, _trace: TracebackType | None) -> None:
    """A `sys.excepthook` that logs the traceback, so that each line has a priority in systemd's journal. Exits where
    PYTHONINSPECT asks for a prompt instead, which has an exit code of its own."""
    if isinstance(fault, SystemExit):
        last_flush(sys.stdout)
        os._exit(fault.code if isinstance(fault.code, int) else FAILED)
    logging.getLogger("flopsd").error("internal error; please report this with the traceback", exc_info=fault)


class _StderrHandler(logging.Handler):
    """Writes log records to stderr, ignoring a closed one. A message, which may quote a file, stays on one line."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = [f"flopsd: {record.levelname}: {record.getMessage()}"]
        if record.exc_info:
            lines += logging.Formatter().formatException(record.exc_info).split("\n")
        say(sys.stderr, with_priority(shown(lines), record.levelno, sys.stderr))


def _log_to_stderr(verb: str, *, quiet: bool = False, verbose: bool = False) -> None:
    usual = logging.INFO if verb in METERING else logging.WARNING
    logging.getLogger("flopsd").handlers[:] = [_StderrHandler()]
    logging.getLogger("flopsd").setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else usual)


def _parser(verb: str = "") -> Parser:
    """A parser with `verb` only, importing only its module, because metering keeps its imports for weeks. With no such
    verb, a parser with every verb, so that help lists them."""
    parser = Parser(
        prog="flopsd",
        description="Measures training compute from hardware counters and seals it in a signed ledger.",
        epilog="Exit codes: 0 success, 1 failure, 2 invalid usage or setting, 3 not verified, 4 no metering source.",
    )
    parser.add_argument("--version", action="version", version=f"flopsd {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    modules = [VERBS[verb]] if verb in VERBS else dict.fromkeys(VERBS.values())
    # Looking for plug-ins reads a file of each installed package.
    sources = known_sources() if any(name in OF_SOURCES for name in modules) else None
    for name in modules:
        add = import_module(f"flopsd.cli.{name}").add
        add(verbs, sources) if name in OF_SOURCES else add(verbs)
    # The parser is for completions and the manual page, the sources are for settings.
    parser.set_defaults(parser=_parser, sources_known=sources, quiet=False, verbose=False)
    return parser
