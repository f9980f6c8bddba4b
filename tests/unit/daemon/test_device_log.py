"""A lost device is logged once, by name and with the reason; one that comes and goes does not flood the log."""

from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core.model import GapReason, Precision
from flopsd.daemon.accounts.tracked_device import rate
from flopsd.daemon.device_log import PATIENCE_SECONDS, DeviceLog
from flopsd.system.log_rest import REST_SECONDS
from tests.support.runs import A100, H100, Run
from tests.support.strategies import table


class Watched:
    def __init__(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        self.run, self.caplog, self.watch = run, caplog, DeviceLog(run.clock)

    def meter(self, seconds: int, fault: GapReason | None = None) -> None:
        for _ in range(seconds):
            self.run.meter(1, fault, {H100.uid})
            self.watch.each_tick(self.run.writer.snapshot)

    @property
    def said(self) -> list[str]:
        return [record.message for record in self.caplog.records if "GPU-" in record.message]


@pytest.fixture
def watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(Run(tmp_path, devices=(H100, A100)), caplog)


def test_a_lost_device_is_logged_once_with_its_reason_and_again_when_read(watched: Watched) -> None:
    watched.meter(3)
    assert watched.said == []
    watched.meter(10 * PATIENCE_SECONDS, GapReason.DEVICE_LOST)
    (lost,) = watched.said
    assert lost.startswith("device 0 (GPU-h): no reading for 5 s: device_lost (the driver had lost the device)")
    assert "full speed" in lost
    assert "runbook.md" in lost
    watched.meter(3)
    assert watched.said[1:] == ["device 0 (GPU-h): is read again after 50 s"]


def test_a_lost_device_of_no_row_has_no_upper_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unknown = replace(H100, model="X9000", pci_device_id=None)
    watched = Watched(Run(tmp_path, devices=(unknown, A100)), caplog)
    watched.meter(2 * PATIENCE_SECONDS, GapReason.DEVICE_LOST)
    (lost,) = [said for said in watched.said if "device_lost" in said]
    assert "a gap, which has no upper bound" in lost


def test_a_device_that_left_the_job_is_no_loss(watched: Watched) -> None:
    watched.meter(2 * PATIENCE_SECONDS, GapReason.MISSED_READING)
    assert watched.said == []


def test_an_occasional_failed_reading_is_not_logged(watched: Watched) -> None:
    for _ in range(10):
        watched.meter(PATIENCE_SECONDS - 1, GapReason.DRIVER_TIMEOUT)
        watched.meter(1)
    assert watched.said == []


def test_a_flapping_device_is_logged_once_in_ten_minutes(watched: Watched) -> None:
    period = 2 * PATIENCE_SECONDS + 1
    for _ in range(REST_SECONDS // period - 1):
        watched.meter(2 * PATIENCE_SECONDS, GapReason.DRIVER_TIMEOUT)
        watched.meter(1)
    assert len(watched.said) == 2
    watched.meter(3 * period, GapReason.DRIVER_TIMEOUT)
    assert len(watched.said) == 3


def test_a_source_outage_is_not_logged_again_for_each_device(watched: Watched) -> None:
    watched.meter(4 * PATIENCE_SECONDS, GapReason.SOURCE_DOWN)
    assert watched.said == []


def test_only_a_whole_device_with_an_unexpected_sm_count_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    other = replace(H100, uid="GPU-o", index=3, sm_count=114)
    slices = (
        replace(other, uid="MIG-1", index=4, parent=other.uid),
        replace(H100, uid="GPU-n", index=5, sm_count=None),
    )
    for device in (H100, other, *slices):
        rate(device, table(), None)
    (said,) = caplog.messages
    assert said.startswith("device 3 (GPU-o) has 114 SMs, the peak table has 132")


def test_a_format_that_the_device_lacks_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rate(H100, table(), Precision((("fp8", 1_000_000),), "config"))
    assert caplog.messages == []
    rate(A100, table(), Precision((("fp8", 1_000_000),), "config"))
    (said,) = caplog.messages
    assert said.startswith("device 1: ")
    assert "has no fp8 tensor rate" in said


def test_a_declaration_for_an_absent_device_is_logged_once(watched: Watched) -> None:
    watched.watch = DeviceLog(watched.run.clock, ("gpu-H", "1", "GPU-typo"))
    watched.meter(3 * PATIENCE_SECONDS)
    assert watched.said == ["--device-precision: no device here is called GPU-typo; devices here: 0 (GPU-h), 1 (GPU-a)"]
