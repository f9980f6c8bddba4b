"""NVIDIA's SPDM report: NVIDIA's own sample, reports that must be refused, and collecting through the real pynvml."""

import base64
import hashlib
import sys
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from flopsd.attestation.evidence import nvidia_spdm
from flopsd.attestation.evidence.item import CheckContext, CollectContext, EvidenceState, fields_of
from flopsd.attestation.evidence.trust import load_certificates
from flopsd.core.ledger.history import History
from flopsd.errors import EvidenceError
from flopsd.settings.data_files import config_dir
from tests.support.authorities import VECTORS
from tests.support.runs import finished, history_of
from tests.support.scenario import Scenario, Segment, h100
from tests.support.sim import SharedClock, simulated

CHAIN = (VECTORS / "nvidia" / "hopperCertChain.txt").read_bytes()
REPORT = bytes.fromhex((VECTORS / "nvidia" / "hopperAttestationReport.txt").read_text())
NONCE = REPORT[4:36]
(ROOT,) = load_certificates(config_dir() / "certificates" / "nvidia" / "verifier_device_root.pem")
HEAD = "ab" * 32
P384 = SECP384R1()
Made = tuple[x509.Certificate, EllipticCurvePrivateKey]


def test_nvidias_sample_verifies_against_the_pinned_root_and_only_for_its_nonce() -> None:
    assert "GH100 A01 GSP FMC LF" in nvidia_spdm.verify_report(CHAIN, REPORT, NONCE, ROOT)
    with pytest.raises(EvidenceError, match="does not match the head of this journal"):
        nvidia_spdm.verify_report(CHAIN, REPORT, nvidia_spdm.nonce_of(HEAD), ROOT)
    # The nonce of another journal written over the original: the GPU did not sign that.
    lied = REPORT[:4] + nvidia_spdm.nonce_of(HEAD) + REPORT[36:]
    with pytest.raises(EvidenceError, match="signature was not made by the key of the GPU"):
        nvidia_spdm.verify_report(CHAIN, lied, nvidia_spdm.nonce_of(HEAD), ROOT)


@pytest.mark.long
def test_no_single_byte_of_the_report_can_be_changed() -> None:
    for at in (*range(0, len(REPORT), 61), 36, 37, len(REPORT) - 96, len(REPORT) - 1):
        changed = bytearray(REPORT)
        changed[at] ^= 1
        with pytest.raises(EvidenceError):
            nvidia_spdm.verify_report(CHAIN, bytes(changed), NONCE, ROOT)
    for length in (0, 36, 37, 133, len(REPORT) - 1):
        with pytest.raises(EvidenceError):
            nvidia_spdm.verify_report(CHAIN, REPORT[:length], NONCE, ROOT)


@pytest.mark.parametrize("measured", [0, 1])
def test_a_report_needs_content_after_its_request(measured: int) -> None:
    root = made("root", None, ca=True)
    gpu = made("gpu", root, ca=False)
    report = signed(REPORT[: 37 + measured] + bytes(96), gpu[1])
    with nullcontext() if measured else pytest.raises(EvidenceError, match="not an SPDM 1.1"):
        assert "CN=gpu" in nvidia_spdm.verify_report(pem(gpu, root), report, NONCE, root[0])


def test_a_chain_must_lead_to_the_pinned_root() -> None:
    pems = [b"-----BEGIN" + part for part in CHAIN.split(b"-----BEGIN")[1:]]
    for spoilt, reason in (
        (pems[:-1], "does not end in NVIDIA's pinned root"),
        ([pems[0], *pems[2:]], "its chain is invalid"),
        ([pems[1], pems[0], *pems[2:]], "its chain is invalid"),
        ([], "no X.509 certificate"),
        ([b"\xff\x00"], "no X.509 certificate"),
    ):
        with pytest.raises(EvidenceError, match=reason):
            nvidia_spdm.verify_report(b"".join(spoilt), REPORT, NONCE, ROOT)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # a negative serial number
@given(st.data())
def test_no_changed_chain_passes(data: st.DataObject) -> None:
    chain = [bytearray(one.public_bytes(Encoding.DER)) for one in x509.load_pem_x509_certificates(CHAIN)]
    spoilt = chain[data.draw(st.integers(0, len(chain) - 1))]
    spoilt[data.draw(st.integers(0, len(spoilt) - 1))] ^= data.draw(st.integers(1, 255))
    pems = (b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % base64.encodebytes(der) for der in chain)
    with pytest.raises(EvidenceError):
        nvidia_spdm.verify_report(b"".join(pems), REPORT, NONCE, ROOT)


def made(name: str, issuer: Made | None, *, ca: bool, curve: EllipticCurve = P384) -> Made:
    key, now = generate_private_key(curve), datetime.now(timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return builder.sign(issuer[1] if issuer else key, SHA384()), key


def pem(*chain: Made) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate, _ in chain)


def signed(report: bytes, key: EllipticCurvePrivateKey) -> bytes:
    """Sign as a GPU signs its report; the stand-in has no key."""
    r, s = decode_dss_signature(key.sign(report[:-96], ECDSA(SHA384())))
    return report[:-96] + r.to_bytes(48, "big") + s.to_bytes(48, "big")


