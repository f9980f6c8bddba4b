"""Key files and public keys: which are accepted, which are refused, and the messages."""

import base64
import errno
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from flopsd.attestation.signing.dsse import pae, sign, verify_signatures
from flopsd.attestation.signing.keys import check_key, ensure_key, load_signer
from flopsd.attestation.signing.pem import make_pem, write_new
from flopsd.attestation.signing.pkcs11 import location_of
from flopsd.attestation.signing.public_key import load_public, parse_public
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.attestation.signing.secrets import passphrase
from flopsd.core.declarations import DEVICE_VARIABLE, KERNEL_WINDOWS_VARIABLE, OPERATOR_COUNT_VARIABLE
from flopsd.core.envelope import Envelope, parse_envelope
from flopsd.errors import ConfigError, NotVerifiedError, SigningKeyError
from flopsd.journal.state_dir import StateDir
from flopsd.settings.load import PASSPHRASE, PASSPHRASE_FILE, PKCS11_PIN
from tests.support.os_calls import Killed
from tests.support.process import environment, flopsd, in_process, modules_after
from tests.support.settings import load_settings
from tests.support.tools import require_tools

SECRET = "correct horse: battery \N{LATIN SMALL LETTER U WITH DIAERESIS}"


def openssl(*arguments: str | Path) -> bytes:
    require_tools("openssl")
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET + "\n")
    openssl("genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", f"file:{tmp_path / 'secret'}", "-out",
            tmp_path / "key.pem")  # fmt: skip
    return tmp_path / "key.pem"


