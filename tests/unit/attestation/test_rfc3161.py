"""RFC 3161: vectors of others, a real openssl authority, and the places in the envelope where a timestamp counts."""

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from flopsd.attestation.evidence import rfc3161
from flopsd.attestation.evidence.check import timestamp_findings
from flopsd.attestation.evidence.item import EvidenceResult, EvidenceState
from flopsd.attestation.evidence.trust import Trust, load_certificates, load_trust
from flopsd.attestation.seal import Sealed
from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.ledger.statement import PREDICATE_TYPE
from flopsd.errors import EvidenceError, NotVerifiedError
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.system.clock import NS_PER_S, Clock, SystemClock
from tests.support.authorities import VECTORS, Answer, Authority, serving
from tests.support.foreign import shell
from tests.support.paths import ROOT
from tests.support.process import PATIENCE_SECONDS
from tests.support.runs import finished, verified

TIMEOUT = "flopsd.attestation.evidence.rfc3161._TIMEOUT_SECONDS"
FOLDER = VECTORS / "rfc3161"
ACCEPTED = {
    "test_tsa/response.tsr": "2024-10-08T15:40:32Z",
    "test_tsa/response-injected-certs.tsr": "2024-10-08T15:40:32Z",
    "sigstage/response-sha256.tsr": "2025-05-09T11:58:55Z",
    "sigstage/response-sha384.tsr": "2025-05-09T11:58:55Z",
    "sigstage/response-sha512.tsr": "2025-05-09T11:58:56Z",
    "sigstage/response-no-embedded-cert.tsr": "2025-06-18T08:13:02Z",
    "sigstore-mock/response-expired.tsr": "2023-02-01T00:00:00Z",
    "identrust/issue-104.tsr": "2025-03-11T08:52:08Z",
}


def chain_of(name: str) -> tuple[Any, ...]:
    return load_certificates(FOLDER / name.split("/")[0] / "ts_chain.pem")


def message_of(name: str) -> bytes:
    return (FOLDER / "sigstore-mock" / "payload").read_bytes() if "mock" in name else b"hello"


@pytest.mark.parametrize("name", ACCEPTED)
def test_valid_responses_are_accepted_with_their_time(name: str) -> None:
    token, trusted = (FOLDER / name).read_bytes(), chain_of(name)
    # One file may have the signers and roots of several authorities, or successive signers of one authority.
    others = tuple(one for other in ("sigstage/x", "test_tsa/x") for one in chain_of(other) if one not in trusted)
    for chain in (trusted, trusted[::-1], others + trusted):
        moment, root = rfc3161.verify(token, message_of(name), chain)
        assert moment == ACCEPTED[name]
        assert root in {one.subject.rfc4514_string() for one in trusted if one.subject == one.issuer}
    assert {one.subject for one in trusted} & rfc3161.signers_of(token), "whose it is is known before"
    with pytest.raises(EvidenceError, match="Mismatch between messages"):
        rfc3161.verify((FOLDER / name).read_bytes(), b"hullo", chain_of(name))


def test_another_authoritys_root_verifies_nothing() -> None:
    for name in ACCEPTED:
        other = "identrust/x" if "identrust" not in name else "test_tsa/x"
        with pytest.raises(EvidenceError, match="does not verify with"):
            rfc3161.verify((FOLDER / name).read_bytes(), message_of(name), chain_of(other))


def test_a_trust_file_without_a_root_is_the_verifiers_mistake_and_no_ledger_fault(tmp_path: Path) -> None:
    signer = tmp_path / "signer.pem"
    signer.write_bytes(chain_of("test_tsa/x")[0].public_bytes(Encoding.PEM))
    with pytest.raises(EvidenceError, match="signer.pem contains no root certificate"):
        load_trust(tsa_files=[str(signer)])


