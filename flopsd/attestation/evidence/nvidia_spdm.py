"""`nvidia-spdm`: a GPU's own signature over the journal's head, where NVIDIA's confidential computing offers one.

The nonce is SHA-256 over the 32 bytes of the journal's head. The report is SPDM 1.1 GET_MEASUREMENTS, request and
response in one: nonce in bytes 4 to 35, the last 96 bytes the raw P-384 signature. Source: nv-local-gpu-verifier 2.7.3.
Collecting was never tried on a live GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from flopsd.attestation.evidence.fields import bytes_of, encode64, text_of
from flopsd.attestation.evidence.item import CheckContext, CollectContext, EvidenceKind, EvidenceState
from flopsd.attestation.evidence.trust import load_certificates, parse_certificates
from flopsd.errors import EvidenceError
from flopsd.settings.data_files import config_dir
from flopsd.settings.evidence_kinds import SPDM

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KIND = EvidenceKind(
    SPDM,
    5,
    "A genuine NVIDIA GPU of that identity signed the head of this journal: it was there after the last record.",
    "It says nothing of FLOP, nor that this GPU did the work; its measurements are not compared with NVIDIA's. "
    "Clouds without confidential computing offer none.",
)
MAX_GPUS = 64
_REQUEST_BYTES, _NONCE, _SIGNATURE_BYTES = 37, slice(4, 36), 96


def nonce_of(head_sha256: str) -> bytes:
    """What the GPU is asked to sign for a journal that ends in this chain hash."""
    return hashlib.sha256(bytes.fromhex(head_sha256)).digest()


def collect(scene: CollectContext) -> dict[str, Any]:
    """Certificates and report of every GPU. Raises EvidenceError where none gives one."""
    vendors = {entry.device.vendor for inc in scene.history.incarnations for entry in inc.devices.values()}
    if "nvidia" not in vendors or scene.history.replay is not None:
        raise EvidenceError("no NVIDIA GPU was metered")
    try:
        import pynvml
    except ImportError as fault:
        raise EvidenceError("the Python package nvidia-ml-py is not installed") from fault
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as fault:
        raise EvidenceError(f"NVML cannot be used: {fault}") from fault
    reports, refused = [], []
    try:
        for index in range(min(pynvml.nvmlDeviceGetCount(), MAX_GPUS)):
            try:
                reports.append(_report(pynvml, index, nonce_of(scene.head_sha256)))
            except pynvml.NVMLError as fault:
                refused.append(f"GPU {index}: {fault}")
    except pynvml.NVMLError as fault:
        raise EvidenceError(f"NVML does not list its devices: {fault}") from fault
    finally:
        pynvml.nvmlShutdown()
    if not reports:
        raise EvidenceError("no GPU gives a report: " + ("; ".join(refused) or "there is none"))
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


def check(data: Mapping[str, Any], grounds: CheckContext) -> tuple[EvidenceState, str]:
    """Every report against NVIDIA's pinned root and this journal's head."""
    (root,) = load_certificates(config_dir() / "certificates" / "nvidia" / "verifier_device_root.pem")
    identities = verify_reports(data.get("reports"), nonce_of(grounds.head_sha256), root)
    return EvidenceState.HOLDS, "signed by " + ", ".join(identities)


def verify_reports(reports: object, nonce: bytes, root: Certificate) -> list[str]:
    """The identities of the GPUs, each another one. Raises EvidenceError."""
    if not isinstance(reports, list) or not 0 < len(reports) <= MAX_GPUS:
        raise EvidenceError("it holds no list of reports")
    uuids: dict[str, str] = {}
    for one in reports:
        if not isinstance(one, dict):
            raise EvidenceError("a report is no object")
        uuid = text_of(one, "uuid")
        identity = verify_report(bytes_of(one, "certificateChain"), bytes_of(one, "report"), nonce, root)
        if identity in uuids:
            raise EvidenceError(f"{uuid} and {uuids[identity]} are answered for by one and the same GPU")
        uuids[identity] = uuid
    return list(uuids)


def verify_report(chain_pem: bytes, report: bytes, nonce: bytes, root: Certificate) -> str:
    """The identity of the GPU that signed `report` over `nonce`. Raises EvidenceError saying what does not hold."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA384

    chain = _chain(chain_pem, root)
    if len(report) <= _REQUEST_BYTES + _SIGNATURE_BYTES or report[:2] != b"\x11\xe0":
        raise EvidenceError("it is no SPDM 1.1 measurement report")
    if report[_NONCE] != nonce:
        raise EvidenceError("its nonce is not of this journal's head: it answered another question")
    key = chain[0].public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise EvidenceError("its certificate holds no P-384 key")
    r, s = (int.from_bytes(half, "big") for half in (report[-96:-48], report[-48:]))
    try:
        key.verify(encode_dss_signature(r, s), report[:-_SIGNATURE_BYTES], ECDSA(SHA384()))
    except InvalidSignature as fault:
        raise EvidenceError("its signature is not of the GPU's key") from fault
    return f"{chain[0].subject.rfc4514_string()}, certificate {chain[0].serial_number:x}"


def _chain(pem: bytes, root: Certificate) -> tuple[Certificate, ...]:
    """Leaf first; each signed by the next, which may sign; the last is the pinned root."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    chain = parse_certificates(pem, "its chain")
    if len(chain) > 10 or chain[-1] != root:
        raise EvidenceError("its chain does not end in NVIDIA's pinned root")
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
            may_sign = issuer.extensions.get_extension_for_class(BasicConstraints).value.ca
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, ExtensionNotFound) as fault:
            raise EvidenceError("its chain does not hold: a certificate is not of the next one's key") from fault
        if not may_sign:
            raise EvidenceError("its chain does not hold: a certificate was issued by one that may not")
    return chain
