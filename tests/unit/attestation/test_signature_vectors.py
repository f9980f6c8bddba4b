"""Other people's signatures through the very function that verify uses: Wycheproof, and DSSE's own vector."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from flopsd.attestation.signing.dsse import pae, verify_signatures
from flopsd.attestation.signing.public_key import parse_public, usable
from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.errors import NotVerifiedError
from tests.support.paths import VECTORS


@pytest.mark.parametrize(
    ("file", "kind", "count"),
    [("ed25519_test", "ed25519", 151), ("ecdsa_secp256r1_sha256_test", "p256", 484)],
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
