"""EC2 instance identity: collected from a metadata service, and accepted only with a pinned key."""

import base64
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.attestation.evidence import ec2_identity
from flopsd.attestation.evidence.ec2_identity import signed_content
from flopsd.attestation.evidence.http import request
from flopsd.attestation.evidence.item import CheckContext, CollectContext, EvidenceState
from flopsd.attestation.evidence.trust import load_certificates
from flopsd.core.ledger.history import History
from flopsd.errors import EvidenceError
from flopsd.settings.data_files import config_dir
from tests.support.authorities import IDENTITY, Metadata, serving
from tests.support.tools import require_tools

DOCUMENT = (IDENTITY / "document.json").read_bytes()
GENUINE, FORGED = ((IDENTITY / name).read_text() for name in ("genuine.p7", "forged.p7"))
(PINNED,) = load_certificates(IDENTITY / "pinned_cert.pem")
(ATTACKER,) = load_certificates(IDENTITY / "attacker_cert.pem")


def grounds(*certificates: Any) -> CheckContext:
    return CheckContext(History(), "00" * 32, certificates)


def item(document: bytes = DOCUMENT, message: str = GENUINE) -> dict[str, str]:
    return {"document": base64.b64encode(document).decode(), "rsa2048": message}


def openssl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    require_tools("openssl")
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_genuine_document_is_accepted_and_a_self_certified_forgery_rejected() -> None:
    assert signed_content(GENUINE, PINNED) == DOCUMENT
    bare = "".join(line for line in GENUINE.splitlines() if "-----" not in line)  # as IMDS serves it
    assert signed_content(bare, PINNED) == DOCUMENT

    with pytest.raises(EvidenceError, match="not made by the key of the pinned certificate"):
        signed_content(FORGED, PINNED)
    assert signed_content(FORGED, ATTACKER) == DOCUMENT  # it is well formed: only the key is wrong


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signers")
    shutil.copy(IDENTITY / "document.json", folder)
    for name in "ab":
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "30",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    return folder


SIGN = shlex.split("cms -sign -binary -nodetach -in document.json -outform PEM -signer a.pem -inkey a.key")


@pytest.mark.tool("openssl")
@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (("-md", "sha256", "-nocerts"), None),
        (("-md", "sha256"), None),
        (("-md", "sha256", "-stream"), None),  # BER of indefinite length
        (("-md", "sha512"), "its digest is not SHA-256"),
        (("-md", "sha1"), "its digest is not SHA-256"),
        (("-md", "sha256", "-noattr"), "AttributeError|message digest|TypeError"),
        (("-md", "sha256", "-keyopt", "rsa_padding_mode:pss"), "rsassa_pss, not RSA with PKCS#1 v1.5"),
        (("-md", "sha256", "-signer", "b.pem", "-inkey", "b.key"), "exactly one signer"),
        (("-md", "sha256", "-detached"), "it contains no document"),
    ],
)  # fmt: skip
def test_messages_signed_by_openssl_are_read_by_the_rules(
    signers: Path, more: tuple[str, ...], fault: str | None
) -> None:
    how = [word for word in SIGN if word != "-nodetach" or "-detached" not in more]
    message = openssl(signers, *how, *(word for word in more if word != "-detached")).stdout
    (certificate,) = load_certificates(signers / "a.pem")
    if "-stream" in more:
        assert base64.b64decode(message.splitlines()[1])[:2] == b"\x30\x80"
    if fault is None:
        assert signed_content(message, certificate) == DOCUMENT
        return
    with pytest.raises(EvidenceError, match=fault):
        signed_content(message, certificate)


@pytest.mark.long
@given(st.data())
def test_no_changed_message_passes_with_another_document(data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode("".join(GENUINE.splitlines()[1:-1])))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert signed_content(base64.b64encode(bytes(raw)).decode(), PINNED) == DOCUMENT
    except EvidenceError:
        pass


def test_a_pinned_certificate_needs_an_rsa_key() -> None:
    other = load_certificates(config_dir() / "certificates" / "nvidia" / "verifier_device_root.pem")[0]
    with pytest.raises(EvidenceError, match="the pinned certificate has no RSA key"):
        signed_content(GENUINE, other)


@pytest.mark.parametrize("more", [0, 1])
def test_a_message_has_a_size_limit(more: int) -> None:
    padded = GENUINE + " " * (65536 + more - len(GENUINE))
    with pytest.raises(EvidenceError, match="more than 65536 bytes") if more else nullcontext():
        assert signed_content(padded, PINNED) == signed_content(GENUINE, PINNED)


def test_without_a_pinned_certificate_nothing_is_checked() -> None:
    """No certificate is packaged: whatever region a document claims, it never counts as checked."""
    verdict, words = ec2_identity.check(item(), grounds())
    assert verdict is EvidenceState.NOT_CHECKED
    assert words.startswith("no pinned certificate for region us-east-1")
    assert ec2_identity.check(item(message=FORGED), grounds())[0] is EvidenceState.NOT_CHECKED


