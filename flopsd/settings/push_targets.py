"""Receivers of pushed metrics: `KIND+http(s)://HOST/PATH#OPTIONS`, parsed identically by daemon and pusher."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

KINDS = ("pushgateway", "otlp", "remotewrite")
FROM_ENVIRONMENT = "env"
_OPTIONS = ("auth", "ca", "job", "sigv4", "tenant")
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_TENANT = re.compile(r"[A-Za-z0-9!._*'()|-]{1,150}")


class Target(NamedTuple):
    """One receiver. Requests go to `url`; `name` is for logs and labels, without query and secrets."""

    kind: str
    url: str
    name: str
    job: str = "flopsd"
    auth: str | None = None  # a file with the Authorization header, or `env`
    ca: str | None = None  # a file with trusted certificates
    sigv4: str | None = None  # the AWS region for which requests are signed
    tenant: str | None = None  # X-Scope-OrgID of Mimir, Cortex and Thanos


def parse_target(text: str) -> Target:
    """Parse a receiver. Raises ValueError, which says what is expected."""
    address, _, rest = text.partition("#")
    kind, plus, url = address.partition("+")
    if not plus or kind not in KINDS:
        raise ValueError(f"expected KIND+http(s)://HOST/PATH with KIND one of {', '.join(KINDS)}")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise ValueError(f"expected an address such as {kind}+http://127.0.0.1:9091")
    if parts.port == 0:  # accessing the port checks it
        raise ValueError("port 0 cannot be used: name the receiver's port")
    if "@" in parts.netloc:
        why = "credentials in an address appear in logs and process lists"
        raise ValueError(f"{why}; put them into a file and add #auth=FILE")
    if kind != "pushgateway" and parts.path in ("", "/"):
        path = {"otlp": "/api/v1/otlp/v1/metrics or /v1/metrics", "remotewrite": "/api/v1/write"}[kind]
        raise ValueError(f"the path is missing; for Prometheus it is {path}")
    if kind == "pushgateway" and parts.query:
        raise ValueError("the address of a Pushgateway has no query")
    options = _options(rest)
    if "sigv4" in options and (kind != "remotewrite" or "auth" in options):
        raise ValueError("sigv4 works with remotewrite only, and without auth")
    name = f"{kind}+{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return Target(kind, url.rstrip("/") if kind == "pushgateway" else url, name, **options)


def _options(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True) if text else []
    except ValueError:
        raise ValueError("expected options after the address, such as #auth=FILE&job=NAME") from None
    found = dict(pairs)
    unknown = [name for name in found if name not in _OPTIONS]
    if unknown or len(found) != len(pairs) or not all(found.values()):
        raise ValueError(f"options after # are {', '.join(_OPTIONS)}, each at most once and with a value")
    for name, pattern in (("job", _JOB), ("sigv4", _REGION), ("tenant", _TENANT)):
        if name in found and not pattern.fullmatch(found[name]):
            raise ValueError(f"{name}={found[name]} is not a valid {'AWS region' if name == 'sigv4' else name}")
    return found
