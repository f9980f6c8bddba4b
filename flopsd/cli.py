"""The command line: its verbs, its errors, its exit code. The only place that exits."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from flopsd import __version__
from flopsd.errors import ConfigError, FlopsdError, NotVerifiedError, SourceUnavailableError
from flopsd.verbs import (
    FAILED,
    NO_SOURCE,
    NOT_VERIFIED,
    USAGE,
    configuring,
    estimating,
    exporting,
    keys,
    looking,
    merging,
    metering,
    platform,
    pushing,
    reporting,
    sealing,
    verifying,
)


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

    for module in (
        metering,
        sealing,
        verifying,
        reporting,
        merging,
        keys,
        exporting,
        estimating,
        pushing,
        looking,
        platform,
        configuring,
    ):
        module.add(verbs)
    parser.set_defaults(parser=lambda: parser)  # for what describes it: completions, the manual page
    return parser
