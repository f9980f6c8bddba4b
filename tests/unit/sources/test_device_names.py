"""The devices named by the environment and the settings, with the examples of the vendors' documents."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flopsd.core.model import Device
from flopsd.daemon.open_sources import cores_per_chip
from flopsd.errors import OwnershipError
from flopsd.settings.platform import Context
from flopsd.sources.neuron.ownership import NeuronDevices
from flopsd.sources.nvml.ownership import NvidiaDevices, cuda_visible, find
from flopsd.sources.ownership.rule import NamedRule, Ownership, VendorDevices, VisibleRule
from tests.support.owners import CHIPS, GPUS, LOST, SLICES
from tests.support.strategies import table

NVIDIA = NvidiaDevices()
A, B, C, D = (device.uid for device in GPUS)
MIGS = [part.uid for part in SLICES]


def visible(environment: Mapping[str, str], devices: tuple[Device, ...] = GPUS) -> list[str]:
    verdicts = VisibleRule(environment, NVIDIA).judge(devices).verdicts
    assert verdicts.keys() == {device.uid for device in devices}
    return [uid for uid, verdict in verdicts.items() if verdict.mine]


def cuda(text: str, devices: tuple[Device, ...] = GPUS) -> list[str]:
    return [device.uid for device in cuda_visible(text, devices)]


def test_the_examples_of_the_cuda_programming_guide() -> None:
    assert cuda("2,1") == [C, B]
    assert cuda("0,2,-1,1") == [A, C]
    assert cuda("GPU-8932f937") == [A]
    assert cuda("1," + "9" * 5000) == [B], "a number that Python does not read either"
    assert cuda(f"MIG-GPU-8932f937/{'1' * 5000}/0", SLICES) == []
    assert cuda("MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/2/0", (*GPUS, *SLICES)) == [MIGS[1]]


def test_slices_are_selected_by_uuid_and_by_their_gpu() -> None:
    assert cuda(f"{MIGS[2]},{MIGS[0]}", SLICES) == [MIGS[2], MIGS[0]]
    assert cuda("GPU-8932f937", SLICES) == MIGS  # only the slices of the GPU are listed, not the GPU itself
    assert cuda("0", (*GPUS, *SLICES)) == [A, *MIGS]
    assert cuda("0", SLICES) == MIGS
    assert cuda("MIG-GPU-8932f937/9/0", (*GPUS, *SLICES)) == []
    devices = (*GPUS, *SLICES)  # the names of GKE too
    assert [device.uid for device in find("nvidia2", devices)] == [C]
    assert [device.uid for device in find("nvidia0/gi5", devices)] == [MIGS[2]]
    assert find("nvidia1/gi5", devices) == []


def test_without_a_variable_all_devices_are_visible_and_runtime_ones_count_only_by_uuid() -> None:
    assert visible({}) == [A, B, C, D]
    assert VisibleRule({}, NVIDIA).words == "all: no variable hides any"
    assert visible({"NVIDIA_VISIBLE_DEVICES": f"{C},{D}"}) == [C, D]
    for text in ("all", "0", "none", "void", "", "/var/run/nvidia-container-devices", f"{C},1"):
        assert visible({"NVIDIA_VISIBLE_DEVICES": text}) == [A, B, C, D]
    assert visible({"NVIDIA_VISIBLE_DEVICES": f"{C},{D}", "CUDA_VISIBLE_DEVICES": "0,3"}) == [D]


def test_indices_of_different_gpu_models_need_a_known_order() -> None:
    mixed = (GPUS[0], replace(GPUS[1], model="NVIDIA T4"))
    with pytest.raises(OwnershipError, match="in CUDA's order") as caught:
        visible({"CUDA_VISIBLE_DEVICES": "0"}, mixed)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in caught.value.hint
    assert visible({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, mixed) == [A]
    assert visible({"CUDA_VISIBLE_DEVICES": "GPU-8932f9aa"}, mixed) == [B]


def test_a_lost_gpu_may_be_the_named_one() -> None:
    devices = (*GPUS[:3], LOST)
    verdicts = VisibleRule({"CUDA_VISIBLE_DEVICES": f"{D},{B}"}, NVIDIA).judge(devices).verdicts
    assert [verdict.mine for verdict in verdicts.values()] == [False, True, False, None]
    named = NamedRule((D, B), NVIDIA).judge(devices)
    assert [verdict.mine for verdict in named.verdicts.values()] == [False, True, False, None]
    assert named.unmatched == (D,)
    assert NamedRule((B,), NVIDIA).judge(devices).verdicts[LOST.uid].mine is False
    assert NamedRule(("3",), NVIDIA).judge(devices).verdicts[LOST.uid].mine is True


def test_the_instance_type_states_how_many_cores_a_chip_has() -> None:
    for instance_type, cores in (("ml.trn1.2xlarge", 2), ("ml.trn2.48xlarge", 8), ("ml.g5.xlarge", None), (None, None)):
        context = Context("host", None, "n", "b", "a", instance_type=instance_type)
        assert cores_per_chip(context, table()) == cores


def test_neuron_cores_make_their_chips_visible() -> None:
    rule = VisibleRule({"NEURON_RT_VISIBLE_CORES": "0-3,5", "CUDA_VISIBLE_DEVICES": "1"}, NeuronDevices(8, {}))
    assert rule.words == "the devices that NEURON_RT_VISIBLE_CORES=0-3,5 leave visible"
    verdicts = rule.judge(CHIPS).verdicts
    part = Ownership(True, "other cores of this chip are not this job's")
    assert [verdicts[chip.uid] for chip in CHIPS] == [Ownership(True), part, Ownership(False), Ownership(False)]


@pytest.mark.parametrize(
    ("environment", "cores", "mine"),
    [
        ({}, None, True),
        ({"NEURON_RT_NUM_CORES": "0"}, None, True),
        ({"NEURON_RT_NUM_CORES": "16"}, 8, True),  # Trainium2: two physical cores are one logical core
        ({"NEURON_RT_NUM_CORES": "8"}, 8, None),  # any eight of sixteen
        ({"NEURON_RT_NUM_CORES": "8"}, 2, True),
        ({"NEURON_RT_NUM_CORES": "32", "NEURON_LOGICAL_NC_CONFIG": "1"}, 8, True),
        ({"NEURON_RT_NUM_CORES": "16", "NEURON_RT_VIRTUAL_CORE_SIZE": "2"}, 8, True),
        ({"NEURON_RT_NUM_CORES": "16", "NEURON_LOGICAL_NC_CONFIG": "3"}, 8, None),
        ({"NEURON_RT_NUM_CORES": "16", "NEURON_LOGICAL_NC_CONFIG": "x"}, 8, None),
        ({"NEURON_RT_NUM_CORES": "9" * 5000}, 8, None),
        ({"NEURON_RT_VISIBLE_CORES": "0"}, None, None),
        ({"NEURON_RT_VISIBLE_CORES": "0-15"}, 8, True),
        ({"NEURON_RT_VISIBLE_CORES": "0-16"}, 8, None),  # so a chip has more than four cores
    ],
)
def test_neuron_chips_are_not_guessed(environment: Mapping[str, str], cores: int | None, mine: bool | None) -> None:
    verdicts = VisibleRule(environment, NeuronDevices(cores, environment)).judge(CHIPS).verdicts
    assert {verdict.mine for verdict in verdicts.values()} == {mine}
    assert all(bool(verdict.why) is (mine is None) for verdict in verdicts.values())


def test_named_devices_that_are_absent_are_reported() -> None:
    judgement = NamedRule(("2", "GPU-00", "7"), NVIDIA).judge(GPUS)
    assert [uid for uid, verdict in judgement.verdicts.items() if verdict.mine] == [C]
    assert judgement.unmatched == ("GPU-00", "7")


def test_devices_of_an_unknown_vendor_are_matched_by_uid_and_index_only() -> None:
    other = replace(GPUS[0], uid="0x1", vendor="other")
    assert VisibleRule({}, VendorDevices()).judge([other]).verdicts["0x1"].mine is None
    judgement = NamedRule(("2", CHIPS[0].uid.upper(), "x7"), VendorDevices()).judge(CHIPS)
    assert [uid for uid, verdict in judgement.verdicts.items() if verdict.mine] == [CHIPS[0].uid, CHIPS[2].uid]
    assert judgement.unmatched == ("x7",)
    assert not VendorDevices().is_resource("nvidia.com/gpu")
    assert VendorDevices().processes(CHIPS[0].uid) is None
