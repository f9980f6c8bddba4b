"""Certificates that the verifier trusts, read from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.attestation.evidence.item import read_bounded
from flopsd.attestation.evidence.rfc3161 import roots_of
from flopsd.core.dataclass import dataclass
from flopsd.errors import EvidenceError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trust:
    """Pinned certificates. Each of `tsa_chains` is from one file: a root, and the other certificates of its chain."""

    aws_certificates: tuple[Certificate, ...] = ()
    tsa_chains: tuple[tuple[Certificate, ...], ...] = ()


def load_trust(aws_files: Sequence[str] = (), tsa_files: Sequence[str] = ()) -> Trust:
    """Read the files. Raises EvidenceError naming a file without certificates, or without an authority's root."""
    return Trust(
        tuple(certificate for file in aws_files for certificate in load_certificates(Path(file))),
        tuple(_with_root(file) for file in tsa_files),
    )


def _with_root(file: str) -> tuple[Certificate, ...]:
    chain = load_certificates(Path(file))
    if not roots_of(chain):
        raise EvidenceError(
            f"{file} contains no root certificate of a timestamp authority",
            hint="give the authority's root, alone or with its other certificates in the same file",
        )
    return chain


def load_certificates(path: Path) -> tuple[Certificate, ...]:
    """All certificates of a PEM file, or the only one of a DER file. Raises EvidenceError."""
    return parse_certificates(read_bounded(path, _LIMIT_BYTES), str(path))


def parse_certificates(data: bytes, what: str) -> tuple[Certificate, ...]:
    """The certificates in PEM or DER `data`; `what` names it in errors. Raises EvidenceError."""
    from cryptography.x509 import InvalidVersion, load_der_x509_certificate, load_pem_x509_certificates

    try:
        if b"-----BEGIN" in data:
            return tuple(load_pem_x509_certificates(data))
        return (load_der_x509_certificate(data),)
    except (ValueError, InvalidVersion) as fault:
        raise EvidenceError(
            f"{what} contains no X.509 certificate", hint="give certificates as PEM, or a single one as DER"
        ) from fault
