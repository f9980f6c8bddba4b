"""Whatever the file system refuses and wherever a process is killed: nothing is counted twice, nothing that was recorded
is lost, every ledger verifies, and every message names a file and what to do."""

from pathlib import Path

import pytest

from tests.support.extent import Extent, sampled
from tests.support.file_faults import run


@pytest.mark.long
@sampled(40)
def test_a_run_on_a_failing_disk_counts_what_the_devices_did(tmp_path: Path, extent: Extent) -> None:
    done = run(0, 60 // extent.step, tmp_path)
    assert done.returncode == 0, done.stdout
