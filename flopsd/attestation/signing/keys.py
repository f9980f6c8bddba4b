"""Private keys by URI. The packages of a scheme are imported only when such a key is used.

file:PATH, PATH    a PEM file, Ed25519 or P-256, encrypted or not
awskms:KEY         AWS KMS, P-256: key id, ARN or alias                   (extra `kms`)
pkcs11:...         an HSM, smart card or other token, P-256, as RFC 7512   (extra `hsm`)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.attestation.signing.base import SigningKey, key_faults
from flopsd.attestation.signing.key_uri import FORMS, scheme_of
from flopsd.attestation.signing.pem import load_pem, make_pem, read_private
from flopsd.attestation.signing.public_key import need_extra, need_package
from flopsd.errors import SigningKeyError
from flopsd.system.file_presence import exists

if TYPE_CHECKING:
    from flopsd.attestation.signing.refused_pin import RefusedPin

DEFAULT_KEY_NAME = "flopsd-key.pem"


def load_signer(
    uri: str, environment: Mapping[str, str] = os.environ, *, refused_pin: RefusedPin | None = None
) -> SigningKey:
    """The private key of a key URI, with its secrets from `environment`. `refused_pin`: keeps a PIN that a token
    refused, so that it is not given to the token again. Raises SigningKeyError."""
    scheme, rest = scheme_of(uri)
    with key_faults(f"the {scheme} key"):
        if scheme == "file":
            return load_pem(Path(rest), environment)
        if scheme == "awskms":
            from flopsd.attestation.signing.aws_kms import load_kms

            return load_kms(rest, environment)
        if scheme == "pkcs11":
            from flopsd.attestation.signing.pkcs11 import load_token_key

            return load_token_key(rest, environment, refused_pin)
    raise _unknown(scheme)


def check_key(uri: str | None, environment: Mapping[str, str]) -> None:
    """Check at the start of a run that its key will be able to sign at the end. `uri` None: a key is created when it is
    needed. Loads no cryptography, since a metering process calls this, and contacts no network or token. Raises
    SigningKeyError if the key does not exist, is malformed, or lacks its passphrase, PIN or packages."""
    need_extra()
    scheme, rest = scheme_of("file:" if uri is None else uri)
    if scheme == "awskms":
        from flopsd.attestation.signing import aws_kms

        need_package("botocore", aws_kms.NEEDS_EXTRA)
        aws_kms.key_and_public(rest)
    elif scheme == "pkcs11":
        from flopsd.attestation.signing import pkcs11

        need_package("pkcs11", pkcs11.NEEDS_EXTRA)
        pkcs11.location_of(rest, environment)
    elif scheme != "file":
        raise _unknown(scheme)
    elif uri is not None:
        read_private(Path(rest), environment)


def _unknown(scheme: str) -> SigningKeyError:
    return SigningKeyError(f"unknown kind of key {scheme!r}", hint=f"use {FORMS}")


def default_key(state_dir: Path) -> Path:
    """The path of the key file that is created if no key is given."""
    return state_dir / DEFAULT_KEY_NAME


def ensure_key(uri: str | None, state_dir: Path) -> tuple[str, bool]:
    """The key URI to use, and whether this call created its key file: Ed25519, mode 0600, in `state_dir`. Raises
    SigningKeyError."""
    if uri is not None:
        return uri, False
    path = default_key(state_dir)
    if exists(path):
        return str(path), False
    try:
        make_pem(path)
    except SigningKeyError:
        if exists(path):
            return str(path), False  # another process created it first
        raise
    return str(path), True
