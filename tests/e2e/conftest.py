"""What most programs of these tests meter, an H100 that is busy; and the Chromium that opens pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import Page, chromium
from tests.support.process import environment
from tests.support.scenario import BUSY, Scenario, h100


@pytest.fixture
def env(standin: Path, tmp_path: Path) -> dict[str, str]:
    return environment(standin, Scenario((h100(BUSY),)).write(tmp_path / "scenario.txt"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page
