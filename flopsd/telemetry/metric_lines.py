"""The metric line on stdout, and the regular expressions by which a platform's log service turns it into metrics.

    flopsd: measured_flop=8120000 low_flop=7710000 high_flop=8530000 rate_flop_per_second=812 coverage_percent=99.31

The figures cover this node's whole run, earlier attempts included. An unknown figure is `unknown`, which the
expressions do not match, and the line of a replay has another prefix.
"""

from __future__ import annotations

import logging
from typing import IO

from flopsd.core.model import ESTIMATING, DeviceUid
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.streams import say
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
PREFIX, REPLAY_PREFIX = "flopsd:", "flopsd-replay:"
FIELDS = ("measured_flop", "low_flop", "high_flop", "rate_flop_per_second", "coverage_percent")


def metric_line(snapshot: Snapshot, rate_flop_per_s: int | None) -> str:
    """The line for a snapshot. `rate_flop_per_s`: the mean over the time measured since the previous line."""
    figures, coverage = snapshot.view.figures, snapshot.view.coverage_ppm
    percent = None if coverage is None else f"{coverage // 10_000}.{coverage % 10_000 // 100:02d}"
    values = (figures.measured_flop, figures.low_flop, figures.high_flop, rate_flop_per_s, percent)
    fields = (f"{name}={'unknown' if value is None else value}" for name, value in zip(FIELDS, values, strict=True))
    return " ".join((REPLAY_PREFIX if snapshot.replay else PREFIX, *fields))


def metric_definitions() -> list[dict[str, str]]:
    """SageMaker's `MetricDefinitions` for this line."""
    return [{"Name": f"flopsd:{name}", "Regex": rf"{PREFIX} .*?{name}=([0-9]+\.?[0-9]*)"} for name in FIELDS]


class MetricLines:
    """Writes the line at intervals. To be called by one thread."""

    def __init__(self, out: IO[str], every_seconds: float, snapshot: Snapshot, clock: Clock) -> None:
        self._out, self._every_ns, self._clock = out, round(every_seconds * NS_PER_S), clock
        self._last_ns, self._last = clock.boottime_ns(), _measured(snapshot)

    def each_tick(self, snapshot: Snapshot) -> None:
        if self._clock.boottime_ns() - self._last_ns >= self._every_ns:
            self.write(snapshot)

    def write(self, snapshot: Snapshot) -> None:
        """Write the line now. If stdout is closed, only the line is lost."""
        before, now = self._last, _measured(snapshot)
        self._last_ns, self._last = self._clock.boottime_ns(), now
        rates = [rate for uid in now if (rate := _mean(before.get(uid, (0, 0)), now[uid])) is not None]
        if not say(self._out, metric_line(snapshot, sum(rates) if rates else None) + "\n"):
            log.warning("a metric line could not be written to stdout; metering is not affected")


def _measured(snapshot: Snapshot) -> dict[DeviceUid, tuple[int, int]]:
    """The measured FLOP of each device in this daemon start, and the nanoseconds in which they were measured."""
    return {
        state.device.uid: (
            state.now.figures.measured_flop or 0,
            sum(state.tally.known_ns(evidence) for evidence in ESTIMATING),
        )
        for state in snapshot.devices
    }


def _mean(before: tuple[int, int], now: tuple[int, int]) -> int | None:
    """FLOP/s over the measured time, not over the time between two lines: a reading may come long after its interval,
    and the FLOP of a minute divided by the last second of a run would exceed what the device can do."""
    flop, passed_ns = now[0] - before[0], now[1] - before[1]
    return flop * NS_PER_S // passed_ns if passed_ns > 0 else None
