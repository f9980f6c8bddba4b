"""A real Prometheus that holds an hour of flopsd: two nodes of a run, written by the real writer on a fake clock and
exposed by the real exporter every half minute. promtool makes blocks of the pages, and Prometheus evaluates the
recording rules."""

import json
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flopsd.core.declarations import Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import Active, Device, Evidence, Gap, GapReason, Gauges, Pipe, Precision, Reading, Sweep
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened, WorkCounted
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.settings.data_files import load_policies
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import JournalState
from tests.support.process import free_port, get, running
from tests.support.prometheus import ALERTS, RULES, rules
from tests.support.story import CONTEXT, Story
from tests.support.story import H100 as STORY_H100

HOUR, SCRAPE = 3600, 30
ALERT = 'alertname="FlopsdDevicesBlind",alertstate="firing",severity="warning",run_id="made-hour",node="node-1"'
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
BF16 = Precision((("bf16", 1_000_000),), "settings")
SM_CYCLES_PER_US = 132 * 1755  # of a whole H100
MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip


class Node(Story):
    """One node of the run. Its two GPUs train in steps, with pauses; the second cannot be read for a while."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        devices = [replace(STORY_H100, uid=f"GPU-{number}{gpu}", index=gpu) for gpu in range(2)]
        super().__init__(
            folder, devices, precision=BF16, context=replace(CONTEXT, node=f"node-{number}", rank=number), run="made-hour",
            declared=OperatorDeclarations(Phase.TRAIN, Method.PRETRAINING, Recomputation.NONE), policies=load_policies(),
        )  # fmt: skip
        self.seconds = 0

    def work(self, device: Device) -> Active | Gap:
        """Idle for one minute in twelve; each GPU has a slightly different load."""
        if self.number == 1 and device.index == 1 and 1500 <= self.seconds < 1860:
            return Gap(GapReason.DRIVER_TIMEOUT)
        busy = (
            0
            if self.seconds % 720 < 60
            else 520_000 - 25_000 * (2 * self.number + device.index) + self.seconds % 97 * 400
        )
        cycles = SM_CYCLES_PER_US * 1_000_000 * SCRAPE
        return Active(
            Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: cycles * busy // 1_000_000, Pipe.FP32: cycles * busy // 9_000_000}
        )

    def step(self) -> None:
        self.clock.advance(SCRAPE * NS_PER_S)
        self.seconds += SCRAPE
        now_ns = self.clock.boottime_ns()
        readings, gauges = [], {}
        for device in self.devices:
            work = self.work(device)
            load = 0.0 if isinstance(work, Gap) else work.sm_cycles[Pipe.TENSOR_HMMA] / SM_CYCLES_PER_US / 1e6 / SCRAPE
            energy = {} if isinstance(work, Gap) else {"energy_mj": now_ns * 600 // 1_000_000}
            readings.append(Reading(device.uid, self.since_ns, now_ns, work, energy))
            gauges[device.uid] = Gauges({Pipe.TENSOR_HMMA: load}, min(1.0, 2 * load), 1755)
        self.writer.take(Message("told", now_ns, self.devices, Sweep(tuple(readings), gauges), read_seconds=0.001))
        self.since_ns = now_ns

    def trained(self) -> None:
        """The training process declares its tokens, in proportion to the seconds."""
        session, tokens = f"{self.number:032x}", self.seconds * 12_000 // 512 * 512
        if self.seconds == SCRAPE:
            self.says(SessionOpened(session, 4711, 1000, "0.1.0"), PhaseChanged(session, "train"))
            self.says(FactsDeclared(session, {"model_config": MODEL, "method": "pretraining", "recomputation": "none"}))
        counted = {"steps": self.seconds, "forward_passes": tokens // 512, "sequences": tokens // 512, "tokens": tokens}
        self.says(WorkCounted(session, {"train": {**counted, "square_pairs": tokens * 512}}))


def pages(folder: Path) -> tuple[str, int, int]:
    """The hour as OpenMetrics lines with timestamps, and its first and last second by the wall clock."""
    nodes, shown = [Node(folder / f"n{n}", n) for n in range(2)], list[str]()
    first = nodes[0].clock.wall_ns() // NS_PER_S
    for node in nodes:
        exposition = Exposition()
        at = f'job="flopsd",instance="node-{node.number}:10188",lineage="made-model"'
        for _ in range(HOUR // SCRAPE):
            node.step()
            node.trained()
            wall_ns, sealed_ns = node.clock.wall_ns(), node.clock.boottime_ns() - node.seconds % 900 * NS_PER_S
            state = JournalState(wall_ns, 900 * NS_PER_S, sealed_ns, 0)
            page = exposition.render(replace(node.writer.snapshot, journal_state=state), OPENMETRICS)[0].decode()
            shown += stamped(page + "up 1.0\n", at, wall_ns // NS_PER_S)
    shown += (f"ALERTS{{{ALERT}}} 1 {first + second}\n" for second in range(1620, 1920, SCRAPE))
    return "".join(shown), first, nodes[0].clock.wall_ns() // NS_PER_S


def stamped(page: str, labels: str, seconds: int) -> Iterator[str]:
    """The samples of a page, with the target's labels and a timestamp, as Prometheus would store a scrape."""
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, rest, value = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
            yield f"{name}{{{labels}{',' + rest if rest else ''}}} {value} {seconds}\n"


