"""Figures for the state folder's disk, and messages about the space that a run needs."""

import errno
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.daemon.ledgers import state_disk
from flopsd.daemon.ledgers.state_disk import LOOK_SECONDS, MB, StateDisk, disk_state, need_of
from flopsd.journal.state_dir import StateDir
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.snapshot import DiskState
from flopsd.testing import FakeClock
from tests.bench.journals import fill, gpus, lengthen
from tests.support.os_calls import failing
from tests.support.runs import CONTEXT

GPUS, DAY = 8, 24 * 60


@pytest.fixture
def folder(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    fill(state, FakeClock(), gpus(GPUS), 10, CONTEXT, "r")
    return state


def settings(folder: StateDir, **more: Any) -> Settings:
    return Settings(state_dir=str(folder.path), **more)


def test_figures_match_the_disk_and_are_absent_when_it_does_not_answer(
    folder: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = folder.journal.stat().st_size
    found = disk_state(folder, is_rotated=False)
    free = shutil.disk_usage(folder.path).free
    assert found.free_bytes == pytest.approx(free, abs=2**30)
    assert (found.journal_bytes, found.waiting_segments) == (size, None)
    assert disk_state(folder, is_rotated=True).waiting_segments == 0
    folder.segments.mkdir()
    (folder.segments / "0001-0123456789abcdef.journal.jsonl").write_bytes(b"x" * 100)
    assert replace(disk_state(folder, is_rotated=False), free_bytes=None) == DiskState(size + 100, None, 1)

    monkeypatch.setattr(os, "listdir", failing(errno.EIO))
    monkeypatch.setattr(os, "statvfs", failing(errno.EIO))
    assert disk_state(folder, is_rotated=True) == DiskState()


@pytest.mark.long
def test_a_run_takes_at_most_the_stated_space_and_not_far_less(folder: StateDir) -> None:
    lengthen(folder, DAY - 10)
    written = (
        folder.journal.stat().st_size + 400 * GPUS * DAY
    )  # a process on each GPU that reports as much as the callback does
    said = need_of(settings(folder), folder, GPUS, DiskState(0, 1)).text
    day = int(re.findall(r"may write (\d+) MB of journal a day", said)[0]) * MB
    assert written < day < 1.5 * written


@pytest.mark.parametrize(
    ("more", "free_mb", "is_met", "said"),
    [
        ({}, 600, True, "11 MB of journal a day, 3 times that with the copies next to the ledger: full in about 19 days"),
        ({}, 102, False, "full in about 3 days; --rotate-every and --keep-segments bound it"),
        ({"ledger": "/proc/ledger.json"}, 600, True, "11 MB of journal a day: full in about 58 days"),
        ({}, 10**6, True, "full in more than 1000 days"),
        ({"seal_every_seconds": None}, 600, True, "11 MB of journal a day, 2 times that"),
        ({"rotate_every": "100MB", "keep_segments": 3, "seal_every_seconds": None}, 500, True, "at most 500 MB at a time"),
        ({"rotate_every": "1d"}, 10, False, "full in about 0 days"),
        ({"rotate_every": "1d"}, 600, True, "and without --keep-segments none of it is removed: full in about 55 days"),
        ({"rotate_every": "1d", "keep_segments": 3}, 600, True, "at most 62 MB at a time"),
        ({"rotate_every": "100MB", "keep_segments": 3}, 500, False, "at most 600 MB at a time"),
        ({"rotate_every": "100MB", "keep_segments": 3}, 600, True, "at most 600 MB at a time"),
        ({"ledger": "/proc/l.json", "rotate_every": "100MB", "keep_segments": 3}, 500, True, "at most 100 MB at a time"),
    ],
)  # fmt: skip
def test_the_space_that_a_run_needs_is_stated(
    tmp_path: Path, more: dict[str, Any], free_mb: int, is_met: bool, said: str
) -> None:
    folder = StateDir(tmp_path)
    need = need_of(settings(folder, **more), folder, GPUS, DiskState(0, free_mb * MB))
    assert f"{free_mb} MB free; {GPUS} devices may write" in need.text
    assert said in need.text
    assert need.is_met == is_met


@pytest.mark.parametrize(
    "more", [{"ledger": "/proc/ledger.json"}, {"rotate_every": "1MB"}, {"rotate_every": "1MB", "keep_segments": 1}]
)
def test_at_least_a_hundred_megabytes_must_be_free(tmp_path: Path, more: dict[str, Any]) -> None:
    folder = StateDir(tmp_path)
    needs = [need_of(settings(folder, **more), folder, GPUS, DiskState(0, free)) for free in (100 * MB - 1, 100 * MB)]
    assert [need.is_met for need in needs] == [False, True]


def test_the_current_journal_counts_towards_the_limit_of_a_rotated_run(tmp_path: Path) -> None:
    folder = StateDir(tmp_path)
    rotated = settings(folder, rotate_every="100MB", keep_segments=3)
    met = [need_of(rotated, folder, GPUS, DiskState(size * MB, 550 * MB)).is_met for size in (0, 49, 50)]
    assert met == [False, False, True]


def test_space_for_copies_of_a_journal_does_not_count_as_free(tmp_path: Path) -> None:
    folder = StateDir(tmp_path)
    assert need_of(settings(folder), folder, 0, DiskState(0, 600 * MB)).text == "600 MB free"
    days = [need_of(settings(folder), folder, GPUS, DiskState(size * MB, 600 * MB)).text for size in (0, 100)]
    assert [text.rpartition("about ")[2] for text in days] == ["19 days", "13 days"]
    assert not need_of(settings(folder), folder, GPUS, DiskState()).is_met


def test_the_disk_is_checked_when_due_and_a_shortage_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, folder, due_ns = FakeClock(), StateDir(tmp_path), LOOK_SECONDS * NS_PER_S
    caplog.set_level("INFO", "flopsd")
    disk = StateDisk(settings(folder, rotate_every="400d", keep_segments=10**6), folder, clock)
    looks = []

    def counted(state: StateDir, **how: bool) -> DiskState:
        looks.append(how)
        return disk_state(state, **how)

    monkeypatch.setattr(state_disk, "disk_state", counted)
    found = []
    for after_ns, devices in ((0, 0), (due_ns - 1, 0), (1, 0), (1, 1), (due_ns - 1, GPUS), (1, GPUS)):
        clock.advance(after_ns)
        disk.each_tick(devices)
        found.append(len(looks))
    assert found == [1, 1, 2, 3, 3, 4]
    assert looks[0] == {"is_rotated": True}
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert f"disk of {folder.path}: " in said.getMessage()
    assert disk.state.free_bytes is not None
