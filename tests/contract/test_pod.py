"""A pod's devices by a kubelet's pod-resources service: gRPC over a unix socket, in this process."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.neuron.ownership import NeuronDevices
from flopsd.sources.nvml.ownership import NvidiaDevices
from flopsd.sources.ownership.filtered_source import FilteredSource
from flopsd.sources.ownership.kubernetes import PodRule, this_pod
from flopsd.sources.ownership.podresources import Pod, PodResources
from flopsd.sources.ownership.rule import OwnershipResult, VendorDevices
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.testing import FakeClock
from tests.support.kubelet import Kubelet, answer, kubelet, require
from tests.support.owners import CHIPS, GPUS, LOST, SLICES, Scripted

TRAIN, OTHER, THIRD = ("ml", "train-0"), ("ml", "other-0"), ("kube-system", "train-0")
GPU, MIG = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"
A, B, C, D = (device.uid for device in GPUS)


@pytest.fixture(autouse=True)
def _grpc() -> None:
    require("grpc")
    require("google.protobuf")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Kubelet]:
    with kubelet(tmp_path / "kubelet.sock") as service:
        yield service


def rule(
    node: Kubelet, pod: tuple[str, str] = TRAIN, vendor: VendorDevices | None = None, seconds: float = 20.0
) -> PodRule:
    return PodRule(PodResources(node.path, seconds), Pod(*pod), vendor or NvidiaDevices())


def mine(judgement: OwnershipResult) -> list[str]:
    return [uid for uid, verdict in judgement.verdicts.items() if verdict.mine]


def shared(judgement: OwnershipResult, devices: tuple[Device, ...]) -> list[str | None]:
    return [judgement.verdicts[device.uid].shared for device in devices]


def test_all_containers_of_the_pod_count_and_no_other_pod(node: Kubelet) -> None:
    node.reply = answer(
        {
            TRAIN: {"trainer": {GPU: (B,)}, "sidecar": {}, "loader": {GPU: (D,), "vpc.amazonaws.com/efa": ("efa0",)}},
            OTHER: {"main": {GPU: (A,)}},
            THIRD: {"main": {GPU: (C,)}},  # same name, other namespace
        }
    )
    judgement = rule(node).judge(GPUS)
    assert mine(judgement) == [B, D]
    assert judgement.unmatched == ()
    assert shared(judgement, (GPUS[1], GPUS[3])) == [None, None]
    assert mine(rule(node, THIRD).judge(GPUS)) == [C]


def test_replicas_are_shared_and_their_other_users_counted(node: Kubelet) -> None:
    node.reply = answer(
        {
            TRAIN: {"trainer": {"nvidia.com/gpu.shared": (f"{A}::2", f"{A}::3", f"{B}::0")}},
            OTHER: {"a": {"nvidia.com/gpu.shared": (f"{A}::0",)}, "b": {"nvidia.com/gpu.shared": (f"{A}::1",)}},
            THIRD: {"a": {"nvidia.com/gpu.shared": (f"{A}::4",)}},
        }
    )
    judgement = rule(node).judge(GPUS)
    assert mine(judgement) == [A, B]
    assert shared(judgement, GPUS[:2]) == ["a time-slicing replica and 2 other pods", "a time-slicing replica"]


def test_slices_are_matched_under_all_names_of_a_node(node: Kubelet) -> None:
    devices = (*GPUS, *SLICES)
    node.reply = answer(
        {
            TRAIN: {
                "trainer": {MIG: (SLICES[1].uid,), GPU: ("nvidia2", "nvidia3/vgpu1")},
                "x": {MIG: ("nvidia0/gi5",)},
            },
            OTHER: {"main": {MIG: (SLICES[0].uid, f"{SLICES[2].uid}::7")}},
        }
    )
    judgement = rule(node).judge(devices)
    assert mine(judgement) == [C, D, SLICES[1].uid, SLICES[2].uid]
    assert shared(judgement, (GPUS[3], SLICES[1], SLICES[2])) == ["a time-slicing replica", None, "1 other pod"]


def test_neuron_chips_and_cores_are_matched(node: Kubelet) -> None:
    node.reply = answer(
        {
            TRAIN: {"trainer": {"aws.amazon.com/neurondevice": ("1",), "aws.amazon.com/neuroncore": ("8", "9", "15")}},
            OTHER: {"main": {"aws.amazon.com/neuroncore": ("10", "0")}},
        }
    )
    judgement = rule(node, vendor=NeuronDevices(8, {})).judge(CHIPS)
    assert mine(judgement) == [CHIPS[1].uid, CHIPS[2].uid, CHIPS[3].uid]
    assert shared(judgement, CHIPS[1:]) == [None, "1 other pod", None]
    assert {verdict.mine for verdict in rule(node, vendor=NeuronDevices(None, {})).judge(CHIPS).verdicts.values()} == {
        None
    }


def test_an_absent_device_is_reported_and_a_lost_one_has_no_known_owner(node: Kubelet) -> None:
    node.reply = answer({TRAIN: {"trainer": {GPU: (B, D)}}})
    judgement = rule(node).judge((*GPUS[:3], LOST))
    assert mine(judgement) == [B]
    assert judgement.unmatched == (D,)
    assert judgement.verdicts[LOST.uid].mine is None


def test_a_pod_without_devices_is_an_error_that_names_the_cause(node: Kubelet) -> None:
    node.reply = answer({TRAIN: {"trainer": {}}, OTHER: {"main": {GPU: (A,)}}})
    for vendor, hint in (
        (None, "a container of this pod must request nvidia.com/…"),
        (
            NeuronDevices(8, {}),
            "must request aws.amazon.com/neuron or aws.amazon.com/neuroncore or aws.amazon.com/neurondevice",
        ),
        (VendorDevices(), "declares no container resource"),
    ):
        with pytest.raises(OwnershipError, match="gave no accelerator to pod ml/train-0") as caught:
            rule(node, vendor=vendor).judge(GPUS)
        assert hint in caught.value.hint
    node.reply = answer({TRAIN: {"trainer": {}}}, {TRAIN: "gpus"})
    with pytest.raises(OwnershipError, match="dynamic resource allocation") as caught:
        rule(node).judge(GPUS)
    assert "by UUID" in caught.value.hint
    with pytest.raises(OwnershipError, match="lists no pod ml/gone among its 1") as caught:
        rule(node, ("ml", "gone")).judge(GPUS)
    assert "downward API" in caught.value.hint


def test_an_absent_socket_or_one_without_listener_is_named(tmp_path: Path) -> None:
    with pytest.raises(OwnershipError, match="cannot be used: No such file or directory") as caught:
        PodResources(tmp_path / "kubelet.sock").list()
    assert "hostPath" in caught.value.hint
    with kubelet(tmp_path / "kubelet.sock"):
        os.link(tmp_path / "kubelet.sock", tmp_path / "stale.sock")
    with pytest.raises(OwnershipError, match="Connection refused") as caught:
        PodResources(tmp_path / "stale.sock").list()
    assert "stale" in caught.value.hint


def test_a_socket_with_a_full_queue_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "kubelet.sock")
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as stack:
        listening.bind(path)
        listening.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(path)
        with pytest.raises(OwnershipError, match="cannot be used: (timed out|Resource temporarily unavailable)"):
            PodResources(Path(path), 0.1).list()


FORBIDDEN = """
import os, sys
from pathlib import Path
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.podresources import Pod, PodResources
kubelet = PodResources(Path(sys.argv[1]))
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    kubelet.list()
except OwnershipError as fault:
    print(fault, "|", fault.hint)
