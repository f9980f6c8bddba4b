"""How much of an exhaustive test is run: a sample in the ordinary run, the whole in `make test-all`.

A test of many vectors is whole in the ordinary run, and a sample in `make quick`.
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
    """One case of every `step` is tried."""

    step: int

    def of(self, cases: Sequence[T], *, always: Iterable[T] = ()) -> list[T]:
        """The first case, the last, those of `always`, and one drawn from each stretch of `step`: the same each time."""
        rng = random.Random(self.step)
        chosen = {rng.randrange(begin, min(begin + self.step, len(cases))) for begin in range(0, len(cases), self.step)}
        chosen |= {0, len(cases) - 1} if cases else set()
        wanted = set(always)
        return [case for at, case in enumerate(cases) if at in chosen or (wanted and case in wanted)]


def sampled(step: int) -> pytest.MarkDecorator:
    """The test takes an `extent`: one case of `step` in the ordinary run, every case where it is run whole."""
    whole = pytest.param(Extent(1), id="whole", marks=pytest.mark.exhaustive)
    return pytest.mark.parametrize("extent", [pytest.param(Extent(step), id="sample"), whole])


def unless_quick(cases: Sequence[T], step: int) -> Sequence[T]:
    """Every case; one of `step` in `make quick`."""
    chosen = Extent(step if os.environ.get("FLOPSD_QUICK") else 1).of(range(len(cases)))
    return [cases[at] for at in chosen]


def examples(number: int) -> int:
    """`number` examples of a property where the profile tries a hundred, else as many more or fewer."""
    most: int = settings().max_examples  # of no known type in the hypothesis that Python 3.10 has
    return max(1, number * most // 100)