@pytest.mark.tool("openssl")
@pytest.mark.parametrize(
    "made",
    [
        ("genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", "file:secret", "-out", "key.pem"),
        ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes128", "-pass", "file:secret", "-out", "key.pem"),
        ("ec", "-in", "plain.pem", "-aes256", "-passout", "file:secret", "-out", "key.pem"),  # with Proc-Type headers
        ("pkcs8", "-topk8", "-scrypt", "-in", "plain.pem", "-passout", "file:secret", "-out", "key.pem"),
    ],
    ids=["ed25519", "p256", "traditional", "scrypt"],
)  # fmt: skip
def test_a_key_encrypted_by_openssl_signs_only_with_its_passphrase(
    tmp_path: Path, made: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text(SECRET + "\n")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", "plain.pem")  # begins with EC PARAMETERS
    openssl(*made)
    assert b"ENCRYPTED" in Path("key.pem").read_bytes()
    for good in ({PASSPHRASE: SECRET}, {PASSPHRASE_FILE: str(tmp_path / "secret")}):
        key = load_signer("file:key.pem", good)
        assert key.public.verifies(b"m", key.sign(b"m"))
        assert SECRET not in repr(key) + key.describe()
    with pytest.raises(SigningKeyError, match="key.pem is encrypted and no passphrase is given") as caught:
        load_signer("key.pem", {})
    assert PASSPHRASE_FILE in caught.value.hint
    with pytest.raises(SigningKeyError, match="cannot be decrypted with the given passphrase"):
        load_signer("key.pem", {PASSPHRASE: "wrong"})
    # A passphrase set for another key does not stop a key that needs none.
    assert load_signer("plain.pem", {PASSPHRASE: "wrong"}).public.type == "p256"


@pytest.mark.tool("openssl")
def test_unusable_passphrases_are_refused(encrypted: Path, tmp_path: Path) -> None:
    (tmp_path / "two").write_text(f"{SECRET}\nand more\n")
    (tmp_path / "none").write_text("\n")
    (tmp_path / "long").write_text("x" * 1024)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("two", "none", "long"):
        with pytest.raises(SigningKeyError, match="as its only line"):
            load_signer(str(encrypted), {PASSPHRASE_FILE: str(tmp_path / name)})
    with pytest.raises(SigningKeyError, match="not UTF-8"):
        load_signer(str(encrypted), {PASSPHRASE_FILE: str(tmp_path / "bytes")})
    for bad, reason in (("\udcff", "is not UTF-8"), ("x" * 1024, "more than 1023 bytes")):
        with pytest.raises(SigningKeyError, match=f"{PASSPHRASE} {reason}|{PASSPHRASE} has {reason}"):
            load_signer(str(encrypted), {PASSPHRASE: bad})
    os.mkfifo(tmp_path / "fifo")  # without a writer: a daemon that waits for it meters nothing
    for name, reason in (("missing", "No such file"), ("fifo", "not a regular file")):
        with pytest.raises(SigningKeyError, match=reason):
            load_signer(str(encrypted), {PASSPHRASE_FILE: str(tmp_path / name)})
    with pytest.raises(SigningKeyError, match="are both set"):
        load_signer(str(encrypted), {PASSPHRASE: SECRET, PASSPHRASE_FILE: str(tmp_path / "secret")})


def test_variables_for_secrets_are_known_and_misspellings_reported() -> None:
    load_settings({}, {PASSPHRASE: "x", PASSPHRASE_FILE: "x", PKCS11_PIN: "x", "FLOPSD_SOCKET": "/run/x"})
    load_settings(
        {}, {OPERATOR_COUNT_VARIABLE: "off", DEVICE_VARIABLE: "GPU-1", KERNEL_WINDOWS_VARIABLE: "on"}
    )  # variables of the training process, not of the daemon
    for wrong, right in (
        ("FLOPSD_KEY_PASPHRASE", PASSPHRASE),
        ("FLOPSD_KEY_PASSPHRASE_FIL", PASSPHRASE_FILE),
        ("FLOPSD_PKCS11_PINS", PKCS11_PIN),
    ):
        with pytest.raises(ConfigError, match=f"{wrong} is not a setting; did you mean {right}"):
            load_settings({}, {wrong: "x"})


@pytest.mark.long
def test_the_job_does_not_inherit_the_secrets_of_its_meter(tmp_path: Path) -> None:
    shell = f"echo ${PASSPHRASE}-${PKCS11_PIN}-$OTHER"
    done = flopsd("exec", "--state-dir", str(tmp_path), "--no-seal", "--listen", "off", "--", "sh", "-c", shell,
                  env={**environment(None), PASSPHRASE: "a", PKCS11_PIN: "b", "OTHER": "c"})  # fmt: skip
    assert (done.returncode, "--c" in done.stdout.splitlines()) == (0, True), done.stdout


def _pem(private: object) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("curve", "named"),
    [
        (ec.SECP521R1, "secp521r1"),
        (ec.SECP384R1, "secp384r1"),
        (ec.SECP256K1, "secp256k1"),
        (ec.BrainpoolP256R1, "brainpoolP256r1"),
        (None, ""),
    ],
    ids=["P-521", "P-384", "secp256k1", "brainpool", "RSA"],
)
def test_other_key_types_and_curves_are_refused_for_signing_and_verifying(
    tmp_path: Path, curve: type[ec.EllipticCurve] | None, named: str
) -> None:
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
        ec.generate_private_key(curve()) if curve else rsa.generate_private_key(65537, 2048)
    )
    (tmp_path / "key.pem").write_bytes(_pem(private))
    (tmp_path / "key.pub").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for load, file in ((load_signer, "key.pem"), (load_public, "key.pub")):
        with pytest.raises(SigningKeyError, match=f"neither an Ed25519 nor a P-256 key.*{named}"):
            load(str(tmp_path / file))


# y of every point of order 1, 2, 4 and 8, in each form that fits 255 bits; the highest bit is the sign of x. The list
# is that of libsodium's ge25519_has_small_order.
SMALL_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_key_with_which_anybody_can_sign_is_refused(point: str) -> None:
    for sign_bit in (0, 0x80):
        raw = bytearray.fromhex(point)
        raw[31] |= sign_bit
        key = Ed25519PublicKey.from_public_bytes(bytes(raw))
        with pytest.raises(SigningKeyError, match="is an Ed25519 key of small order"):
            parse_public(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "key.pub")


PUBLIC = b"-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n"


