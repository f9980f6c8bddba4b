"""Keys in PKCS#11 tokens, on a real module: SoftHSM2 in a folder of the test, with keys made by OpenSC's
pkcs11-tool."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.pem import make_pem
from flopsd.attestation.signing.public_key import load_public
from flopsd.errors import SigningKeyError
from flopsd.settings.load import PKCS11_PIN
from tests.support.paths import ROOT
from tests.support.process import environment, flopsd, in_process
from tests.support.runs import finished

PIN = "4711"
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


def module_path() -> str:
    found = next((path for path in _MODULES if Path(path).is_file()), None)
    assert found is not None, f"softhsm2-util is here, its module in none of {_MODULES}"
    return found


@dataclass(frozen=True)
class Tokens:
    """Tokens in one folder. A process sees them if it has `environment` when it loads the module."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @classmethod
    def new(cls, folder: Path) -> Tokens:
        (folder / "tokens").mkdir(parents=True)
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        return cls(folder)

    def initialise(self, token: str) -> None:
        self._run("softhsm2-util", "--init-token", "--free", "--label", token, "--pin", PIN, "--so-pin", "0815")

    def new_key(self, token: str, label: str, id_hex: str, kind: str = "EC:prime256v1") -> None:
        self.tool(token, "--keypairgen", "--key-type", kind, "--label", label, "--id", id_hex)

    def tool(self, token: str, *arguments: str) -> None:
        self._run("pkcs11-tool", "--module", module_path(), "--token-label", token, "--login", "--pin", PIN, *arguments)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env={"PATH": "/usr/sbin:/usr/bin:/bin", **self.environment}, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


pytestmark = [pytest.mark.tool("softhsm2-util"), pytest.mark.tool("pkcs11-tool")]
GOOD = {PKCS11_PIN: PIN}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """All tokens and keys, made before this process loads the module, which reads its configuration once."""
    tokens = Tokens.new(tmp_path_factory.mktemp("softhsm"))
    tokens.initialise("flopsd")
    tokens.initialise("my; second")
    for label, id_hex, kind in (
        ("ledger", "01", "EC:prime256v1"),
        ("other", "0203", "EC:prime256v1"),
        ("p384", "04", "EC:secp384r1"),
        ("k1", "05", "EC:secp256k1"),
        ("rsa", "06", "rsa:2048"),
        ("twin", "07", "EC:prime256v1"),
        ("twin", "08", "EC:prime256v1"),
        ("lonely", "09", "EC:prime256v1"),
    ):
        tokens.new_key("flopsd", label, id_hex, kind)
    tokens.tool("flopsd", "--delete-object", "--type", "pubkey", "--id", "09")
    tokens.new_key("my; second", "only", "01")
    return tokens


@pytest.fixture
def tokens(made: Tokens, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    monkeypatch.setenv("SOFTHSM2_CONF", made.environment["SOFTHSM2_CONF"])
    monkeypatch.setenv("PYKCS11LIB", module_path())
    return made


def load(path: str, query: str = "", **variables: str):  # type: ignore[no-untyped-def]
    return load_signer(f"pkcs11:{path}?module-path={module_path()}{query}", {**GOOD, **variables})


@pytest.mark.usefixtures("tokens")
def test_a_key_signs_by_label_by_id_and_as_the_only_one() -> None:
    message = os.urandom(1_000_000)
    by_label, by_id = load("token=flopsd;object=ledger"), load("token=flopsd;id=%01")
    assert by_label.public == by_id.public
    for key in (
        by_label,
        load("token=flopsd;id=%02%03"),
        load("token=my%3B%20second"),
        load("object=only;token=my%3b second;type=private"),
    ):
        assert key.public.type == "p256"
        for _ in range(20):  # r and s have leading zeros now and then
            signature = key.sign(message)
            assert key.public.verifies(message, signature)
        assert not key.public.verifies(message[1:], signature)
    assert by_label.describe() == f"the P-256 key 'ledger' on token 'flopsd' of {module_path()}"


@pytest.mark.usefixtures("tokens")
def test_module_and_pin_are_read_from_their_sources_in_order(tmp_path: Path) -> None:
    uri, lib = "pkcs11:token=flopsd;object=ledger", {"PYKCS11LIB": module_path()}
    (tmp_path / "a pin").write_text(PIN + "\n")
    public = load_signer(uri, {**lib, **GOOD}).public
    for source in (f"file:{tmp_path}/a%20pin", f"file://{tmp_path}/a%20pin"):
        key = load_signer(f"{uri}?pin-source={source}", {**lib, PKCS11_PIN: "wrong"})  # the URI takes precedence
        assert key.public == public
        assert PIN not in repr(key) + key.describe()
    for wrong, variables, reason in (
        (uri, GOOD, "no module is given"),
        (uri, lib, "the token 'flopsd' requires a PIN and none is given"),
        (uri, {**lib, PKCS11_PIN: "1234"}, "the PIN is wrong"),
        (uri, {**GOOD, "PYKCS11LIB": "/nowhere/lib.so"}, "PKCS#11: PKCS11Error: .*/nowhere/lib.so"),
        (uri, {**GOOD, "PYKCS11LIB": "/etc/passwd"}, "PKCS#11: PKCS11Error: "),
        (f"{uri}?pin-value={PIN}", {**lib, **GOOD}, "every user of the host could read a PIN in the URI"),
        (f"{uri}?pin-source=%7Ccat%20/pin", lib, "is not supported"),
        (f"{uri}?pin-source=file:{tmp_path}/none", lib, "cannot read the PIN"),
        (f"{uri};slot-id=1", {**lib, **GOOD}, "unknown attribute 'slot-id'"),
        (f"{uri};object=x", {**lib, **GOOD}, "'object' is given twice"),
        (f"{uri};type=cert", {**lib, **GOOD}, "type=private"),
        ("pkcs11:token=%ff", {**lib, **GOOD}, "'token' is not UTF-8"),
    ):
        with pytest.raises(SigningKeyError, match=reason) as caught:
            load_signer(wrong, variables)
        assert PIN not in f"{caught.value} {caught.value.hint}"
        assert caught.value.hint or "twice" in reason or "UTF-8" in reason or "cannot read" in reason


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    ("path", "says", "reason"),
    [
        ("token=flopsd;object=p384", "is not a P-256 key", "wrong_kind"),
        ("token=flopsd;object=k1", "is not a P-256 key", "wrong_kind"),
        ("token=flopsd;object=rsa", "is not a P-256 key", "wrong_kind"),
        ("token=flopsd;object=twin", "2 private keys match", "other"),
        ("token=flopsd", "8 private keys match the P-256 key .the only one. on token 'flopsd'", "other"),
        ("token=flopsd;object=none", "no private keys match", "not_found"),
        ("token=flopsd;id=%99", "no private keys match the P-256 key id 99", "not_found"),
        ("object=ledger", "2 tokens of .* match the key URI; available: .*token=flopsd;serial=", "other"),
        ("token=nowhere;object=ledger", "no tokens of .* match the key URI; available: .*token=flopsd", "no_token"),
        ("token=flopsd;serial=0;object=ledger", "no tokens of", "no_token"),
        ("token=flopsd;object=lonely", "has no public keys for", "public_key"),
    ],
)
def test_a_missing_or_unsuitable_key_is_refused_with_a_reason(path: str, says: str, reason: str) -> None:
    with pytest.raises(SigningKeyError, match=says) as caught:
        load(path)
    assert caught.value.hint
    assert caught.value.reason == reason


