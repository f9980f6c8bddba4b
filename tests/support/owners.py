"""Devices, with the facts that NVML reports of them, for tests of ownership."""

from collections.abc import Mapping
from dataclasses import replace

from flopsd.core.model import Device, Evidence, Gap, GapReason, Gauges, Reading, Sweep
from flopsd.testing import FakeClock

GPUS = tuple(
    Device(uid, index, "nvidia", "NVIDIA H100 80GB HBM3", evidence=Evidence.ACTIVITY)
    for index, uid in enumerate(
        (
            "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
            "GPU-8932f9aa-0000-4106-c12f-20bd9faed9f6",
            "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52",
            "GPU-fef8089b-4820-abfc-e83e-94318197576e",
        )
    )
)
SLICES = tuple(
    replace(
        GPUS[0],
        uid=f"MIG-2ce7a541-c516-5dbc-a76e-26cc100d9b5{at}",
        parent=GPUS[0].uid,
        gpu_instance=instance,
        evidence=Evidence.GAP,
    )
    for at, instance in enumerate((1, 2, 5))
)
CHIPS = tuple(Device(f"neuron-{index}", index, "aws", "trainium2") for index in range(4))
LOST = Device("nvml-index-3", 3, "nvidia", "unidentified")


class Scripted:
    """A source of `devices` whose every read is one gap of a second, or the result of `make`."""

    name = "scripted"

    def __init__(self, clock: FakeClock, devices: tuple[Device, ...] = GPUS) -> None:
        self.clock, self.listed, self.closed = clock, devices, False
        self.template = Reading("", 0, 0, Gap(GapReason.STARTING))

    def devices(self) -> tuple[Device, ...]:
        return self.listed

    def read(self) -> Sweep:
        now_ns = self.clock.boottime_ns()
        readings = tuple(replace(self.template, device=d.uid, end_ns=now_ns) for d in self.listed)
        return Sweep(readings, {device.uid: Gauges(utilization_ratio=0.5) for device in self.listed})

    def describe(self) -> Mapping[str, object]:
        return {"replay": None}

    def close(self) -> None:
        self.closed = True
