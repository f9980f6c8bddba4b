from pathlib import Path

import pytest

from tests.support.jobs import Nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)
