"""Push to a Prometheus Pushgateway, with prometheus-client's own function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client.exposition import push_to_gateway

from flopsd.settings.push_targets import Target
from flopsd.telemetry.push.http import Http
from flopsd.telemetry.push.pages import Parsed


class Gateway:
    """A gateway keeps one state per group, without a time: only the newest page is worth pushing."""

    keeps = 1

    def __init__(self, target: Target, http: Http) -> None:
        self._target, self._http = target, http

    def encode(self, parsed: Parsed) -> Parsed:
        return parsed

    def send(self, parsed: Parsed, seconds: float) -> None:
        """Replace the gateway's state of this run and node. Raises PushError."""

        def handler(
            url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
        ) -> Callable[[], None]:
            return lambda: self._http.request(method, url, dict(headers), data, timeout or seconds)

        push_to_gateway(
            self._target.url, job=self._target.job, registry=parsed, grouping_key=parsed.grouping_key, timeout=seconds,
            handler=handler,
        )  # fmt: skip