def recording_rules() -> list[dict[str, Any]]:
    return [rule for path in (RULES, ALERTS) for rule in rules(path) if "record" in rule]


def levels() -> list[list[dict[str, Any]]]:
    """The recording rules in groups, so that each rule depends on earlier groups only."""
    left, found, done = recording_rules(), list[list[dict[str, Any]]](), set[str]()
    names = {str(rule["record"]) for rule in left}
    while left:
        ready = [r for r in left if not {n for n in names if n in r["expr"] and n != r["record"]} - done]
        found.append(ready)
        done |= {str(rule["record"]) for rule in ready}
        left = [rule for rule in left if rule not in ready]
    return found


@contextmanager
def served(blocks: Path) -> Iterator[str]:
    """The address of a Prometheus that serves these blocks and scrapes nothing."""
    config, port = blocks.parent / "empty.yml", free_port()
    config.write_text("scrape_configs: []\n")
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={blocks}", "--log.level=error",
               "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with running(command, f"http://127.0.0.1:{port}") as url:
        yield url


def stored(folder: Path, text: str) -> Path:
    """Store these samples in blocks of their own; returns the folder of all blocks so far."""
    (folder / "samples.om").write_text(text + "# EOF\n")
    command = [
        "promtool",
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(folder / "samples.om"),
        str(folder / "blocks"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "blocks"


def evaluate(folder: Path, blocks: Path, *spans: tuple[int, int, int]) -> None:
    """Add the results of the recording rules. Each span is its first second, its last, and the interval in seconds.
    promtool could do this, but takes a tenth of a second of processor time for each rule in each span."""
    for level in levels():
        with served(blocks) as url:
            results = [result for rule in level for span in spans for result in evaluated(url, rule, *span)]
        stored(folder, "".join(results))


def evaluated(url: str, rule: dict[str, Any], first: int, last: int, interval: int) -> Iterator[str]:
    asked = urllib.parse.urlencode({"query": rule["expr"], "start": first, "end": last, "step": interval})
    status, body, _ = get(f"{url}/api/v1/query_range?{asked}")
    assert status == 200, f"{rule['record']}: {body}"
    for series in json.loads(body)["data"]["result"]:
        labels = {**series["metric"], **rule.get("labels", {})}
        labels.pop("__name__", None)
        name = f"{rule['record']}{{{','.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"
        yield from (f"{name} {value} {second}\n" for second, value in series["values"])
