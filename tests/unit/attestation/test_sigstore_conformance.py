"""Vectors of others: Wycheproof, DSSE's own, and the sigstore-conformance cases that test parts flopsd has too: JSON,
base64, DSSE, keys, timestamps.

The bundles are Sigstore's. flopsd reads their envelope or signature, the signer's key, and the timestamp. Cases that
fail because of Fulcio's certificates or Rekor's log are left out: flopsd has neither.
"""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from flopsd.attestation.evidence import rfc3161
from flopsd.attestation.evidence.trust import parse_certificates
from flopsd.attestation.signing.dsse import pae, verify_signatures
from flopsd.attestation.signing.public_key import load_public, parse_public, usable
from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.errors import EvidenceError, NotVerifiedError, SigningKeyError
from tests.support.paths import VECTORS

FOLDER = VECTORS / "sigstore-conformance"


def bundle(case: str) -> dict[str, Any]:
    found: dict[str, Any] = parse_json((FOLDER / case / "bundle.sigstore.json").read_bytes(), "the bundle")
    return found


def key_of(case: str, folder: Path) -> Any:
    """The key that came with the case, or that of the signer's certificate."""
    if (FOLDER / case / "key.pub").exists():
        return load_public(str(FOLDER / case / "key.pub"))
    material = bundle(case)["verificationMaterial"]
    shown = material.get("certificate") or material["x509CertificateChain"]["certificates"][0]
    public = load_der_x509_certificate(base64.b64decode(shown["rawBytes"])).public_key()
    (folder / "leaf.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return load_public(str(folder / "leaf.pub"))


def signature_of(case: str) -> bytes:
    found = bundle(case)
    if "dsseEnvelope" in found:
        return parse_envelope(json.dumps(found["dsseEnvelope"]).encode()).signatures[0][1]
    # The signature in our format, so that our base64 reader reads it.
    signature = {"sig": found["messageSignature"]["signature"], "keyid": ""}
    document = {"payload": "", "payloadType": "x", "signatures": [signature]}
    return parse_envelope(json.dumps(document).encode()).signatures[0][1]


@pytest.mark.parametrize(
    "case",
    [
        "happy-path-intoto-in-dsse-v3", "intoto-with-custom-trust-root", "rekor2-dsse-happy-path",
        "dsse-mismatch-envelope_fail",  # valid in itself: another one was logged
        "dsse-invalid-sig_fail", "rekor2-dsse-invalid-sig_fail",
    ],
)  # fmt: skip
def test_sigstore_envelopes(case: str, tmp_path: Path) -> None:
    envelope = parse_envelope(json.dumps(bundle(case)["dsseEnvelope"]).encode())
    key = key_of(case, tmp_path)
    if "invalid" in case:
        with pytest.raises(NotVerifiedError):
            verify_signatures(envelope, [key], 1)
    else:
        assert verify_signatures(envelope, [key], 1) == {key.keyid}


@pytest.mark.parametrize(
    "case", ["managed-key-happy-path", "managed-key-and-trusted-root", "signature-mismatch_fail", "wrong-material_fail"]
)
def test_sigstore_signatures(case: str, tmp_path: Path) -> None:
    own = FOLDER / case / "artifact"
    message = (own if own.exists() else FOLDER / "a.txt").read_bytes()
    assert key_of(case, tmp_path).verifies(message, signature_of(case)) != case.endswith("_fail")


def test_sigstore_malformed_keys_json_and_base64_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError):
        key_of("managed-key-wrong-key_fail", tmp_path)
    with pytest.raises(NotVerifiedError):
        bundle("bundle-malformed-json_fail")
    with pytest.raises(NotVerifiedError, match="base64"):
        signature_of("bundle-invalid-base64-signature_fail")


@pytest.mark.parametrize(
    ("case", "moment"),
    [
        ("rekor2-timestamp-with-embedded-cert", "2025-08-06T18:51:36Z"),
        ("rekor2-timestamp-without-embedded-cert", "2025-08-06T19:03:51Z"),
        ("rekor2-timestamp-with-expired-cert-chain", "2025-08-07T15:32:26Z"),
        ("rekor2-dsse-happy-path", "2026-05-13T19:23:33Z"),
        ("rekor2-timestamp-outside-tsa-cert-validity_fail", None),
        ("rekor2-timestamp-payload-mismatch_fail", None),
        ("rekor2-timestamp-untrusted-tsa-with-embedded-cert_fail", None),
        ("rekor2-timestamp-untrusted-tsa-without-embedded-cert_fail", None),
    ],
)
def test_sigstore_timestamps(case: str, moment: str | None) -> None:
    (token,) = bundle(case)["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    root = json.loads((FOLDER / case / "trusted_root.json").read_bytes())
    (chain,) = (authority["certChain"]["certificates"] for authority in root["timestampAuthorities"])
    trusted = [one for shown in chain for one in parse_certificates(base64.b64decode(shown["rawBytes"]), case)]
    response = base64.b64decode(token["signedTimestamp"])
    if moment is None:
        with pytest.raises(EvidenceError):
            rfc3161.verify(response, signature_of(case), trusted)
    else:
        assert rfc3161.verify(response, signature_of(case), trusted)[0] == moment


@pytest.mark.parametrize(
    ("file", "kind", "count"), [("ed25519_test", "ed25519", 151), ("ecdsa_secp256r1_sha256_test", "p256", 484)]
)
def test_every_wycheproof_vector_is_judged_as_wycheproof_judges_it(file: str, kind: str, count: int) -> None:
    document = json.loads(gzip.decompress((VECTORS / "wycheproof" / f"{file}.json.gz").read_bytes()))
    judged: list[bool] = []
    for group in document["testGroups"]:
        public = parse_public(group["publicKeyPem"].encode("ascii"), file)
        assert public.type == kind
        for vector in group["tests"]:
            good = public.verifies(bytes.fromhex(vector["msg"]), bytes.fromhex(vector["sig"]))
            assert vector["result"] in ("valid", "invalid")
            assert good is (vector["result"] == "valid"), f"tcId {vector['tcId']}: {vector['comment']}"
            judged.append(good)
    assert len(judged) == count == document["numberOfTests"]
    assert set(judged) == {True, False}


@pytest.fixture
def vector() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / "dsse" / "spec_vector.json").read_bytes())
    return found


def test_the_vector_of_the_dsse_specification(vector: dict[str, Any]) -> None:
    key = usable(
        EllipticCurvePublicNumbers(int(vector["key"]["x"]), int(vector["key"]["y"]), SECP256R1()).public_key(), "vector"
    )
    raw = parse_envelope(json.dumps(vector["envelope"]).encode())
    assert raw.payload == vector["serializedBody"].encode()
    assert pae(raw) == vector["pae"].encode()
    signature = raw.signatures[0][1]
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    envelope = parse_envelope(encode_envelope(raw.payload, raw.payload_type, [("", der)]))
    assert verify_signatures(envelope, [key], 1) == {key.keyid}
    for changed in (
        Envelope(raw.payload + b"!", raw.payload_type, envelope.signatures),
        Envelope(raw.payload, raw.payload_type + "!", envelope.signatures),
        raw,  # as the specification prints it, raw r||s: other verifiers would not take it either
    ):
        with pytest.raises(NotVerifiedError, match="signed by a different key|was changed after it was signed"):
            verify_signatures(changed, [key], 1)
