"""flopsd beside the loads: a process of its own, read through its journal (exact) and its /metrics (as users see
it)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, TypeVar

from flopsd.core.ledger.device_records import DeviceEntry, device_entry
from flopsd.core.ledger.tally_records import tally_from_record, tally_rows
from flopsd.core.tally import Tally
from flopsd.journal.framing import GENESIS
from flopsd.journal.reading import newest_pending, read_live
from flopsd.journal.state_dir import JOURNAL_NAME, PENDING_NAME
from flopsd.system.clock import NS_PER_S, Clock

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_ID = "hardware"
PATIENCE_SECONDS = 60
_POLL_SECONDS = 0.02
_SAMPLE = re.compile(r"(flopsd_[a-z_]+)\{([^}]*)\} (\S+)")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')

T = TypeVar("T")


class MeterError(Exception):
    """flopsd does not meter. The text contains its last message."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Running totals of the device: by the journal, and FLOP by /metrics as (pipe, precision, evidence)."""

    tally: Tally
    exported_flop: Mapping[tuple[str, str, str], float]
    exported_integers: Mapping[str, float]  # by evidence

    def exported(self, *, integers: bool) -> float:
        return sum((self.exported_integers if integers else self.exported_flop).values())


class Meter:
    """A running flopsd, used in a `with`. It is stopped, and its exit code kept, on leaving."""

    def __init__(self, out: Path, clock: Clock, *, interval_seconds: float, seal: bool) -> None:
        self.sealed = seal
        self.exit_code: int | None = None
        self.ledger = out / "ledger.json"
        self._clock, self._interval_seconds = clock, interval_seconds
        self._state, self._log = out / "state", out / "flopsd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Meter:
        if (self._state / JOURNAL_NAME).exists():
            raise MeterError(f"{self._state} holds the journal of an earlier run: give --out an empty folder")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FLOPSD_")}
        path = os.pathsep.join(part for part in (str(ROOT), clean.get("PYTHONPATH", "")) if part)
        command = [
            sys.executable, "-m", "flopsd", "run", "--source", "nvml", "--run-id", RUN_ID,
            "--state-dir", str(self._state), "--listen", "127.0.0.1:0", "--interval", str(self._interval_seconds),
            "--checkpoint-output", "off", *(["--ledger", str(self.ledger)] if self.sealed else ["--no-seal"]),
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**clean, "PYTHONPATH": path}, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._url = self._wait(self._address, "flopsd serves /metrics")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()

    def device(self, uid: str) -> DeviceEntry:
        """The device as flopsd sees it. Raises MeterError if it is not listed in time."""
        return self._wait(lambda: self._find(uid, self._records()), f"flopsd lists {uid}")[1]

    def mark(self, uid: str, since_ns: int) -> Mark:
        """The first totals that cover the device at least until `since_ns`. Raises MeterError."""
        tally = self._wait(lambda: self._tally(uid, since_ns), f"a reading of {uid} that is new enough")
        span_seconds = tally.span_ns / NS_PER_S - 1e-3
        exported = self._wait(lambda: self._exported(uid, span_seconds), f"/metrics with that reading of {uid}")
        return Mark(tally, *exported)

    def cpu_seconds(self) -> float:
        """CPU time that the daemon has used so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _wait(self, ask: Callable[[], T | None], what: str) -> T:
        """Poll until there is an answer: no event announces it across processes."""
        deadline_ns, pause = self._clock.boottime_ns() + PATIENCE_SECONDS * NS_PER_S, Event()
        while (answer := ask()) is None:
            assert self._process is not None
            if self._process.poll() is not None or self._clock.boottime_ns() > deadline_ns:
                said = self._log.read_text(errors="replace").splitlines()[-5:]
                how = f"exited with {self._process.returncode}" if self._process.returncode is not None else "is silent"
                raise MeterError(f"waited for: {what}; flopsd {how}; it said last: {' | '.join(said) or 'nothing'}")
            self._clock.wait(pause, _POLL_SECONDS)
        return answer

    def _address(self) -> str | None:
        match = re.search(r"metrics at (\S+)/metrics", self._log.read_text(errors="replace"))
        return match[1] if match else None

    def _records(self) -> list[Mapping[str, Any]]:
        lines = list(read_live(self._state / JOURNAL_NAME)) if (self._state / JOURNAL_NAME).is_file() else []
        records = [line.record() for line in lines]
        pending = newest_pending(self._state / PENDING_NAME, lines[-1].head if lines else GENESIS)
        return records if pending is None else [*records, pending]

    def _find(self, uid: str, records: list[Mapping[str, Any]]) -> tuple[int, DeviceEntry] | None:
        found = [(r["number"], device_entry(r)) for r in records if r["kind"] == "device" and r["uuid"] == uid]
        return found[-1] if found else None

    def _tally(self, uid: str, since_ns: int) -> Tally | None:
        records = self._records()
        found = self._find(uid, records)
        totals = [record for record in records if record["kind"] == "checkpoint"]
        if found is None or not totals:
            return None
        number, entry = found
        devices, columns = totals[-1]["devices"], totals[-1]["tallies"]
        rows = zip(devices, tally_rows(columns, len(devices)), strict=True)
        tallies = [tally_from_record(row, entry.begin_ns) for device, row in rows if device == number]
        return next((tally for tally in tallies if tally.watermark_ns >= since_ns and tally.observed_ns), None)

    def _exported(
        self, uid: str, span_seconds: float
    ) -> tuple[dict[tuple[str, str, str], float], dict[str, float]] | None:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=PATIENCE_SECONDS) as answer:
            page = answer.read().decode()
        known, flop, integers = 0.0, {}, {}
        for name, labels, value in _SAMPLE.findall(page):
            label = dict(_LABEL.findall(labels))
            if label.get("uuid") != uid:
                continue
            if name in ("flopsd_observed_seconds_total", "flopsd_gap_seconds_total"):
                known += float(value)
            elif name == "flopsd_flop_total":
                flop[label["pipe"], label["precision"], label["evidence"]] = float(value)
            elif name == "flopsd_integer_operations_total":
                integers[label["evidence"]] = float(value)
        return (flop, integers) if known >= span_seconds else None
