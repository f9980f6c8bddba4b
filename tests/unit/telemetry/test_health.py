"""The health of a run, as a table: the most severe fact decides the state, and its sentence hides none of the
others."""

from typing import Any

import pytest

from flopsd.core.model import GapReason
from flopsd.core.values import NS_PER_S, utc_ns
from flopsd.telemetry.health import DeviceHealth, HealthState, health_of
from flopsd.telemetry.last_gap import LastGap, last_gap

NOW_S = 7_200
OFFSET_NS = utc_ns("2026-03-02T00:30:00.000000Z") - NOW_S * NS_PER_S
CHIP = DeviceHealth(NOW_S * NS_PER_S, None, is_gpu=False)
UP, BOUNDED = DeviceHealth(NOW_S * NS_PER_S, None), DeviceHealth(NOW_S * NS_PER_S, None, is_bounded=True)
FULL = "cannot write the journal /var/lib/flopsd/journal.jsonl: No space left on device"


def out(since_s: int, reason: GapReason = GapReason.DEVICE_LOST, *, until_s: int = NOW_S) -> DeviceHealth:
    return DeviceHealth(NOW_S * NS_PER_S, LastGap(since_s * NS_PER_S, until_s * NS_PER_S, reason))


LOST, OVER = out(7_140), out(60, until_s=7_000)
UNKNOWN, OTHER, NEW = (
    out(60, reason) for reason in (GapReason.UNKNOWN_DEVICE, GapReason.OTHER_JOB, GapReason.DAEMON_DOWN)
)
REPLAY = "REPLAY of a recording: no hardware is metered, and nothing here is evidence"
TABLE: list[tuple[list[DeviceHealth], dict[str, Any], HealthState, str, str | None]] = [
    ([UP, OVER], {}, HealthState.METERING, "Metering 2 GPUs", None),
    ([UP], {}, HealthState.METERING, "Metering 1 GPU", None),
    ([UP, OTHER], {}, HealthState.METERING, "Metering 1 GPU", None),
    ([UP, CHIP], {}, HealthState.METERING, "Metering 2 devices", None),
    ([UP, BOUNDED], {}, HealthState.METERING, "Metering 2 GPUs, 1 of them read as an upper bound only", None),
    ([BOUNDED], {}, HealthState.METERING, "Metering 1 GPU, read as an upper bound only", None),
    ([], {}, HealthState.NO_DEVICE, "No device is metered: none was found", None),
    ([], {"down": ["nvml"]}, HealthState.NO_DEVICE, "No device is metered: none was found; source nvml down", None),
    ([], {"starting": True}, HealthState.STARTING,
     "No device is known yet: the sources have not all answered", None),
    ([UP, BOUNDED], {"has_upper_bound": False}, HealthState.NO_UPPER_BOUND, "The run has no upper bound", None),
    ([UP, UNKNOWN], {"has_upper_bound": False}, HealthState.UNKNOWN_DEVICE,
     "1 of 2 GPUs not metered: unknown to the peak table; the run has no upper bound", None),
    ([OTHER], {}, HealthState.NO_DEVICE, "No device is metered: those here are another job's, or other devices count in "
     "their place", None),
    ([UP, NEW], {}, HealthState.STARTING, "1 of 2 GPUs not read yet", None),
    ([NEW, NEW], {}, HealthState.STARTING, "All 2 GPUs not read yet", None),
    ([UP], {"down": ["dcgm", "x"]}, HealthState.SOURCE_DOWN, "Sources dcgm, x down", None),
    ([UP, UNKNOWN], {}, HealthState.UNKNOWN_DEVICE, "1 of 2 GPUs not metered: unknown to the peak table", None),
    ([UP, LOST], {"down": ["nvml"]}, HealthState.SOME_LOST, "1 of 2 GPUs lost since 00:29 UTC: device_lost", "00:29:00"),
    ([LOST], {}, HealthState.ALL_LOST, "1 of 1 GPU lost since 00:29 UTC: device_lost", "00:29:00"),
    ([LOST], {"wall_offset_ns": None}, HealthState.ALL_LOST, "1 of 1 GPU lost: device_lost", None),
    ([UP, out(60), LOST], {}, HealthState.SOME_LOST,
     "2 of 3 GPUs lost, the first since 2026-03-01 22:31 UTC: device_lost", "22:31:00"),
    ([UP, LOST, UNKNOWN], {"fault": FULL}, HealthState.NOT_WRITTEN,
     "Disk full: totals since 00:29 UTC are in memory only; 1 of 3 GPUs lost since 00:29 UTC: device_lost; "
     "1 of 3 GPUs not metered: unknown to the peak table", "00:29:30"),
    ([UP], {"fault": "read-only"}, HealthState.NOT_WRITTEN,
     "Journal not written (read-only): totals since 00:29 UTC are in memory only", "00:29:30"),
    ([UP], {"fault": FULL, "last_record_ns": None}, HealthState.NOT_WRITTEN,
     "Disk full: totals are in memory only", None),
    ([UP], {"replay": True}, HealthState.REPLAY, REPLAY, None),
    ([UP, LOST], {"replay": True}, HealthState.SOME_LOST,
     f"{REPLAY}; 1 of 2 GPUs lost since 00:29 UTC: device_lost", "00:29:00"),
    ([LOST], {"ended": True, "running": False}, HealthState.ENDED,
     "The run ended at 2026-03-02 00:29 UTC: nothing is metered any more", "00:29:30"),
    ([UP], {"running": False}, HealthState.NOT_RUNNING,
     "No daemon is running, although the run has not ended: the last record was written at 2026-03-02 00:29 UTC", "00:29:30"),
    ([UP], {"is_live": False}, HealthState.METERING, "Metering 1 GPU (last record at 00:29 UTC)", None),
]  # fmt: skip


@pytest.mark.parametrize(("devices", "more", "state", "sentence", "since"), TABLE)
def test_health_of_a_run(
    devices: list[DeviceHealth], more: dict[str, Any], state: HealthState, sentence: str, since: str | None
) -> None:
    how = {"wall_offset_ns": OFFSET_NS, "last_record_ns": OFFSET_NS + (NOW_S - 30) * NS_PER_S, **more}
    found = health_of(devices, **how)
    assert (found.state, found.sentence) == (state, sentence)
    stated = found.facts()["since"]
    assert (stated and stated[11:19]) == since


def test_every_state_is_in_the_table() -> None:
    assert {row[2] for row in TABLE} == set(HealthState)


@pytest.mark.parametrize(
    ("begin_s", "reason", "since_s"),
    [
        (20, GapReason.DEVICE_LOST, 10),  # continues
        (20, GapReason.SOURCE_DOWN, 10),  # for another reason
        (21, GapReason.DEVICE_LOST, 21),  # a reading lies in between
        (20, GapReason.OTHER_JOB, 20),  # no longer lost, but given to another job
        (20, GapReason.DAEMON_DOWN, 20),  # what the device did then is unknown
    ],
)
def test_a_gap_continues_where_no_reading_lies_in_between(begin_s: int, reason: GapReason, since_s: int) -> None:
    assert last_gap(LastGap(10, 20, GapReason.DEVICE_LOST), begin_s, 30, reason) == LastGap(since_s, 30, reason)
