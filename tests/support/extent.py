"""How much of an exhaustive test runs: a sample by default, everything in `make test-all`.

A test of many vectors runs completely by default, and as a sample in `make quick`.
"""

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import settings

T = TypeVar("T")


@dataclass(frozen=True)
class Extent:
    """Runs one case out of every `step`."""

    step: int

    def of(self, cases: Sequence[T], *, always: Iterable[T] = ()) -> list[T]:
        """The first case, the last, those in `always`, and one drawn from each stretch of `step`; the same cases
        every time."""
        rng = random.Random(self.step)
        chosen = {rng.randrange(begin, min(begin + self.step, len(cases))) for begin in range(0, len(cases), self.step)}
        chosen |= {0, len(cases) - 1} if cases else set()
        wanted = set(always)
        return [case for at, case in enumerate(cases) if at in chosen or (wanted and case in wanted)]


def sampled(step: int) -> pytest.MarkDecorator:
    """The test takes an `extent`: one case of `step` by default, and every case where all tests run."""
    whole = pytest.param(Extent(1), id="whole", marks=pytest.mark.exhaustive)
    return pytest.mark.parametrize("extent", [pytest.param(Extent(step), id="sample"), whole])


def unless_quick(cases: Sequence[T], step: int) -> Sequence[T]:
    """Every case; in `make quick` one of every `step`."""
    chosen = Extent(step if os.environ.get("FLOPSD_QUICK") else 1).of(range(len(cases)))
    return [cases[at] for at in chosen]


def examples(number: int) -> int:
    """`number` examples of a property where the profile runs a hundred; more or fewer in proportion elsewhere."""
    most: int = settings().max_examples  # has no known type in the hypothesis release for Python 3.10
    return max(1, number * most // 100)
