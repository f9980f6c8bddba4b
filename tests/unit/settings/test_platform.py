"""The platform flopsd runs on, by variables: Slurm's, as 24.11 sets them (tests/e2e/test_slurm.py runs it), and a
pod's."""

import os
import re
from pathlib import Path

import pytest

from flopsd.settings.platform import default_state_dir, find_context, metered_by_task, new_run_id
from tests.support.settings import load_settings

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
def test_a_slurm_task_meters_its_node_itself_or_leaves_it_to_another_task(
    tmp_path: Path, more: dict[str, str], node: str, rank: int, by_other: int | None
) -> None:
    variables = {**STEP, **more}
    found = find_context(variables, tmp_path)
    assert (found.platform, found.job_name, found.node, found.rank) == ("slurm", "slurm-9", node, rank)
    assert metered_by_task(variables) == by_other
    folder = default_state_dir({**variables, "XDG_STATE_HOME": "/home/me/.state"})
    assert folder.parts[-2:] == ("slurm-9", node), "nodes share a home"


@pytest.mark.parametrize(
    ("user", "variables", "folder"),
    [
        (0, {}, "/var/lib/flopsd"),
        (0, {"STATE_DIRECTORY": "/run/one:/run/two"}, "/run/one"),
        (1000, {"HOME": "/home/me"}, "/home/me/.local/state/flopsd"),
        (1000, {"HOME": "/home/me", "XDG_STATE_HOME": "/data/me"}, "/data/me/flopsd"),
    ],
)
def test_the_default_state_folder_belongs_to_the_user(
    monkeypatch: pytest.MonkeyPatch, user: int, variables: dict[str, str], folder: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert str(default_state_dir(variables)) == folder


def test_a_requeued_job_is_another_attempt_with_its_own_start_time(tmp_path: Path) -> None:
    assert find_context(STEP, tmp_path).attempt == "0"
    assert find_context({**STEP, "SLURM_RESTART_COUNT": "2"}, tmp_path).attempt == "2"
    began = {**STEP, "SLURM_JOB_START_TIME": "1790000000"}
    assert find_context(began, tmp_path).job_began_s == 1790000000
    assert find_context({**began, "SLURM_RESTART_COUNT": "2"}, tmp_path).job_began_s is None
    assert find_context({**STEP, "SLURM_JOB_START_TIME": "Unknown"}, tmp_path).job_began_s is None

    assert metered_by_task({"SLURM_LOCALID": "1"}) is None
    assert find_context({"SLURM_LOCALID": "1"}, tmp_path).platform == "host"


def test_names_that_are_not_utf_8_can_be_journalled(tmp_path: Path) -> None:
    """The daemon used to end with 1 at each start, because its first record could not be read back."""
    found = find_context({"SLURM_JOB_ID": "7\udcff", "SLURMD_NODENAME": "n\udce9", "SLURM_NODEID": "0"}, tmp_path)
    assert (found.job_name, found.node) == ("slurm-7\\xff", "n\\xe9")


def test_daemon_starts_without_a_readable_boot_id_count_as_different_boots(tmp_path: Path) -> None:
    """If they counted as one boot, the growth of counters in between would count as this job's, even on another
    machine."""
    first, second = find_context({}, tmp_path), find_context({}, tmp_path)
    assert first.boot_id.startswith("unknown-")
    assert first.boot_id != second.boot_id
    boot_id = tmp_path / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("\n")
    assert find_context({}, tmp_path).boot_id.startswith("unknown-")
    boot_id.write_text("6c3e\n")
    assert find_context({}, tmp_path).boot_id == "6c3e"


INSIDE = {"KUBERNETES_SERVICE_HOST": "10.100.0.1", "POD_NAME": "llama-0-x7k2p", "POD_NAMESPACE": "ml"}
JOB = {"JOB_NAME": "llama", "JOB_UID": "0b1f5c1e-9a52-4d0e-8f1a-6a2f5a4f0c11"}


def test_a_pod_of_an_indexed_job_keeps_its_name_when_it_is_replaced(tmp_path: Path) -> None:
    boot_id = tmp_path / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("b-1\n")
    first = find_context({**INSIDE, **JOB, "JOB_COMPLETION_INDEX": "3"}, tmp_path)
    again = find_context({**INSIDE, **JOB, "JOB_COMPLETION_INDEX": "3", "POD_NAME": "llama-3-other"}, tmp_path)
    assert (first.platform, first.job_name, first.node, first.rank) == ("kubernetes", "llama-0b1f5c1e", "llama-3", 3)
    assert first == again
    assert first.attempt == first.boot_id  # it has no number of its own, so merge must not expect one


@pytest.mark.parametrize(
    ("more", "job", "node"),
    [
        ({}, None, "llama-0-x7k2p"),
        ({"JOB_NAME": "", "JOB_UID": ""}, None, "llama-0-x7k2p"),  # a label that the pod lacks
        ({"JOB_NAME": "llama"}, "llama", "llama-0-x7k2p"),
        ({**JOB, "JOB_COMPLETION_INDEX": ""}, "llama-0b1f5c1e", "llama-0-x7k2p"),
        ({"NODE_NAME": "ip-10-0-0-7"}, None, "ip-10-0-0-7"),
    ],
)
def test_missing_pod_variables_are_left_out(more: dict[str, str], job: str | None, node: str, tmp_path: Path) -> None:
    context = find_context({**INSIDE, **more}, tmp_path)
    assert (context.job_name, context.node, context.rank) == (job, node, None)
    assert find_context({**INSIDE, "INSTANCE_TYPE": "ml.trn1.32xlarge"}, tmp_path).instance_type == "ml.trn1.32xlarge"

    assert find_context({"POD_NAME": "x", **JOB}, tmp_path).platform == "host"
    assert find_context({**INSIDE, "TRAINING_JOB_NAME": "j"}, tmp_path).platform == "sagemaker-training"


@pytest.mark.parametrize("odd", ["9" * 5000, "\u00b2", "-1", ""])
def test_an_odd_number_of_the_platform_is_not_known(odd: str, tmp_path: Path) -> None:
    slurm = dict.fromkeys(("SLURM_NODEID", "SLURM_JOB_START_TIME", "SLURM_LOCALID"), odd)
    found = find_context({"SLURM_JOB_ID": "7", **slurm}, tmp_path)
    assert (found.rank, found.job_began_s, metered_by_task({"SLURM_JOB_ID": "7", **slurm})) == (None, None, None)
    assert find_context({**INSIDE, "JOB_NAME": "llama", "JOB_COMPLETION_INDEX": odd}, tmp_path).rank is None


def test_variables_of_a_kubernetes_service_named_flopsd_change_no_setting() -> None:
    """The kubelet gives every container of the namespace the service's address, in variables that begin with
    FLOPSD_."""
    links = {f"FLOPSD_{end}": "tcp://10.100.7.7:10188" for end in (
        "PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", "PORT_10188_TCP", "PORT_10188_TCP_PROTO",
        "PORT_10188_TCP_PORT", "PORT_10188_TCP_ADDR")}  # fmt: skip
    assert load_settings({}, links) == load_settings({}, {})


def test_an_unnamed_run_is_named_after_the_second_of_its_start() -> None:
    names = {new_run_id("2026-09-21T15:00:59.123456Z") for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(r"run-20260921T150059Z-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(("name", "node"), [("gpu-7", "gpu-7"), ("", "unknown"), ("n\udcff", "n\\xff")])
def test_a_host_without_a_platform_is_named_by_its_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, node: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert [find_context(one, tmp_path).node for one in ({}, {"TRAINING_JOB_NAME": "j"})] == [node, node]
