"""Few passes are watched, and among them sooner or later those of each regular pattern."""

from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.train.pytorch import torch

pytestmark = pytest.mark.training("torch")
assert torch


def _watched(passes: int) -> Iterator[int]:
    from flopsd.integrations.modules.sparse_passes import SparsePasses

    sparse = SparsePasses()
    return (number for number in range(1, passes + 1) if sparse.next_is_due())


def test_one_pass_of_each_doubling_is_watched() -> None:
    watched = list(_watched(2**20))
    assert watched[:4] == [1, 2, 3, 4]
    assert [(one - 1).bit_length() for one in watched[4:]] == list(range(3, 21))


def test_each_pass_of_a_step_of_a_few_passes_is_watched_at_some_time() -> None:
    found = defaultdict(set)
    for number in _watched(2**20):
        for period in range(2, 6):
            found[period].add(number % period)
    assert all(found[period] == set(range(period)) for period in range(2, 6))
