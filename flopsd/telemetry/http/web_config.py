"""The web configuration file of the Prometheus ecosystem (exporter-toolkit): TLS, client certificates, users, headers.

The same file serves every exporter of a host. What flopsd cannot do is refused by name: a rule that is silently not
applied would be a door left open. Format: prometheus/exporter-toolkit, docs/web-configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import TLSVersion
from typing import Any

from flopsd.errors import ConfigError
from flopsd.settings.load import read_yaml

HINT = "`promtool check web-config FILE` checks it too; docs/metrics.md tells what flopsd takes of it"
_SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users")
_VERSIONS = {"TLS12": TLSVersion.TLSv1_2, "TLS13": TLSVersion.TLSv1_3}
_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
_TLS_KEYS = (
    "cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans", "min_version", "max_version",
    "cipher_suites", "prefer_server_cipher_suites",
)  # fmt: skip
_TLS_NOT_HERE = {
    "cert": "give cert_file",
    "key": "give key_file",
    "client_ca": "give client_ca_file",
    "curve_preferences": "Python's TLS takes OpenSSL's order; leave it out",
}
_AUTH_NOT_HERE = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
# Go's names of the suites of TLS 1.2, which the file speaks in, and OpenSSL's.
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


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted. Paths are those of the file's own folder."""

    cert_file: Path
    key_file: Path
    client_auth_type: str
    client_ca_file: Path | None
    client_allowed_sans: tuple[str, ...]
    min_version: TLSVersion
    max_version: TLSVersion
    ciphers: tuple[str, ...]  # of TLS 1.2, in OpenSSL's names; empty: OpenSSL's own choice
    prefer_server_ciphers: bool


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Who may ask, and how. Without a file: everybody, in clear."""

    tls: Tls | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_web_config(data: bytes, path: Path) -> WebConfig:
    """Raises ConfigError holding every problem. Files that it names are not read here."""
    document, problems = read_yaml(data, str(path))
    document = {} if document is None else document
    if not isinstance(document, dict):
        problems.append(f"{path}: expected sections such as 'tls_server_config:'")
        document = {}
    for name in document:
        if name == "rate_limit":
            problems.append(f"{path}: rate_limit: not supported; connections are limited anyway")
        elif name not in _SECTIONS:
            problems.append(f"{path}: {name}: unknown section; known: {', '.join(_SECTIONS)}")
    sections = {}
    for name in _SECTIONS:
        sections[name] = {} if document.get(name) is None else document[name]
        if not isinstance(sections[name], dict):
            problems.append(f"{path}: {name}: expected keys and values")
            sections[name] = {}
    reader = _Reader(f"{path}: tls_server_config", sections["tls_server_config"], problems)
    tls = reader.tls(path.parent)
    headers = _headers(f"{path}: http_server_config", sections["http_server_config"], problems)
    users = _users(f"{path}: basic_auth_users", sections["basic_auth_users"], problems)
    if problems:
        raise ConfigError(problems, hint=HINT)
    return WebConfig(tls, users, headers)


class _Reader:
    """One section, read key by key; what is wrong is noted and reading goes on."""

    def __init__(self, where: str, section: Mapping[str, Any], problems: list[str]) -> None:
        self._where, self._section, self._problems = where, section, problems

    def tls(self, folder: Path) -> Tls | None:
        for key in self._section:
            if key in _TLS_NOT_HERE:
                self._wrong(key, f"not supported; {_TLS_NOT_HERE[key]}")
            elif key not in _TLS_KEYS:
                self._wrong(key, f"unknown; known: {', '.join(_TLS_KEYS)}")
        if not any(self._section.get(key) for key in ("cert_file", "key_file", "client_ca_file", "client_auth_type")):
            if self._section:
                self._problems.append(f"{self._where}: cert_file and key_file are missing")
            return None
        paths = {key: self._text(key) for key in ("cert_file", "key_file", "client_ca_file")}
        for key in ("cert_file", "key_file"):
            if not paths[key]:
                self._wrong(key, "missing: TLS needs a certificate and its key")
        auth = self._client_auth(bool(paths["client_ca_file"]))
        low, high = self._version("min_version", "TLS12"), self._version("max_version", "TLS13")
        if low > high:
            self._wrong("min_version", "later than max_version")
        files = {key: folder / text for key, text in paths.items()}
        return Tls(
            files["cert_file"],
            files["key_file"],
            auth,
            files["client_ca_file"] if paths["client_ca_file"] else None,
            self._sans(auth),
            low,
            high,
            self._ciphers(),
            self._flag("prefer_server_cipher_suites"),
        )

    def _client_auth(self, has_ca: bool) -> str:
        auth = self._text("client_auth_type") or "NoClientCert"
        if auth in _AUTH_NOT_HERE:
            self._wrong("client_auth_type", f"{auth} is not supported: it takes certificates without verifying them")
        elif auth not in _AUTH:
            self._wrong("client_auth_type", f"{auth!r} is unknown; known: {', '.join(_AUTH)}")
        elif auth != "NoClientCert" and not has_ca:
            self._wrong("client_ca_file", f"missing: {auth} needs the authority that signs clients' certificates")
        elif auth == "NoClientCert" and has_ca:
            self._wrong("client_auth_type", "missing: with client_ca_file it says who must show a certificate")
        return auth

    def _sans(self, auth: str) -> tuple[str, ...]:
        found = self._texts("client_allowed_sans")
        if "client_allowed_sans" in self._section and not found:
            self._wrong("client_allowed_sans", "an empty list would admit nobody; leave it out")
        if found and auth != "RequireAndVerifyClientCert":
            self._wrong("client_allowed_sans", "needs client_auth_type: RequireAndVerifyClientCert")
        return found

    def _version(self, key: str, default: str) -> TLSVersion:
        text = self._text(key) or default
        if text in ("TLS10", "TLS11"):
            self._wrong(key, f"{text} is broken and not supported; TLS12 is the least")
        elif text not in _VERSIONS:
            self._wrong(key, f"{text!r} is unknown; known: {', '.join(_VERSIONS)}")
        return _VERSIONS.get(text, _VERSIONS[default])

    def _ciphers(self) -> tuple[str, ...]:
        found = []
        for name in self._texts("cipher_suites"):
            if name in _CIPHERS:
                found.append(_CIPHERS[name])
            elif name not in _TLS13_CIPHERS:  # those are always on, there as here
                self._wrong("cipher_suites", f"{name!r} is not supported; known: {', '.join(_CIPHERS)}")
        return tuple(found)

    def _flag(self, key: str) -> bool:
        value = self._section.get(key, True)
        if not isinstance(value, bool):
            self._wrong(key, "expected true or false")
        return value is True

    def _text(self, key: str) -> str:
        value = self._section.get(key)
        if value is not None and not isinstance(value, str):
            self._wrong(key, "expected text")
        return value if isinstance(value, str) else ""

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self._section.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self._wrong(key, "expected a list of texts")
            return ()
        return tuple(value)

    def _wrong(self, key: str, what: str) -> None:
        self._problems.append(f"{self._where}: {key}: {what}")


def _headers(where: str, section: Mapping[str, Any], problems: list[str]) -> Mapping[str, str]:
    unknown = [key for key in section if key not in ("http2", "headers")]
    problems += [f"{where}: {key}: unknown; known: http2, headers" for key in unknown]
    if section.get("http2") not in (None, False):
        problems.append(f"{where}: http2: HTTP/2 is not supported; leave it out, or say false")
    headers = section.get("headers") or {}
    if not isinstance(headers, dict):
        problems.append(f"{where}: headers: expected names and values")
        return {}
    for name, value in headers.items():
        if name not in _HEADERS:
            problems.append(f"{where}: headers: {name} cannot be set; known: {', '.join(_HEADERS)}")
        elif not isinstance(value, str) or not value.isprintable() or not value.isascii():
            problems.append(f"{where}: headers: {name}: expected one line of text")
        elif value and _HEADERS[name] and value not in _HEADERS[name]:
            problems.append(f"{where}: headers: {name}: expected one of {', '.join(_HEADERS[name])}")
    return {name: value for name, value in headers.items() if value}


def _users(where: str, section: Mapping[Any, Any], problems: list[str]) -> Mapping[str, str]:
    for user, hashed in section.items():
        if not isinstance(user, str) or not user or ":" in user:
            problems.append(f"{where}: {user!r}: expected a name without a colon; a number goes in quotes")
        elif not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            problems.append(f"{where}: {user}: expected the bcrypt hash of a password; `htpasswd -nBC 10 ''` makes one")
    return section
