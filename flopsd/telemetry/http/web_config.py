"""The web configuration file of the Prometheus ecosystem (exporter-toolkit): TLS, client certificates, users, headers.

The same file serves every exporter of a host. An option that flopsd does not support is an error: ignoring it could
admit clients that it should keep out. Format: prometheus/exporter-toolkit, docs/web-configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

from flopsd.core.dataclass import dataclass
from flopsd.core.field_reader import FieldReader, collecting
from flopsd.errors import ConfigError
from flopsd.settings.strict_yaml import read_yaml

HINT = "`promtool check web-config FILE` checks it too; docs/metrics.md lists what flopsd supports of it"
_SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users")
_VERSIONS = ("TLS12", "TLS13")
_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
_TLS_KEYS = (
    "cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans", "min_version", "max_version",
    "cipher_suites", "prefer_server_cipher_suites",
)  # fmt: skip
_TLS_NOT_HERE = {
    "cert": "give cert_file",
    "key": "give key_file",
    "client_ca": "give client_ca_file",
    "curve_preferences": "Python's TLS uses OpenSSL's order; leave it out",
}
# TLS 1.2 cipher suites: Go's names, which the file uses, to OpenSSL's.
_CIPHERS = {
    f"TLS_{exchange}_WITH_{go}": f"{exchange.replace('_', '-')}-{openssl}"
    for exchange in ("ECDHE_RSA", "ECDHE_ECDSA")
    for go, openssl in {
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
    }.items()
}
_TLS13_CIPHERS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_BCRYPT = re.compile(r"\$2[abxy]?\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")


class Tls(NamedTuple):
    """The TLS settings. Relative paths are resolved against the folder of the configuration file."""

    cert_file: Path
    key_file: Path
    client_auth_type: str
    client_ca_file: Path | None
    client_allowed_sans: tuple[str, ...]
    min_version: str  # of _VERSIONS
    max_version: str
    ciphers: tuple[str, ...]  # of TLS 1.2, in OpenSSL's names; empty: OpenSSL's own choice
    prefer_server_ciphers: bool


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Which clients are admitted, and how. Without a file, all are, unencrypted."""

    tls: Tls | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_web_config(data: bytes, path: Path) -> WebConfig:
    """Parse the file. Raises ConfigError with every problem. Does not read the files that the configuration names."""
    document, problems = read_yaml(data, str(path))
    top = FieldReader({} if document is None else document, "", collecting(problems, str(path)))
    for name in top.mapping:
        if name == "rate_limit":
            top.problem(name, "not supported; connections are limited anyway")
        elif name not in _SECTIONS:
            top.problem(name, f"unknown section; known: {', '.join(_SECTIONS)}")
    tls, http, users = (top.maybe_object(name) or FieldReader({}, name, top.report) for name in _SECTIONS)
    config = WebConfig(_tls(tls, path.parent), _users(users), _headers(http))
    if problems:
        raise ConfigError(problems, hint=HINT)
    return config


def _tls(section: FieldReader, folder: Path) -> Tls | None:
    for key in section.mapping:
        if key in _TLS_NOT_HERE:
            section.problem(key, f"not supported; {_TLS_NOT_HERE[key]}")
        elif key not in _TLS_KEYS:
            section.problem(key, f"unknown; known: {', '.join(_TLS_KEYS)}")
    if not any(section.raw(key) for key in ("cert_file", "key_file", "client_ca_file", "client_auth_type")):
        if section.mapping:
            section.report("tls_server_config: cert_file and key_file are missing")
        return None
    files = {key: section.maybe_text(key) or "" for key in ("cert_file", "key_file", "client_ca_file")}
    for key in ("cert_file", "key_file"):
        if not files[key]:
            section.problem(key, "missing: TLS needs a certificate and its key")
    auth = _client_auth(section, bool(files["client_ca_file"]))
    low, high = _version(section, "min_version", "TLS12"), _version(section, "max_version", "TLS13")
    if low > high:
        section.problem("min_version", "later than max_version")
    return Tls(
        folder / files["cert_file"],
        folder / files["key_file"],
        auth,
        folder / files["client_ca_file"] if files["client_ca_file"] else None,
        _sans(section, auth),
        low,
        high,
        _ciphers(section),
        section.flag("prefer_server_cipher_suites") is not False,
    )


def _client_auth(section: FieldReader, has_ca: bool) -> str:
    auth = section.maybe_text("client_auth_type") or "NoClientCert"
    if auth in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        section.problem("client_auth_type", f"{auth} is not supported: it accepts certificates without verifying them")
    elif auth not in _AUTH:
        section.wrong("client_auth_type", f"one of {', '.join(_AUTH)}")
    elif auth != "NoClientCert" and not has_ca:
        section.problem("client_ca_file", f"missing: {auth} needs the authority that signs clients' certificates")
    elif auth == "NoClientCert" and has_ca:
        section.problem("client_auth_type", "missing: client_ca_file needs it, to know who must show a certificate")
    return auth


def _sans(section: FieldReader, auth: str) -> tuple[str, ...]:
    found = section.texts("client_allowed_sans")
    if "client_allowed_sans" in section.mapping and not found:
        section.problem("client_allowed_sans", "an empty list would admit no client; leave it out")
    if found and auth != "RequireAndVerifyClientCert":
        section.problem("client_allowed_sans", "needs client_auth_type: RequireAndVerifyClientCert")
    return found


def _version(section: FieldReader, key: str, default: str) -> str:
    text = section.maybe_text(key) or default
    if text in ("TLS10", "TLS11"):
        section.problem(key, f"{text} is broken and not supported; TLS12 is the minimum")
    elif text not in _VERSIONS:
        section.wrong(key, f"one of {', '.join(_VERSIONS)}")
    return text if text in _VERSIONS else default


def _ciphers(section: FieldReader) -> tuple[str, ...]:
    found = []
    for name in section.texts("cipher_suites"):
        if name in _CIPHERS:
            found.append(_CIPHERS[name])
        elif name not in _TLS13_CIPHERS:  # TLS 1.3 suites are always on, in OpenSSL as in Go
            section.problem("cipher_suites", f"{name!r:.60} is not supported; known: {', '.join(_CIPHERS)}")
    return tuple(found)


def _headers(section: FieldReader) -> Mapping[str, str]:
    section.only("http2", "headers", null=True)
    if section.flag("http2"):
        section.problem("http2", "HTTP/2 is not supported; leave it out, or set it to false")
    headers = section.maybe_object("headers") or FieldReader({}, "headers", section.report)
    for name, value in headers.mapping.items():
        if name not in _HEADERS:
            headers.problem(name, f"cannot be set; known: {', '.join(_HEADERS)}")
        elif not isinstance(value, str) or not value.isprintable() or not value.isascii():
            headers.wrong(name, "one line of text")
        elif value and _HEADERS[name] and value not in _HEADERS[name]:
            headers.wrong(name, f"one of {', '.join(_HEADERS[name])}")
    return {name: value for name, value in headers.mapping.items() if value}


def _users(section: FieldReader) -> Mapping[str, str]:
    for user, hashed in section.mapping.items():  # no message shows a value, which may be a password
        if not isinstance(user, str) or not user or ":" in user:
            section.problem(user, "must be a name without a colon; a number goes in quotes")
        elif not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            section.problem(user, "must be the bcrypt hash of a password; `htpasswd -nBC 10 ''` makes one")
    return section.mapping
