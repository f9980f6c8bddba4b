"""`ec2-instance-identity`: AWS's signed description of the instance, from the instance metadata service.

IMDSv2 only. The document names account, instance, image and private IP: identifiers, no credentials.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.evidence.item import (
    CheckContext,
    CollectContext,
    EvidenceKind,
    EvidenceState,
    bytes_of,
    fields_of,
    not_collected,
)
from flopsd.core.envelope import encode64
from flopsd.errors import EvidenceError
from flopsd.settings.data_files import config_dir
from flopsd.settings.evidence_kinds import INSTANCE_IDENTITY

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KIND = EvidenceKind(
    INSTANCE_IDENTITY,
    4,
    "AWS signed that an instance of this id, type, account and region was launched at that time.",
    "It has no nonce: whoever read it once can present it elsewhere and later. It says nothing about software or use.",
)
_ENDPOINTS = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}
_TIMEOUT_SECONDS = 1
_LIMIT_BYTES, _MESSAGE_BYTES = 16 * 1024, 64 * 1024
_ARMOR = re.compile(r"-----(BEGIN|END) (PKCS7|CMS)-----")


def collect(context: CollectContext) -> dict[str, Any]:
    """The document and its RSA-2048 PKCS7. Raises EvidenceError outside EC2, or if the service does not answer."""
    base = _endpoint(context)
    token = _ask(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT").decode("ascii")
    where, headers = f"{base}/latest/dynamic/instance-identity", {"X-aws-ec2-metadata-token": token.strip()}
    document = _ask(f"{where}/document", headers)
    _parse(document)
    return {"document": encode64(document), "rsa2048": _ask(f"{where}/rsa2048", headers).decode("ascii")}


def check(data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:
    """Check the document with a certificate that the verifier trusts; without one nothing is checked."""
    fields = fields_of(data)
    document, message = bytes_of(fields, "document"), fields.text("rsa2048")
    region = str(_parse(document).get("region"))
    certificates = context.aws_certificates or pinned(region)
    if not certificates:
        return EvidenceState.NOT_CHECKED, f"no pinned certificate for region {region}; give one with --aws-certificate"
    try:
        import asn1crypto  # noqa: F401
    except ImportError:
        return EvidenceState.NOT_CHECKED, "this needs the extra: pip install 'flopsd[evidence]'"
    signed = _parse(_content(message, certificates))
    if signed != _parse(document):
        raise EvidenceError("AWS signed a different document")
    named = ("instanceId", "instanceType", "accountId", "region", "pendingTime")
    instance, kind, account, zone, launched = (signed.get(name) for name in named)
    return EvidenceState.HOLDS, f"instance {instance}, {kind}, account {account}, {zone}, launched {launched}"


def pinned(region: str, folder: Path | None = None) -> tuple[Certificate, ...]:
    """The certificates of `REGION.pem` and `REGION_DATE.pem` in `config/certificates/aws-instance-identity`."""
    from flopsd.attestation.evidence.trust import load_certificates

    folder = folder or config_dir() / "certificates" / "aws-instance-identity"
    files = [path for path in sorted(folder.glob("*.pem")) if path.stem.split("_")[0] == region]
    return tuple(certificate for path in files for certificate in load_certificates(path))


def _content(message: str, certificates: tuple[Certificate, ...]) -> bytes:
    faults = []
    for certificate in certificates:
        try:
            return signed_content(message, certificate)
        except EvidenceError as fault:
            faults.append(fault)
    raise faults[0]


def _endpoint(context: CollectContext) -> str:
    variables = context.environment
    if variables.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise not_collected("metadata_disabled")
    endpoint = variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if endpoint:
        if not endpoint.startswith(("http://", "https://")):
            raise EvidenceError(f"AWS_EC2_METADATA_SERVICE_ENDPOINT is not an http address: {endpoint!r}")
        return endpoint.rstrip("/")
    # Elsewhere a request to 169.254.169.254 would cost a second, or ask an unrelated host for a token.
    marks = {"sys/devices/virtual/dmi/id/sys_vendor": "Amazon EC2", "sys/hypervisor/uuid": "ec2"}
    for name, mark in marks.items():
        try:
            if (context.root / name).read_text(encoding="ascii").startswith(mark):
                return _ENDPOINTS[variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() or "ipv4"]
        except (OSError, UnicodeError, KeyError):
            continue
    raise not_collected("not_ec2")


def _ask(url: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    from flopsd.attestation.evidence.http import request  # imports an HTTP client: only when sealing

    return request(
        url, method=method, headers=headers, timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=_LIMIT_BYTES, proxies=False
    )


def _parse(document: bytes) -> dict[str, Any]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as fault:
        raise EvidenceError("the identity document is not JSON") from fault
    if not isinstance(found, dict) or not isinstance(found.get("instanceId"), str):
        raise EvidenceError("the identity document has no instanceId")
    return found


def signed_content(message: str, certificate: Certificate) -> bytes:
    """The content of a PKCS7 `message` (base64, with or without PEM armour), if the key of `certificate` signed it.

    `openssl smime -verify -certfile PINNED -noverify`, which AWS documents, takes the signer's certificate from
    the message itself and so accepts a document signed by anyone; here embedded certificates are ignored.
    Needs the extra `evidence`. Raises EvidenceError with the reason if it is invalid.
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
        raise EvidenceError(
            "its signature was not made by the key of the pinned certificate: it is forged, or that certificate is of "
            "another region or time"
        ) from fault
    return content


def _parts(message: str) -> tuple[bytes, bytes, bytes]:
    """The content, the signature, and the signed attributes as the DER SET that the signature covers."""
    from asn1crypto import cms

    if len(message) > _MESSAGE_BYTES:
        raise EvidenceError(f"the PKCS7 message has more than {_MESSAGE_BYTES} bytes")
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