@pytest.mark.tool("openssl")
def test_a_verification_key_is_one_public_key_and_nothing_else(tmp_path: Path) -> None:
    key = make_pem(tmp_path / "key.pem", "p256")
    openssl("req", "-x509", "-key", tmp_path / "key.pem", "-subj", "/CN=x", "-days", "1", "-out", tmp_path / "cert.pem")
    for content, reason in (
        (key.public.pem * 2, "contains 2 keys"),
        (b" " + key.public.pem + make_pem(tmp_path / "c.pem").public.pem, "contains 2 keys"),
        (key.public.pem + make_pem(tmp_path / "b.pem").public.pem, "contains 2 keys"),
        ((tmp_path / "cert.pem").read_bytes(), "contains a certificate, not a public key"),
        (key.public.pem + (tmp_path / "cert.pem").read_bytes(), "contains a certificate"),
        ((tmp_path / "key.pem").read_bytes(), "contains a private key, and a verifier needs the public one"),
        (key.public.pem + (tmp_path / "key.pem").read_bytes(), "contains a private key"),
        (b"", "is not a PEM public key"),
        (key.public.pem[:100], "is not a PEM public key"),
        (key.public.pem.replace(b"A", b"!"), "is not a PEM public key"),
        (PUBLIC % b"", "is not a PEM public key"),
        (key.public.pem + b"\n" * (65_537 - len(key.public.pem)), "more than 65536 bytes"),
        # A SubjectPublicKeyInfo whose algorithm is the identifier 1.2.3.4.
        (
            PUBLIC % base64.b64encode(bytes.fromhex("300e300506032a03040305000badcafe")),
            "neither an Ed25519 nor a P-256|is not a PEM public key",  # the second with cryptography 43
        ),
    ):
        (tmp_path / "trust.pem").write_bytes(content)
        with pytest.raises(SigningKeyError, match=reason):
            load_public(str(tmp_path / "trust.pem"))
    (tmp_path / "trust.pem").write_bytes(key.public.pem[:100])
    with pytest.raises(SigningKeyError) as cut:
        load_public(str(tmp_path / "trust.pem"))
    assert cut.value.hint == "it was cut off or altered: get it again"
    (tmp_path / "trust.pem").write_bytes(key.public.pem + b"\n" * (65_536 - len(key.public.pem)))
    assert load_public(str(tmp_path / "trust.pem")) == key.public, "64 KiB are read"
    with pytest.raises(SigningKeyError, match="cannot read the public key .*: Is a directory"):
        load_public(str(tmp_path))
    for content, reason in (
        ((tmp_path / "key.pem").read_bytes() + (tmp_path / "b.pem").read_bytes(), "contains 2 PEM blocks"),
        (key.public.pem, "contains a public key, not a private key"),
        (b"no key", "is not a PEM private key of a supported kind"),
        ((PUBLIC % b"AAAA").replace(b"PUBLIC", b"PRIVATE"), "is not a PEM private key of a supported kind"),
    ):
        (tmp_path / "two.pem").write_bytes(content)
        with pytest.raises(SigningKeyError, match=reason):
            load_signer(str(tmp_path / "two.pem"))
    with pytest.raises(SigningKeyError, match="unknown kind of key 'gcpkms'"):
        load_signer("gcpkms:projects/x")
    with pytest.raises(SigningKeyError, match="cannot read the key"):
        load_signer(str(tmp_path / "missing.pem"))


@given(st.binary(max_size=200), st.integers(0, 250), st.booleans())
def test_any_public_key_file_is_a_key_or_a_clear_error(junk: bytes, at: int, keep: bool) -> None:
    pem = PUBLIC % b"MCowBQYDK2VwAyEAfU0Of2FTpptiQrUiq77mhf2kQg+INLEIw72uNp71Sfo="
    try:
        found = parse_public(pem[:at] + junk + pem[at + (0 if keep else len(junk)) :], "x")
    except SigningKeyError:
        return
    assert found.type in ("ed25519", "p256")


