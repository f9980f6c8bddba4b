"""`make fuzz`: each target for a time under Atheris, in a process of its own; prints executions, corpus and faults
of each."""

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.corpus import CORPUS, keep, kept

LIMITS = ("-timeout=5", "-rss_limit_mb=512", "-max_len=45000", "-print_final_stats=1", "-reload=0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of each target (default 60)")
    parser.add_argument("--only", nargs="*", default=[], metavar="TARGET")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)  # in the child
    args = parser.parse_args()
    if args.one:
        fuzz_one(args.one[0], args.one[1:])
        return
    from tests.fuzz.targets import TARGETS

    faults = 0
    print(
        f"{'target':12}{'executions':>12}{'per second':>12}{'inputs found':>14}{'kept files':>12}{'bytes':>9}  faults"
    )
    for name, target in TARGETS.items():
        if args.only and name not in args.only:
            continue
        with tempfile.TemporaryDirectory(prefix="flopsd-fuzz-") as temporary:
            found, artifacts, seeds = (Path(temporary) / part for part in ("found", "artifacts", "seeds"))
            for folder in (found, artifacts, seeds):
                folder.mkdir()
            for at, seed in enumerate(target.seeds()):
                (seeds / str(at)).write_bytes(seed)
            (CORPUS / name).mkdir(parents=True, exist_ok=True)
            command = [
                sys.executable, "-m", "tests.fuzz", "--one", name, *LIMITS, f"-max_total_time={args.seconds}",
                f"-artifact_prefix={artifacts}/", str(found), str(seeds), str(CORPUS / name),
            ]  # fmt: skip
            environment = {**os.environ, "TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=environment, check=False
            )
            counts = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
            failed = [path.read_bytes() for path in artifacts.iterdir()]
            for data in failed:  # replayed from now on, before and after the fault is mended
                (CORPUS / name / f"fault-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            if done.returncode:
                print(
                    "\n".join(done.stderr.partition("=== Uncaught")[2].splitlines()[:30]) or done.stderr[-1500:],
                    file=sys.stderr,
                )
                files, size = len(kept(name)), sum(path.stat().st_size for path in kept(name))
            else:
                files, size = keep(name, target.run, target.seeds(), [path.read_bytes() for path in found.iterdir()])
            new = sum(1 for _ in found.iterdir())
        faults += bool(done.returncode)
        executions = counts.get("number_of_executed_units", 0)
        print(
            f"{name:12}{executions:>12,}{counts.get('average_exec_per_sec', 0):>12,}{new:>14}{files:>12}{size:>9}"
            f"  {len(failed) or ('died' if done.returncode else 0)}",
            flush=True,
        )
    sys.exit(bool(faults))


def fuzz_one(name: str, flags: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["flopsd"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    how = {} if target.mutate is None else {"custom_mutator": _mutator(target.mutate)}
    atheris.Setup([name, *flags], target.run, **how)
    atheris.Fuzz()


def _mutator(edit: Callable[[random.Random, bytes], bytes]) -> Callable[[bytes, int, int], bytes]:
    def either(data: bytes, most: int, seed: int) -> bytes:
        from atheris import core_with_libfuzzer  # atheris.Mutate of 3.0.0 reports that nothing is being fuzzed

        rng = random.Random(seed)
        changed = edit(rng, data) if rng.random() < 0.7 else data
        return changed if changed != data and len(changed) <= most else bytes(core_with_libfuzzer.Mutate(data, most))

    return either


if __name__ == "__main__":
    main()
