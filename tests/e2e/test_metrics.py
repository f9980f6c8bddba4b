"""Metrics of a real daemon: its HTTP server as clients see it, and pages pushed to real receivers, through its
death."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import psutil
import pytest
import yaml

from tests.support.certificates import Authority
from tests.support.monitoring import prometheus
from tests.support.paths import ROOT
from tests.support.process import daemon_pid, environment, flopsd, get, predicate, query, started, wait_until
from tests.support.proven_counters import write_proven
from tests.support.receivers import pushgateway, receiving, victoriametrics
from tests.support.scenario import Scenario, Segment, a100, h100

PASSWORD = "correct horse"
BUSY = (Segment(700, hmma=0.5, fp32=0.1, util=100, watts=500), Segment(300, util=0, watts=120))


class Daemon:
    """A daemon behind TLS and a password. It reads two simulated GPUs once a minute, and does not poll their clocks
    in between, since the peak table lacks them."""

    def __init__(self, url: str, authority: Authority, calls: Path) -> None:
        self.url, self.authority, self.calls = url, authority, calls
        self._seen: list[int] = []

    def curl(self, path: str, password: str = PASSWORD) -> bytes:
        who = ("--cacert", str(self.authority.ca), "-u", f"prometheus:{password}")
        return subprocess.run(["curl", "-sS", "--fail", *who, self.url + path], capture_output=True, check=True).stdout

    def has_settled(self) -> bool:
        """Whether the driver has not been called for some 50 looks."""
        self._seen.append(self.calls_made() if self.calls.exists() else 0)
        return self._seen[-1] > 0 and len(self._seen) > 50 and self._seen[-50] == self._seen[-1]

    def calls_made(self) -> int:
        return int.from_bytes(self.calls.read_bytes(), "little")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, standin: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("web")
    authority = Authority(folder / "tls")
    authority.server()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    file = folder / "tls" / "web.yml"
    file.write_text(
        f"tls_server_config: {{cert_file: server.crt, key_file: server.key}}\nbasic_auth_users: {{prometheus: '{hashed}'}}\n"
    )
    unrated = h100(BUSY, name="NVIDIA H20", pci=0x232910DE)
    scenario = Scenario((unrated, unrated)).write(folder / "scenario.txt")
    env = environment(standin, scenario, NVML_STANDIN_CALLS=str(folder / "calls"))
    with started("run", "--state-dir", str(folder / "state"), "--listen", "127.0.0.1:0", "--no-seal", "--interval", "60",
                 "--web-config-file", str(file), env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (https://\S+)/metrics")[1]
        found = Daemon(url, authority, folder / "calls")
        wait_until(found.has_settled, "the first read is over, a minute before the next")
        yield found


@pytest.mark.tool("curl", "promtool")
def test_looking_at_pages_costs_no_driver_call(daemon: Daemon) -> None:
    before = daemon.calls_made()
    assert before > 0
    for path in ("/metrics", "/", "/metrics"):
        for _ in range(5):
            daemon.curl(path)
    assert daemon.calls_made() == before
    page = daemon.curl("/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    with pytest.raises(subprocess.CalledProcessError):
        daemon.curl("/metrics", password="wrong")


def test_an_invalid_web_configuration_is_reported_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    os.mkfifo(fifo := tmp_path / "fifo")
    file.write_text("rate_limit: {burst: 1}\nbasic_auth_users: {a: b}")
    for verb in (["run"], ["exec", "--", "true"]):
        flopsd(verb[0], "--web-config-file", str(file), "--state-dir", str(tmp_path / "state"), *verb[1:], code=2,
               says=("rate_limit: not supported", "must be the bcrypt hash"))  # fmt: skip
        flopsd(verb[0], "--web-config-file", str(fifo), "--state-dir", str(tmp_path / "state"), *verb[1:], code=2,
               says="fifo: cannot be read: not a regular file")  # fmt: skip


FLOP = "flopsd_flop_total"
# A new pusher restarts these counts.
FALLS = ("flopsd_push_successes_total", "flopsd_push_failures_total")


@pytest.mark.minute
@pytest.mark.tool("prometheus", "prometheus-pushgateway", "promtool", "victoria-metrics")
def test_values_pushed_through_a_kill_add_up_to_the_ledger(tmp_path: Path, standin: Path) -> None:
    # No running counters: proven at the kill, their series would begin on a page that has no page before it.
    scenario = Scenario((h100(BUSY), a100(BUSY)))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    with (
        pushgateway() as gateway,
        prometheus(tmp_path / "prometheus", [{"targets": [gateway.removeprefix("http://")]}]) as prom,
        victoriametrics(tmp_path / "victoria") as victoria,
    ):
        where = {"gw": prom, "rw": prom, "otlp": victoria}
        receivers = (
            f"pushgateway+{gateway}#job=gw",
            f"otlp+{victoria}/opentelemetry/v1/metrics#job=otlp",
            f"remotewrite+{prom}/api/v1/write#job=rw",
        )
        flags = [flag for receiver in receivers for flag in ("--push", receiver)]
        with started(
            "exec", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "off", "--push-every", "1",
            "--run-id", "pushed", *flags, "--", "sleep", "600", env=env,
        ) as program:  # fmt: skip
            program.wait_for("daemon start 1")
            wait_until(lambda: all(_points(url, job) >= 6 for job, url in where.items()), "six pushes")
            (pusher,) = psutil.Process(daemon_pid(state)).children()
            os.kill(daemon_pid(state), signal.SIGKILL)
            program.wait_for("daemon start 2")
            psutil.wait_procs([pusher], timeout=30)
            assert not pusher.is_running()  # it would push older pages over its successor's
            wait_until(lambda: all(_points(url, job) >= 13 for job, url in where.items()), "thirteen pushes in all")
            os.kill(program.process.pid, signal.SIGTERM)
            program.finish()
        total = int(predicate(ledger)["totals"]["executed"]["measured"])
        for job, url in where.items():
            wait_until(lambda j=job, u=url: _last(u, j) == pytest.approx(total, rel=1e-12), f"the last page of {job}")
            _check_stored(url, job, total)
        page = get(f"{gateway}/metrics")[1]
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True, check=False)
    ours = [line for line in (checked.stdout + checked.stderr).splitlines() if "flopsd" in line]
    assert ours == []
    assert "NOT PUSHED" not in program.text


def _points(url: str, job: str) -> int:
    series = query(url, f'{FLOP}{{job="{job}"}}[10m]')
    return max((len(one["values"]) for one in series), default=0)


def _last(url: str, job: str) -> float:
    return sum(float(one["values"][-1][1]) for one in query(url, f'{FLOP}{{job="{job}"}}[10m]'))


def _check_stored(url: str, job: str, total: int) -> None:
    """Compare increase() over the whole time with the ledger."""
    series = query(url, f'{{__name__=~"flopsd_.+_total",job="{job}"}}[10m]')
    for one in series:
        if one["metric"]["__name__"] in FALLS:
            continue
        values = [float(value) for _, value in one["values"]]
        assert values == sorted(values), one["metric"]
        assert (one["metric"]["run_id"], one["metric"]["node"] != "") == ("pushed", True)
    flop = [one for one in series if one["metric"]["__name__"] == FLOP]
    last = sum(float(one["values"][-1][1]) for one in flop)
    end = max(one["values"][-1][0] for one in flop)
    increase = float(query(url, f'sum(increase({FLOP}{{job="{job}"}}[10m]))', end)[0]["value"][1])
    resets = query(url, f'sum(resets({FLOP}{{job="{job}"}}[10m]))', end)[0]["value"][1]
    assert resets == "0"
    assert last == pytest.approx(total, rel=1e-12)
    if job != "gw":
        assert increase == pytest.approx(total, rel=1e-12)


@pytest.mark.tool("promtool")
def test_a_refusing_receiver_changes_nothing_and_no_secret_leaks(tmp_path: Path, standin: Path) -> None:
    env = environment(
        standin, Scenario((h100(BUSY),)).write(tmp_path / "scenario.txt"), FLOPSD_PUSH_AUTH="Bearer s3cr3t"
    )
    state, ledger = tmp_path / "state", tmp_path / "ledger.json"
    with receiving() as receiver:
        receiver.status = 403
        flags = ("--push", f"remotewrite+{receiver.url}/w#auth=env", "--push", f"pushgateway+{receiver.url}")
        with started(
            "exec", "--state-dir", str(state), "--ledger", str(ledger), "--listen", "127.0.0.1:0", "--push-every", "1", *flags,
            "--", "sh", "-c", "env; while [ ! -e $0 ]; do sleep 0.1; done; exit 7", str(tmp_path / "go"), env=env,
        ) as program:  # fmt: skip
            url = program.wait_for(r"metrics at (\S+)/metrics")[1]
            failed = f'flopsd_push_failures_total{{reason="refused",target="remotewrite+{receiver.url}/w"}}'
            wait_until(
                lambda: (page := get(f"{url}/metrics")[1]).count(failed) and f"{failed} 0.0" not in page, "failures"
            )
            wait_until(
                lambda: re.search(r"flopsd_flop_total\{[^}]*\} [1-9]", get(f"{url}/metrics")[1]), "measured work"
            )
            page = get(f"{url}/metrics")[1]
            (tmp_path / "go").touch()
            assert program.finish() == 7, program.text
        requests = list(receiver.requests)
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert {(path.split("/")[1], headers.get("Authorization")) for _, path, headers, _ in requests} == {
        ("w", "Bearer s3cr3t"),
        ("metrics", None),  # it did not ask for it
    }
    assert "FLOPSD_PUSH_AUTH" not in program.out
    kept = b"".join(path.read_bytes() for path in [*state.rglob("*"), ledger] if path.is_file())
    assert "s3cr3t" not in program.text + program.out + page
    assert b"s3cr3t" not in kept
    assert program.text.count(f"NOT PUSHED to remotewrite+{receiver.url}/w: HTTP 403: told  [31mwhy not") == 1
    assert int(predicate(ledger)["totals"]["executed"]["measured"]) > 0


def test_without_the_extra_the_gateway_still_gets_pages_and_the_remedy_is_reported(
    tmp_path: Path, standin: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['cramjam'] = None\n")
    env = environment(
        standin,
        Scenario((h100(BUSY),)).write(tmp_path / "scenario.txt"),
        PYTHONPATH=os.pathsep.join((str(tmp_path), os.getcwd())),
    )
    with receiving() as receiver, started("run", "--state-dir", str(tmp_path / "s"), "--listen", "127.0.0.1:0", "--no-seal", env=env) as daemon:  # fmt: skip
        url = daemon.wait_for(r"metrics at (\S+)/metrics")[1]
        flags = ("--push", f"remotewrite+{receiver.url}/w", "--push", f"pushgateway+{receiver.url}/base#job=alone")
        with started("push", "--url", url, "--push-every", "1", *flags, env=env) as pusher:
            pusher.wait_for(r"NOT PUSHED to remotewrite.*the extra 'push'.*; pip install 'flopsd\[push\]'")
            wait_until(lambda: len(receiver.requests) >= 2, "two pushes")
            before = len(receiver.requests)
            pusher.process.send_signal(signal.SIGTERM)
            assert pusher.finish() == 1, pusher.text  # one receiver got nothing
        assert len(receiver.requests) > before
        method, path, _, body = receiver.requests[-1]
    assert (method, path.split("/instance")[0]) == ("PUT", "/base/metrics/job/alone")
    assert b"flopsd_push_successes_total" in body


@pytest.mark.tool("prometheus")
def test_prometheus_sees_the_end_of_a_run_in_at_most_350_series_for_eight_gpus(tmp_path: Path, standin: Path) -> None:
    gpus = tuple(h100(BUSY, counters="average") for _ in range(8))
    scenario, state = Scenario(gpus), tmp_path / "state"
    write_proven(state, scenario, "proven")
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"), FLOPSD_WAIT_FOR_SCRAPE="30")
    with started("run", "--state-dir", str(state), "--source", "nvml", "--listen", "127.0.0.1:0", "--ledger-copy",
                 str(tmp_path / "copies"), env=env) as program:  # fmt: skip
        address = program.wait_for(r"metrics at http://(\S+)/metrics")[1]
        with prometheus(tmp_path / "p", [{"targets": [address]}], every="2s") as url:
            counted = 'count(flopsd_flop_total{evidence="cycles"} > 0) >= 8'
            wait_until(lambda: query(url, counted), "the counters of all are believed")
            assert (
                float(query(url, 'count({job="flopsd"})')[0]["value"][1]) <= 350 + 5
            )  # 5 of Prometheus itself, such as up
            wait_until(lambda: query(url, "count_over_time(flopsd_run_ended[1m]) > 2"), "scrapes come regularly")
            os.kill(daemon_pid(state), signal.SIGTERM)
            program.finish()
            wait_until(lambda: query(url, "up == 0"), "a scrape that fails")
            assert query(url, "max_over_time(flopsd_run_ended[1m]) == 1")


@pytest.mark.tool("prometheus")
def test_a_collector_keeps_the_documented_series(tmp_path: Path) -> None:
    """The scrape configuration of docs/monitoring.md is Prometheus's own, and runs in the real one."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    found = yaml.safe_load(re.findall(r"```yaml\n(receivers:.+?)```", text, re.S)[0])
    scrape = found["receivers"]["prometheus"]["config"]["scrape_configs"][0]
    more = {"metric_relabel_configs": scrape["metric_relabel_configs"]}
    state = tmp_path / "state"
    with started("run", "--state-dir", str(state), "--source", "replay", "--listen", "127.0.0.1:0", "--no-seal",
                 "--wait-for-scrape", "0", env=environment(None)) as program:  # fmt: skip
        address = program.wait_for(r"metrics at http://(\S+)/metrics")[1]
        with prometheus(tmp_path / "p", [{"targets": [address]}], more=more) as url:
            wait_until(lambda: query(url, "flopsd_flop_total > 0"), "a scrape with work")
            names = {row["metric"]["__name__"] for row in query(url, 'count by (__name__) ({__name__=~"flopsd_.+"})')}
        os.kill(daemon_pid(state), signal.SIGTERM)
        program.finish()
    kept = set(re.findall(r"\w+", scrape["metric_relabel_configs"][0]["regex"].partition("(")[2]))
    assert {name.removeprefix("flopsd_") for name in names} == kept