def test_a_gpu_certificate_needs_a_p384_key() -> None:
    root = made("root", None, ca=True)
    gpu = made("gpu", root, ca=False, curve=SECP256R1())
    with pytest.raises(EvidenceError, match="its certificate has no P-384 key"):
        nvidia_spdm.verify_report(pem(gpu, root), signed(REPORT, gpu[1]), NONCE, root[0])


def test_a_gpu_cannot_certify_another_gpu() -> None:
    """Its certificate is not an issuer's: a key leaked from one GPU cannot create others."""
    root = made("root", None, ca=True)
    gpu = made("gpu", root, ca=False)
    child = made("child", gpu, ca=False)
    report = signed(REPORT, child[1])
    with pytest.raises(EvidenceError, match="an issuer is not a certificate authority"):
        nvidia_spdm.verify_report(pem(child, gpu, root), report, NONCE, root[0])
    assert "CN=gpu" in nvidia_spdm.verify_report(pem(gpu, root), signed(REPORT, gpu[1]), NONCE, root[0])


@pytest.fixture
def history(tmp_path: Path) -> History:
    run = finished(tmp_path / "state", 2)
    return history_of(run.state.journal)


@pytest.mark.long
def test_the_gpu_is_asked_to_sign_the_journals_head(
    standin: Path, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made("root", None, ca=True)
    gpu = made("gpu", root, ca=False)
    (tmp_path / "chain.pem").write_bytes(pem(gpu, root))
    monkeypatch.setenv("NVML_STANDIN_SPDM", str(tmp_path / "chain.pem"))
    scenario = Scenario((h100((Segment(1000),)),))
    with simulated(standin, tmp_path, scenario, SharedClock(tmp_path / "clock")):
        found = nvidia_spdm.collect(CollectContext(history, HEAD))
    (report,) = found["reports"]
    assert (report["uuid"], found["refused"]) == (scenario.uuid(0), [])
    raw = base64.b64decode(report["report"])
    assert raw[4:36] == hashlib.sha256(bytes.fromhex(HEAD)).digest()
    chain = base64.b64decode(report["certificateChain"])
    assert "CN=gpu" in nvidia_spdm.verify_report(chain, signed(raw, gpu[1]), nvidia_spdm.nonce_of(HEAD), root[0])
    with pytest.raises(EvidenceError, match="does not end in NVIDIA's pinned root"):
        nvidia_spdm.check(found, CheckContext(history, HEAD))
    monkeypatch.setattr(nvidia_spdm, "load_certificates", lambda _: (root[0],))
    report["report"] = base64.b64encode(signed(raw, gpu[1])).decode()
    state, text = nvidia_spdm.check(found, CheckContext(history, HEAD))
    assert (state, text.partition(",")[0]) == (EvidenceState.HOLDS, "signed by CN=gpu")


def test_a_failing_nvml_is_an_absence_and_is_shut_down(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = []
    nvml = ModuleType("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    nvml.NVMLError, nvml.nvmlInit = ArithmeticError, lambda: 1 // 0  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetCount, nvml.nvmlShutdown = lambda: 1 // 0, lambda: shut.append(1)  # type: ignore[attr-defined]
    context = CollectContext(history, HEAD)
    with pytest.raises(EvidenceError, match="NVML cannot be used: "):
        nvidia_spdm.collect(context)
    assert shut == []
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(EvidenceError, match="NVML does not list its devices: "):
        nvidia_spdm.collect(context)
    assert shut == [1]
    nvml.nvmlDeviceGetCount = lambda: 0  # type: ignore[attr-defined]
    with pytest.raises(EvidenceError, match="no GPU returned a report: there is none"):
        nvidia_spdm.collect(context)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(EvidenceError) as caught:
        nvidia_spdm.collect(context)
    assert caught.value.code == "no_nvml"


@pytest.mark.long
def test_a_gpu_without_confidential_computing_is_an_absence(standin: Path, tmp_path: Path, history: History) -> None:
    with (
        simulated(standin, tmp_path, Scenario((h100((Segment(1000),)),)), SharedClock(tmp_path / "clock")),
        pytest.raises(EvidenceError, match="no GPU returned a report: GPU 0: Not Supported"),
    ):
        nvidia_spdm.collect(CollectContext(history, HEAD))
    with pytest.raises(EvidenceError, match="no NVIDIA GPU was metered"):
        nvidia_spdm.collect(CollectContext(History(), HEAD))


def test_one_gpu_cannot_answer_for_two() -> None:
    chain, report = (base64.b64encode(data).decode() for data in (CHAIN, REPORT))
    one = {"uuid": "GPU-1", "certificateChain": chain, "report": report}
    (identity,) = nvidia_spdm.verify_reports([fields_of(one)], NONCE, ROOT)
    assert "GH100" in identity
    with pytest.raises(EvidenceError, match="GPU-2 and GPU-1 were signed by the same GPU"):
        nvidia_spdm.verify_reports([fields_of(one), fields_of({**one, "uuid": "GPU-2"})], NONCE, ROOT)
    with pytest.raises(EvidenceError, match="does not match the head of this journal"):
        nvidia_spdm.check({"reports": [one]}, CheckContext(History(), HEAD))


@pytest.mark.parametrize("data", [{}, {"reports": []}, {"reports": [1]}, {"reports": [{}]}, {"reports": [{"uuid": "x", "certificateChain": "*"}]}])  # fmt: skip
def test_malformed_report_data_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        nvidia_spdm.check(data, CheckContext(History(), HEAD))
