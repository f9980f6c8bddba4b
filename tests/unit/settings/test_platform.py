"""Where flopsd runs, told by Slurm's variables as Slurm 24.11 sets them (tests/e2e/test_slurm.py runs it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from flopsd.settings.platform import default_state_dir, find_context, metered_by_task

STEP = {"SLURM_JOB_ID": "9", "SLURMD_NODENAME": "n2", "SLURM_NODEID": "1", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "node", "rank", "by_other"),
    [
        ({}, "n2", 1, 1),
        ({"SLURM_LOCALID": "0"}, "n2", 1, None),
        ({"SLURM_GPU_BIND": "verbose,none"}, "n2", 1, 1),
        ({"SLURM_GPUS_PER_TASK": "1"}, "n2-task1", 3, None),
        ({"SLURM_TRES_PER_TASK": "cpu=4,gres/gpu=1"}, "n2-task1", 3, None),
        ({"SLURM_GPU_BIND": "single:1"}, "n2-task1", 3, None),
        ({"SLURM_GPUS_PER_TASK": "8", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}, "n2", 1, None),
    ],
)
def test_a_task_of_a_slurm_step_meters_its_node_or_itself_or_leaves_it_to_another(
    tmp_path: Path, more: dict[str, str], node: str, rank: int, by_other: int | None
) -> None:
    told = {**STEP, **more}
    found = find_context(told, tmp_path)
    assert (found.platform, found.job_name, found.node, found.rank) == ("slurm", "slurm-9", node, rank)
    assert metered_by_task(told) == by_other
    folder = default_state_dir({**told, "XDG_STATE_HOME": "/home/me/.state"})
    assert folder.parts[-2:] == ("slurm-9", node), "nodes share a home"


def test_a_requeued_job_is_another_attempt(tmp_path: Path) -> None:
    assert find_context(STEP, tmp_path).attempt == "0"
    assert find_context({**STEP, "SLURM_RESTART_COUNT": "2"}, tmp_path).attempt == "2"


def test_outside_slurm_no_task_is_left_to_another(tmp_path: Path) -> None:
    assert metered_by_task({"SLURM_LOCALID": "1"}) is None
    assert find_context({"SLURM_LOCALID": "1"}, tmp_path).platform == "host"


def test_daemon_starts_without_a_readable_boot_id_count_as_different_boots(tmp_path: Path) -> None:
    """Taken for one, what the counters ran in between would be this job's, on another machine too."""
    first, second = find_context({}, tmp_path), find_context({}, tmp_path)
    assert first.boot_id.startswith("unknown-")
    assert first.boot_id != second.boot_id
    told = tmp_path / "proc/sys/kernel/random/boot_id"
    told.parent.mkdir(parents=True)
    told.write_text("\n")
    assert find_context({}, tmp_path).boot_id.startswith("unknown-")
    told.write_text("6c3e\n")
    assert find_context({}, tmp_path).boot_id == "6c3e"
