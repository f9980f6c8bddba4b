"""A second signature: only on verified ledgers, and without changing a byte of the signed payload."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.countersign import countersign
from flopsd.attestation.seal import Sealed
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.pem import PemKey, make_pem
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.verify import Verified, verify_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.errors import LedgerError, NotVerifiedError
from tests.support.paths import VECTORS
from tests.support.process import in_process
from tests.support.runs import copied, sealed_run


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_run(tmp_path_factory.mktemp("once"))


@pytest.fixture
def sealed(once: Sealed, tmp_path: Path) -> Sealed:
    return copied(once, tmp_path)


@pytest.fixture
def second(tmp_path: Path) -> PemKey:
    key = make_pem(tmp_path / "second.pem", "p256")
    (tmp_path / "second.pub").write_bytes(key.public.pem)
    return key


def verified(sealed: Sealed, *more: Path, threshold: int = 1) -> Verified:
    keys = [load_public(str(file)) for file in (sealed.public_key, *more)]
    return verify_ledger(open_ledger(sealed.ledger, keys, threshold=threshold))


def edit(ledger: Path, **members: Any) -> None:
    document = json.loads(ledger.read_bytes())
    signature = members.pop("signature", {})
    document.update(members)
    document["signatures"][0].update(signature)
    ledger.write_text(json.dumps(document))


def test_two_parties_sign_one_ledger(sealed: Sealed, second: PemKey, tmp_path: Path) -> None:
    before = parse_envelope(sealed.ledger.read_bytes())
    with pytest.raises(NotVerifiedError, match="signed by 1 of the given keys .* 2 signatures are required"):
        verified(sealed, tmp_path / "second.pub", threshold=2)
    done = countersign(verified(sealed), sealed.ledger, second)
    assert (done.added, done.signatures, done.ledger) == (True, 2, sealed.ledger)
    after = parse_envelope(sealed.ledger.read_bytes())
    assert (after.payload, after.payload_type) == (before.payload, before.payload_type)
    assert after.signatures[:1] == before.signatures
    both = verified(sealed, tmp_path / "second.pub", threshold=2)
    assert set(both.keyids) == {second.public.keyid, load_public(str(sealed.public_key)).keyid}
    # The first signer's key, given twice in two files, still counts as one of two.
    shutil.copy(sealed.public_key, tmp_path / "copy.pub")
    with pytest.raises(NotVerifiedError, match="signed by 1 of the given keys .* 2 signatures are required"):
        verified(sealed, tmp_path / "copy.pub", threshold=2)


def test_a_given_key_that_did_not_sign_is_named_even_if_one_suffices(
    sealed: Sealed, second: PemKey, tmp_path: Path
) -> None:
    keys = ("--key", str(sealed.public_key), "--key", str(tmp_path / "second.pub"))
    said = in_process("verify", str(sealed.ledger), *keys, code=0).stdout
    assert f"NOT signed by key {second.public.keyid}, which was given too." in " ".join(said.split())
    countersign(verified(sealed), sealed.ledger, second)
    assert "NOT signed" not in in_process("verify", str(sealed.ledger), *keys, code=0).stdout
    assert json.loads(in_process("verify", str(sealed.ledger), *keys, "--json", code=0).stdout)["notSignedBy"] == []


def test_a_ledger_resealed_during_countersigning_is_not_overwritten(sealed: Sealed, second: PemKey) -> None:
    class Slow(PemKey):
        """A key service: while it answers, the run ends and its last seal is written."""

        def sign(self, message: bytes) -> bytes:
            edit(sealed.ledger, note="the last seal")
            return second.sign(message)

    with pytest.raises(NotVerifiedError, match="was changed after it was verified"):
        countersign(verified(sealed), sealed.ledger, Slow(second.public, second.path, None))
    assert len(parse_envelope(sealed.ledger.read_bytes()).signatures) == 1


def test_countersigning_keeps_the_layout_and_is_idempotent(sealed: Sealed, second: PemKey) -> None:
    before = sealed.ledger.read_bytes()
    countersign(verified(sealed), sealed.ledger, second)
    document = json.loads(sealed.ledger.read_bytes())
    del document["signatures"][1]
    assert json.dumps(document, indent=1).encode() + b"\n" == before
    before, inode = sealed.ledger.read_bytes(), sealed.ledger.stat().st_ino
    again = countersign(verified(sealed), sealed.ledger, second)  # ECDSA would give another signature each time
    assert (again.added, again.signatures) == (False, 2)
    assert (sealed.ledger.read_bytes(), sealed.ledger.stat().st_ino) == (before, inode)


def test_foreign_members_of_envelope_and_signatures_are_kept(sealed: Sealed, second: PemKey) -> None:
    token = {"extension": {"kind": "rfc3161", "ext": {"token": "AAAA", "ü": [1, None, "\u2028"]}}, "keyid": ""}
    url_safe = json.loads(sealed.ledger.read_bytes())["payload"].translate(str.maketrans("+/", "-_"))
    edit(sealed.ledger, signature=token, note={"by": "archive"}, payload=url_safe)
    text = json.loads(sealed.ledger.read_bytes())
    countersign(verified(sealed), sealed.ledger, second)
    document = json.loads(sealed.ledger.read_bytes())
    assert document["payload"] == url_safe
    assert document["note"] == {"by": "archive"}
    assert document["signatures"][0] == text["signatures"][0]
    assert set(document["signatures"][1]) == {"keyid", "sig"}


def test_a_file_other_than_the_verified_one_is_not_signed(sealed: Sealed, second: PemKey, tmp_path: Path) -> None:
    grounds = verified(sealed)
    other = sealed_run(tmp_path / "other", replay=True).ledger.read_bytes()
    sealed.ledger.write_bytes(other)
    with pytest.raises(NotVerifiedError, match="was changed after it was verified"):
        countersign(grounds, sealed.ledger, second)
    assert sealed.ledger.read_bytes() == other


def test_a_full_envelope_takes_no_signature_that_verify_would_not_try(sealed: Sealed, second: PemKey) -> None:
    document = json.loads(sealed.ledger.read_bytes())
    document["signatures"] *= 64
    sealed.ledger.write_text(json.dumps(document))
    before, grounds = sealed.ledger.read_bytes(), verified(sealed)
    with pytest.raises(NotVerifiedError, match="65 signatures"):
        countersign(grounds, sealed.ledger, second)
    assert sealed.ledger.read_bytes() == before


def test_the_countersign_verb(sealed: Sealed, second: PemKey, tmp_path: Path) -> None:
    ledger, output, key = str(sealed.ledger), tmp_path / "both.json", str(second.path)
    before = sealed.ledger.read_bytes()
    trust = ("--trust", str(sealed.public_key))
    for arguments, code, said in (
        (("--key", key), 2, "the following arguments are required: --trust"),
        (("--key", key, "--trust", str(tmp_path / "second.pub")), 3, "signed by a different key"),
        (("--key", key, *trust, "--threshold", "2"), 3, "2 signatures are required"),
        (("--key", key, *trust, "--unverified"), 2, "there is no option --unverified"),
        (("--key", str(sealed.public_key), *trust), 1, "contains a public key, not a private key"),
    ):
        done = in_process("countersign", ledger, *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    done = in_process("countersign", ledger, "--key", key, *trust, "-o", str(output), code=0)
    assert sealed.ledger.read_bytes() == before
    first, public = load_public(str(sealed.public_key)).keyid, str(tmp_path / "second.pub")
    keys = f"--key {sealed.public_key} --key YOUR-PUBLIC-KEY --threshold 2"
    details = [f"  key id     {second.public.keyid}", f"  verified   with {first}", "  signatures 2"]
    ask = "verify it with all public keys:"
    assert done.stdout.splitlines() == [
        f"{output} signed by {second.describe()}", *details, ask,
        f"  flopsd verify {output} {keys} --journal {sealed.journal}",
    ]  # fmt: skip
    for there in (output, sealed.journal, sealed.public_key):  # a file with another's signature, or evidence
        in_process("countersign", ledger, "--key", key, *trust, "-o", str(there), code=1, says=f"{there} exists")
    both = ("--key", str(sealed.public_key), "--key", public, "--threshold", "2")
    command = done.stdout.splitlines()[-1].replace("YOUR-PUBLIC-KEY", public)
    checked = in_process(*shlex.split(command)[1:])  # runs the printed command
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = in_process("countersign", ledger, "--key", f"file:{key}", *trust, "--json")
    assert json.loads(done.stdout) == {
        "ledger": ledger, "foreignFiles": [], "added": True, "signatures": 2, "keyId": second.public.keyid,
        "verifiedWith": [first],
    }  # fmt: skip
    done = in_process("countersign", ledger, "--key", key, *trust, code=0)
    again = [f"{ledger} was already signed by {second.describe()}; nothing was added", *details, ask]
    assert done.stdout.splitlines() == [*again, f"  flopsd verify {ledger} {keys}"]
    assert in_process("countersign", ledger, "--key", key, *trust, "-q", code=0).stdout == ""
    assert in_process("verify", ledger, *both).returncode == 0


def test_the_printed_verify_command_repeats_the_given_options(second: PemKey, tmp_path: Path) -> None:
    vector = VECTORS / "valid" / "replay"
    for name in ("ledger.json", "ledger.pub", "ledger.journal.jsonl"):
        shutil.copy(vector / name, tmp_path / name)
    ledger = tmp_path / "ledger.json"
    shutil.move(tmp_path / "ledger.journal.jsonl", journal := tmp_path / "elsewhere")
    tables = ("--peaks", str(VECTORS / "peaks.yaml"), "--policy", str(VECTORS / "policy.yaml"))
    given = ("--journal", str(journal), *tables, "--allow-replay")
    key = ("--key", str(second.path), "--trust", str(tmp_path / "ledger.pub"))
    in_process("countersign", str(ledger), *key, *given[:-1], code=3, says="--allow-replay")
    printed = in_process("countersign", str(ledger), *key, *given, code=0).stdout.splitlines()
    assert printed[-1].endswith(f" --threshold 2 {' '.join(given)}")


def test_a_ledger_that_does_not_recompute_or_cannot_be_written_is_not_signed(
    sealed: Sealed, second: PemKey, tmp_path: Path
) -> None:
    before = sealed.ledger.read_bytes()
    with pytest.raises(LedgerError, match="cannot write the ledger"):
        countersign(verified(sealed), sealed.ledger, second, tmp_path / "missing" / "ledger.json")
    sealed.journal.write_bytes(b"".join(sealed.journal.read_bytes().splitlines(keepends=True)[:-1]))
    done = in_process("countersign", str(sealed.ledger), "--key", str(second.path), "--trust", str(sealed.public_key))
    assert done.returncode == 3
    assert "is truncated: it has 11 records, 12 were sealed" in done.stderr
    assert sealed.ledger.read_bytes() == before
