"""The daemon's memory does not grow with time; `make bench BENCH_ARGS=soak` shows it over a week."""

import gc
import sys
from pathlib import Path

import pytest

from flopsd.settings.data_files import load_policies
from flopsd.telemetry.prometheus import Exposition
from tests.support.runs import Run

TICKS, LEFT_BLOCKS = 600, 500  # a leak is at least one block per tick; Python itself may keep some hundreds


def blocks_after(ticks: int, run: Run, exposition: Exposition) -> int:
    for _ in range(ticks // 10):
        run.meter(10)
        exposition.render(run.writer.snapshot, "")
    run.lines.clear()
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.long
def test_more_ticks_leave_no_more_objects(tmp_path: Path) -> None:
    run, exposition = Run(tmp_path, policies=load_policies()), Exposition()
    blocks_after(TICKS, run, exposition)
    before = blocks_after(TICKS, run, exposition)
    after = blocks_after(TICKS, run, exposition)
    assert after - before < LEFT_BLOCKS
    leak = [object() for _ in range(TICKS)]  # proves that the limit detects a leak
    assert sys.getallocatedblocks() - after > LEFT_BLOCKS, len(leak)
