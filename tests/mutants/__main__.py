"""`python -m tests.mutants`: plant faults, print what survived and the figures by room."""

from __future__ import annotations

import argparse
import atexit
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.mutants.campaign import PYTEST, Campaign, Outcome, sample, table
from tests.mutants.equivalent import LIST, read_equivalent
from tests.mutants.faults import faults, rooms
from tests.mutants.project import TESTS, Project
from tests.support.paths import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300, help="faults to plant (default 300)")
    parser.add_argument("--room", action="append", default=[], help="only this room, or ROOM/FOLDER; may be repeated")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="folders or files (default unit, property, contract)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the tree (default: this one)")
    parser.add_argument("--package", default="flopsd", help="the folder to plant in (default flopsd)")
    parser.add_argument("--verbose", action="store_true", help="also what was killed, and by which test")
    parser.add_argument(
        "--keep-reach", action="store_true", help="trace only test files that changed, not those whose package did"
    )
    parser.add_argument("--copied-to", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.copied_to or args.root / "run" / "mutants"
    tree = folder / f"tree-{os.getpid()}"
    if args.copied_to is None:
        Project(args.root).copy(tree)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (tree, ROOT)))
        os.execv(sys.executable, [sys.executable, "-m", "tests.mutants", *sys.argv[1:], "--copied-to", str(folder)])

    project = Project(tree, args.package, tuple(args.tests))
    printed = os.fdopen(os.dup(1), "w")
    log = os.open(f"{tree}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(log, 1)  # what pytest prints
    os.dup2(log, 2)

    def say(text: str) -> None:
        print(text, file=printed, flush=True)

    def work(campaign: Campaign) -> None:
        equivalent = read_equivalent(LIST.read_text())
        every = [fault for path in project.modules() for fault in faults(project.root, path)]
        if args.package == "flopsd":
            for path, function, before, _ in equivalent.keys() - {fault.key for fault in every}:
                say(f"{LIST.name} names what is no possible fault any more: {path} {function}: {before}")
        prefixes = tuple(f"{args.package}/{room}" for room in args.room or [""])
        reach = campaign.find_reach(args.keep_reach)
        by_room = sample(args.seed, args.count, rooms(f for f in every if f.path.startswith(prefixes)), reach)
        planted = [fault for room in by_room.values() for fault in room.planted]
        say(f"{len(every)} possible faults, {len(planted)} planted, {len(reach.tests)} tests, seed {args.seed}")
        outcomes = [Outcome(fault, "equivalent") for fault in planted if fault.key in equivalent]

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if outcome.verdict == "survived" or args.verbose:
                fault = outcome.fault
                say(f"\n{fault.path}:{fault.lines.start} {fault.kind}, {outcome.met} tests: {outcome.verdict}")
                say(f"{fault.path} {fault.function}\n- {fault.before}\n+ {fault.after}")
                if outcome.by:
                    say(f"  by {outcome.by}")

        faulty = [fault for fault in planted if fault.key not in equivalent]
        random.Random(args.seed).shuffle(faulty)  # a campaign that is cut short has met some of every room
        try:
            campaign.plant(faulty, reach, done)
        finally:
            say("\n" + "\n".join(table(by_room, outcomes)))

    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that no test goes on without this
    campaign = Campaign(project, folder, Path(f"{tree}.log"), args.jobs, say, work)
    atexit.register(shutil.rmtree, tree, ignore_errors=True)
    options = (*PYTEST, "--continue-on-collection-errors", "--rootdir", str(tree))
    return int(pytest.main([*options, *project.test_files()], plugins=[campaign]))


if __name__ == "__main__":
    sys.exit(main())
