"""Codes: every journal line and every printed checkpoint is authenticated under a key that is then forgotten.

    K(0)   = HMAC-SHA256(secret, "flopsd checkpoint key " || number of the daemon start, in decimal)
    K(n+1) = SHA-256("flopsd next key" || K(n))
    code of line n of the daemon start = the first 16 bytes of HMAC-SHA256(K(n), h of the line)
    code of the text printed for line n = the first 16 bytes of HMAC-SHA256(SHA-256("flopsd print key" || K(n)), text)

Whoever takes over a daemon at line n has K(n), from which no earlier key follows. docs/adr/0025 says what that proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flopsd.errors import JournalDamagedError
from flopsd.journal.framing import JournalLine
from flopsd.system.sha256 import hex_sha256, hmac_sha256, same_digest, sha256

SECRET_BYTES, CODE_BYTES = 32, 16


def secret_sha256(secret: bytes | bytearray) -> str:
    """Return the digest by which a `begin` record names a secret."""
    return hex_sha256(bytes(secret))


def by_sha256(secrets: Iterable[bytes]) -> dict[str, bytes]:
    return {secret_sha256(secret): secret for secret in secrets}


def first_key(secret: bytes | bytearray, start: int) -> bytes:
    return hmac_sha256(secret, b"flopsd checkpoint key %d" % start)


def next_key(key: bytes) -> bytes:
    return sha256(b"flopsd next key" + key).digest()


def code(key: bytes, message: bytes) -> bytes:
    return hmac_sha256(key, message)[:CODE_BYTES]


def print_key(key: bytes) -> bytes:
    """Return the key for printed text. It differs from the line's key: the job can read the codes in the journal, and
    must not be able to print one of them next to other figures."""
    return sha256(b"flopsd print key" + key).digest()


class CodeKey:
    """The key of the next line of one daemon start."""

    def __init__(self, secret: bytes | bytearray, start: int) -> None:
        self.secret_sha256 = secret_sha256(secret)
        self._key, self._print_key, self._lines = first_key(secret, start), b"", 0

    def code(self, head: bytes) -> bytes:
        """Return the code of the next line, whose chain hash is `head`."""
        return code(self._key, head)

    def advance(self) -> None:
        """Forget the key of a line, once the line is durable: one that a full disk refuses must leave no hole."""
        self._print_key, self._key, self._lines = print_key(self._key), next_key(self._key), self._lines + 1

    def of_print(self, text: str) -> str:
        """Return the code of the text printed for the last line, `INDEX:CODE`. To be called once for a line."""
        key, self._print_key = self._print_key, b""
        return f"{self._lines - 1}:{code(key, text.encode('utf-8')).hex()}"


class CodeChecker:
    """Checks the codes of a journal's lines from the first on, with the secrets that are known.

    If a daemon start has codes, each of its lines has one, whether or not its secret is known: otherwise lines could be
    removed together with the codes of later lines, which would show it. One line is exempt, the checkpoint that
    recovery took from the pending file after a kill: it is the last line of its daemon start.
    """

    def __init__(self, secrets: Iterable[bytes | bytearray] = ()) -> None:
        self._secrets = {secret_sha256(secret): secret for secret in secrets}
        self._coded = self._recovered = False
        self._key: bytes | None  # set from the first record on, which begins a daemon start

    def records(self, lines: Iterable[JournalLine]) -> Iterator[Mapping[str, Any]]:
        """Yield the records of lines whose codes are right. Raises JournalDamagedError at the first wrong one."""
        for line in lines:
            record = line.record()
            self.check(line, record)
            yield record

    def check(self, line: JournalLine, record: Mapping[str, Any]) -> None:
        """Check the next line, whose record is `record`. Raises JournalDamagedError."""
        if record.get("kind") == "begin":
            digest = record.get("code_secret_sha256")
            self._coded, self._recovered = digest is not None, False
            secret, start = self._secrets.get(str(digest)), record.get("incarnation")
            # A value that is no number of a daemon start is refused when its record is read.
            self._key = first_key(secret, start) if secret is not None and type(start) is int else None
        elif self._recovered:
            raise _wrong(line, "follows a line without a code, which must be the last of its daemon start")
        if not line.code:
            if self._coded and record.get("kind") != "checkpoint":
                raise _wrong(line, "has no code: altered, or put in by another process")
            self._recovered = self._coded
            return
        if not self._coded:
            raise _wrong(line, "has a code, but its daemon start declares no codes")
        if self._key is not None:
            if not same_digest(code(self._key, line.head).hex().encode("ascii"), line.code):
                raise _wrong(line, "has a wrong code: the daemon that had the key did not write it there")
            self._key = next_key(self._key)


def _wrong(line: JournalLine, why: str) -> JournalDamagedError:
    number = line.number
    return JournalDamagedError(f"journal line {number} {why}", code="line_code", path=f"journal:{number}")
