"""What a pod is called in a ledger: from the downward API's variables, and what the kubelet adds besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from flopsd.settings.load import load_settings
from flopsd.settings.platform import find_context

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
    assert first.attempt == first.boot_id  # no number of its own, and merge must not look for one


@pytest.mark.parametrize(
    ("told", "job", "node"),
    [
        ({}, None, "llama-0-x7k2p"),
        ({"JOB_NAME": "", "JOB_UID": ""}, None, "llama-0-x7k2p"),  # a label that the pod does not have
        ({"JOB_NAME": "llama"}, "llama", "llama-0-x7k2p"),
        ({**JOB, "JOB_COMPLETION_INDEX": ""}, "llama-0b1f5c1e", "llama-0-x7k2p"),
        ({"NODE_NAME": "ip-10-0-0-7"}, None, "ip-10-0-0-7"),
    ],
)
def test_missing_pod_variables_are_left_out(told: dict[str, str], job: str | None, node: str, tmp_path: Path) -> None:
    context = find_context({**INSIDE, **told}, tmp_path)
    assert (context.job_name, context.node, context.rank) == (job, node, None)
    assert find_context({**INSIDE, "INSTANCE_TYPE": "ml.trn1.32xlarge"}, tmp_path).instance_type == "ml.trn1.32xlarge"


def test_outside_of_a_cluster_these_variables_mean_nothing(tmp_path: Path) -> None:
    assert find_context({"POD_NAME": "x", **JOB}, tmp_path).platform == "host"
    assert find_context({**INSIDE, "TRAINING_JOB_NAME": "j"}, tmp_path).platform == "sagemaker-training"


def test_a_service_called_flopsd_disturbs_no_setting() -> None:
    """The kubelet tells every container of the namespace where it is, in variables that begin with FLOPSD_."""
    links = {f"FLOPSD_{end}": "tcp://10.100.7.7:10188" for end in (
        "PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", "PORT_10188_TCP", "PORT_10188_TCP_PROTO",
        "PORT_10188_TCP_PORT", "PORT_10188_TCP_ADDR")}  # fmt: skip
    assert load_settings({}, links) == load_settings({}, {})
