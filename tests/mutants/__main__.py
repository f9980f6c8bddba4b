"""`python -m tests.mutants`: plant faults, and print the survivors and the figures of each room."""

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.mutants.campaign import Campaign, Outcome, sample, table
from tests.mutants.faults import ANY_NUMBER, LIST, faults, read_equivalent
from tests.support.paths import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300, help="faults to plant (default 300)")
    parser.add_argument("--room", action="append", default=[], help="only this room, or ROOM/FOLDER; may be repeated")
    parser.add_argument("--tests", nargs="+", default=("tests/unit", "tests/property", "tests/contract"),
                        help="folders or files (default unit, property, contract)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the tree (default: this one)")
    parser.add_argument("--package", default="flopsd", help="the folder to plant in (default flopsd)")
    parser.add_argument("--verbose", action="store_true", help="also what was killed, and by which test")
    args = parser.parse_args()
    say = partial(print, flush=True)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that no test goes on without this process

    every = [fault for path in python_files(args.root, args.package) for fault in faults(args.root, path)]
    equivalent = read_equivalent(LIST.read_text())
    if args.package == "flopsd":
        possible_keys = {fault.key for fault in every} | {(*fault.key[:3], ANY_NUMBER) for fault in every}
        for path, function, before, _ in equivalent.keys() - possible_keys:
            say(f"{LIST.name} names what is not a possible fault any more: {path} {function}: {before}")
    # The tool's own tests are excluded: they plant faults themselves.
    listed = [path for folder in args.tests for path in python_files(args.root, folder)]
    files = [path for path in listed if Path(path).name.startswith("test_") and "mutants" not in path]
    prefixes = tuple(f"{args.package}/{room}" for room in args.room or [""])
    possible = [fault for fault in every if fault.path.startswith(prefixes)]
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(args.root, args.package, Path(folder), args.jobs)
        reach = campaign.reach(files, say)
        planted = sample(args.seed, args.count, possible, reach)
        say(f"{len(every)} possible faults, {len(planted)} planted, {len(reach.whole)} test files, seed {args.seed}")
        outcomes = [Outcome(fault, "equivalent") for fault in planted if fault.key in equivalent]
        faulty = [fault for fault in planted if fault.key not in equivalent]
        random.Random(args.seed).shuffle(
            faulty
        )  # a campaign that is cut short has then tried some faults of every room
        try:
            for outcome in campaign.plant(faulty, reach):
                outcomes.append(outcome)
                if outcome.verdict == "survived" or args.verbose:
                    fault = outcome.fault
                    say(f"\n{fault.path}:{fault.lines.start} {fault.kind}: {outcome.verdict}; tests: {outcome.met}")
                    say(f"{fault.path} {fault.function}\n- {fault.before}\n+ {fault.after}\n  {outcome.by}")
        finally:
            say("\n" + "\n".join(table(possible, reach, outcomes)))


def python_files(root: Path, folder: str) -> Iterator[str]:
    for path in sorted((root / folder).rglob("*.py")) or [root / folder]:
        yield str(path.relative_to(root))


if __name__ == "__main__":
    main()
