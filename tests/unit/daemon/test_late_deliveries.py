"""When the daemon starts a child that delivers, what it logs and what it exports."""

import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.daemon.ledgers.late_deliveries import IDLE_SECONDS, LateDeliveries
from flopsd.journal.delivery_note import Delivery, Destination, NotedLedger, write_deliveries
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.process import until_ended

DIGESTS = {"ledger": "0" * 64, "publicKey": "1" * 64}
ALL_DELIVERED = "every ledger that was still to be copied is delivered now"


def note(path: Path, *states: Delivery) -> None:
    """Write one ledger for each state."""
    write_deliveries(
        path, [NotedLedger(Path("/l.json"), DIGESTS, (Destination("s3://b/l.json", one),)) for one in states]
    )


def run_out(late: LateDeliveries) -> None:
    """Wait for the child's end without reaping it, then let the daemon see it."""
    until_ended(late.child.pid)
    late.each_tick()
    assert not late.child.is_busy


def shown(late: LateDeliveries) -> int | None:
    return late.undelivered


def starts(late: LateDeliveries, clock: FakeClock, seconds: int) -> list[int]:
    """The seconds, within `seconds`, at which a child was started."""
    found = []
    for second in range(seconds):
        late.each_tick()
        if late.child.pid is not None:
            found.append(second)
            run_out(late)
        clock.advance(NS_PER_S)
    return found


def test_late_delivery_is_retried_ever_less_often_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, path, remedy = FakeClock(), tmp_path / "deliveries.json", tmp_path / "remedy"
    code = (
        f"import os, sys\nif not os.path.exists({str(remedy)!r}): sys.exit('flopsd: NOT COPIED to s3://b/l.json: denied')\n"
        f"os.remove({str(path)!r})"
    )
    note(path, Delivery.PENDING, Delivery.DELIVERED, Delivery.REFUSED)
    stated = list[int]()
    late = LateDeliveries(
        (sys.executable, "-S", "-E", "-c", code), path, clock, lambda: stated.append(clock.boottime_ns())
    )
    assert shown(late) is None
    begun = starts(late, clock, 600)
    assert [(after - before) // 60 for before, after in pairwise(begun)] == [1, 2, 4]
    assert shown(late) == 2
    assert caplog.text.count("NOT COPIED to s3://b/l.json: denied; metering goes on") == 1
    assert stated == []
    remedy.touch()
    assert len(starts(late, clock, 1000)) == 1
    assert (shown(late), len(stated)) == (0, 1)
    assert [one.levelname for one in caplog.records if one.message == ALL_DELIVERED] == ["WARNING"]
    late = LateDeliveries(("/bin/true",), path, clock)  # this child delivers nothing
    assert starts(late, clock, 5) == []
    note(path, Delivery.PENDING)
    found = starts(late, clock, 205)
    assert (len(found), found[0]) == (4, 5), "the note is looked at each ten seconds"
    assert caplog.text.count(ALL_DELIVERED) == 1


def test_deliveries_that_need_manual_action_are_counted_and_start_no_child(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, path = FakeClock(), tmp_path / "deliveries.json"
    late = LateDeliveries(("/no/such/program",), path, clock)
    assert starts(late, clock, 20) == []
    assert shown(late) == 0
    note(path, Delivery.REFUSED, Delivery.REFUSED)
    assert starts(late, clock, 20) == []
    assert (shown(late), caplog.text) == (2, "")
    path.write_text("no note")
    assert starts(late, clock, 60) == []
    assert shown(late) is None
    assert caplog.text.count("cannot tell which ledgers still have to be copied") == 1
    note(path, Delivery.PENDING)
    assert starts(late, clock, 60) == []
    assert shown(late) == 1
    assert caplog.text.count("cannot be started: No such file or directory") == 1
    assert ALL_DELIVERED not in caplog.text
    note(path, Delivery.DELIVERED)
    assert starts(late, clock, 60) == []
    assert caplog.text.count(ALL_DELIVERED) == 1


def test_a_delivery_that_succeeds_at_once_causes_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, path, stated = FakeClock(), tmp_path / "deliveries.json", list[bool]()
    caplog.set_level("INFO", "flopsd")
    note(path, Delivery.PENDING)
    late = LateDeliveries(("rm", str(path)), path, clock, lambda: stated.append(path.exists()))
    late.each_tick()
    run_out(late)
    assert (stated, shown(late)) == ([False], 0)
    assert [(one.levelname, one.message) for one in caplog.records] == [("INFO", ALL_DELIVERED)]


def test_a_conflicting_file_is_logged_and_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, path, refused = FakeClock(), tmp_path / "deliveries.json", tmp_path / "refused.json"
    note(path, Delivery.PENDING)
    note(refused, Delivery.REFUSED)
    code = f"import os, sys; os.replace({str(refused)!r}, {str(path)!r}); sys.exit('NOT COPIED: it already exists')"
    late = LateDeliveries((sys.executable, "-S", "-E", "-c", code), path, clock)
    assert len(starts(late, clock, 300)) == 1
    assert caplog.text.count("NOT COPIED: it already exists; flopsd does not try this again") == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_a_hanging_child_is_ended(tmp_path: Path, stopped: bool, caplog: pytest.LogCaptureFixture) -> None:
    clock, path = FakeClock(), tmp_path / "deliveries.json"
    note(path, Delivery.PENDING)
    late = LateDeliveries(("sleep", "600"), path, clock)
    late.each_tick()
    pid = late.child.pid
    assert pid is not None
    clock.advance(round((IDLE_SECONDS + 1) * NS_PER_S))
    if stopped:
        late.child.stop()
    else:
        late.each_tick()
        assert "was killed; metering goes on" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
