"""`python -m tests.hardware --out DIR`: true against metered FLOP on this machine; a table on stdout, results.json in
DIR.

Exit codes: 0 measured, whatever the ratios; 1 flopsd or NVML failed; 2 something is missing.
"""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tests.hardware import plan, preflight

OK, FAILED, USAGE = 0, 1, 2
SIMULATED_INTERVAL_SECONDS = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    name = "simulated" if arguments.simulated else "full" if arguments.full else "quick"
    missing = preflight.missing(simulated=arguments.simulated)
    if missing:
        print(preflight.advice(missing), file=sys.stderr)
        return USAGE
    specs = tuple(spec for spec in plan.PLANS[name]() if re.search(arguments.only, spec.name))
    if not specs:
        print(f"--only {arguments.only!r} leaves no load", file=sys.stderr)
        return USAGE
    signal.signal(signal.SIGTERM, _end)  # so that clock settings are restored and flopsd is stopped
    from tests.hardware.suite import Options, SuiteError, run_suite  # needs the packages that preflight checks

    interval = arguments.interval or (SIMULATED_INTERVAL_SECONDS if arguments.simulated else 1.0)
    options = Options(
        arguments.out.absolute(), name, specs, arguments.date, arguments.commit, interval, arguments.change_settings
    )
    try:
        run_suite(options, lambda line: print(line, flush=True))
    except SuiteError as fault:
        print(f"tests.hardware: {fault}", file=sys.stderr)
        return FAILED
    return OK


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hardware", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder for results and state")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="the day of the run, for the results")
    parser.add_argument("--commit", metavar="SHA", help="of flopsd (default: asked of git)")
    parser.add_argument("--full", action="store_true", help="planned for half an hour instead of five minutes")
    parser.add_argument("--only", default="", metavar="REGEX", help="only loads whose name matches")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="between flopsd's readings (default: 1)")
    parser.add_argument("--simulated", action="store_true", help="no GPU: prove the suite on the stand-in driver")
    settings = parser.add_mutually_exclusive_group()
    settings.add_argument(
        "--leave-settings", action="store_true", help="change no clock and no power limit; this is the default"
    )
    settings.add_argument(
        "--change-settings",
        action="store_true",
        help="lock clocks and cap power for some loads, and undo it; at the end stop GPM for every reader for a second",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