@pytest.mark.tool("openssl")
def test_one_key_in_two_encodings_is_one_key(tmp_path: Path) -> None:
    key = make_pem(tmp_path / "key.pem", "p256")
    openssl("ec", "-in", tmp_path / "key.pem", "-pubout", "-conv_form", "compressed", "-out", tmp_path / "short.pub")
    assert (tmp_path / "short.pub").read_bytes() != key.public.pem
    short = load_public(str(tmp_path / "short.pub"))
    assert short.keyid == key.public.keyid
    envelope = parse_envelope(sign(b"payload", key))
    twice = Envelope(envelope.payload, envelope.payload_type, (envelope.signatures[0], ("", key.sign(b""))))
    for given_keys in ([key.public, short], [short, key.public]):
        with pytest.raises(NotVerifiedError, match="signed by 1 of the given keys .* 2 signatures are required"):
            verify_signatures(twice, given_keys, 2)


@pytest.mark.tool("openssl")
@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("ed25519", SECRET),
        ("p256", None),
        pytest.param("ed25519", None, marks=pytest.mark.exhaustive),
        pytest.param("p256", SECRET, marks=pytest.mark.exhaustive),
    ],
)
def test_keys_made_by_key_new_are_readable_by_openssl(tmp_path: Path, kind: str, secret: str | None) -> None:
    file = tmp_path / "key.pem"
    env = {**environment(None), **({PASSPHRASE: secret} if secret else {})}
    done = in_process("key", "new", "--type", kind, *(["--encrypt"] if secret else []), "--json", str(file), env=env)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    public = tmp_path / "key.pem.pub"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(public.stat().st_mode)) == (0o600, 0o644)
    assert (answer["privateKeyFile"], answer["publicKeyFile"], answer["type"]) == (str(file), str(public), kind)
    (tmp_path / "secret").write_text(secret or "unused")
    spki = openssl("pkey", "-in", file, "-passin", f"file:{tmp_path / 'secret'}", "-pubout", "-outform", "DER")
    assert answer["keyId"] == hashlib.sha256(spki).hexdigest()
    assert answer["publicKey"].encode() == public.read_bytes()
    assert (b"ENCRYPTED" in file.read_bytes()) is (secret is not None)
    for shown in (str(file), f"file:{file}", str(public)):
        done = in_process("key", "show", "--json", shown, env=env, code=0)
        facts = json.loads(done.stdout)
        assert (facts["type"], facts["keyId"], facts["publicKey"]) == (kind, answer["keyId"], answer["publicKey"])
    text = in_process("key", "show", str(public)).stdout
    assert load_pem_public_key(text[text.index("-----BEGIN") :].encode())
    assert f"key id  {answer['keyId']}" in text
    before = file.read_bytes(), public.read_bytes()
    in_process("key", "new", str(file), env=env, code=1, says="already exists; keys are never overwritten")
    public.unlink()
    assert in_process("key", "new", str(file), env=env).returncode == 1
    assert (file.read_bytes(), public.exists()) == (before[0], False)


def test_key_new_needs_a_passphrase_to_encrypt_and_otherwise_makes_nothing(tmp_path: Path) -> None:
    in_process("key", "new", "--encrypt", str(tmp_path / "key.pem"), code=1,
               says=("--encrypt needs a passphrase and none is given", PASSPHRASE_FILE))  # fmt: skip
    assert in_process("key", "new", str(tmp_path / "no" / "key.pem")).returncode == 1
    assert in_process("key", "show", str(tmp_path / "missing.pem")).returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "fchmod", "fsync", "link"])
@pytest.mark.parametrize("is_done", [True, False])
def test_a_kill_during_key_creation_leaves_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, is_done: bool
) -> None:
    real, path = getattr(os, call), tmp_path / "key.pem"

    def dies(*arguments: Any, **named: Any) -> None:
        if is_done:
            real(*arguments, **named)
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(os, call, dies)
        killed.setattr(os, "unlink", dies)  # no later cleanup runs
        with pytest.raises(Killed):
            make_pem(path)
    assert list(tmp_path.iterdir()) == ([path] if call == "link" and is_done else [])
    assert ensure_key(None, tmp_path)[1]