def test_a_pinned_certificate_decides_the_verdict() -> None:
    verdict, words = ec2_identity.check(item(), grounds(ATTACKER, PINNED))
    assert verdict is EvidenceState.HOLDS
    assert words == "instance i-0abc, p5.48xlarge, account 123456789012, us-east-1, launched 2026-11-25T08:00:00Z"
    # Without the extra, the finding says so, and never that the evidence holds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "asn1crypto", None)
        assert ec2_identity.check(item(message=FORGED), grounds(PINNED)) == (
            EvidenceState.NOT_CHECKED,
            "this needs the extra: pip install 'flopsd[evidence]'",
        )
    other = item(DOCUMENT.replace(b"p5.48", b"p4d.2"))
    for forged in (item(message=FORGED), other, item(message=""), {"document": "!"}, {}):
        with pytest.raises(EvidenceError):
            ec2_identity.check(forged, grounds(PINNED))


def test_certificates_are_found_by_region(tmp_path: Path) -> None:
    sources = {"us-east-1_2026-11-25.pem": "pinned", "us-east-1.pem": "attacker", "us-east-2.pem": "pinned"}
    for name, source in sources.items():
        shutil.copy(IDENTITY / f"{source}_cert.pem", tmp_path / name)
    assert set(ec2_identity.pinned("us-east-1", tmp_path)) == {ATTACKER, PINNED}
    assert ec2_identity.pinned("us-east", tmp_path) == ec2_identity.pinned("../us-east-1", tmp_path) == ()
    (tmp_path / "eu-west-1.pem").write_text("no certificate")
    with pytest.raises(EvidenceError, match=r"eu-west-1.pem contains no X.509 certificate"):
        ec2_identity.pinned("eu-west-1", tmp_path)


def scene(root: Path, **variables: str) -> CollectContext:
    return CollectContext(History(), "00" * 32, variables, root)


def test_document_and_signature_are_fetched_with_a_session_token(tmp_path: Path) -> None:
    service = Metadata()
    with serving(service.answer) as url:
        found = ec2_identity.collect(scene(tmp_path, AWS_EC2_METADATA_SERVICE_ENDPOINT=url + "/"))
    assert found == item()
    folder = "/latest/dynamic/instance-identity"
    assert service.asked == [("PUT", "/latest/api/token"), ("GET", f"{folder}/document"), ("GET", f"{folder}/rsa2048")]
    assert ec2_identity.check(found, grounds(PINNED))[0] is EvidenceState.HOLDS


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (Metadata(token_status=403), "api/token answered 403"),  # SageMaker's way of providing none
        (Metadata(token_status=202), "api/token answered 202"),
        (Metadata(redirect="http://127.0.0.1:1/"), "document answered 302"),
        (Metadata(document=b"x" * 100_000), "more than 16384 bytes"),
        (Metadata(document=b"[]"), "has no instanceId"),
        (Metadata(document=b"<html>"), "is not JSON"),
    ],
)
def test_an_unusable_answer_is_an_absence_with_its_reason(service: Metadata, reason: str, tmp_path: Path) -> None:
    with serving(service.answer) as url, pytest.raises(EvidenceError, match=reason):
        ec2_identity.collect(scene(tmp_path, AWS_EC2_METADATA_SERVICE_ENDPOINT=url))


@pytest.mark.parametrize(
    ("mark", "words", "mode", "url"),
    [
        ("sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2\n", "", "http://169.254.169.254"),
        ("sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2\n", "IPv6", "http://[fd00:ec2::254]"),
        ("sys/hypervisor/uuid", "ec2abcde-0000\n", "ipv4", "http://169.254.169.254"),
        ("sys/hypervisor/uuid", "ec2abcde-0000\n", "ipv5", None),
        ("sys/hypervisor/uuid", "abcdec2-0000\n", "", None),
        ("sys/devices/virtual/dmi/id/sys_vendor", "Other\xff\n", "", None),
    ],
)
def test_an_ec2_instance_is_identified_by_its_vendor_or_hypervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, words: str, mode: str, url: str | None
) -> None:
    (tmp_path / mark).parent.mkdir(parents=True)
    (tmp_path / mark).write_text(words, encoding="latin-1")
    asked = []

    def ask(url: str, *_: object) -> bytes:
        asked.append(url)
        raise EvidenceError("nobody answers")

    monkeypatch.setattr(ec2_identity, "_ask", ask)
    with pytest.raises(EvidenceError, match="nobody answers" if url else "no sign of EC2|EC2"):
        ec2_identity.collect(scene(tmp_path, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=mode))
    assert asked == ([f"{url}/latest/api/token"] if url else [])


def test_no_metadata_service_is_asked_outside_ec2(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="this machine is not an EC2 instance"):
        ec2_identity.collect(scene(tmp_path))
    service = Metadata()
    with serving(service.answer) as url, pytest.raises(EvidenceError, match="AWS_EC2_METADATA_DISABLED is set"):
        ec2_identity.collect(scene(tmp_path, AWS_EC2_METADATA_SERVICE_ENDPOINT=url, AWS_EC2_METADATA_DISABLED="true"))
    assert service.asked == []
    with pytest.raises(EvidenceError, match="is not an http address"):
        ec2_identity.collect(scene(tmp_path, AWS_EC2_METADATA_SERVICE_ENDPOINT="file:///etc/passwd"))


@pytest.mark.parametrize("more", [0, 1])
def test_an_answer_has_a_size_limit(more: int) -> None:
    stated = pytest.raises(EvidenceError, match="more than 100 bytes") if more else nullcontext()
    with serving(lambda *_: (200, b"x" * (100 + more), {})) as url, stated:
        assert request(url, timeout_seconds=30, limit_bytes=100) == b"x" * 100
