"""MIG: each slice with its own SMs, the parent never beside them, a missing permission named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flopsd.core.model import Evidence, Gap, GapReason, Pipe
from tests.contract.conftest import Open
from tests.support.fold import Fold
from tests.support.scenario import Fault, Gpu, Segment, Slice, h100

PARENT = "GPU-5a4d0000-0000-4000-8000-000000000000"
BUSY, HALF = (Segment(1000, mhz=1755, hmma=0.9, watts=500),), (Segment(1000, mhz=1755, hmma=0.3, watts=500),)


def mig(*slices: Slice, counters: str = "none") -> Gpu:
    return h100((Segment(1000, mhz=1755, hmma=0.5, util=100),), mig=True, slices=slices, counters=counters)


@pytest.mark.parametrize("counters", ["none", "average", "sum"])
def test_slices_are_devices_with_their_own_sm_counts(open_sim: Open, counters: str) -> None:
    source, clock = open_sim(mig(Slice(1, 60, BUSY), Slice(2, 32, HALF), counters=counters), h100(BUSY))
    devices = source.devices()
    assert [(d.uid[:4], d.parent, d.sm_count) for d in devices] == [
        ("MIG-", PARENT, 60), ("MIG-", PARENT, 32), ("GPU-", None, 132),
    ]  # fmt: skip
    fold = Fold(source, clock).read(10).read(1000, 10)
    for device, ratio in zip(source.devices(), (0.9, 0.3, 0.9), strict=True):
        counted = sum(
            n for (_, pipe), n in fold.tallies[device.uid].active_sm_cycles.items() if pipe is Pipe.TENSOR_HMMA
        )
        assert device.sm_count is not None
        assert counted == pytest.approx(ratio * 10e9 * 1.755 * device.sm_count, rel=1e-6)
        assert device.evidence is (
            Evidence.ACTIVITY if counters == "none" or device.parent is None else Evidence.CYCLES
        )
    assert PARENT not in fold.tallies
    assert all("energy_mj" not in fold.tallies[d.uid].counters for d in devices if d.parent)  # it is the whole GPU's


def test_a_slices_gap_is_bounded_by_its_own_sms(open_sim: Open) -> None:
    source, clock = open_sim(mig(Slice(1, 16, BUSY, faults=(Fault(2500, 9500, "timeout"),)), Slice(2, 16, BUSY)))
    fold = Fold(source, clock).read(10).read(1000, 8)
    hit, other = (device.uid for device in source.devices())
    high, others_high = fold.figures(hit).high_flop, fold.figures(other).high_flop
    assert high is not None
    assert others_high is not None
    assert others_high < high < 9 * 16 * 1.98e9 * (8192 + 128 + 256 + 512) * 1.06
    assert fold.reasons(other) == [GapReason.STARTING, *[None] * 8]


def test_several_compute_instances_of_one_gpu_instance_are_counted_once(open_sim: Open) -> None:
    source, clock = open_sim(mig(Slice(1, 30, BUSY, of="2/4"), Slice(1, 30, BUSY, ci=1, of="2/4")))
    (device,) = source.devices()
    assert device.sm_count == 60
    fold = Fold(source, clock).read(10).read(1000, 4)
    assert fold.tallies[device.uid].active_sm_cycles[(Evidence.ACTIVITY, Pipe.TENSOR_HMMA)] == pytest.approx(
        0.9 * 4e9 * 1.755 * 60
    )


def test_an_instance_that_is_not_covered_is_a_gap_and_says_why(open_sim: Open) -> None:
    source, clock = open_sim(mig(Slice(1, 30, BUSY, of="2/4")))
    (device,) = source.devices()
    assert (device.evidence, device.parent) == (Evidence.GAP, PARENT)
    assert "do not cover the GPU instance" in device.evidence_reason
    clock.advance(10**9)
    assert source.read().readings[0].work == Gap(GapReason.NOT_SUPPORTED)


def test_a_missing_permission_is_named_with_the_remedy(open_sim: Open) -> None:
    source, clock = open_sim(mig(Slice(1, 60, BUSY, faults=(Fault(0, 5000, "no_permission"),))))
    # Seen from the beginning, the slice cannot even be asked for its id: the GPU is a device of which nothing is known.
    assert source.devices()[0].evidence is Evidence.GAP
    assert "/dev/nvidia" in source.devices()[0].evidence_fix
    source.close()
    source, clock = open_sim(mig(Slice(1, 60, BUSY, faults=(Fault(2500, 5500, "no_permission"),))))
    fold = Fold(source, clock).read(10).read(1000, 4)
    device = source.devices()[0]
    assert fold.reasons(device.uid)[-1] is GapReason.NO_PERMISSION
    assert "NVIDIA_MIG_MONITOR_DEVICES" in device.evidence_fix
    fold.read(1000, 4)
    assert source.devices()[0].evidence is Evidence.ACTIVITY


def test_without_any_instance_the_whole_device_is_a_gap_and_never_charged(open_sim: Open) -> None:
    source, clock = open_sim(mig())
    (device,) = source.devices()
    assert device.evidence is Evidence.GAP
    assert "no instance is visible" in device.evidence_reason
    clock.advance(10**9)
    assert source.read().readings[0].work == Gap(GapReason.NOT_SUPPORTED)


def test_published_mig_example_of_the_dcgm_guide(open_sim: Open) -> None:
    """A100, 2 x 3g.20gb: 42 SMs each at 0.9525 and 1318.8 MHz did 108.1 TFLOP/s each, by NVIDIA's own count."""
    load = (Segment(1000, mhz=1319, hmma=0.9525),)
    gpu = replace(
        h100(load), name="NVIDIA A100-SXM4-40GB", pci=0x20B010DE, cores=108 * 64, arch=7, cc="8.0", max_mhz=1410,
        mig=True, slices=(Slice(1, 42, load), Slice(2, 42, load)),
    )  # fmt: skip
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 10)
    for device in source.devices():
        measured = fold.figures(device.uid).measured_flop
        assert measured is not None
        print(f"{device.uid}: {measured / 10e12:.2f} TFLOP/s, published 108.1: {measured / 10 / 108.1e12 - 1:+.3%}")
        assert measured / 10 == pytest.approx(108.1e12, rel=0.002)
