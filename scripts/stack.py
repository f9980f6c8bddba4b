"""`make stack`: flopsd on the bundled recording, Prometheus with the rules, and Alertmanager, until Ctrl-C.

All files are in a folder that is removed at the end; the programs listen on free ports of this machine only.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RULES = Path(__file__).resolve().parent.parent / "config" / "prometheus"
START_SECONDS, STOP_SECONDS = 60, 15
PACKAGES = "apt-get install --no-install-recommends prometheus prometheus-alertmanager"
PROMETHEUS = """\
global: {{scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 5s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: flopsd
    static_configs: [{{targets: ["127.0.0.1:{flopsd}"], labels: {{lineage: try-out}}}}]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}]
"""
ALERTMANAGER = """\
route: {{receiver: here, group_by: [alertname, instance, gpu], group_wait: 1s, group_interval: 5s}}
receivers:
  - name: here
    webhook_configs: [{{url: "http://127.0.0.1:{webhook}/"}}]
"""


class Webhook(BaseHTTPRequestHandler):
    """Prints each alert that Alertmanager sends."""

    def do_POST(self) -> None:
        sent: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in sent["alerts"]:
            print(f"alert {alert['status']}: {alert['annotations']['summary']}", flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        pass


class Stack:
    """Programs that run in parallel. Each has its own session, so that this script decides what Ctrl-C does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self._stopped: queue.SimpleQueue[None] = queue.SimpleQueue()

    def stop(self) -> None:
        """Request a stop. For signal handlers, which may put into a SimpleQueue but must not set an Event."""
        self._stopped.put(None)

    def start(self, name: str, command: list[str], ready: str) -> None:
        """Start a program and wait until `ready` answers. Raises RuntimeError with the end of its log."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._programs.append((name, process, log))
        for _ in range(START_SECONDS * 10):
            if answers(ready) or self.stops_within(0.1):
                return
            self._check()
        raise RuntimeError(f"{name} does not answer at {ready}:\n{log.read_text()[-2000:]}")

    def wait(self) -> None:
        """Wait for a stop request. Raises RuntimeError if a program ends by itself."""
        while not self.stops_within(1):
            self._check()

    def stops_within(self, seconds: float) -> bool:
        """Whether a stop was requested, or is within `seconds`."""
        try:
            self._stopped.get(timeout=seconds)
        except queue.Empty:
            return False
        self.stop()  # for the next caller
        return True

    def end(self) -> None:
        for _, process, _ in reversed(self._programs):
            process.terminate()
        for _, process, _ in self._programs:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _check(self) -> None:
        for name, process, log in self._programs:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log.read_text()[-2000:]}")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (OSError, urllib.error.URLError):
        return False


def free_ports(count: int) -> list[int]:
    """Free ports, probed together so that they differ."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def graph(prometheus: str, expression: str) -> str:
    query = {"g0.expr": expression, "g0.tab": "0", "g0.range_input": "10m"}
    return f"{prometheus}/graph?{urllib.parse.urlencode(query)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="replay", help="what flopsd meters (default: replay)")
    arguments = parser.parse_args()
    tools = {"prometheus": shutil.which("prometheus"),
             "alertmanager": shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")}  # fmt: skip
    missing = [name for name, path in tools.items() if path is None]
    if missing:
        print(f"not installed: {', '.join(missing)}; on Debian: {PACKAGES}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="flopsd-stack-") as name:
        return up(Path(name), arguments.source, {name: str(path) for name, path in tools.items()})


def up(folder: Path, source: str, tools: dict[str, str]) -> int:
    webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    meter, prometheus, alertmanager = free_ports(3)
    rules = ", ".join(json.dumps(str(path)) for path in sorted(RULES.glob("flopsd.*.yml")))
    (folder / "prometheus.yml").write_text(PROMETHEUS.format(rules=rules, flopsd=meter, alertmanager=alertmanager))
    (folder / "alertmanager.yml").write_text(ALERTMANAGER.format(webhook=webhook.server_address[1]))
    urls = {
        name: f"http://127.0.0.1:{port}"
        for name, port in (("flopsd", meter), ("prometheus", prometheus), ("alertmanager", alertmanager))
    }
    stack = Stack(folder)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stack.stop())
    try:
        stack.start(
            "flopsd",
            [sys.executable, "-m", "flopsd", "run", "--source", source, "--listen", f"127.0.0.1:{meter}",
             "--state-dir", str(folder / "state"), "--ledger", str(folder / "ledger.json"), "--seal-every", "60",
             "--checkpoint-output", "off"],
            f"{urls['flopsd']}/-/ready",
        )  # fmt: skip
        stack.start(
            "alertmanager",
            [tools["alertmanager"], f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts",
             f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address="],
            f"{urls['alertmanager']}/-/ready",
        )  # fmt: skip
        stack.start(
            "prometheus",
            [tools["prometheus"], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{prometheus}"],
            f"{urls['prometheus']}/-/ready",
        )  # fmt: skip
        if not stack.stops_within(0):
            print_addresses(urls, source)
        stack.wait()
    except RuntimeError as fault:
        print(fault, file=sys.stderr)
        return 1
    finally:
        stack.end()
        webhook.shutdown()
    print("stopped, nothing is left behind", flush=True)
    return 0


def print_addresses(urls: dict[str, str], source: str) -> None:
    if source == "replay":
        print("A recording is played: this shows the path, it measures nothing.")
    print(f"flopsd        {urls['flopsd']}\nPrometheus    {urls['prometheus']}")
    print(f"Alertmanager  {urls['alertmanager']}  (alerts are printed here too)\n\nGraphs, in some seconds:")
    for title, expression in (
        ("rate", "run:flopsd_flop:rate5m"),
        ("total", 'run:flopsd_run_flop:sum{basis="executed"}'),
        ("each GPU", "max by (gpu) (flopsd_pipe_activity_ratio)"),
    ):
        print(f"  {title:<9} {graph(urls['prometheus'], expression)}")
    print("\nCtrl-C stops all of it.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
