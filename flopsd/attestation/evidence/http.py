"""One HTTP request with bounded time and size. Imported only when sealing."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from flopsd.errors import EvidenceError


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Does not follow redirects."""

    def redirect_request(self, *_: Any) -> None:
        return None


def request(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None,
    timeout_seconds: float, limit_bytes: int, proxies: bool = True,
) -> bytes:  # fmt: skip
    """The body of a 200 answer, at most `limit_bytes`. The timeout applies to each socket operation. Raises
    EvidenceError naming the address and the fault."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if not proxies:
        handlers.append(urllib.request.ProxyHandler({}))
    prepared = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)
    try:
        with urllib.request.build_opener(*handlers).open(prepared, timeout=timeout_seconds) as answer:
            data: bytes = answer.read(limit_bytes + 1)
            status = answer.status
    except urllib.error.HTTPError as fault:
        with fault:
            raise EvidenceError(f"{url} answered {fault.code}") from fault
    except (OSError, HTTPException, ValueError) as fault:
        reason = fault.reason if isinstance(fault, urllib.error.URLError) else fault
        raise EvidenceError(f"{url} does not answer: {reason}") from fault
    if status != 200:
        raise EvidenceError(f"{url} answered {status}")
    if len(data) > limit_bytes:
        raise EvidenceError(f"{url} answered with more than {limit_bytes} bytes")
    return data
