"""`python -m tests.vector_mutants [--faults N] [--seed S ...] [--of second third]` (`make vector-mutants`).

Breaks the second and the third implementation in N places each, one at a time, and runs them over the vectors. Prints
each fault that changes neither the verdict nor its reason on any vector, and the share of those that do. Faults that
no vector can find are listed in `equivalent.txt` by place and reason, and are not counted.
"""

import argparse
import os
import random
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from conformance.vectors import Vector, vectors_in
from tests.support.story import VECTORS
from tests.vector_mutants import javascript, python
from tests.vector_mutants.faults import Fault, equivalent

IMPLEMENTATIONS: dict[str, ModuleType] = {"second": python, "third": javascript}
SECONDS = 60  # of processor time, for one fault


def campaign(
    of: ModuleType, faults: Sequence[Fault], vectors: Sequence[Vector], jobs: int
) -> Iterator[tuple[Fault, str | None]]:
    """Each fault with the vector that detects it, `jobs` of them at a time; vectors that detected others come first."""
    expected = of.baseline(vectors)
    noticed = dict.fromkeys((vector.name for vector in vectors), 0)
    running: dict[int, tuple[int, Fault]] = {}
    left = list(reversed(faults))
    while left or running:
        while left and len(running) < jobs:
            fault = left.pop()
            first = sorted(vectors, key=lambda vector: -noticed[vector.name])
            pipe, child = _start(lambda fault=fault, first=first: of.noticing(fault, first, expected))  # type: ignore[misc]
            running[pipe] = child, fault
        for pipe in select.select(list(running), [], [])[0]:
            child, fault = running.pop(pipe)
            with os.fdopen(pipe, "rb") as answered:
                answer = answered.read().decode()
            os.waitpid(child, 0)
            if answer in noticed:
                noticed[answer] += 1
            yield fault, {"-": None, "": "(it never ends)"}.get(answer, answer)


def _start(noticing: Callable[[], str | None]) -> tuple[int, int]:
    """Start a process for the answer: returns the pipe for it, and the process id. The planted fault may keep it
    from ever ending."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return read, child
    os.close(read)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    try:
        answer = noticing() or "-"
    except BaseException as fault:  # noqa: BLE001 - nothing of this process may go on
        answer = f"({type(fault).__name__})"
    os.write(write, answer.encode())
    os._exit(0)


def chosen(name: str, number: int, seed: int) -> tuple[list[Fault], int]:
    """`number` faults drawn by the seed, or all for 0; and the number of possible faults, without those known to
    change nothing."""
    known = equivalent()
    every = [fault for fault in IMPLEMENTATIONS[name].faults() if fault.key not in known]
    return (random.Random(seed).sample(every, number) if number else every), len(every)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vector_mutants", description=__doc__)
    parser.add_argument("--faults", type=int, default=150, help="in each implementation, by each seed; 0: all")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--of", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args(words)
    vectors = vectors_in(VECTORS)
    for name in asked.of:
        for seed in asked.seed:
            faults, possible = chosen(name, asked.faults, seed)
            found = []
            for fault, vector in campaign(IMPLEMENTATIONS[name], faults, vectors, asked.jobs):
                found.append(vector)
                if vector is None:
                    print(f"not noticed: {fault}", flush=True)
            noticed = len(found) - found.count(None)
            share = 100 * noticed / len(found)
            print(
                f"{name}: {noticed} of {len(found)} faults change a verdict, {share:.1f} % (seed {seed}, of {possible})",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
