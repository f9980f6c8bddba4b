"""Readings from a recording.

A recording is JSON Lines. The first line names devices and origin. The others hold readings with times relative to the
beginning of the recording. At its end it starts over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flopsd.core.model import Active, Busy, Device, DeviceUid, Evidence, Gap, GapReason, Gauges, Pipe, Reading, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.settings.data_files import config_dir
from flopsd.sources import SourceSettings
from flopsd.system.clock import Clock
from flopsd.system.regular_files import open_regular
from flopsd.system.sha256 import hex_sha256

FORMAT = "flopsd-recording/1"


def open_source(settings: SourceSettings) -> ReplaySource:
    """Open the recording named in the settings, or the bundled one. Raises SourceUnavailableError."""
    named = settings.options["file"]
    path = config_dir() / "recordings" / "h100x2.jsonl" if named is None else Path(str(named))
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as fault:
        raise SourceUnavailableError(f"cannot read the recording {path}: {fault.strerror}") from fault
    try:
        return ReplaySource(data, path.name, settings.clock)
    except (ValueError, KeyError, TypeError, IndexError) as fault:
        shape: dict[type[Exception], str] = {
            IndexError: "a line is missing or too short",
            KeyError: f"{fault} is missing",
            TypeError: "a line has another structure",
        }
        raise SourceUnavailableError(
            f"{path} is not a recording of {FORMAT}: {shape.get(type(fault), fault)}"
        ) from fault


class ReplaySource:
    """A recording, played from the first read on."""

    name = "replay"

    def __init__(self, data: bytes, name: str, clock: Clock) -> None:
        lines = [json.loads(line) for line in data.splitlines() if line]
        header = lines[0]
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}")
        self._facts = {"recording": name, "sha256": hex_sha256(data), "origin": str(header["origin"])}
        self._devices = [Device(**{**row, "evidence": Evidence(row["evidence"])}) for row in header["devices"]]
        self._recorded = sorted(((int(row[2]), row) for row in lines[1:]), key=lambda item: item[0])
        if not self._recorded:
            raise ValueError("no readings")
        self._length_ns = self._recorded[-1][0]
        self._clock = clock
        self._lap_ns: int | None = None
        self._next = 0
        self._closed = False

    def devices(self) -> Sequence[Device]:
        return self._devices

    def describe(self) -> Mapping[str, Any]:
        return {"replay": self._facts}

    def read(self) -> Sweep:
        """Return all recorded readings that have come due."""
        if self._closed:
            raise SourceError("the replay is closed")
        now_ns = self._clock.boottime_ns()
        lap_ns = now_ns if self._lap_ns is None else self._lap_ns
        readings: list[Reading] = []
        gauges: dict[DeviceUid, Gauges] = {}
        while lap_ns + self._recorded[self._next][0] <= now_ns:
            reading, shown = self._reading(self._recorded[self._next][1], lap_ns)
            readings.append(reading)
            gauges[reading.device] = shown
            self._next += 1
            if self._next == len(self._recorded):
                self._next, lap_ns = 0, lap_ns + self._length_ns
        self._lap_ns = lap_ns
        return Sweep(tuple(readings), gauges)

    def close(self) -> None:
        self._closed = True

    def _reading(self, row: Sequence[Any], lap_ns: int) -> tuple[Reading, Gauges]:
        """`row`: `[device, begin_ns, end_ns, {"activity"|"busy"|"gap": …, "gauges": …}]`. Counters are not replayed."""
        index, begin_ns, end_ns, recorded = row
        shown = recorded.get("gauges", {})
        gauges = Gauges(
            {Pipe(name): ratio for name, ratio in shown.get("pipes", {}).items()},
            shown.get("utilization"),
            shown.get("sm_clock_mhz"),
        )
        return Reading(self._devices[index].uid, lap_ns + begin_ns, lap_ns + end_ns, _work(recorded)), gauges


def _work(recorded: Mapping[str, Any]) -> Active | Busy | Gap:
    if "activity" in recorded:
        return Active(Evidence.ACTIVITY, {Pipe(name): int(cycles) for name, cycles in recorded["activity"].items()})
    if "busy" in recorded:
        return Busy(int(recorded["busy"]))
    return Gap(GapReason(recorded["gap"]))
