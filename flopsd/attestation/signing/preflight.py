"""Check at the start of a run that its key will be able to sign at the end.

Loads no cryptography, since a metering process calls it, and contacts no network or token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flopsd.attestation.signing import aws_kms, pem, pkcs11
from flopsd.attestation.signing.key_uri import FORMS, scheme_of
from flopsd.attestation.signing.public_key import need_extra, need_packages
from flopsd.errors import SigningKeyError


def check_key(uri: str | None, environment: Mapping[str, str]) -> None:
    """Raises SigningKeyError if the key does not exist, is malformed, or lacks its passphrase, PIN or packages.

    None: the key that is created when it is needed.
    """
    need_extra()
    scheme, rest = scheme_of("file:" if uri is None else uri)
    if scheme == "awskms":
        need_packages(("botocore",), aws_kms.NEEDS_EXTRA)
        aws_kms.key_and_public(rest)
    elif scheme == "pkcs11":
        need_packages(("pkcs11",), pkcs11.NEEDS_EXTRA)
        pkcs11.location_of(rest, environment)
    elif scheme != "file":
        raise SigningKeyError(f"unknown kind of key {scheme!r}", hint=f"use {FORMS}")
    elif uri is not None:
        pem.read_private(Path(rest), environment)