@pytest.mark.usefixtures("tokens")
def test_a_token_without_its_public_key_can_be_given_one(tmp_path: Path) -> None:
    (tmp_path / "other.pub").write_bytes(load("token=flopsd;object=other").public.pem)
    (tmp_path / "ed.pub").write_bytes(make_pem(tmp_path / "ed.pem").public.pem)
    assert sign(b"payload", load("token=flopsd;object=other", f"&public={tmp_path}/other.pub"))
    with pytest.raises(SigningKeyError, match="does not verify with the public key"):
        sign(b"payload", load("token=flopsd;object=lonely", f"&public={tmp_path}/other.pub"))
    with pytest.raises(SigningKeyError, match="keys in tokens are P-256"):
        load("token=flopsd;object=lonely", f"&public={tmp_path}/ed.pub")


def test_a_token_seals_and_countersigns_through_the_command_line(tokens: Tokens, tmp_path: Path) -> None:
    finished(tmp_path / "state", 3)
    env = {**environment(None), **tokens.environment, "PYKCS11LIB": module_path(), PKCS11_PIN: PIN}
    ledger, public = tmp_path / "ledger.json", tmp_path / "ledger.pub"
    (tmp_path / "pin").write_text(PIN)
    (uri,) = re.findall(r"flopsd seal --key '(pkcs11:.*)'", (ROOT / "docs" / "keys.md").read_text())
    uri = uri.replace("token=T", "token=flopsd").replace("MODULE", module_path())
    flopsd("seal", "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger), "--key",
           uri.replace("/run/secrets/pin", str(tmp_path / "pin")), env={**environment(None), **tokens.environment},
           code=0)  # fmt: skip
    assert in_process("verify", str(ledger), "--key", str(public)).returncode == 0
    assert load_public(str(public)).keyid == load("token=flopsd;object=ledger").public.keyid
    flopsd("countersign", str(ledger), "--trust", str(public), "--key", "pkcs11:token=my%3B%20second", env=env, code=0)
    shown = flopsd("key", "show", "pkcs11:token=my%3B%20second", env=env).stdout
    (tmp_path / "second.pub").write_text(shown[shown.index("-----BEGIN") :])
    flopsd(
        "verify", str(ledger), "--key", str(public), "--key", str(tmp_path / "second.pub"), "--threshold", "2", code=0
    )
    wrong = flopsd("seal", "--state-dir", str(tmp_path / "state"), "--ledger", str(tmp_path / "no.json"), "--key",
                   "pkcs11:token=flopsd;object=ledger", env={**env, PKCS11_PIN: "0000"}, code=1)  # fmt: skip
    assert "the PIN is wrong for the P-256 key 'ledger' on token 'flopsd'" in wrong.stderr
    assert not (tmp_path / "no.json").exists()
