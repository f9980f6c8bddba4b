"""`python -m tests.campaign`: every case, declared and undeclared; a table of errors and widths, and the figures
that miss the truth."""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tests.campaign.cases import cases, hostile
from tests.campaign.simulation import Judged, judge
from tests.support.scenario import compile_standin


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the random cases and of the moments of reading")
    parser.add_argument("--random", type=int, default=40, help="random cases (default 40)")
    parser.add_argument("--hostile", type=int, default=60, help="cases of everything at once (default 60)")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    args = parser.parse_args()
    missed = ledgers = count = 0
    with tempfile.TemporaryDirectory() as folder:
        standin = compile_standin(Path(folder) / "standin").parent
        hostile_cases = (hostile(args.seed + at) for at in range(args.hostile))
        for at, case in enumerate(chain(cases(args.seed, args.random), hostile_cases)):
            if args.only not in case.name:
                continue
            place = Path(folder) / str(at)
            place.mkdir()
            found = judge(case, standin, place, args.seed)
            count, ledgers, missed = count + 1, ledgers + 2, missed + sum(not one.holds for one in found)
            sys.stdout.write("".join(f"{line}\n" for line in table_of(found)))
            sys.stdout.flush()
    sys.stdout.write(f"\n{count} cases, {ledgers} ledgers: {missed} intervals miss the truth\n")
    sys.exit(bool(missed))


def table_of(found: Iterable[Judged]) -> Iterable[str]:
    """One line for each device: error of the measured figure, width (high / low), and whether the truth lies inside."""
    for one in found:
        if one.quantity == "integerOperations" and one.true == (0, 0) and one.holds:
            continue
        least, most = one.true
        low, measured, high = one.stated.low_flop, one.stated.measured_flop, one.stated.high_flop
        error = "" if measured is None or one.declared is None or not least else f"{measured / least - 1:+8.2%}"
        width = "no high" if high is None else "low 0" if not low else f"{high / low:.3f}"
        share = "" if high is None or not most else f"high {high / most:.2f} x the truth"
        verdict = "" if one.holds else f"  MISSES THE TRUTH: {low} {one.true} {high}"
        name = f"{one.case:34}{one.device:>6} {one.declared or 'undeclared':>10}"
        quantity = "" if one.quantity == "executed" else " integers"
        yield f"{name}{quantity} {error:>9} {width:>9} {share}{verdict}"


if __name__ == "__main__":
    main()
