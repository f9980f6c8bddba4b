"""No alert fires on a healthy install: half an hour of each, under the committed rules in the real promtool."""

from pathlib import Path

import pytest

from tests.support.installs import INSTALLS, MINUTES, Watched
from tests.support.prometheus import Case, promtool_says


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("name", INSTALLS)
def test_no_alert_fires_on_a_healthy_install(tmp_path: Path, name: str) -> None:
    stated = Watched(tmp_path / "state", name, INSTALLS[name])
    for number in range(1, MINUTES + 1):
        stated.minute(number)
    stated.kill()
    world = stated.world()
    assert any(series.startswith("flopsd_device_info{") for series in world)
    done = promtool_says(
        tmp_path, [Case(name, world, MINUTES, {"ALERTS": [], "count(run:flopsd_nodes:count)": [({}, 1)]})]
    )
    assert done.returncode == 0, done.stdout + done.stderr
