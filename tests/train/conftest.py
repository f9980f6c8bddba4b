"""Fixtures shared by tests that start scripts."""

from collections.abc import Iterator

import pytest

from tests.train.preloaded import Preloaded, preloaded


@pytest.fixture(scope="session")
def scripts() -> Iterator[Preloaded]:
    with preloaded() as found:
        yield found
