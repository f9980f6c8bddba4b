"""The health of a run: one state of a closed set and one sentence, first on the page and in `flopsd status`.

Pure. One more state, a daemon that does not answer, can only be found by its reader: the page's script.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from enum import Enum
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.report.terminal import counted
from flopsd.system.clock import rfc3339
from flopsd.telemetry.last_gap import GapKind, LastGap, open_gap


class HealthState(Enum):
    """The state of a run is the first that applies. Only METERING means that nothing is wrong."""

    NOT_RUNNING = "not-running"  # from a journal: no daemon writes it, and the run has no end
    ENDED = "ended"
    NOT_WRITTEN = "not-written"  # the journal cannot be written, for instance on a full disk
    ALL_LOST = "all-lost"
    NO_DEVICE = "no-device"
    SOME_LOST = "some-lost"
    UNKNOWN_DEVICE = "unknown-device"  # read, but not in the peak table
    NO_UPPER_BOUND = "no-upper-bound"  # what was metered is no ceiling of what was computed
    SOURCE_DOWN = "source-down"  # while other sources read all devices
    STARTING = "starting"
    REPLAY = "replay"
    METERING = "metering"


REPLAYED = "REPLAY of a recording: no hardware is metered, and nothing here is evidence"


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """The facts about a device that the health of a run depends on. `watermark_ns`: boot time of the last reading's
    end. `is_bounded`: readings give only an upper bound. `is_gpu`: False for a Trainium and a MIG slice."""

    watermark_ns: int
    gap: LastGap | None
    is_bounded: bool = False
    is_gpu: bool = True

    @property
    def open_gap(self) -> LastGap | None:
        return open_gap(self.gap, self.watermark_ns)

    @property
    def kind(self) -> GapKind | None:
        return None if self.open_gap is None else self.open_gap.kind


@dataclass(frozen=True, slots=True)
class Health:
    """The state and its sentence. `since_ns`: since when it applies, wall-clock time; None: not known."""

    state: HealthState
    sentence: str
    since_ns: int | None = None

    def facts(self) -> dict[str, Any]:
        since = None if self.since_ns is None else rfc3339(self.since_ns)
        return {"state": self.state.value, "sentence": self.sentence, "since": since}


def health_of(
    devices: Sequence[DeviceHealth], *, wall_offset_ns: int | None, last_record_ns: int | None, fault: str = "",
    down: Sequence[str] = (), starting: bool = False, has_upper_bound: bool = True, replay: bool = False,
    ended: bool = False, running: bool = True, is_live: bool = True,
) -> Health:  # fmt: skip
    """The health of a run.

    `wall_offset_ns`: wall-clock time minus boot time; None: not known. `last_record_ns`: wall-clock time of the last
    record of the journal. `fault`: why the journal cannot be written. `down`: sources that failed. `starting`: a source
    has not answered yet. `has_upper_bound`: of the run's executed FLOP. `is_live`: False if a journal was read, which
    describes the moment of its last record.
    """
    latest_ns = max((device.watermark_ns for device in devices), default=None)
    now_ns = last_record_ns if latest_ns is None or wall_offset_ns is None else latest_ns + wall_offset_ns
    is_over = ended or not running  # the sentence may be read at any later time
    at = "" if last_record_ns is None else f" at {_moment(last_record_ns, None if is_over else now_ns)}"
    if ended:
        found = [Health(HealthState.ENDED, f"The run ended{at}: nothing is metered any more", last_record_ns)]
    elif not running:
        words = f"No daemon is running, although the run has not ended: the last record was written{at}"
        found = [Health(HealthState.NOT_RUNNING, words, last_record_ns)]
    else:
        ours = [device for device in devices if device.kind is not GapKind.ELSEWHERE]
        found = [*_journal(fault, last_record_ns, now_ns), *_devices(ours, wall_offset_ns, now_ns)]
        if not devices and starting:
            found.append(Health(HealthState.STARTING, "No device is known yet: the sources have not all answered"))
        elif not ours:
            why = "those here are another job's, or other devices count in their place" if devices else "none was found"
            found.append(Health(HealthState.NO_DEVICE, f"No device is metered: {why}"))
        if devices and not has_upper_bound:
            found.append(Health(HealthState.NO_UPPER_BOUND, "The run has no upper bound"))
        if down and (not found or not ours):
            words = f"{'Source' if len(down) == 1 else 'Sources'} {', '.join(down)} down"
            found.append(Health(HealthState.SOURCE_DOWN, words))
        found = found or [_metering(ours)]
    first = found[0]
    sentence = "; ".join(one.sentence if place == 0 else _inside(one.sentence) for place, one in enumerate(found))
    if at and running and not ended and not is_live:
        sentence += f" (last record{at})"
    if not replay:
        return Health(first.state, sentence, first.since_ns)
    if first.state is HealthState.METERING:
        return Health(HealthState.REPLAY, REPLAYED)
    return Health(first.state, f"{REPLAYED}; {_inside(sentence)}", first.since_ns)


def _journal(fault: str, last_record_ns: int | None, now_ns: int | None) -> list[Health]:
    if not fault:
        return []
    what = "Disk full" if fault.endswith(os.strerror(errno.ENOSPC)) else f"Journal not written ({fault})"
    since = "" if last_record_ns is None else f" since {_moment(last_record_ns, now_ns)}"
    return [Health(HealthState.NOT_WRITTEN, f"{what}: totals{since} are in memory only", last_record_ns)]


def _devices(ours: Sequence[DeviceHealth], wall_offset_ns: int | None, now_ns: int | None) -> list[Health]:
    found = []
    if lost := [gap for device in ours if (gap := device.open_gap) is not None and gap.kind is GapKind.LOST]:
        since, since_ns = _since(lost, wall_offset_ns, now_ns)
        reasons = ", ".join(dict.fromkeys(gap.reason.value for gap in lost))
        state = HealthState.ALL_LOST if len(lost) == len(ours) else HealthState.SOME_LOST
        found.append(Health(state, f"{_of(len(lost), ours)} lost{since}: {reasons}", since_ns))
    if unknown := sum(device.kind is GapKind.UNKNOWN for device in ours):
        words = f"{_of(unknown, ours)} not metered: unknown to the peak table"
        found.append(Health(HealthState.UNKNOWN_DEVICE, words))
    if waiting := sum(device.kind is GapKind.STARTING for device in ours):
        found.append(Health(HealthState.STARTING, f"{_of(waiting, ours)} not read yet"))
    return found


def _metering(ours: Sequence[DeviceHealth]) -> Health:
    bounded = sum(device.is_bounded for device in ours)
    which = "" if bounded == len(ours) else f"{bounded} of them "
    words = f", {which}read as an upper bound only" if bounded else ""  # processes may count beside it
    return Health(HealthState.METERING, f"Metering {_counted(ours)}{words}")


def _since(gaps: Sequence[LastGap], wall_offset_ns: int | None, now_ns: int | None) -> tuple[str, int | None]:
    """` since 12:41 UTC`, or the start of the first gap if they did not begin in the same minute."""
    if wall_offset_ns is None:
        return "", None
    first_ns, last_ns = (end(gap.since_ns for gap in gaps) + wall_offset_ns for end in (min, max))
    first = _moment(first_ns, now_ns)
    together = first == _moment(last_ns, now_ns)
    return f" since {first}" if together else f", the first since {first}", first_ns


def _moment(wall_ns: int, now_ns: int | None) -> str:
    return minute(rfc3339(wall_ns), None if now_ns is None else rfc3339(now_ns))


def minute(at: str, now: str | None) -> str:
    """The RFC 3339 time `at` to the minute, with its date if that differs from the date of `now`: a run may be weeks
    old."""
    return f"{'' if now is not None and at[:10] == now[:10] else at[:10] + ' '}{at[11:16]} UTC"


def _of(some: int, ours: Sequence[DeviceHealth]) -> str:
    """`3 of 8 GPUs`, `All 8 GPUs`."""
    return f"{some} of {_counted(ours)}" if some < len(ours) or some == 1 else f"All {_counted(ours)}"


def _counted(ours: Sequence[DeviceHealth]) -> str:
    return counted(len(ours), "GPU" if all(device.is_gpu for device in ours) else "device")


def _inside(sentence: str) -> str:
    """The sentence for the middle of another: without the capital."""
    return sentence[:1].lower() + sentence[1:]
