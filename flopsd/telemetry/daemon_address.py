"""Parse the address of a daemon as a user gives it."""

from __future__ import annotations

import base64
from urllib.parse import unquote, urlsplit, urlunsplit

from flopsd.errors import ConfigError


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """The URL without user and password, which no message may show, and a header with them. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:  # half an IPv6 address
        is_address = None
    if not is_address:
        raise ConfigError(["--url is not an http or https address"], hint="such as http://127.0.0.1:10188")
    login, at, place = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=place))
    if not at:
        return bare, {}
    user, _, password = login.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}".encode()
    return bare, {"Authorization": "Basic " + base64.b64encode(plain).decode("ascii")}
