"""What stands at which path. Nothing here talks to a driver: all of it is the newest snapshot."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from flopsd.telemetry.http.request import Request
from flopsd.telemetry.http.response import TEXT, Response, compressed
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
HTML = "text/html; charset=utf-8"
_SAFE = (("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"))

if TYPE_CHECKING:
    from prometheus_client import Metric

    from flopsd.telemetry.page.status_page import Assets


class Routes:
    """/metrics, /-/healthy, /-/ready and the page at /; 404 elsewhere."""

    def __init__(self, snapshot: Callable[[], Snapshot], more: Callable[[], Iterable[Metric]] = tuple) -> None:
        """`more`: metrics of what stands beside the snapshot."""
        self._snapshot, self._more, self._exposition = snapshot, more, Exposition()
        self._assets: Assets | None = None
        self._at: dict[str, Callable[[Request], Response]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/api/status": self._status,
            "/-/healthy": lambda _: Response(HTTPStatus.OK, TEXT, b"flopsd is alive\n"),
            "/-/ready": self._ready,
        }

    def answer(self, request: Request) -> Response:
        """Never raises: a view that breaks is a 500 of that view."""
        page = self._at.get(request.path)
        if page is None:
            return Response(HTTPStatus.NOT_FOUND, TEXT, b"not found; try /, /metrics, /-/healthy or /-/ready\n")
        try:
            return page(request)
        except Exception:
            log.exception("cannot render %s", request.path)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, b"this view cannot be rendered; see the log\n")

    def _ready(self, _: Request) -> Response:
        if self._snapshot().ready:
            return Response(HTTPStatus.OK, TEXT, b"flopsd is metering\n")
        late = (("Retry-After", "1"),)
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"no device has been read yet\n", late)

    def _metrics(self, request: Request) -> Response:
        accept = request.headers.get("accept", "")
        body, content_type = self._exposition.render(self._snapshot(), accept, self._more())
        body, headers = compressed(body, request.headers.get("accept-encoding", ""))
        return Response(HTTPStatus.OK, content_type, body, headers)

    def _status(self, request: Request) -> Response:
        from flopsd.telemetry.status import facts_of  # only who looks needs it

        told = json.dumps(facts_of(self._snapshot())).encode("utf-8")
        body, headers = compressed(told, request.headers.get("accept-encoding", ""))
        return Response(HTTPStatus.OK, "application/json", body, headers)

    def _page(self, request: Request) -> Response:
        from flopsd.telemetry.page.status_page import Assets, status_page
        from flopsd.telemetry.status import facts_of

        if self._assets is None:
            self._assets = Assets()
        page = status_page(facts_of(self._snapshot()), self._assets).encode("utf-8")
        body, headers = compressed(page, request.headers.get("accept-encoding", ""))
        safe = (("Content-Security-Policy", self._assets.policy), *_SAFE)
        return Response(HTTPStatus.OK, HTML, body, (*headers, *safe))
