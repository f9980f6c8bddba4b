"""A real Prometheus and a real Alertmanager, and a webhook that keeps the alerts it receives."""

import json
import queue
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.authorities import Answer, serving
from tests.support.process import free_port, running
from tests.support.prometheus import ALERTS, RULES

J = dict[str, Any]


def hurried(folder: Path, window: str) -> list[str]:
    """Copies of the rule files whose ranges are all `window`, and whose alerts wait one second before firing and
    before ending."""
    found = []
    for path in (RULES, ALERTS):
        text = re.sub(r"\[\d+[mhd]\]", f"[{window}]", path.read_text())
        copy = folder / path.name
        copy.write_text(re.sub(r"\bfor: \d+[mh]", "for: 1s", re.sub(r"_for: \d+[mh]", "_for: 1s", text)))
        found.append(str(copy))
    return found


@contextmanager
def prometheus(
    folder: Path, targets: Sequence[J], *, rules: Sequence[str] = (), alertmanager: str = "", every: str = "1s",
    more: J | None = None,
) -> Iterator[str]:  # fmt: skip
    """Scrapes the static configs `targets`, evaluates rules as often, and accepts remote write. `more` is added to
    the scrape configuration."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    shown: J = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": list(rules),
        "scrape_configs": [
            {"job_name": "flopsd", "honor_labels": True, "static_configs": list(targets), **(more or {})}
        ],
    }
    if alertmanager:
        peers = [{"targets": [alertmanager.removeprefix("http://")]}]
        shown["alerting"] = {"alertmanagers": [{"static_configs": peers}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(shown))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
               f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", "--rules.alert.resend-delay=1s",
               "--web.enable-remote-write-receiver"]  # fmt: skip
    with running(command, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """An Alertmanager that delivers every alert to `webhook` at once, resolved ones too."""
    port = free_port()
    route = {
        "receiver": "hook", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h",
    }  # fmt: skip
    hook = {"name": "hook", "webhook_configs": [{"url": webhook}]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump({"route": route, "receivers": [hook]}))
    with _alertmanager(folder, folder / "alertmanager.yml", port) as url:
        yield url


@contextmanager
def committed_alertmanager(folder: Path) -> Iterator[str]:
    """An Alertmanager with config/prometheus/alertmanager.yml."""
    with _alertmanager(folder, RULES.parent / "alertmanager.yml", free_port()) as url:
        yield url


@contextmanager
def _alertmanager(folder: Path, config: Path, port: int) -> Iterator[str]:
    command = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={folder}/alerts",
               f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
    with running(command, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def webhook() -> Iterator[tuple[str, queue.SimpleQueue[J]]]:
    """The webhook's address, and the alerts in the order in which they arrived."""
    alerts: queue.SimpleQueue[J] = queue.SimpleQueue()

    def keep(_: object, body: bytes) -> Answer:
        for alert in json.loads(body)["alerts"]:
            alerts.put(alert)
        return 200, b"", {}

    with serving(keep) as url:
        yield f"{url}/", alerts
