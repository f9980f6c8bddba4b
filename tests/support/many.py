"""Many nodes in one process, each metered by the real writer from the bundled recording and served by the real front.

`python -m tests.support.many FOLDER COUNT` prints one JSON line a node and serves until its stdin ends.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

from flopsd.core.model import Precision
from flopsd.daemon.source_tracker import Message
from flopsd.settings.platform import Context
from flopsd.sources.replay.source import ReplaySource
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.http.server import WebServer
from flopsd.telemetry.snapshot import Snapshot
from flopsd.testing import FakeClock
from tests.support.runs import Run

RECORDING = Path(__file__).resolve().parents[2] / "config" / "recordings" / "h100x2.jsonl"
NODES_A_RUN = 50
BF16 = Precision((("bf16", 1_000_000),), "settings")


def metered(folder: Path, number: int, recording: bytes) -> Snapshot:
    """What node `number` shows after some seconds of the recording: each its own devices, every seventh another time."""
    clock = FakeClock()
    source = ReplaySource(recording, RECORDING.name, clock)
    devices = tuple(replace(device, uid=f"{device.uid}-{number}") for device in source.devices())
    renamed = dict(zip((device.uid for device in source.devices()), (device.uid for device in devices), strict=True))
    node = Context("host", None, None, f"node-{number}", None, (), None, "boot", "boot")
    run_id = f"run-{number // NODES_A_RUN}"
    run = Run(folder / str(number), devices=devices, precision=BF16, context=node, run_id=run_id, clock=clock)
    for _ in range(5 + number % 7):
        clock.advance(NS_PER_S)
        sweep = source.read()
        readings = tuple(replace(reading, device=renamed[reading.device]) for reading in sweep.readings)
        gauges = {renamed[uid]: its for uid, its in sweep.gauges.items()}
        told = replace(sweep, readings=readings, gauges=gauges)
        # Without the mark of a replay, which the sums of a fleet leave out.
        run.writer.take(Message("sim", clock.boottime_ns(), devices, told, read_seconds=0.001))
    run.kill()
    return run.writer.snapshot


def serve(shown: Snapshot) -> None:
    server = WebServer("127.0.0.1", 0, lambda: shown)
    server.start()
    figures = shown.view.figures
    told = {"target": server.url.removeprefix("http://"), "run": shown.view.run, "low": figures.low_flop,
            "measured": figures.measured_flop, "high": figures.high_flop}  # fmt: skip
    print(json.dumps(told), flush=True)


def main(folder: Path, count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a listener and a connection each
    recording = RECORDING.read_bytes()
    for number in range(count):
        serve(metered(folder, number, recording))
    sys.stdin.read()
    os._exit(0)  # hundreds of threads that wait for clients have nothing to say


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
