"""Ledgers given to verifiers of others: cosign, openssl with jq, securesystemslib's own Envelope."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flopsd.attestation.seal import Sealed
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.pem import make_pem
from flopsd.attestation.signing.public_key import load_public
from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from tests.support.foreign import cosign_bundle, cosign_envelope, shell
from tests.support.process import in_process
from tests.support.runs import finished

OTHER_TYPE = "https://example.org/another/v1"


def make_key(kind: str, file: Path) -> Path:
    file.with_suffix(".pub").write_bytes(make_pem(file, kind).public.pem)
    return file


def seal(folder: Path, kind: str) -> Sealed:
    run = finished(folder / "state", 3)
    return run.seal(folder / "out" / "ledger.json", str(make_key(kind, folder / "key.pem")))


@pytest.fixture(scope="module", params=["ed25519", "p256"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return seal(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def sealed(original: Sealed, tmp_path: Path) -> Sealed:
    """A copy to be altered, with another key of the same kind next to it."""
    shutil.copytree(original.ledger.parent, tmp_path / "out")
    pem = (original.ledger.parents[1] / "key.pem").read_bytes()
    make_key("ed25519" if len(pem) < 200 else "p256", tmp_path / "out" / "other.pem")
    return replace(original, ledger=tmp_path / "out" / original.ledger.name)


def spoil_payload(ledger: Path) -> None:
    envelope = parse_envelope(ledger.read_bytes())
    spoilt = envelope.payload.replace(b'"kind": "node"', b'"kind": "nodE"')
    assert spoilt != envelope.payload
    ledger.write_bytes(encode_envelope(spoilt, envelope.payload_type, list(envelope.signatures)))


@pytest.mark.tool("cosign")
def test_cosign_accepts_the_envelope_and_no_altered_one(sealed: Sealed) -> None:
    accepted = cosign_envelope(sealed.ledger, sealed.public_key, sealed.journal)
    assert accepted.returncode == 0, accepted.stderr
    assert "Verified OK" in accepted.stderr
    other = sealed.ledger.with_name("other.pub")
    wrong_key = cosign_envelope(sealed.ledger, other, sealed.journal)
    wrong_type = cosign_envelope(sealed.ledger, sealed.public_key, sealed.journal, OTHER_TYPE)
    wrong_blob = cosign_envelope(sealed.ledger, sealed.public_key, _another(sealed.journal))
    spoil_payload(sealed.ledger)
    wrong_payload = cosign_envelope(sealed.ledger, sealed.public_key, sealed.journal)
    _all_refused({"key": wrong_key, "type": wrong_type, "blob": wrong_blob, "payload": wrong_payload})


@pytest.mark.tool("cosign")
def test_cosign_accepts_the_exported_bundle_and_no_altered_one(sealed: Sealed) -> None:
    """cosign 2.5.0 does not check --type for a bundle, so this is not tested here; docs/ledger-format.md says so."""
    bundle = sealed.ledger.with_name("ledger.sigstore.json")
    done = in_process("export", str(sealed.ledger), "--format", "sigstore-bundle", "-o", str(bundle))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    accepted = cosign_bundle(bundle, sealed.public_key, sealed.journal)
    assert accepted.returncode == 0, accepted.stderr
    assert "Verified OK" in accepted.stderr
    wrong_key = cosign_bundle(bundle, sealed.ledger.with_name("other.pub"), sealed.journal)
    wrong_blob = cosign_bundle(bundle, sealed.public_key, _another(sealed.journal))
    good = json.loads(bundle.read_bytes())
    good["dsseEnvelope"]["payloadType"] = "application/json"
    bundle.write_text(json.dumps(good))
    wrong_payload_type = cosign_bundle(bundle, sealed.public_key, sealed.journal)
    spoil_payload(sealed.ledger)
    good["dsseEnvelope"].update(payloadType=PAYLOAD_TYPE, payload=json.loads(sealed.ledger.read_bytes())["payload"])
    bundle.write_text(json.dumps(good))
    wrong_payload = cosign_bundle(bundle, sealed.public_key, sealed.journal)
    _all_refused({"key": wrong_key, "blob": wrong_blob, "payload": wrong_payload, "payload type": wrong_payload_type})


def _another(journal: Path) -> Path:
    cut = journal.with_name("another.jsonl")
    cut.write_bytes(journal.read_bytes()[:-1])
    return cut


def _all_refused(refusals: dict[str, subprocess.CompletedProcess[str]]) -> None:
    for what, done in refusals.items():
        assert done.returncode != 0, f"cosign accepts another {what}"
        assert "Verified OK" not in done.stderr


def test_securesystemslib_verifies_with_its_own_envelope(sealed: Sealed) -> None:
    """Its rules require a keyid that the key knows; ours is the digest of the key."""
    from securesystemslib.dsse import Envelope as TheirEnvelope  # imports the SDK of each cloud that is installed
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    def their_key(file: Path) -> SSlibKey:
        public = load_public(str(file))
        return SSlibKey.from_crypto(public.key, keyid=public.keyid)

    document = json.loads(sealed.ledger.read_bytes())
    theirs = TheirEnvelope.from_dict(copy.deepcopy(document))
    key, other = their_key(sealed.public_key), their_key(sealed.ledger.with_name("other.pub"))
    assert list(theirs.verify([key], 1)) == [key.keyid]
    with pytest.raises(VerificationError):
        theirs.verify([other], 1)
    spoil_payload(sealed.ledger)
    with pytest.raises(VerificationError):
        TheirEnvelope.from_dict(json.loads(sealed.ledger.read_bytes())).verify([key], 1)


def _edit_journal(sealed: Sealed) -> None:
    sealed.journal.write_bytes(sealed.journal.read_bytes().replace(b'"tensor_hmma":', b'"tensor_hmma":1', 1))


def _wrong_key(sealed: Sealed) -> None:
    shutil.copy(sealed.ledger.with_name("other.pub"), sealed.public_key)


def _cut_journal(sealed: Sealed) -> None:
    lines = sealed.journal.read_bytes().splitlines(keepends=True)
    sealed.journal.write_bytes(b"".join(lines[:-1]))


@pytest.mark.tool("openssl", "jq")
@pytest.mark.parametrize(
    ("spoil", "last_said"),
    [
        (None, "gapSecondsByReason"),
        (_wrong_key, "no signature is by"),
        (lambda s: spoil_payload(s.ledger), "no signature is by"),
        (_edit_journal, "sealed.jsonl: FAILED"),
        (_cut_journal, "sealed.jsonl: FAILED"),
    ],
)
def test_the_recipe_of_verify_explain_gives_the_same_verdict(
    sealed: Sealed, spoil: Callable[[Sealed], None] | None, last_said: str
) -> None:
    """The text goes to sh as printed, for a ledger that flopsd refuses too."""
    if spoil is not None:
        spoil(sealed)
    found = in_process("verify", str(sealed.ledger), "--key", str(sealed.public_key), "--explain")
    assert found.returncode == (0 if spoil is None else 3)
    assert found.stderr.startswith("VERIFIED" if spoil is None else "NOT VERIFIED")
    done = shell(found.stdout, sealed.ledger.parent)
    assert (done.returncode == 0) == (spoil is None), done.stdout + done.stderr
    assert last_said in done.stdout
    if spoil is None:
        assert "signature 0 is by key" in done.stdout
        assert "sealed.jsonl: OK" in done.stdout
        assert "an unbroken chain, and the head that was sealed" in done.stdout
        assert sealed.predicate["totals"]["executed"]["measured"] in done.stdout


def test_the_recipe_is_given_for_unreadable_ledgers_and_runs_no_command_in_a_name(tmp_path: Path) -> None:
    ledger = tmp_path / "o'led\ntouch pwned\nger.json"
    ledger.write_bytes(b"\xff")
    make_key("ed25519", tmp_path / "key.pem")
    found = in_process("verify", str(ledger), "--key", str(tmp_path / "key.pub"), "--explain", code=3)
    assert "is not a ledger, which is a JSON object" in found.stderr
    (assignment,) = (line for line in found.stdout.splitlines() if line.startswith("ledger="))
    assert shell(f'{assignment}\nprintf %s "$ledger"', tmp_path).stdout == str(ledger)
    assert "openssl pkeyutl" in found.stdout
    shell(found.stdout, tmp_path)
    assert not (tmp_path / "pwned").exists()
    in_process("verify", str(ledger), "--key", str(tmp_path / "key.pub"), "--explain", "--json", code=2)


def test_a_key_that_signed_nothing_gets_no_bundle(sealed: Sealed) -> None:
    other = sealed.ledger.with_name("other.pub")
    done = in_process("export", str(sealed.ledger), "--key", str(other))
    assert (done.returncode, done.stdout) == (3, "")
    assert "no valid signature by the given key" in done.stderr
    in_process("export", str(sealed.ledger), "-o", str(sealed.ledger / "x"), code=1, says="cannot write")


@pytest.mark.tool("cosign", "openssl", "jq")
def test_each_of_two_signatures_has_its_bundle_and_its_step(tmp_path: Path) -> None:
    first = seal(tmp_path, "ed25519")
    second = tmp_path / "out" / "second.pub"
    shutil.copy(make_key("p256", tmp_path / "second.pem").with_suffix(".pub"), second)
    envelope = parse_envelope(first.ledger.read_bytes())
    counter = parse_envelope(sign(envelope.payload, load_signer(str(tmp_path / "second.pem"))))
    signatures = [*envelope.signatures, *counter.signatures]
    first.ledger.write_bytes(encode_envelope(envelope.payload, envelope.payload_type, signatures))
    for key in (first.public_key, second):
        bundle = tmp_path / "out" / f"{key.stem}.sigstore.json"
        done = in_process("export", str(first.ledger), "--key", str(key))
        bundle.write_text(done.stdout)
        assert len(json.loads(done.stdout)["dsseEnvelope"]["signatures"]) == 1
        assert cosign_bundle(bundle, key, first.journal).returncode == 0
        assert cosign_envelope(first.ledger, key, first.journal).returncode == 0
    keys = ("--key", str(first.public_key), "--key", str(second))
    found = in_process("verify", str(first.ledger), *keys, "--threshold", "2", "--explain", code=0)
    done = shell(found.stdout, first.ledger.parent, code=0)
    assert re.findall("^signature ([01]) is by key", done.stdout, re.MULTILINE) == ["0", "1"]


@pytest.mark.tool("openssl", "jq")
def test_a_ledger_without_a_journal_is_explained_without_one(tmp_path: Path) -> None:
    """A job's ledger is made from other ledgers: only its signature remains to be checked outside."""
    key = load_signer(str(make_key("p256", tmp_path / "key.pem")))
    document = {"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicate": {"kind": "job", "totals": {"executed": {"low": "7"}}}}  # fmt: skip
    (tmp_path / "job.json").write_bytes(sign(encode(document), key))
    found = in_process("verify", str(tmp_path / "job.json"), "--key", str(tmp_path / "key.pub"), "--explain", code=3)
    assert "\nchained\n" not in found.stdout
    done = shell(found.stdout, tmp_path, code=0)
    assert "signature 0 is by key" in done.stdout
    assert '"low": "7"' in done.stdout
