"""The HTTP paths and their content, all from the newest snapshot: nothing here calls a driver."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from flopsd.telemetry.families import Family
from flopsd.telemetry.http.request import Request
from flopsd.telemetry.http.response import TEXT, Response, compressed
from flopsd.telemetry.process_metrics import ProcessMetrics
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
HTML = "text/html; charset=utf-8"
_SAFE = (("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"))

if TYPE_CHECKING:
    from flopsd.telemetry.page.status_page import Assets


class Routes:
    """/metrics, /-/healthy, /-/ready and the page at /; 404 elsewhere."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        extra: Callable[[], Iterable[Family]] = tuple,
        *,
        compresses: bool = True,
    ) -> None:
        """`extra`: metrics that are not in the snapshot. `compresses`: False on loopback, where it saves nothing."""
        self._compresses = compresses
        self._snapshot, self._extra, self._exposition = snapshot, extra, Exposition()
        self._assets: Assets | None = None
        self._process = ProcessMetrics()
        self._at: dict[str, Callable[[Request], Response]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/api/status": self._status,
            "/-/healthy": lambda _: Response(HTTPStatus.OK, TEXT, b"flopsd is alive\n"),
            "/-/ready": self._ready,
        }

    def answer(self, request: Request) -> Response:
        """The response to a request. Never raises: an error in a view becomes a response with status 500."""
        page = self._at.get(request.path)
        if page is None:
            return Response(HTTPStatus.NOT_FOUND, TEXT, b"not found; try /, /metrics, /-/healthy or /-/ready\n")
        try:
            return page(request)
        except Exception:
            text = "internal error while rendering %s; metering goes on; please report this with the traceback"
            log.exception(text, request.path)
            words = b"this page cannot be rendered; see the log of flopsd\n"
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, words)

    def _ready(self, _: Request) -> Response:
        snapshot = self._snapshot()
        if snapshot.ready:
            return Response(HTTPStatus.OK, TEXT, b"flopsd is metering\n")
        words = "no device is metered now\n" if snapshot.blind else "no device has been read yet\n"
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, words.encode(), (("Retry-After", "1"),))

    def _metrics(self, request: Request) -> Response:
        accept = request.headers.get("accept", "")
        more = (*self._extra(), *self._process.families())
        body, content_type = self._exposition.render(self._snapshot(), accept, more)
        return self._compressed(request, content_type, body, ("Vary", "Accept"))

    def _status(self, request: Request) -> Response:
        from flopsd.telemetry.status import status_of_snapshot  # loaded at the first request

        return self._compressed(
            request, "application/json", json.dumps(status_of_snapshot(self._snapshot())).encode("utf-8")
        )

    def _page(self, request: Request) -> Response:
        from flopsd.telemetry.page.status_page import Assets, status_page
        from flopsd.telemetry.status import status_of_snapshot

        if self._assets is None:
            self._assets = Assets()
        page = status_page(status_of_snapshot(self._snapshot()), self._assets).encode("utf-8")
        return self._compressed(request, HTML, page, ("Content-Security-Policy", self._assets.policy), *_SAFE)

    def _compressed(self, request: Request, content_type: str, body: bytes, *more: tuple[str, str]) -> Response:
        accepted = request.headers.get("accept-encoding", "") if self._compresses else ""
        body, headers = compressed(body, accepted)
        return Response(HTTPStatus.OK, content_type, body, (*headers, *more))
