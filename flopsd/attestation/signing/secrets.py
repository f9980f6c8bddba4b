"""Passphrases and PINs from the environment or a file; never from flags, which every user of the host can read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flopsd.errors import SigningKeyError
from flopsd.settings.load import PASSPHRASE, PASSPHRASE_FILE, PKCS11_PIN
from flopsd.system.regular_files import open_regular

MAX_SECRET_BYTES = 1023  # the longest passphrase that OpenSSL accepts


def passphrase(environment: Mapping[str, str]) -> bytes | None:
    """The passphrase of an encrypted key; None if none is given. Raises SigningKeyError."""
    given, file = environment.get(PASSPHRASE), environment.get(PASSPHRASE_FILE)
    if given and file:
        raise SigningKeyError(f"{PASSPHRASE} and {PASSPHRASE_FILE} are both set", hint="unset one of them")
    if file:
        return read_secret(Path(file), f"passphrase of {PASSPHRASE_FILE}").encode()
    return _given(PASSPHRASE, environment).encode() or None


def pin(pin_source: str | None, environment: Mapping[str, str]) -> str | None:
    """The PIN of a token, from its URI's `pin-source` or the environment. Raises SigningKeyError."""
    if pin_source is None:
        return _given(PKCS11_PIN, environment) or None
    scheme, colon, path = pin_source.partition(":")
    if not colon or scheme != "file":
        raise SigningKeyError(
            f"pin-source={pin_source} is not supported", hint=f"use pin-source=file:PATH, or the variable {PKCS11_PIN}"
        )
    return read_secret(Path(path.removeprefix("//")), "PIN")


def _given(variable: str, environment: Mapping[str, str]) -> str:
    given = environment.get(variable, "")
    try:
        size = len(given.encode("utf-8"))
    except UnicodeEncodeError:
        raise SigningKeyError(f"{variable} is not UTF-8 text") from None
    if size > MAX_SECRET_BYTES:
        raise SigningKeyError(f"{variable} has more than {MAX_SECRET_BYTES} bytes")
    return given


def read_secret(path: Path, what: str) -> str:
    """The first line of a file, which must be the only one. Raises SigningKeyError, which never shows the secret."""
    try:
        with open_regular(path) as file:
            data = file.read(MAX_SECRET_BYTES + 3)
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as fault:
        raise SigningKeyError(
            f"cannot read the {what} in {path}: {fault.strerror}",
            hint="the file must hold it in one line, and the user of flopsd must be able to read it",
            reason="secret",
        ) from fault
    except UnicodeDecodeError:
        raise SigningKeyError(f"the {what} in {path} is not UTF-8 text") from None
    if not text or "\n" in text or len(text.encode()) > MAX_SECRET_BYTES:
        raise SigningKeyError(
            f"{path} must contain the {what} as its only line, of at most {MAX_SECRET_BYTES} bytes", reason="secret"
        )
    return text
