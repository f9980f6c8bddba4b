"""What a new incarnation makes of the ones before it, through the real writer, journal and seal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.core.ledger.history import Incarnation
from flopsd.core.model import GapReason
from flopsd.system.clock import NS_PER_S, rfc3339, wall_ns_of
from flopsd.testing import FakeClock
from tests.support.runs import H100, Run, history_of, verified


def reboot(run: Run, wall_seconds: int, boot: str = "boot-2", up_seconds: int = 20) -> None:
    """Kill it and boot the machine; the wall clock stands `wall_seconds` from where it stood."""
    run.kill()
    run.clock = FakeClock(up_seconds * NS_PER_S, run.clock.wall_ns() + wall_seconds * NS_PER_S)
    run.context = replace(run.context, boot_id=boot)
    run.start()


def sealed(run: Run, tmp_path: Path) -> list[Incarnation]:
    """The run's incarnations, after its ledger was made and verified."""
    run.finish()
    verified(run.seal(tmp_path / "out" / "ledger.json"))
    return history_of(run.state.journal).incarnations


def test_rfc3339_round_trip() -> None:
    assert wall_ns_of(rfc3339(1_792_000_000_123_456_789)) == 1_792_000_000_123_456_000
    with pytest.raises(ValueError, match="yesterday"):
        wall_ns_of("yesterday")


def test_a_clock_set_back_while_metering_hides_no_downtime(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(5)
    run.clock.step_wall(-90 * NS_PER_S)
    run.meter(60)
    reboot(run, wall_seconds=60)
    run.meter(30)
    _, second = sealed(run, tmp_path)
    assert second.tallies["GPU-h"].gap_ns == {GapReason.DAEMON_DOWN: 60 * NS_PER_S}
    assert second.begin["recovered"] is None


def test_unknown_downtime_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(60)
    reboot(run, wall_seconds=-40)
    run.meter(30)
    _, second = sealed(run, tmp_path)
    assert second.tallies["GPU-h"].gap_ns == {GapReason.DAEMON_DOWN: 20 * NS_PER_S}  # since the boot, at least
    told = second.begin["recovered"]["reason"]
    assert told in caplog.text
    assert told.startswith("the wall clock stands 40.0 s before the last record of another boot")


def test_a_device_of_an_earlier_machine_is_not_missing_on_the_next_one(tmp_path: Path) -> None:
    """It is accounted for until the new machine began, also after that one's own daemon was killed."""
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(60)
    run.devices = (replace(H100, uid="GPU-new"),)
    reboot(run, wall_seconds=60)
    run.meter(60)
    run.kill()
    run.clock.advance(NS_PER_S)
    run.start()
    run.meter(60)
    assert [state.device.uid for state in run.writer.snapshot.devices] == ["GPU-new"]
    first, second, third = sealed(run, tmp_path)
    assert [incarnation.tallies["GPU-h"].span_ns for incarnation in (first, second)] == [60 * NS_PER_S] * 2
    assert "GPU-h" not in third.tallies
