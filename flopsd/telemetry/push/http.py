"""One request to a receiver. A failure becomes a PushError with a reason."""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from flopsd import __version__
from flopsd.errors import PushError
from flopsd.settings.load import PUSH_AUTH
from flopsd.settings.push_targets import FROM_ENVIRONMENT, Target
from flopsd.system.regular_files import open_regular
from flopsd.telemetry.bounded_http import Bounded

MAX_ANSWER_BYTES = 300
RETRYABLE = (408, 429, 500, 502, 503, 504)
Signer = Callable[[str, str, Mapping[str, str], bytes], Mapping[str, str]]


class Http:
    """Sends requests to one target, with its credentials and its certificates."""

    def __init__(self, target: Target, environment: Mapping[str, str], sign: Signer | None = None) -> None:
        """`sign` returns headers to add. Raises PushError if the certificates cannot be read."""
        self._target, self._environment, self._sign = target, environment, sign
        try:
            self._tls = ssl.create_default_context(cafile=target.ca)
        except (OSError, ssl.SSLError) as fault:
            raise PushError(f"cannot use {target.ca}: {fault}", reason="not_possible", final=True) from fault

    def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> None:
        """Send one request. Raises PushError unless the receiver accepted it."""
        given = {**headers, "User-Agent": f"flopsd/{__version__}", **self._authorization()}
        if self._target.tenant is not None:
            given["X-Scope-OrgID"] = self._target.tenant
        if self._sign is not None:
            given.update(self._sign(method, url, given, body))
        request = urllib.request.Request(url, data=body, headers=given, method=method)
        with Bounded(seconds, self._tls) as bounded:
            try:
                bounded.open(request).close()
            except urllib.error.HTTPError as fault:
                with fault:
                    raise _refused(fault, seconds) from None
            except (OSError, http.client.HTTPException) as fault:
                raise _unreachable(fault, seconds, bounded.is_late) from fault

    def _authorization(self) -> dict[str, str]:
        """The Authorization header. The file is read at each request, since its owner may renew the token in it."""
        where = self._target.auth
        if where is None:
            return {}
        if where == FROM_ENVIRONMENT:
            text, origin = self._environment.get(PUSH_AUTH, ""), PUSH_AUTH
        else:
            origin = where
            try:
                with open_regular(Path(where)) as file:
                    text = file.read().decode("utf-8")
            except (OSError, UnicodeError) as fault:
                raise PushError(f"cannot read the credentials {where}: {fault}", reason="not_possible") from fault
        scheme, _, secret = text.strip().partition(" ")
        if scheme.lower() not in ("basic", "bearer") or not secret.isprintable() or not secret:
            raise PushError(
                f"{origin} holds no credentials",
                reason="not_possible",
                hint="write `Basic USER:PASSWORD` or `Bearer TOKEN`",
            )
        if scheme.lower() == "basic" and ":" in secret:
            secret = base64.b64encode(secret.encode()).decode("ascii")
        return {"Authorization": f"{scheme.capitalize()} {secret}"}


def _refused(fault: urllib.error.HTTPError, seconds: float) -> PushError:
    try:
        answer = fault.read(MAX_ANSWER_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        answer = f"no response body within {seconds:g} s"
    answer = "".join(char if char.isprintable() else " " for char in answer)
    retry = fault.code in RETRYABLE
    hint = "give the address that it redirects to" if 300 <= fault.code < 400 else ""
    return PushError(
        f"HTTP {fault.code}: {answer or http.client.responses.get(fault.code, '')}",
        reason="server_error" if retry else "refused",
        # With any other code the page is good: somebody may correct the credentials or the address while we run.
        final=fault.code in (400, 413, 415, 422),
        hint=hint,
    )


def _unreachable(fault: Exception, seconds: float, late: bool) -> PushError:
    why = fault.reason if isinstance(fault, urllib.error.URLError) else fault
    if late or isinstance(why, TimeoutError):
        return PushError(f"no answer within {seconds:.3g} s", reason="timeout")
    text = (why.strerror if isinstance(why, OSError) and why.strerror else str(why)) or type(why).__name__
    return PushError(text, reason="unreachable")
