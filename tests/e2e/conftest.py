"""A busy H100, which most programs of these tests meter; the Chromium that opens pages; the wheel."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import Page, chromium
from tests.support.paths import ROOT
from tests.support.process import environment
from tests.support.scenario import BUSY, Scenario, h100


@pytest.fixture
def env(standin: Path, tmp_path: Path) -> dict[str, str]:
    return environment(standin, Scenario((h100(BUSY),)).write(tmp_path / "scenario.txt"))


@pytest.fixture(scope="session")
def one_chromium() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture
def browser(one_chromium: Page) -> Page:
    """An empty page, so that requests of an earlier test's page are not counted here."""
    one_chromium.renew()
    return one_chromium


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist and of the wheel, which is built from the sdist and not from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
                   check=True, capture_output=True)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))
