"""The real Prometheus and Alertmanager with real daemons and ledgers: alerts, sums, and the stack to try."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.core.model import GapReason, Growth, Pipe
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.prometheus import Exposition
from tests.support.hour import BF16, OPENMETRICS, SCRAPE, served, stamped, stored
from tests.support.monitoring import alertmanager, committed_alertmanager, hurried, prometheus, webhook
from tests.support.paths import ROOT
from tests.support.process import environment, flopsd, free_port, get, post_json, query, started, wait_until
from tests.support.prometheus import ALERTS, RULES, rules
from tests.support.scenario import Fault, Scenario, Segment, h100
from tests.support.story import CYCLES_H100, H100, PEAKS, Plan, Story, active, gap

BUSY = (Segment(700, hmma=0.5, fp32=0.1, util=100, watts=500), Segment(300, util=0, watts=120))
SECONDS = 60


def next_of(alerts: queue.SimpleQueue[dict[str, Any]], name: str, status: str) -> dict[str, Any]:
    while True:
        alert = alerts.get(timeout=SECONDS)
        if (alert["labels"]["alertname"], alert["status"]) == (name, status):
            return alert


@pytest.mark.minute
@pytest.mark.tool("prometheus", "prometheus-alertmanager")
def test_a_blinded_gpu_and_a_dead_daemon_reach_a_webhook(tmp_path: Path, standin: Path) -> None:
    """The committed rules, with ranges of ten seconds and no waiting; the other GPU raises no alert."""
    blinded = Fault(8_000, 24_000, "no_permission")  # the answer of the profiling counters of another user's GPU
    scenario = Scenario((h100(BUSY), h100(BUSY, (blinded,))))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, address = tmp_path / "state", f"127.0.0.1:{free_port()}"
    command = ("run", "--state-dir", str(state), "--source", "nvml", "--listen", address, "--run-id", "blinded",
               "--no-seal", "--precision", "bf16")  # fmt: skip
    with (
        webhook() as (hook, alerts),
        alertmanager(tmp_path, hook) as manager,
        started(*command, env=env) as program,
        prometheus(tmp_path / "p", [{"targets": [address]}], rules=hurried(tmp_path, "10s"), alertmanager=manager),
    ):
        fired = next_of(alerts, "FlopsdDevicesBlind", "firing")
        resolved = next_of(alerts, "FlopsdDevicesBlind", "resolved")
        program.process.kill()
        down = next_of(alerts, "FlopsdDown", "firing")
        with started(*command, env=env):
            next_of(alerts, "FlopsdDown", "resolved")
    assert fired["labels"]["severity"] == "warning"
    assert (fired["labels"]["run_id"], fired["labels"]["instance"]) == ("blinded", address)
    assert fired["annotations"]["summary"].startswith("1 device(s) at ")
    described = fired["annotations"]["description"]
    assert described.startswith("Device 1: less than half of the last five minutes is known (no_permission).")
    assert fired["annotations"]["runbook_url"] == "https://docs.example.org/flopsd/runbook.html#flopsddevicesblind"
    assert resolved["labels"] == fired["labels"]
    assert down["annotations"]["summary"].startswith(f"flopsd at {address} does not answer: node ")
    assert down["annotations"]["summary"].endswith(" of run blinded")
    assert "<no value>" not in str((fired["annotations"], down["annotations"]))


AT = {"instance": "a:10188", "run_id": "r", "node": "n"}
RULE = {"run_id": "r", "policy": "eu-ai-act", "rule": "systemic-presumption"}
ONE_CAUSE = (
    ({"alertname": "FlopsdDown", **AT}, [
        {"alertname": "FlopsdMeterBlind", **AT}, {"alertname": "FlopsdDevicesBlind", **AT},
        {"alertname": "FlopsdJournalNotAdvancing", **AT}, {"alertname": "FlopsdLedgerNotSealed", **AT},
        {"alertname": "FlopsdSigningKeyUnusable", **AT}, {"alertname": "FlopsdCoverageFalling", "run_id": "r"}]),
    ({"alertname": "FlopsdMeterBlind", **AT}, [
        {"alertname": "FlopsdDevicesBlind", **AT}, {"alertname": "FlopsdCountersImplausible", **AT, "source": "nvml"},
        {"alertname": "FlopsdNoLongerMeasured", **AT}, {"alertname": "FlopsdCoverageFalling", "run_id": "r"}]),
    ({"alertname": "FlopsdJournalNotWritable", **AT}, [
        {"alertname": "FlopsdJournalNotAdvancing", **AT}, {"alertname": "FlopsdLedgerNotSealed", **AT},
        {"alertname": "FlopsdLedgerCopyLate", **AT}]),
    ({"alertname": "FlopsdSigningKeyUnusable", **AT}, [{"alertname": "FlopsdLedgerNotSealed", **AT}]),
    ({"alertname": "FlopsdThresholdCrossedCertain", **RULE}, [
        {"alertname": "FlopsdThresholdCrossed", **RULE}, {"alertname": "FlopsdThreshold95", **RULE},
        {"alertname": "FlopsdThresholdCrossingForecast", **RULE}]),
)  # fmt: skip


@pytest.mark.tool("prometheus-alertmanager")
def test_one_cause_gives_one_notification(tmp_path: Path) -> None:
    """The committed inhibitions, in the real Alertmanager; the same alerts of another node or run are not inhibited."""
    for number, (cause, inhibited) in enumerate(ONE_CAUSE):
        (tmp_path / str(number)).mkdir()
        with committed_alertmanager(tmp_path / str(number)) as url:
            elsewhere = {**inhibited[0], "run_id": "s", "instance": "b:10188"}
            sent = [{"labels": labels} for labels in (cause, *inhibited, elsewhere)]
            post_json(f"{url}/api/v2/alerts", sent)
            sorts = sorted(sorted(labels.items()) for labels in inhibited)
            wait_until(partial(is_suppressed, url, sorts), f"{cause['alertname']} inhibits what follows from it alone")


def is_suppressed(alertmanager: str, expected: list[list[tuple[str, str]]]) -> bool:
    alerts = json.loads(get(f"{alertmanager}/api/v2/alerts")[1])
    found = [sorted(alert["labels"].items()) for alert in alerts if alert["status"]["state"] == "suppressed"]
    return sorted(found) == expected


OTHERS = [replace(H100, uid=f"GPU-{n}", index=n) for n in (1, 2)]
TRAINS = active(132, 1755, {Pipe.TENSOR_HMMA: 481_113, Pipe.TENSOR_IMMA: 20_000, Pipe.FP32: 99_999, Pipe.FP64: 7})
IDLE = active(132, 345, {})
LOST = gap(GapReason.DEVICE_LOST)


class Scraped(Story):
    """A story that Prometheus scrapes every fifteen seconds while its daemon lives."""

    def __init__(self, folder: Path) -> None:
        self.pages: list[str] = []
        super().__init__(folder, (CYCLES_H100, *OTHERS), precision=BF16, run="half-an-hour")
        self.exposition = Exposition()

    def watched(self, minutes: int, second: Plan, third: Plan) -> None:
        for _ in range(minutes * 60 // SCRAPE):
            self.during(SCRAPE, {CYCLES_H100: lambda _: Growth(), **second, **third})
            self.scrape()

    def scrape(self) -> None:
        page = self.exposition.render(self.writer.snapshot, OPENMETRICS)[0].decode()
        self.pages += stamped(page, 'job="flopsd",instance="node-0:10188"', self.clock.wall_ns() // NS_PER_S)

    def dies(self, seconds: int) -> None:
        self.kill(for_seconds=seconds)
        self.exposition = Exposition()
        self.start()


@pytest.mark.tool("prometheus", "promtool")
def test_increase_over_the_whole_run_equals_the_ledgers_total(tmp_path: Path) -> None:
    """The half hour passes on a clock stepped by hand; writer, journal, exporter, sealing and Prometheus are the
    real ones."""
    story = Scraped(tmp_path / "state")
    one, two = OTHERS
    story.during(1, {CYCLES_H100: lambda _: Growth(), one: IDLE, two: IDLE})  # jobs begin with idle devices
    story.scrape()
    begin = story.clock.wall_ns() // NS_PER_S  # from sample to sample, so that increase() has nothing to extrapolate
    story.watched(8, {one: TRAINS}, {two: TRAINS})
    story.dies(20)
    story.watched(6, {one: TRAINS}, {two: LOST})
    story.watched(4, {one: TRAINS}, {two: TRAINS})  # it is back
    story.dies(47)
    story.watched(5, {one: IDLE}, {two: TRAINS})
    story.dies(2)
    story.watched(6, {one: TRAINS}, {two: TRAINS})
    assert story.writer.close("sigterm")
    story.scrape()
    end = story.clock.wall_ns() // NS_PER_S
    story.kill()
    assert end - begin > 29 * 60
    key, _ = ensure_key(None, story.state.path)
    seal_journal(story.state.journal, key, tmp_path / "ledger.json", story.clock, [str(PEAKS)])
    done = flopsd("verify", str(tmp_path / "ledger.json"), "--key", str(tmp_path / "ledger.pub"), "--peaks", str(PEAKS),
                  "--json", code=0)  # fmt: skip
    sealed = json.loads(done.stdout)["predicate"]
    total = int(sealed["totals"]["executed"]["measured"])
    assert len(sealed["incarnations"]) == 4

    blocks = stored(tmp_path, "".join(story.pages))
    with served(blocks) as url:
        span = f"[{end - begin}s]"
        rows = query(url, f"flopsd_flop_total{span}", end)
        first = sum(float(row["values"][0][1]) for row in rows)
        increase = float(query(url, f"sum(increase(flopsd_flop_total{span}))", end)[0]["value"][1])
        later = f"[{end - begin + 16}s]"  # a window that ends between scrapes
        wider = float(query(url, f"sum(increase(flopsd_flop_total{later}))", end + 16)[0]["value"][1])
        last = float(query(url, f"sum(last_over_time(flopsd_flop_total{later}))", end + 16)[0]["value"][1])
        names = {
            row["metric"]["__name__"] for row in query(url, 'count by (__name__) ({__name__=~"flopsd_.+_total"})', end)
        }
        resets = {name: query(url, f"sum(resets({name}{span}))", end)[0]["value"][1] for name in names}
        run = float(query(url, 'flopsd_run_flop{basis="executed",bound="measured"}', end)[0]["value"][1])
    assert "flopsd_gap_seconds_total" in resets
    assert set(resets.values()) == {"0"}, resets
    assert run == float(total)
    assert abs(increase - total) / total < 1e-14
    # docs/monitoring.md: increase() extrapolates to the ends of its window, and the last value does not.
    assert round(wider / total, 3) == 1.009
    assert abs(last - total) / total < 1e-14
    assert first == 0, "a series that begins with work is work that increase() does not see"


COMPOSE = ROOT / "config" / "compose"


@pytest.mark.minute
@pytest.mark.tool("prometheus", "prometheus-alertmanager")
def test_the_stack_starts_shows_data_and_stops(tmp_path: Path) -> None:
    env = environment(None, TMPDIR=str(tmp_path), PYTHONPATH=str(ROOT))
    command = [sys.executable, "-u", str(ROOT / "scripts" / "stack.py")]
    said: list[str] = []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                          text=True) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while not said or not said[-1].startswith("Ctrl-C"):  # it gives up by itself if something does not start
                said.append(process.stdout.readline())
                assert said[-1], "".join(said)
            found = dict(re.findall(r"^(\w+) +(http\S+)", "".join(said), re.M))
            meter, prometheus, alertmanager = found["flopsd"], found["Prometheus"], found["Alertmanager"]
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 3
            assert get(f"{meter}/-/ready")[0] == 200
            assert wait_until(lambda: query(prometheus, "run:flopsd_flop:rate5m > 0"), "a graph has data")
            assert query(prometheus, 'run:flopsd_run_flop:sum{basis="executed",bound="measured"} > 0')
            loaded = json.loads(get(f"{prometheus}/api/v1/rules")[1])["data"]["groups"]
            assert sum(len(group["rules"]) for group in loaded) == len(rules(RULES)) + len(rules(ALERTS))
            assert not [(r["name"], r["lastError"]) for g in loaded for r in g["rules"] if r["health"] == "err"]
            known = json.loads(get(f"{prometheus}/api/v1/alertmanagers")[1])["data"]["activeAlertmanagers"]
            assert [one["url"] for one in known] == [f"{alertmanager}/api/v2/alerts"]
            assert all(get(url)[0] == 200 for url in re.findall(r"http://\S+/graph\S+", "".join(said)))
            os.kill(process.pid, signal.SIGINT)
            assert process.stdout.read().endswith("stopped, nothing is left behind\n")
            assert process.wait(30) == 0
        finally:
            process.terminate()
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert list(tmp_path.iterdir()) == []


def test_a_stack_without_its_tools_names_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "stack.py")], env={"PATH": str(tmp_path)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("not installed: prometheus, alertmanager; on Debian: apt-get install")


def test_the_compose_file_is_valid_and_mounts_existing_files() -> None:
    file = COMPOSE / "compose.yaml"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = yaml.safe_load(file.read_text())
    named, mounted = set(shown["volumes"]), dict[str, Path]()
    for service in shown["services"].values():
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            if source in named:
                continue
            assert (COMPOSE / source).exists(), volume
            mounted[target] = COMPOSE / source
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), "a stack to try is for this machine alone"
    provider = yaml.safe_load((COMPOSE / "grafana" / "dashboards.yml").read_text())["providers"][0]
    assert list(mounted[provider["options"]["path"]].glob("flopsd-*.json"))


@pytest.mark.tool("promtool", "amtool")
def test_the_compose_configurations_are_valid(tmp_path: Path) -> None:
    for path in (COMPOSE / "prometheus.yml", RULES, ALERTS):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for check in (["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
                  ["amtool", "check-config", str(RULES.parent / "alertmanager.yml")]):  # fmt: skip
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
