"""A hand-driven stand-in for neuron-monitor, a sysfs tree made from a real listing, and the captured documents."""

import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flopsd.core.model import Counted, Reading, Sweep
from flopsd.sources import SourceSettings
from flopsd.sources.neuron import open_source
from flopsd.sources.neuron.source import NeuronSource
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.process import wait_until
from tests.support.strategies import table

TESTS = Path(__file__).parent.parent
SAMPLES = TESTS / "samples"
MONITOR = TESTS / "standin" / "neuron-monitor"
INF2_FLOP = 816 * 2**30  # executions in the capture times the graph's FLOP


def sample(name: str) -> dict[str, Any]:
    """A captured document; where a file holds several, the first."""
    text = (SAMPLES / f"neuron_monitor_{name}").read_text()
    found: dict[str, Any] = json.loads(text.splitlines()[0] if name.endswith("l") else text)
    return found


def inf2(**change: Any) -> dict[str, Any]:
    """The real capture of an inf2.xlarge with changes to its neuroncore_counters group."""
    document = sample("inf2_xlarge_real_effective_flops.json")
    counters(document).update(change)
    return document


def idle(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same machine with no process that has the runtime open."""
    return {**copy.deepcopy(dict(document)), "neuron_runtime_data": []}


def counters(document: dict[str, Any], runtime: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["neuron_runtime_data"][runtime]["report"]["neuroncore_counters"]
    return found


class Led:
    """A stand-in that follows the test's steps, and the source that reads it on a clock stepped by hand."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder, self.clock, self.options = folder, FakeClock(), options
        os.mkfifo(folder / "steps")
        self._steps = os.open(folder / "steps", os.O_RDWR)  # so that neither end waits for the other
        self.source: NeuronSource
        self._sent = 0

    def open(self, first: Mapping[str, Any]) -> NeuronSource:
        """Open the source on a first document, and read once, so that the next document is counted completely."""
        self.send(doc=first)
        options = {"monitor": str(MONITOR), "sysfs": "/nowhere", "module": "/nowhere"}
        self.source = open_source(SourceSettings(self.clock, table(), {**options, **self.options}))
        assert self.source.read().readings == ()
        return self.source

    def send(self, *, repeated: bool = False, **step: Any) -> None:
        """Have the stand-in do a step. A real monitor never sends two documents with the same periods: one sent
        again gets a number that distinguishes it from the one before, unless it is to be `repeated`."""
        if not repeated and step.get("doc", {}).get("neuron_runtime_data"):
            self._sent += 1
            step["doc"] = copy.deepcopy(dict(step["doc"]))
            for runtime in step["doc"]["neuron_runtime_data"]:
                runtime["address"] = str(self._sent)
        os.write(self._steps, json.dumps(step).encode() + b"\n")

    def hang(self) -> None:
        self.send(hang=1)
        wait_until((self.folder / "hung").exists, "the stand-in hanging")

    def after(self, seconds: float, **step: Any) -> list[Reading]:
        """Let time pass, have the stand-in do a step, and return the readings."""
        self.clock.advance(round(seconds * NS_PER_S))
        self.send(**step)
        return list(self.sweep().readings)

    def sweep(self) -> Sweep:
        """The next sweep that holds readings."""

        def once() -> Sweep | None:
            sweep = self.source.read()
            return sweep if sweep.readings else None

        found: Sweep = wait_until(once, "a reading")
        return found

    def pids(self) -> list[int]:
        file = self.folder / "pids"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def close(self) -> None:
        if hasattr(self, "source"):
            self.source.close()
        os.close(self._steps)


Lead = Callable[..., Led]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie counts as dead."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def flop(reading: Reading) -> int:
    assert isinstance(reading.work, Counted), reading
    return reading.work.flop


def counting(lead: Lead, first: dict[str, object], **options: str) -> Led:
    """A stand-in whose next document is counted."""
    led = lead(**options)
    led.open(first)
    led.after(1, doc=idle(first))
    return led


class Sysfs:
    """A tree like that of a real inf2, with values that a test sets."""

    def __init__(self, folder: Path, driver: str = "2.30.2.0", chips: int = 1, name: str = "Inferentia2") -> None:
        self.root, self.module = folder / "neuron_device", folder / "module"
        self.module.mkdir(parents=True)
        (self.module / "version").write_text(driver + "\n")
        for chip in range(chips):
            self._grow(chip)
            self.put(chip, "info/serial_number", f"{0xA1B2C3D400 + chip:016x}")
            self.put(chip, "info/architecture/device_name", name)
            self.put(chip, "stats/power/utilization", "POWER_STATUS_VALID,1789180860,0.86,25.00,18.86")

    @property
    def options(self) -> dict[str, str]:
        return {"sysfs": str(self.root), "module": str(self.module)}

    def put(self, chip: int, path: str, value: object) -> None:
        file = self.root / f"neuron{chip}" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    def work(self, chip: int, *flop: int) -> None:
        """Set the totals of the chip's cores."""
        for core, total in enumerate(flop):
            self.put(chip, f"neuron_core{core}/stats/other_info/flop_count/total", total)

    def _grow(self, chip: int) -> None:
        for line in (SAMPLES / "neuron_sysfs_tree_inf2_real.txt").read_text().split():
            path, _, leaves = line.removeprefix("neuronN/").partition("{")
            for leaf in leaves.rstrip("}").split(",") if leaves else [""]:
                for core in (0, 1) if "neuron_coreN" in path else (0,):
                    self.put(chip, (path + leaf).replace("neuron_coreN", f"neuron_core{core}"), 0)
