"""Whether a key can be expected to sign, asked before there is anything to sign: at the end of a run it is late.

Nothing that signs is loaded, since a metering process asks, and no network or token is.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from flopsd.attestation.signing import aws_kms, pem, pkcs11
from flopsd.attestation.signing.key_uri import FORMS, scheme_of
from flopsd.attestation.signing.public_key import NEEDS_SEAL
from flopsd.errors import SigningKeyError


def check_key(uri: str | None, environment: Mapping[str, str]) -> None:
    """Raises SigningKeyError for a key that is not there, is none, lacks its secret, its form or its packages.

    None is the key that is made when it is needed.
    """
    _need(("cryptography", "securesystemslib"), NEEDS_SEAL)
    scheme, rest = scheme_of("file:" if uri is None else uri)
    if scheme == "awskms":
        _need(("botocore",), aws_kms.NEEDS_EXTRA)
        aws_kms.key_and_public(rest)
    elif scheme == "pkcs11":
        _need(("pkcs11",), pkcs11.NEEDS_EXTRA)
        pkcs11.location_of(rest, environment)
    elif scheme != "file":
        raise SigningKeyError(f"keys of the kind {scheme!r} are not supported by this flopsd", hint=f"use {FORMS}")
    elif uri is not None:
        pem.read_private(Path(rest), environment)


def _need(packages: tuple[str, ...], told: tuple[str, str]) -> None:
    if any(find_spec(package) is None for package in packages):
        raise SigningKeyError(told[0], hint=told[1])
