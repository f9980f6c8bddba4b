"""What tests that start scripts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.train.preloaded import Preloaded, preloaded


@pytest.fixture(scope="session")
def scripts() -> Iterator[Preloaded]:
    with preloaded() as found:
        yield found
