"""AWS's PKCS7 over an instance identity document, verified with a pinned key and nothing else.

`openssl smime -verify -certfile PINNED -noverify`, which AWS documents, takes the signer's certificate from
the message itself and so accepts a document with any signature; embedded certificates are ignored here.
Needs the extra `evidence`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

from flopsd.errors import EvidenceError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_BYTES = 64 * 1024
_ARMOR = re.compile(r"-----(BEGIN|END) (PKCS7|CMS)-----")


def signed_content(message: str, certificate: Certificate) -> bytes:
    """The content of `message` (base64, PEM armour or none) if the key of `certificate` signed it.

    Raises EvidenceError with the reason if it is invalid.
    """
    content, signature, attributes = _parts(message)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise EvidenceError("the pinned certificate has no RSA key")
    try:
        key.verify(signature, attributes, PKCS1v15(), SHA256())
    except InvalidSignature as fault:
        raise EvidenceError("its signature was not made by the key of the pinned certificate") from fault
    return content


def _parts(message: str) -> tuple[bytes, bytes, bytes]:
    """Content, signature, and the signed attributes as the DER SET that the signature is over."""
    from asn1crypto import cms

    if len(message) > MAX_BYTES:
        raise EvidenceError(f"the PKCS7 message has more than {MAX_BYTES} bytes")
    try:
        der = base64.b64decode("".join(_ARMOR.sub("", message).split()).encode("ascii"), validate=True)
        info = cms.ContentInfo.load(der, strict=True)
        _require(info["content_type"].native == "signed_data", "it is not signed data")
        signed = info["content"]
        _require(len(signed["signer_infos"]) == 1, "it does not have exactly one signer")
        signer = signed["signer_infos"][0]
        _require(signer["digest_algorithm"]["algorithm"].native == "sha256", "its digest is not SHA-256")
        scheme = signer["signature_algorithm"]["algorithm"].native
        _require(scheme in ("rsassa_pkcs1v15", "sha256_rsa"), f"its signature is {scheme}, not RSA with PKCS#1 v1.5")
        content = signed["encap_content_info"]["content"].native
        _require(isinstance(content, bytes), "it contains no document")
        attributes = signer["signed_attrs"]
        digests: list[Any] = [a["values"].native for a in attributes if a["type"].native == "message_digest"]
        _require(digests == [[hashlib.sha256(content).digest()]], "its message digest does not match the document")
        return content, signer["signature"].native, attributes.untag().dump(force=True)
    except EvidenceError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as fault:
        raise EvidenceError(f"it is not a PKCS7 message as AWS writes it: {type(fault).__name__}") from fault


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise EvidenceError(fault)
