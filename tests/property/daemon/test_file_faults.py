"""Whatever the file system refuses and wherever a process is killed: nothing is counted twice, no record is lost,
every ledger verifies, and every message names a file and a remedy."""

from pathlib import Path

import pytest

from tests.support.extent import Extent, sampled
from tests.support.file_faults import run


@pytest.mark.long
@sampled(40)
def test_a_run_on_a_failing_disk_counts_the_work_of_its_devices(tmp_path: Path, extent: Extent) -> None:
    done = run(0, 60 // extent.step, tmp_path)
    assert done.returncode == 0, done.stdout