"""


def test_a_forbidden_socket_is_named(node: Kubelet) -> None:
    """In a process of its own that is not root, since root may connect to any socket."""
    node.path.chmod(0)
    done = subprocess.run([sys.executable, "-c", FORBIDDEN, str(node.path)], capture_output=True, text=True, check=True)
    assert "Permission denied | run as root" in done.stdout
    assert node.asked == 0


def test_a_hanging_kubelet_is_given_up_at_the_deadline(node: Kubelet) -> None:
    node.hold = threading.Event()
    clock = SystemClock()
    began_ns = clock.boottime_ns()
    with pytest.raises(OwnershipError, match=r"does not answer on .* within 0\.3 s"):
        rule(node, seconds=0.3).judge(GPUS)
    assert node.asked == 1
    assert clock.boottime_ns() - began_ns >= 0.3 * NS_PER_S


@pytest.mark.parametrize(
    ("code", "details", "hint"),
    [("UNIMPLEMENTED", "unknown service v1.PodResourcesLister", "older than 1.20"), ("RESOURCE_EXHAUSTED", "busy", "")],
)
def test_a_refusal_is_reported_in_the_kubelets_words(node: Kubelet, code: str, details: str, hint: str) -> None:
    grpc = require("grpc")

    def fail(context: Any) -> None:
        context.abort(getattr(grpc.StatusCode, code), details)

    node.fail = fail
    with pytest.raises(OwnershipError, match=f"{code}: {details}") as caught:
        rule(node).judge(GPUS)
    assert hint in caught.value.hint
    assert bool(hint) is bool(caught.value.hint)
    node.fail, node.reply = None, b"\xff\xff\xff"
    with pytest.raises(OwnershipError, match="the kubelet refused"):
        rule(node).judge(GPUS)


@pytest.mark.parametrize("too_long", [0, 1])
def test_an_answer_is_limited_to_the_size_that_kubelets_own_clients_accept(node: Kubelet, too_long: int) -> None:
    head = len(answer({TRAIN: {"c": {GPU: ("",)}}})) + 5 * 3  # three lengths that take more bytes
    for _ in range(2):
        node.reply = answer({TRAIN: {"c": {GPU: ("x" * ((16 << 20) + too_long - head),)}}})
        head += len(node.reply) - (16 << 20) - too_long
    assert len(node.reply) == (16 << 20) + too_long
    with pytest.raises(OwnershipError, match="larger than") if too_long else nullcontext():
        assert PodResources(node.path, 20).list()


def test_a_restarted_kubelet_is_found_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "kubelet.sock", FakeClock()
    found = answer({TRAIN: {"trainer": {GPU: (B,)}}})
    with kubelet(path) as first:
        first.reply = found
        source = FilteredSource(Scripted(clock), rule(first), clock, grace_seconds=30)
    path.unlink(missing_ok=True)
    clock.advance(10 * NS_PER_S)
    assert [reading.device for reading in source.read().readings] == [B]
    assert "kubelet.sock cannot be used" in source.devices()[0].evidence_reason
    with kubelet(path) as second:
        second.reply = found
        clock.advance(10 * NS_PER_S)
        source.read()
        assert second.asked == 1
    assert source.devices()[0].evidence_reason == ""
    assert source.describe()["devices"] == "the devices of pod ml/train-0, as the kubelet lists them: 1 of 4"


def test_the_pod_is_identified_from_its_environment(tmp_path: Path) -> None:
    nowhere = tmp_path / "namespace"
    assert this_pod({"POD_NAME": "p", "POD_NAMESPACE": "n", "HOSTNAME": "h"}, nowhere) == Pod("n", "p")
    assert this_pod({"POD_NAMESPACE": "n", "HOSTNAME": "h"}, nowhere) == Pod("n", "h")
    with pytest.raises(OwnershipError, match="the namespace of this pod") as caught:
        this_pod({"HOSTNAME": "h"}, nowhere)
    assert "metadata.namespace" in caught.value.hint
    nowhere.write_text("ml\n")
    assert this_pod({"HOSTNAME": "h"}, nowhere) == Pod("ml", "h")
    with pytest.raises(OwnershipError, match="the name of this pod"):
        this_pod({}, nowhere)
