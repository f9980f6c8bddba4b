"""The stack to try: it comes up by its one command, shows data under its rules, and goes down without leftovers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.process import environment, get, query, wait_until
from tests.support.prometheus import ALERTS, RULES, rules

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = ROOT / "config" / "compose"


@pytest.mark.minute
@pytest.mark.tool("prometheus", "prometheus-alertmanager")
def test_the_stack_comes_up_shows_data_and_goes_down(tmp_path: Path) -> None:
    env = environment(None, TMPDIR=str(tmp_path), PYTHONPATH=str(ROOT))
    command = [sys.executable, "-u", str(ROOT / "scripts" / "stack.py")]
    said: list[str] = []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                          text=True) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while not said or not said[-1].startswith("Ctrl-C"):  # it gives up by itself where something does not start
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


def test_a_stack_without_its_tools_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "stack.py")], env={"PATH": str(tmp_path)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("not installed: prometheus, alertmanager; on Debian: apt-get install")


def test_the_compose_file_is_one_and_mounts_what_there_is() -> None:
    file = COMPOSE / "compose.yaml"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = yaml.safe_load(file.read_text())
    named, mounted = set(told["volumes"]), dict[str, Path]()
    for service in told["services"].values():
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
def test_the_compose_files_configurations_are_sound(tmp_path: Path) -> None:
    """With the rules where the containers have them."""
    for path in (COMPOSE / "prometheus.yml", RULES, ALERTS):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for check in (["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
                  ["amtool", "check-config", str(COMPOSE / "alertmanager.yml")]):  # fmt: skip
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
