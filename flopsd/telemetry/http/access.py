"""TLS and authentication by the web configuration file, which is read at each handshake and request.

As in exporter-toolkit, a renewed certificate or a removed password takes effect at once.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.errors import ConfigError
from flopsd.system.regular_files import unfit
from flopsd.system.sha256 import hmac_sha256, sha256
from flopsd.telemetry.http.web_config import HINT, Tls, WebConfig, parse_web_config

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("flopsd")
_CACHED = 100
_CHECKS_AT_ONCE = 4  # one running and three waiting: guesses on many connections must not occupy all threads
_BCRYPT_BYTES = 72  # bcrypt ignores the rest, and some libraries raise an error for it


class BusyError(Exception):
    """Too many passwords are being checked; the client has to try again."""


class Access:
    """The access rules in the file. TLS is on or off from the start; everything else follows the file. While the file
    is unreadable or invalid, every request is refused."""

    def __init__(self, path: Path | None) -> None:
        """Raises ConfigError if the file, or a file that it names, cannot be used."""
        self._path, self._lock, self._logged = path, threading.Lock(), ""
        self._read: bytes | None = None
        self._config = WebConfig()
        self._loaded: tuple[Tls, tuple[bytes, ...], ssl.SSLContext] | None = None
        self._checks = PasswordChecks()
        self.tls = self.config().tls is not None
        if self._config.users and find_spec("bcrypt") is None:
            raise ConfigError([f"{path}: basic_auth_users needs the extra 'web'"], hint="pip install 'flopsd[web]'")
        if self.tls:
            self.context()

    @property
    def is_open(self) -> bool:
        """Whether there is no file, and so never any TLS or users."""
        return self._path is None

    def config(self) -> WebConfig:
        """The current content of the file. Raises ConfigError."""
        if self._path is None:
            return self._config
        data = _bytes_of(self._path)
        with self._lock:
            if data != self._read:
                config = parse_web_config(data, self._path)
                if self._read is not None and (config.tls is not None) != self.tls:
                    raise ConfigError([f"{self._path}: TLS cannot be switched on or off without a restart"], hint=HINT)
                if self._config.users and not config.users:  # an emptied file is more likely a mistake than a decision
                    raise ConfigError([f"{self._path}: the last user cannot be removed without a restart"], hint=HINT)
                self._config, self._read = config, data
            return self._config

    def context(self) -> ssl.SSLContext:
        """The TLS context for a handshake, from the current certificates. Raises ConfigError."""
        from flopsd.telemetry.http.tls import context_of

        tls = self.config().tls
        assert tls is not None
        files = [tls.cert_file, tls.key_file, *([tls.client_ca_file] if tls.client_ca_file is not None else [])]
        # Compare the settings too: with the same certificates, the file may set other TLS rules.
        read = tuple(_bytes_of(file) for file in files)
        with self._lock:
            if self._loaded is None or self._loaded[:2] != (tls, read):
                self._loaded = tls, read, context_of(tls, self._path)
            return self._loaded[2]

    def admits_certificate(self, connection: ssl.SSLSocket) -> bool:
        """Whether the client's certificate has one of the allowed names, if names are configured."""
        tls = self.config().tls
        if tls is None or not tls.client_allowed_sans:
            return True
        names = (connection.getpeercert() or {}).get("subjectAltName", ())
        return any(isinstance(name, tuple) and name[1] in tls.client_allowed_sans for name in names)

    def admits(self, config: WebConfig, authorization: str) -> bool:
        """Whether the Authorization header has a valid user and password; true if there are no users. Raises
        BusyError."""
        return not config.users or self._checks.are_valid(config, authorization)

    def log_refusal(self, fault: ConfigError) -> None:
        """Log why requests are refused, once per reason."""
        if str(fault) != self._logged:
            self._logged = str(fault)
            log.error(
                "every HTTP request is refused until the web configuration is corrected: %s; metering goes on",
                "; ".join(fault.problems),
            )


class PasswordChecks:
    """Checks passwords with bcrypt, which is slow on purpose (50 ms at cost 10), and caches the results. The cache key
    does not reveal the password. Valid and invalid results have separate caches, so that guesses do not evict a valid
    one."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._right: dict[bytes, None] = {}
        self._wrong: dict[bytes, None] = {}
        self._one_at_a_time = threading.Lock()
        self._slots = threading.BoundedSemaphore(_CHECKS_AT_ONCE)

    def are_valid(self, config: WebConfig, authorization: str) -> bool:
        """Whether the header has a valid user and password. Raises BusyError."""
        found = _credentials(authorization)
        if found is None:
            return False
        user, password = found
        hashed = config.users.get(user)
        # An unknown user takes as long as a known one, so that timing does not reveal names.
        against = next(iter(config.users.values())) if hashed is None else hashed
        parts = b"".join(sha256(part).digest() for part in (user.encode(), against.encode(), password))
        key = hmac_sha256(self._secret, parts)
        if key not in self._right and key not in self._wrong:
            if not self._slots.acquire(blocking=False):
                raise BusyError
            try:
                with self._one_at_a_time:
                    return self._check(key, password, against) and hashed is not None
            finally:
                self._slots.release()
        return key in self._right and hashed is not None

    def _check(self, key: bytes, password: bytes, against: str) -> bool:
        right = _matches(password, against)
        answers = self._right if right else self._wrong
        while len(answers) >= _CACHED:
            answers.pop(next(iter(answers)))
        answers[key] = None
        return right


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt  # an extra, needed only with users

    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed.encode("ascii"))
    except ValueError:
        return False


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode("utf-8"), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _bytes_of(path: Path) -> bytes:
    try:
        if why := unfit(path):  # reading a FIFO would block, and a pipe is empty for the next process
            raise ConfigError([f"{path}: cannot be read: {why}"], hint=HINT)
        return path.read_bytes()
    except OSError as fault:
        raise ConfigError([f"{path}: cannot be read: {fault.strerror}"], hint=HINT) from fault