def test_a_token_that_crashes_the_library_does_not_hold() -> None:
    name = "test_tsa/response.tsr"
    raw = bytearray((FOLDER / name).read_bytes())
    raw[296] ^= 1  # the version of a certificate
    with pytest.raises(EvidenceError, match="does not verify with"):
        rfc3161.verify(bytes(raw), b"hello", chain_of(name))


@pytest.mark.long
def test_no_response_causes_a_crash_whoever_is_trusted() -> None:
    """Changed bytes make versions, string types and algorithms that the libraries do not know, each with its own
    error. With an unknown authority, the name is read from such a token."""
    name = "test_tsa/response.tsr"
    whole = (FOLDER / name).read_bytes()
    for trusted in (name, "identrust/x"):
        trust = Trust(tsa_chains=(chain_of(trusted),))
        for at in (*range(280, 420), *range(0, len(whole), 7)):
            raw = bytearray(whole)
            raw[at] ^= 3
            (found,) = timestamp_findings([(b"hello", bytes(raw))], trust, "2026-01-01T00:00:00Z")
            assert found.verdict in (EvidenceState.FAILED, EvidenceState.NOT_CHECKED, EvidenceState.HOLDS)


@pytest.mark.long
@given(st.data())
def test_no_altered_response_states_another_time(data: st.DataObject) -> None:
    name = "test_tsa/response.tsr"
    raw = bytearray((FOLDER / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        moment, _ = rfc3161.verify(bytes(raw), b"hello", chain_of(name))
    except EvidenceError:
        return
    assert moment == ACCEPTED[name]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority starts an openssl for each answer, which takes seconds on a busy machine."""
    monkeypatch.setattr(TIMEOUT, PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def url(authority: Authority) -> Iterator[str]:
    with serving(authority.answer) as address:
        yield address


def seal(folder: Path, url: str, clock: Clock | None = None) -> Sealed:
    run, wanted = finished(folder / "state", 3), EvidenceWanted((), url)
    return run.seal(folder / "ledger.json", clock=clock or SystemClock(), wanted=wanted)


def stamps(sealed: Sealed, trust: Trust) -> list[EvidenceResult]:
    return [finding for finding in verified(sealed, trust=trust).evidence if finding.type == "rfc3161"]


def edit(sealed: Sealed, change: Any) -> None:
    document = json.loads(sealed.ledger.read_bytes())
    change(document["signatures"])
    sealed.ledger.write_text(json.dumps(document))


@pytest.mark.tool("openssl")
@pytest.mark.tool("jq")
def test_a_seal_is_timestamped_and_others_can_check_the_timestamp(
    tmp_path: Path, authority: Authority, url: str
) -> None:
    sealed = seal(tmp_path, url)
    assert f"by {url}" in sealed.timestamp
    (found,) = stamps(sealed, load_trust(tsa_files=[str(authority.root)]))
    assert found.verdict is EvidenceState.HOLDS
    assert found.text.startswith(
        f"the signature existed at {sealed.timestamp.split(',')[0]} according to CN=flopsd test root"
    )
    (unchecked,) = stamps(sealed, Trust())
    assert (unchecked.verdict, unchecked.text[:32]) == (EvidenceState.NOT_CHECKED, "no certificate of a timestamp au")

    (by_hand,) = re.findall(
        r"^```sh\n(jq .*?)^```", (ROOT / "docs" / "evidence.md").read_text(), re.DOTALL | re.MULTILINE
    )
    shutil.copy(authority.root, sealed.ledger.parent / "root.pem")
    done = shell(f"set -e\n{by_hand}", sealed.ledger.parent)
    assert (done.returncode, done.stdout.strip()) == (0, "Verification: OK"), done.stderr


class Ahead(SystemClock):
    def wall_ns(self) -> int:
        return super().wall_ns() + 3600 * NS_PER_S


@pytest.mark.tool("openssl")
def test_a_seal_dated_after_its_timestamp_is_flagged(tmp_path: Path, authority: Authority, url: str) -> None:
    trust = load_trust(tsa_files=[str(authority.root)])
    for name, clock, later in (("now", SystemClock(), False), ("ahead", Ahead(), True)):
        (tmp_path / name).mkdir()
        (found,) = stamps(seal(tmp_path / name, url, clock), trust)
        assert ("WHICH IS LATER" in found.text) is later
        assert "give or take" not in found.text
    stated = {
        "rough": (
            "accuracy=secs:7199,millisecs:1",
            "Z, give or take 2 h, according to CN=flopsd test root; the ledger",
        ),
        "silent": ("", "Z according to CN=flopsd test root; the ledger states that it was sealed at"),
    }
    for name, (accuracy, words) in stated.items():
        other = Authority(tmp_path / name)
        settings = other.folder / "tsa.cnf"
        settings.write_text(settings.read_text().replace("accuracy=secs:1", accuracy))
        with serving(other.answer) as address:
            (found,) = stamps(seal(tmp_path / name, address, Ahead()), load_trust(tsa_files=[str(other.root)]))
        assert words in found.text


@pytest.mark.tool("cosign")
def test_cosign_verifies_a_timestamped_ledger(tmp_path: Path, url: str) -> None:
    sealed = seal(tmp_path, url)
    done = subprocess.run(
        ["cosign", "verify-blob-attestation", "--key", str(sealed.public_key), "--signature", str(sealed.ledger),
         "--type", PREDICATE_TYPE, "--insecure-ignore-tlog=true", str(sealed.journal)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Verified OK" in done.stderr + done.stdout


@pytest.mark.tool("openssl")
def test_a_timestamp_of_other_bytes_is_not_verified(tmp_path: Path, authority: Authority, url: str) -> None:
    trust = load_trust(tsa_files=[str(authority.root)])
    for change, reason in (
        (lambda s: s[0]["timestamps"][0].update(token=encoded(authority, b"other")), "Mismatch between messages"),
        (lambda s: s[0]["timestamps"][0].update(token="AAAA"), "it is not a timestamp response"),
        (lambda s: s[0]["timestamps"][0].update(token="*"), "a timestamp is not base64"),
        (lambda s: s[0].update(timestamps=s[0]["timestamps"] * 65), "more than 64 timestamps"),
    ):
        sealed = seal(tmp_path / reason[:5], url)
        assert stamps(sealed, trust)[0].verdict is EvidenceState.HOLDS
        edit(sealed, change)
        with pytest.raises(NotVerifiedError, match=reason):
            stamps(sealed, trust)


@pytest.mark.tool("openssl")
def test_a_timestamp_of_an_unnamed_authority_is_not_checked_and_spoils_no_other(
    tmp_path: Path, authority: Authority, url: str
) -> None:
    stranger = Authority(tmp_path / "stranger", "CN=stranger")
    sealed = seal(tmp_path / "x", url)
    (found,) = stamps(sealed, load_trust(tsa_files=[str(stranger.root)]))
    assert found.verdict is EvidenceState.NOT_CHECKED
    assert found.text.startswith("no certificate of its authority was given; it names CN=flopsd test root")
    (signature,) = json.loads(sealed.ledger.read_bytes())["signatures"]
    second = {"type": "rfc3161", "token": encoded(stranger, base64.b64decode(signature["sig"]))}
    edit(sealed, lambda s: s[0]["timestamps"].append(second))
    both = [str(authority.root), str(stranger.root)]
    for named, verdicts in ((both[:1], ["HOLDS", "NOT_CHECKED"]), (both, ["HOLDS", "HOLDS"])):
        assert [one.verdict.name for one in stamps(sealed, load_trust(tsa_files=named))] == verdicts
    namesake = Authority(tmp_path / "namesake", "CN=stranger")
    with pytest.raises(NotVerifiedError, match="the evidence rfc3161 is invalid: it does not verify with CN="):
        stamps(sealed, load_trust(tsa_files=[both[0], str(namesake.root)]))


def encoded(authority: Authority, message: bytes) -> str:
    with serving(authority.answer) as url:
        return base64.b64encode(rfc3161.fetch(message, url)).decode()


@pytest.mark.tool("openssl")
def test_an_old_timestamp_of_a_strangers_signature_dates_nothing(
    tmp_path: Path, authority: Authority, url: str
) -> None:
    sealed = seal(tmp_path, url)
    edit(sealed, lambda s: s[0].pop("timestamps"))
    junk = Ed25519PrivateKey.generate().sign(b"long ago")
    stamped = {
        "sig": base64.b64encode(junk).decode(),
        "timestamps": [{"type": "rfc3161", "token": encoded(authority, junk)}],
    }
    edit(sealed, lambda s: s.append(stamped))
    (found,) = stamps(sealed, load_trust(tsa_files=[str(authority.root)]))
    assert (found.verdict, found.text) == (EvidenceState.ABSENT, "no valid signature has a timestamp")


@pytest.mark.long
@pytest.mark.tool("openssl")
def test_a_failing_authority_leaves_the_seal_without_a_timestamp(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = authority.stamp(query(b"stale"))
    hold = threading.Event()

    def hanging(_: BaseHTTPRequestHandler, __: bytes) -> Answer:
        hold.wait(60)
        return 200, b"", {}

    answers: dict[str, Any] = {
        "answered another request: the nonce differs": lambda *_: (200, stale, {}),
        "it is not a timestamp response": lambda *_: (200, b"<html>", {}),
        "the authority refused: status 2": lambda *_: (200, bytes.fromhex("30053003020102"), {}),
        "answered 503": lambda *_: (503, b"", {}),
        "more than 262144 bytes": lambda *_: (200, bytes(300_000), {}),
        "does not answer: timed out": hanging,
    }
    for number, (reason, answer) in enumerate(answers.items()):
        with serving(answer) as address, monkeypatch.context() as patch:
            patch.setattr(TIMEOUT, 0.5) if answer is hanging else None
            sealed = seal(tmp_path / str(number), address)
            hold.set() if answer is hanging else None
        assert sealed.timestamp.startswith("NONE: ")
        assert reason in sealed.timestamp
        assert stamps(sealed, Trust())[0].verdict is EvidenceState.ABSENT
    sealed = seal(tmp_path / "nobody", "http://127.0.0.1:1/")
    assert "does not answer: [Errno 111]" in sealed.timestamp


def query(message: bytes) -> bytes:
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    builder = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256)
    return bytes(builder.nonce(nonce=True).build().as_bytes())


def test_the_envelope_keeps_unknown_members_of_a_signature() -> None:
    more = {"timestamps": [{"type": "rfc3161", "token": "AAEC"}, {"type": "other", "token": 1}], "x": {"y": ["z"]}}
    document = json.loads(encode_envelope(b"{}", "text/plain", [("a", b"1"), ("b", b"2")]))
    document["signatures"][0] |= more
    envelope = parse_envelope(json.dumps(document).encode())
    assert envelope.extensions == (more, {})
    assert (envelope.timestamps(0), envelope.timestamps(1)) == ((b"\x00\x01\x02",), ())
    assert replace(envelope, extensions=()).timestamps(0) == ()
    no_text = {"timestamps": [{"type": "rfc3161", "token": 1}]}
    with pytest.raises(NotVerifiedError, match="a timestamp is not base64"):
        replace(envelope, extensions=(no_text,)).timestamps(0)


@pytest.mark.tool("openssl")
def test_without_the_extra_nothing_is_timestamped_or_checked_and_both_say_so(
    tmp_path: Path, authority: Authority, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust, stamped = load_trust(tsa_files=[str(authority.root)]), seal(tmp_path / "a", url)
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    assert "NONE: timestamps need the extra 'timestamp' (pip install" in seal(tmp_path / "b", url).timestamp
    (found,) = stamps(stamped, trust)
    assert (found.verdict, found.text) == (
        EvidenceState.NOT_CHECKED,
        "this needs the extra: pip install 'flopsd[timestamp]'",
    )
