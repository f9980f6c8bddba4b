"""Keys in AWS KMS, through botocore and HTTP, on moto's KMS."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.check import check_configured
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.pem import make_pem
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.attestation.verify import verify_ledger
from flopsd.errors import SigningKeyError
from tests.support.authorities import Answer, serving
from tests.support.kms import REGION, Kms, kms_server
from tests.support.process import environment, free_port, get, in_process, started, wait_until
from tests.support.runs import sealed_run


@pytest.fixture(scope="module")
def server() -> Iterator[Kms]:
    with kms_server() as kms:
        yield kms


@pytest.fixture
def kms(server: Kms, monkeypatch: pytest.MonkeyPatch) -> Kms:
    _use(monkeypatch, server.environment)
    return server


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """The public key of a P-256 key, for a KMS that is never asked for it."""
    path = tmp_path / "k.pub"
    path.write_bytes(make_pem(tmp_path / "k.pem", "p256").public.pem)
    return path


def _use(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_key_signs_by_id_by_arn_and_by_alias(kms: Kms) -> None:
    arn = kms.new_key(alias="flopsd")
    account = arn.split(":")[4]
    names = (arn.rpartition("/")[2], arn, "alias/flopsd", f"arn:aws:kms:{REGION}:{account}:alias/flopsd")
    keys = [load_signer(f"awskms:{name}") for name in names]
    message = os.urandom(1_000_000)  # RAW signing ends at 4096 bytes
    for key, name in zip(keys, names, strict=True):
        assert key.public == keys[0].public
        assert key.public.type == "p256"
        signature = key.sign(message)
        assert keys[0].public.verifies(message, signature)
        assert not keys[0].public.verifies(message + b"!", signature)
        assert key.describe() == f"the P-256 key {name} in AWS KMS, region {REGION}"


def test_the_region_is_the_one_of_the_arn(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = kms.new_key()
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert REGION in load_signer(f"awskms:{arn}").describe()
    with pytest.raises(SigningKeyError, match="the AWS region of the KMS key alias/x is unknown") as caught:
        load_signer("awskms:alias/x")
    assert "AWS_REGION" in caught.value.hint
    monkeypatch.setenv("AWS_REGION", REGION)  # set by SageMaker; botocore reads only AWS_DEFAULT_REGION
    assert REGION in load_signer(f"awskms:{arn.rpartition('/')[2]}").describe()


@pytest.mark.parametrize(
    ("spec", "usage", "reason"),
    [
        ("ECC_SECG_P256K1", "SIGN_VERIFY", "is neither an Ed25519 nor a P-256 key; it is on the curve secp256k1"),
        ("ECC_NIST_P384", "SIGN_VERIFY", "it is on the curve secp384r1"),
        ("ECC_NIST_P521", "SIGN_VERIFY", "it is on the curve secp521r1"),
        ("RSA_2048", "SIGN_VERIFY", "neither an Ed25519 nor a P-256 key"),
        ("RSA_2048", "ENCRYPT_DECRYPT", "has key usage ENCRYPT_DECRYPT"),
    ],
)
def test_other_kinds_of_keys_are_refused(kms: Kms, spec: str, usage: str, reason: str) -> None:
    with pytest.raises(SigningKeyError, match=reason) as caught:
        load_signer(f"awskms:{kms.new_key(spec, usage=usage)}")
    assert caught.value.reason == "wrong_kind"
    assert caught.value.hint.startswith("create ")
    assert "flopsd key new" not in caught.value.hint


@pytest.mark.usefixtures("kms")
def test_a_refusal_by_kms_is_reported_with_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(
        SigningKeyError, match="AWS KMS refused GetPublicKey with alias/none: NotFoundException"
    ) as caught:
        load_signer("awskms:alias/none")
    assert "region" in caught.value.hint
    assert caught.value.reason == "not_found"
    for uri, reason in (
        ("awskms:", "no key is given"),
        ("awskms:///alias/x", "no key is given"),
        ("awskms:alias/x?pubic=y", "unknown attribute 'pubic'"),
        ("awskms:alias/x?public=a&public=b", "'public' is given twice"),
        (f"awskms:alias/x?public={tmp_path}/none", "cannot read the public key"),
    ):
        with pytest.raises(SigningKeyError, match=reason):
            load_signer(uri)


@pytest.mark.parametrize(
    ("code", "hint", "reason"),
    [
        ("AccessDeniedException", "grant kms:Sign", "denied"),
        ("DisabledException", "enable it: aws kms enable-key", "disabled"),
        ("KMSInvalidStateException", "must be enabled", "disabled"),
        ("ExpiredTokenException", "renew the AWS credentials", "no_credentials"),
        ("InvalidKeyUsageException", "key usage SIGN_VERIFY", "wrong_kind"),
        ("ThrottlingException", "try again", "no_answer"),
        ("LimitExceededException", "try again", "no_answer"),
        ("CloudHsmClusterNotActiveException", "its key store", "other"),
    ],
)
@pytest.mark.usefixtures("kms")
def test_refusals_in_the_form_that_aws_documents(
    public: Path, monkeypatch: pytest.MonkeyPatch, code: str, hint: str, reason: str
) -> None:
    """moto never sends these, or sends them as XML."""
    asked = []

    def refuse(request: BaseHTTPRequestHandler, _: bytes) -> Answer:
        asked.append(request.headers["X-Amz-Target"])
        body = json.dumps({"__type": code, "message": "no\nway"}).encode()
        return 400, body, {"Content-Type": "application/x-amz-json-1.1"}

    with serving(refuse) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        with pytest.raises(SigningKeyError, match=f"AWS KMS refused Sign with alias/x: {code}: no way") as caught:
            load_signer(f"awskms:alias/x?public={public}").sign(b"x")
    assert hint in caught.value.hint
    assert caught.value.reason == reason
    assert asked == ["TrentService.Sign"] * (2 if reason == "no_answer" else 1)


@pytest.mark.usefixtures("kms")
def test_a_proxys_answer_in_place_of_kms_is_no_fault_of_the_key(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, says in ((503, "refused Sign with alias/x: 503: Service Unavailable"), (200, "has no Signature")):
        with serving(lambda *_, status=status: (status, b"<html>", {"Content-Type": "text/html"})) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
            with pytest.raises(SigningKeyError, match=says) as caught:
                load_signer(f"awskms:alias/x?public={public}").sign(b"x")
        assert caught.value.reason == "no_answer"


def test_a_wrong_public_key_is_found_before_anything_is_sealed(kms: Kms, tmp_path: Path) -> None:
    (tmp_path / "other.pub").write_bytes(make_pem(tmp_path / "other.pem", "p256").public.pem)
    (tmp_path / "ed.pub").write_bytes(make_pem(tmp_path / "ed.pem").public.pem)
    for arn in (kms.new_key(), kms.new_key("ECC_SECG_P256K1")):  # both sign with ECDSA_SHA_256
        key = load_signer(f"awskms:{arn}?public={tmp_path}/other.pub")
        with pytest.raises(SigningKeyError, match="does not verify with the public key") as caught:
            sign(b"payload", key)
        assert "it belongs to another private key" in caught.value.hint
    with pytest.raises(SigningKeyError, match="keys in AWS KMS are P-256"):
        load_signer(f"awskms:alias/x?public={tmp_path}/ed.pub")


def test_a_user_who_may_only_sign_gives_the_public_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kms_server() as strict:
        _use(monkeypatch, strict.environment)
        arn = strict.new_key()
        (tmp_path / "a key.pub").write_bytes(load_signer(f"awskms:{arn}").public.pem)
        _use(monkeypatch, {**strict.environment, **strict.user("kms:Sign")})
        with pytest.raises(SigningKeyError, match="AWS KMS refused GetPublicKey .*AccessDenied") as caught:
            load_signer(f"awskms:{arn}")
        assert "?public=PATH" in caught.value.hint
        sign(b"payload", load_signer(f"awskms:{arn}?public={tmp_path}/a%20key.pub"))


def test_a_missing_permission_to_sign_is_the_reason_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with kms_server() as strict:
        arn = strict.new_key()
        _use(monkeypatch, {**strict.environment, **strict.user("kms:GetPublicKey")})
        with pytest.raises(SigningKeyError, match="AWS KMS refused Sign .*AccessDenied") as caught:
            sign(b"payload", load_signer(f"awskms:{arn}"))
        assert (caught.value.hint, caught.value.reason) == ("grant kms:Sign on this key", "denied")


@pytest.mark.usefixtures("kms")
def test_a_silent_kms_does_not_use_up_the_end_of_a_job(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:  # accepts connections, and sends nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for step, uri in (("GetPublicKey", "awskms:alias/silent"), ("Sign", f"awskms:alias/silent?public={public}")):
            with pytest.raises(SigningKeyError, match=f"no answer from AWS KMS to {step}: Read timeout"):
                load_signer(uri).sign(b"x")
    with pytest.raises(SigningKeyError, match="no answer from AWS KMS to GetPublicKey: Could not connect"):
        load_signer("awskms:alias/silent")


@pytest.mark.usefixtures("kms")
def test_without_credentials_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SigningKeyError, match="Unable to locate credentials|Partial credentials") as caught:
        load_signer("awskms:alias/x")
    assert "credentials" in caught.value.hint
    assert caught.value.reason == "no_credentials"
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "no url")
    with pytest.raises(SigningKeyError, match="cannot connect to AWS KMS: Invalid endpoint"):
        load_signer("awskms:alias/x")


def test_a_run_is_sealed_by_kms_with_a_late_alias_and_replaced_credentials(tmp_path: Path) -> None:
    """Each seal is made in its own process, and verified without KMS."""
    credentials, ledger, port = tmp_path / "credentials", tmp_path / "ledger.json", free_port()

    def write(key: dict[str, str]) -> None:
        text = "".join(f"{name.lower()} = {key[name]}\n" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        (tmp_path / "new").write_text(f"[default]\n{text}")
        (tmp_path / "new").replace(credentials)

    def shown() -> list[str]:
        return re.findall(r"^flopsd_signing_key\S+ \S+$", get(f"http://127.0.0.1:{port}/metrics")[1], re.MULTILINE)

    by_kms = ("--state-dir", str(tmp_path / "state"), "--key", "awskms:alias/run")
    replay = ("run", "--source", "replay", "--listen", f"127.0.0.1:{port}", "--seal-every", "3")
    with kms_server() as kms:
        env = {**environment(None), **kms.environment, "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
        del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
        write(kms.environment)
        with started(*replay, *by_kms, "--ledger", str(ledger), env=env) as program:
            program.wait_for(
                "WILL NOT BE SEALED unless this is fixed: AWS KMS refused GetPublicKey with alias/run: NotF"
            )
            assert shown() == ["flopsd_signing_key_usable 0.0", 'flopsd_signing_key_fault_info{reason="not_found"} 1.0']
            kms.new_key(alias="run")
            program.wait_for(f"the key signs: the P-256 key alias/run in AWS KMS, region {REGION}, key id")
            assert shown() == ["flopsd_signing_key_usable 1.0"]
            wait_until(ledger.exists, "a rolling seal")
            renewed = kms.user("kms:Sign", "kms:GetPublicKey")  # from now on KMS refuses all other credentials
            program.wait_for("WILL NOT BE SEALED .*InvalidClientTokenId")
            write(renewed)
            ledger.unlink()
            wait_until(ledger.exists, "a rolling seal with the new credentials")
            program.process.send_signal(signal.SIGTERM)
            assert program.finish() == 0, program.text
        counts = [program.text.count(said) for said in ("WILL NOT BE SEALED", "the key signs: ", "NO ROLLING SEAL")]
        assert counts == [2, 2, 0], program.text
        in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--allow-replay", code=0)
        away = {**env, "AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:9"}
        late = in_process("seal", *by_kms, "--ledger", str(tmp_path / "late.json"), env=away)
        assert (late.returncode, (tmp_path / "late.json").exists()) == (1, False)
        assert "no answer from AWS KMS to GetPublicKey" in late.stderr
        key = in_process("key", "check", "awskms:alias/run", "--json", env=env, code=0)
        assert json.loads(key.stdout)["publicKey"] == ledger.with_suffix(".pub").read_text()
        # A person countersigns a ledger signed by KMS, and the other way round.
        sealed = sealed_run(tmp_path / "by hand")
        in_process("countersign", str(sealed.ledger), "--trust", str(sealed.public_key), "--key", "awskms:alias/run",
                   env=env, code=0)  # fmt: skip
    both = [load_public(str(sealed.public_key)), load_public(str(ledger.with_suffix(".pub")))]
    assert len(verify_ledger(open_ledger(sealed.ledger, both, threshold=2)).keyids) == 2


def test_a_web_identity_token_is_reread(kms: Kms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arn, token = kms.new_key(), tmp_path / "token"
    role = {**kms.environment, "AWS_ENDPOINT_URL_STS": kms.url, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/flopsd"}  # fmt: skip
    del role["AWS_ACCESS_KEY_ID"], role["AWS_SECRET_ACCESS_KEY"]
    _use(monkeypatch, role)

    def refused() -> SigningKeyError:
        with pytest.raises(SigningKeyError) as caught:
            check_configured(f"awskms:{arn}", tmp_path, os.environ, RefusedPin(tmp_path / "refused-pin.json"))
        assert caught.value.reason == "no_credentials"
        return caught.value

    assert str(token) in str(refused())
    token.write_text("a.b.c")
    assert (
        check_configured(f"awskms:{arn}", tmp_path, os.environ, RefusedPin(tmp_path / "refused-pin.json")) is not None
    )
    body = b"<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>Token expired</Message></Error></ErrorResponse>"
    with serving(lambda *_: (400, body, {"Content-Type": "text/xml"})) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        assert "AWS refused AssumeRoleWithWebIdentity: ExpiredTokenException: Token expired" in str(refused())
