"""`nvidia-spdm`: a GPU's own signature over the journal's head, if NVIDIA's confidential computing offers one.

The nonce is SHA-256 over the 32 bytes of the journal's head. The report is SPDM 1.1 GET_MEASUREMENTS, request and
response in one: nonce in bytes 4 to 35, the last 96 bytes the raw P-384 signature. Source: nv-local-gpu-verifier 2.7.3.
Collecting has never been tested on a real GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
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
from flopsd.attestation.evidence.trust import load_certificates, parse_certificates
from flopsd.core.envelope import encode64
from flopsd.core.field_reader import FieldReader
from flopsd.errors import EvidenceError
from flopsd.settings.data_files import config_dir
from flopsd.settings.evidence_kinds import SPDM

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KIND = EvidenceKind(
    SPDM,
    5,
    "A genuine NVIDIA GPU of that identity signed the head of this journal: it was there after the last record.",
    "It says nothing about FLOP or whether this GPU did the work; its measurements are not compared with NVIDIA's. "
    "Clouds without confidential computing offer none.",
)
MAX_GPUS = 64
_REQUEST_BYTES, _NONCE, _SIGNATURE_BYTES = 37, slice(4, 36), 96


def nonce_of(head_sha256: str) -> bytes:
    """The nonce that a GPU signs for a journal whose chain ends in this hash."""
    return hashlib.sha256(bytes.fromhex(head_sha256)).digest()


def collect(context: CollectContext) -> dict[str, Any]:
    """The certificates and the report of every GPU. Raises EvidenceError if no GPU returns a report."""
    vendors = {entry.device.vendor for inc in context.history.incarnations for entry in inc.devices.values()}
    if "nvidia" not in vendors or context.history.replay is not None:
        raise not_collected("no_nvidia_gpu")
    try:
        import pynvml
    except ImportError as fault:
        raise not_collected("no_nvml") from fault
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as fault:
        raise EvidenceError(f"NVML cannot be used: {fault}") from fault
    reports, refused = [], []
    try:
        for index in range(min(pynvml.nvmlDeviceGetCount(), MAX_GPUS)):
            try:
                reports.append(_report(pynvml, index, nonce_of(context.head_sha256)))
            except pynvml.NVMLError as fault:
                refused.append(f"GPU {index}: {fault}")
    except pynvml.NVMLError as fault:
        raise EvidenceError(f"NVML does not list its devices: {fault}") from fault
    finally:
        pynvml.nvmlShutdown()
    if not reports:
        raise EvidenceError("no GPU returned a report: " + ("; ".join(refused) or "there is none"))
    return {"reports": reports, "refused": refused}


def _report(lib: Any, index: int, nonce: bytes) -> dict[str, str]:
    handle = lib.nvmlDeviceGetHandleByIndex(index)
    chain = lib.nvmlDeviceGetConfComputeGpuCertificate(handle)
    report = lib.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
    return {
        "uuid": str(lib.nvmlDeviceGetUUID(handle)),
        "certificateChain": encode64(bytes(chain.attestationCertChain)[: chain.attestationCertChainSize]),
        "report": encode64(bytes(report.attestationReport)[: report.attestationReportSize]),
    }


def check(data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:
    """Check every report against NVIDIA's pinned root and this journal's head."""
    fields = fields_of(data)
    (root,) = load_certificates(config_dir() / "certificates" / "nvidia" / "verifier_device_root.pem")
    reports = list(fields.objects("reports"))
    if not 0 < len(reports) <= MAX_GPUS:
        fields.wrong("reports", f"a list of 1 to {MAX_GPUS} reports")
    identities = verify_reports(reports, nonce_of(context.head_sha256), root)
    return EvidenceState.HOLDS, "signed by " + ", ".join(identities)


def verify_reports(reports: Sequence[FieldReader], nonce: bytes, root: Certificate) -> list[str]:
    """The identities of the GPUs. Raises EvidenceError if a report is invalid, or if one GPU signed two of them."""
    uuids: dict[str, str] = {}
    for one in reports:
        uuid = one.text("uuid")
        identity = verify_report(bytes_of(one, "certificateChain"), bytes_of(one, "report"), nonce, root)
        if identity in uuids:
            raise EvidenceError(f"{uuid} and {uuids[identity]} were signed by the same GPU")
        uuids[identity] = uuid
    return list(uuids)


def verify_report(chain_pem: bytes, report: bytes, nonce: bytes, root: Certificate) -> str:
    """The identity of the GPU that signed `report` over `nonce`. Raises EvidenceError if it is invalid."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA384

    chain = _chain(chain_pem, root)
    if len(report) <= _REQUEST_BYTES + _SIGNATURE_BYTES or report[:2] != b"\x11\xe0":
        raise EvidenceError("it is not an SPDM 1.1 measurement report")
    if report[_NONCE] != nonce:
        raise EvidenceError("its nonce does not match the head of this journal: it belongs to another journal")
    key = chain[0].public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise EvidenceError("its certificate has no P-384 key")
    r, s = (int.from_bytes(half, "big") for half in (report[-96:-48], report[-48:]))
    try:
        key.verify(encode_dss_signature(r, s), report[:-_SIGNATURE_BYTES], ECDSA(SHA384()))
    except InvalidSignature as fault:
        raise EvidenceError("its signature was not made by the key of the GPU") from fault
    return f"{chain[0].subject.rfc4514_string()}, certificate {chain[0].serial_number:x}"


def _chain(pem: bytes, root: Certificate) -> tuple[Certificate, ...]:
    """The chain, leaf first: each is signed by the next, which must be an authority; the last is the pinned root."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.x509 import BasicConstraints, DuplicateExtension, ExtensionNotFound

    faults = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, ExtensionNotFound, DuplicateExtension)
    chain = parse_certificates(pem, "its chain")
    if len(chain) > 10 or chain[-1] != root:
        raise EvidenceError("its chain does not end in NVIDIA's pinned root")
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
            may_sign = issuer.extensions.get_extension_for_class(BasicConstraints).value.ca
        except faults as fault:
            raise EvidenceError("its chain is invalid: a certificate was not signed by the next one") from fault
        if not may_sign:
            raise EvidenceError("its chain is invalid: an issuer is not a certificate authority")
    return chain