def test_a_key_is_written_whole_on_a_file_system_without_unnamed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def opens(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", opens)
    key = make_pem(tmp_path / "key.pem")
    assert load_signer(str(tmp_path / "key.pem")).public == key.public
    with pytest.raises(SigningKeyError, match="already exists"):
        make_pem(tmp_path / "key.pem")
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_who_can_read_a_key_file_is_known_as_long_as_it_is_there(tmp_path: Path) -> None:
    uri, _ = ensure_key(None, tmp_path)
    key = load_signer(uri)
    Path(uri).chmod(0o640)
    assert key.readers() == {"kind": "file", "ownerUser": str(os.getuid()), "mode": "0640"}
    Path(uri).unlink()
    assert key.readers() == {"kind": "file_gone"}


def test_an_existing_key_is_never_lost(tmp_path: Path) -> None:
    uri, made = ensure_key(None, tmp_path)
    assert made
    assert stat.S_IMODE(Path(uri).stat().st_mode) == 0o600
    before = Path(uri).read_bytes()
    with pytest.raises(SigningKeyError, match="already exists"):
        make_pem(Path(uri))
    with pytest.raises(SigningKeyError, match="already exists"):
        write_new(Path(uri), b"x", 0o600)
    os.symlink(tmp_path / "elsewhere", tmp_path / "link.pem")
    with pytest.raises(SigningKeyError, match="already exists"):
        make_pem(tmp_path / "link.pem")
    assert Path(uri).read_bytes() == before
    assert ensure_key(None, tmp_path) == (uri, False)


@pytest.mark.parametrize("line_end", ["", "\n", "\r\n"])
def test_the_longest_passphrase_encrypts_and_decrypts(tmp_path: Path, line_end: str) -> None:
    (tmp_path / "secret").write_text("x" * 1023 + line_end, newline="")
    secret = passphrase({PASSPHRASE_FILE: str(tmp_path / "secret")})
    assert secret == passphrase({PASSPHRASE: "x" * 1023}) == b"x" * 1023
    key = make_pem(tmp_path / "key.pem", "ed25519", secret)
    assert load_signer(str(key.path), {PASSPHRASE: "x" * 1023}).public == key.public


@pytest.mark.parametrize(
    ("package", "uri", "extra"),
    [
        ("botocore", "awskms:alias/x", "kms"),
        ("pkcs11", "pkcs11:object=x?module-path=/x", "hsm"),
        ("cryptography", "key.pem", "seal"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str, uri: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # the marker of Python for a module that cannot be imported
    with pytest.raises(SigningKeyError, match=f"the extra '{extra}'") as caught:
        load_signer(uri, {})
    assert caught.value.hint == f"pip install 'flopsd[{extra}]'"


def test_a_key_file_loads_no_other_key_type_and_a_check_loads_no_signer(tmp_path: Path) -> None:
    key = make_pem(tmp_path / "key.pem")
    code = "import sys; from flopsd.attestation.signing.keys import check_key as check; check(sys.argv[1], {}); check('awskms:a', {})"
    assert not {"cryptography", "botocore", "pkcs11", "ssl"} & modules_after(code, str(key.path))
    code = (
        "import sys; from flopsd.attestation.signing import dsse, keys; dsse.sign(b'x', keys.load_signer(sys.argv[1]))"
    )
    loaded = modules_after(code, str(key.path))
    assert "flopsd.attestation.signing.pem" in loaded
    assert not {name for name in loaded if name.startswith(("boto", "pkcs11")) or "aws_kms" in name}


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("none.pem", "cannot read the key none.pem: No such file or directory"),
        ("file:public.pem", "public.pem contains a public key, not a private key"),
        ("junk.pem", "junk.pem is not a PEM private key"),
        ("locked.pem", "locked.pem is encrypted and no passphrase is given"),
        ("awskms:", "awskms:: no key is given"),
        ("awskms:alias/x?region=y", "unknown attribute 'region'"),
        ("pkcs11:object=x?pin-value=1", "every user of the host could read a PIN"),
        ("pkcs11:object=x?module-path=m&pin-source=file:none", "cannot read the PIN in none"),
        ("pkcs11:object=x", "no module is given"),
        ("pkcs11:object=x;type=public?module-path=m", "a signing key has type=private"),
        ("gcpkms:x", "unknown kind of key 'gcpkms'"),
    ],
)
def test_a_key_that_cannot_sign_is_detected_before_sealing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "public.pem").write_bytes(make_pem(tmp_path / "key.pem").public.pem)
    make_pem(tmp_path / "locked.pem", secret=b"secret")
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(SigningKeyError, match=re.escape(fault)):
        check_key(uri, {})
    for well in ("key.pem", "file:key.pem", "awskms:alias/x", "pkcs11:object=x?module-path=m", None):
        check_key(well, {})
    check_key("locked.pem", {"FLOPSD_KEY_PASSPHRASE": "secret"})


def test_the_location_of_a_token_key_is_stated_without_its_pin(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("1234\n")
    uri = f"token=my%20box;serial=7;object=k;id=%01%ff;type=private?module-path=/lib.so&pin-source=file:{tmp_path}/pin"
    found = location_of(f"{uri}&public=k.pub", {})
    assert (found.pin, found.public) == ("1234", "k.pub")
    assert found.describe() == "the P-256 key 'k' id 01ff on token 'my box', serial '7' of /lib.so"
    assert "1234" not in repr(found)
    in_variables = {"PYKCS11LIB": "m", PKCS11_PIN: "5678"}
    assert (location_of("", in_variables).pin, location_of("", {**in_variables, PKCS11_PIN: ""}).pin) == ("5678", None)
    assert location_of(uri, in_variables).pin == "1234"
    with pytest.raises(SigningKeyError, match="pin-source=env:X is not supported") as refused:
        location_of("?pin-source=env:X", in_variables)
    assert "pin-source=file:PATH" in refused.value.hint
    assert location_of("", {"PYKCS11LIB": "m"}).describe() == "the P-256 key (the only one) on the only token of m"


@pytest.mark.parametrize("writable", [True, False])
def test_a_refused_pin_is_recognized_and_no_other_is(
    tmp_path: Path, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flopsd.attestation.signing.refused_pin.ITERATIONS", 10
    )  # many iterations cost an attacker time
    (tmp_path / "file").touch()
    note = (tmp_path if writable else tmp_path / "file") / "pin.json"
    with tempfile.TemporaryFile() as memory:
        first, later = (RefusedPin(note, memory.fileno()) for _ in range(2))
        assert later.reason(("box", "7"), "1234") is None
        first.note(("box", "7"), "1234", "locked")
        assert later.reason(("box", "7"), "1234") == "locked"
        assert [later.reason(*other) for other in ((("box", "8"), "1234"), (("box", "7"), "12345"))] == [None, None]
        assert note.exists() == writable
        assert not writable or note.stat().st_mode & 0o777 == 0o600
        assert b"1234" not in (note.read_bytes() if writable else os.pread(memory.fileno(), 1000, 0))
        first.note(("box", "7"), "5", "wrong")
        assert later.reason(("box", "7"), "5") == "wrong"
        later.forget()
        assert first.reason(("box", "7"), "5") is None
        assert not note.exists()
    alone = RefusedPin(note)
    alone.note(("box",), "1", "expired")
    assert RefusedPin(note).reason(("box",), "1") == ("expired" if writable else None)


def test_key_check_states_whether_the_key_of_a_run_can_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nice = []
    monkeypatch.setattr("flopsd.cli.key.be_nice", lambda: nice.append(1))  # otherwise it would apply to all later tests

    def check(*more: str, key: str = "", code: int = 0) -> str:
        env = {"FLOPSD_KEY": key} if key else {}
        return in_process("key", "check", "--state-dir", str(tmp_path), *more, env=env, code=code).stdout

    assert check() == f"no key is given: the first seal makes one in {tmp_path}\n"
    assert nice == [1], "the daemon runs it beside the job"
    assert json.loads(check("--json")) == {"usable": None}
    asked = list[Any]()
    with monkeypatch.context() as watched:
        watched.setattr("flopsd.attestation.signing.check.check_configured", lambda *given: asked.extend(given))
        check("--refused-pin", "5", key="k")
    assert asked[:2] == ["k", tmp_path]
    assert (asked[3].path, asked[3]._memory) == (StateDir(tmp_path).refused_pin, 5)
    uri, _ = ensure_key(None, tmp_path)
    key = load_signer(uri)
    facts = {"type": "ed25519", "keyId": key.public.keyid, "publicKey": key.public.pem.decode(), "is": key.describe()}
    for named in ("", uri):
        assert check(key=named) == f"{key.describe()} signs\nkey id  {key.public.keyid}\n"
        assert json.loads(check("--json", key=named)) == {"usable": True, **facts}
        assert check("--quiet", key=named) == ""
    (broken := tmp_path / "broken.pem").write_text("no key")
    assert check(key=str(broken), code=1) == ""
    found = json.loads(check("--json", key=str(broken), code=1))
    assert (found["usable"], found["reason"], bool(found["fix"])) == (False, "wrong_kind", True)
    assert "is not a PEM private key" in found["problem"]


def test_a_key_uri_and_its_secrets_go_to_the_loader_of_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, loader in (("aws_kms", "load_kms"), ("pkcs11", "load_token_key")):
        monkeypatch.setattr(
            f"flopsd.attestation.signing.{module}.{loader}", lambda *given, loader=loader: (loader, *given)
        )
    refused = RefusedPin(Path("note"))
    found: list[Any] = [
        load_signer(uri, {"A": "b"}, refused_pin=refused) for uri in ("awskms:alias/x", "pkcs11:token=x")
    ]
    assert found == [("load_kms", "alias/x", {"A": "b"}), ("load_token_key", "token=x", {"A": "b"}, refused)]


def test_any_error_of_a_key_library_means_a_key_that_cannot_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("'Object' object has no attribute 'key_type'")

    monkeypatch.setattr("flopsd.attestation.signing.pkcs11.load_token_key", broken)
    with pytest.raises(SigningKeyError, match="the pkcs11 key cannot be used: AttributeError: 'Object'"):
        load_signer("pkcs11:token=x")


def test_the_signature_of_another_key_is_named_with_the_given_keys(tmp_path: Path) -> None:
    keys = [make_pem(tmp_path / name) for name in "abcdefg"]
    ids = [f"{key.public.keyid[:16]}…" for key in keys]
    signatures = [(key.public.keyid, b"x" * 64) for key in keys[2:]]
    many = Envelope(b"payload", "type", (("no digest", b"x"), *signatures))
    for count, named in ((0, "keys are none"), (1, f"key is {ids[0]}"), (2, f"keys are {ids[0]}, {ids[1]}")):
        with pytest.raises(NotVerifiedError) as caught:
            verify_signatures(many, [key.public for key in keys[:count]], 1)
        signers = ", ".join(["a key without an id", *ids[2:5]])
        why = f"changed after it was signed, or signed by a different key: {signers}; the given {named}"
        assert str(caught.value) == why


def test_an_invalid_signature_by_a_given_key_means_an_altered_ledger(tmp_path: Path) -> None:
    key, other = make_pem(tmp_path / "key"), make_pem(tmp_path / "other")
    signed = Envelope(b"payload", "type", ((key.public.keyid, b"x" * 64),))
    with pytest.raises(NotVerifiedError, match="the ledger was changed after it was signed"):
        verify_signatures(signed, [other.public, key.public], 1)
    with pytest.raises(NotVerifiedError, match="signed by a different key"):
        verify_signatures(signed, [other.public], 1)
    holds = (other.public.keyid, other.sign(pae(signed)))
    with pytest.raises(NotVerifiedError, match=f"though the ledger names {key.public.keyid[:16]}… as a signer"):
        verify_signatures(replace(signed, signatures=(*signed.signatures, holds)), [other.public, key.public], 2)
