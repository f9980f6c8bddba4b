"""One request to a receiver: its credentials and signature, its outcome, and the cost of a bad receiver."""

import base64
import threading
from email.message import Message
from http.client import IncompleteRead, RemoteDisconnected
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from flopsd.errors import PushError
from flopsd.settings.push_targets import parse_target
from flopsd.telemetry.push.http import MAX_ANSWER_BYTES, Http, _refused, _unreachable
from flopsd.telemetry.push.remote_write import signer
from tests.support.process import free_port, wait_until
from tests.support.receivers import receiving


def sent(target: str, environment: dict[str, str], seconds: float = 5) -> None:
    found = parse_target(target)
    Http(found, environment, signer(found)).request("POST", found.url, {}, b"body", seconds)


def test_credentials_go_only_to_their_receiver_and_are_reread(tmp_path: Path) -> None:
    token, environment = tmp_path / "token", {"FLOPSD_PUSH_AUTH": "Basic me:se cret"}
    with receiving() as receiver:
        url = f"otlp+{receiver.url}/v1/metrics"
        sent(url, environment)
        sent(f"{url}#auth=env&tenant=team-7", environment)
        for word in ("one", "two"):
            token.write_text(f"Bearer {word}\n")
            sent(f"{url}#auth={token}", environment)
        headers = [request[2] for request in receiver.requests]
    assert [h.get("Authorization") for h in headers] == [
        None, "Basic " + base64.b64encode(b"me:se cret").decode(), "Bearer one", "Bearer two",
    ]  # fmt: skip
    assert headers[1]["X-Scope-Orgid"] == "team-7"
    token.write_text("just-a-token")
    for file in (token, tmp_path / "absent"):
        with pytest.raises(PushError, match="credentials") as caught:
            sent(f"{url}#auth={file}", environment)
        assert "just-a-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("Bearer x", "Bearer x"), (" bearer a:b\n", "Bearer a:b"), ("BASIC YTpi", "Basic YTpi"), ("basic a:b", "Basic YTpi"),
        *((text, None) for text in ("", "Bearer", "Bearer ", "Basic a\x07b", "Token x", "Token a\x07b", "Digest")),
    ],
)  # fmt: skip
def test_credentials_are_parsed_or_refused(text: str, header: str | None) -> None:
    http = Http(parse_target("otlp+http://x/v1/metrics#auth=env"), {"FLOPSD_PUSH_AUTH": text})
    if header is None:
        with pytest.raises(PushError, match="^FLOPSD_PUSH_AUTH holds no credentials$"):
            http._authorization()
    else:
        assert http._authorization() == {"Authorization": header}


def test_a_redirect_does_not_pass_credentials_on() -> None:
    with receiving() as other, receiving() as receiver:
        receiver.status, receiver.location = 307, f"{other.url}/v1/metrics"
        with pytest.raises(PushError, match="HTTP 307") as caught:
            sent(f"otlp+{receiver.url}/v1/metrics#auth=env", {"FLOPSD_PUSH_AUTH": "Bearer x"})
        assert (other.requests, caught.value.final) == ([], False)
        assert str(caught.value).isprintable()  # the receiver's words move no cursor


def test_the_sigv4_signature_matches_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature covers host, time and body; AWS's own signer gives the same one for the request as it arrived."""
    auth, request_of = pytest.importorskip("botocore.auth"), pytest.importorskip("botocore.awsrequest")
    credentials = pytest.importorskip("botocore.credentials").Credentials("AKIDEXAMPLE", "secret", "session")
    for name, value in zip(
        ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"), ("AKIDEXAMPLE", "secret", "session"), strict=True
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    with receiving() as receiver:
        url = f"{receiver.url}/workspaces/ws-1/api/v1/remote_write"
        sent(f"remotewrite+{url}#sigv4=eu-west-1", {})
        ((_, _, headers, body),) = receiver.requests
    given = {name.lower(): value for name, value in headers.items()}
    assert given["x-amz-security-token"] == "session"
    signed = given["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "x-amz-date"} <= set(signed)
    signer_ = auth.SigV4Auth(credentials, "aps", "eu-west-1")
    request = request_of.AWSRequest("POST", url, {name: given[name] for name in signed if name != "host"}, body)
    request.context["timestamp"] = given["x-amz-date"]
    signature = signer_.signature(signer_.string_to_sign(request, signer_.canonical_request(request)), request)
    assert given["authorization"].endswith(f"Signature={signature}")
    assert "/eu-west-1/aps/aws4_request" in given["authorization"]


def test_the_hint_explains_missing_aws_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE", "CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PushError, match="no AWS credentials") as caught:
        sent("remotewrite+http://127.0.0.1:1/w#sigv4=eu-west-1", {})
    assert "network isolation" in caught.value.hint


def test_a_dripping_receiver_is_cut_off_and_a_dead_one_is_unreachable() -> None:
    with receiving() as receiver:
        receiver.hang.set()
        with pytest.raises(PushError) as caught:
            sent(f"otlp+{receiver.url}/v1/metrics", {}, 0.5)
        assert caught.value.reason == "timeout"
        receiver.hang.clear()
        receiver.drip.set()  # a byte every 0.1 s, for ever; the page itself was accepted with the status
        sent(f"otlp+{receiver.url}/v1/metrics", {}, 0.5)
    with pytest.raises(PushError, match="refused") as caught:
        sent(f"otlp+http://127.0.0.1:{free_port()}/v1/metrics", {})
    assert caught.value.reason == "unreachable"


RETRIED, FINAL = (408, 429, 500, 502, 503, 504), (400, 413, 415, 422)


@pytest.mark.parametrize("status", sorted({300, 399, *(code + by for code in RETRIED + FINAL for by in (-1, 0, 1))}))
def test_retryable_and_final_statuses_are_distinguished(status: int) -> None:
    with HTTPError("http://x", status, "", Message(), BytesIO(b"told \x1b[31mwhy\nnot" + b"x" * 400)) as answer:
        fault = _refused(answer, 1)
    assert fault.reason == ("server_error" if status in RETRIED else "refused")
    assert fault.final == (status in FINAL)
    assert ("redirects" in fault.hint) == (status < 400)
    assert str(fault) == f"HTTP {status}: told  [31mwhy not" + "x" * (MAX_ANSWER_BYTES - len("told  [31mwhy not"))


@pytest.mark.parametrize(
    ("fault", "late", "said"),
    [
        (URLError(TimeoutError("timed out")), False, "no answer within 2.5 s"),
        (TimeoutError(), False, "no answer within 2.5 s"),
        (ConnectionResetError(104, "reset"), True, "no answer within 2.5 s"),
        (ConnectionResetError(104, "reset"), False, "reset"),
        (URLError(ConnectionRefusedError(111, "refused")), False, "refused"),
        (URLError("no host given"), False, "no host given"),
        (RemoteDisconnected("closed without a word"), False, "closed without a word"),
        (IncompleteRead(b""), False, "IncompleteRead(0 bytes read)"),
        (OSError(), False, "OSError"),
    ],
)
def test_a_missing_answer_has_its_reason(fault: Exception, late: bool, said: str) -> None:
    found = _unreachable(fault, 2.5, late)
    assert (str(found), found.final) == (said, False)
    assert found.reason == ("timeout" if said.startswith("no answer") else "unreachable")


@pytest.mark.long
def test_an_empty_answer_is_described_by_its_status_and_a_dripping_one_is_cut_off() -> None:
    with HTTPError("http://x", 503, "", Message(), BytesIO(b"\n")) as answer:
        assert str(_refused(answer, 1)) == "HTTP 503: Service Unavailable"
    with receiving() as receiver:
        receiver.status = 503
        receiver.drip.set()  # a byte every 0.1 s
        with pytest.raises(PushError, match="HTTP 503: x+$") as caught:
            sent(f"otlp+{receiver.url}/v1/metrics", {}, 2)  # enough for the first byte on a busy machine too
    assert str(caught.value).count("x") < MAX_ANSWER_BYTES


def test_a_proxy_of_the_environment_is_used_and_no_timer_outlives_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with receiving() as receiver:
        monkeypatch.setenv("http_proxy", receiver.url)
        sent("otlp+http://receiver.invalid/v1/metrics", {}, 3600)
        assert [request[1] for request in receiver.requests] == ["http://receiver.invalid/v1/metrics"]
    wait_until(lambda: not any(isinstance(one, threading.Timer) for one in threading.enumerate()), "no timer is left")


def test_unreadable_certificates_are_named(tmp_path: Path) -> None:
    with pytest.raises(PushError, match=f"cannot use {tmp_path}/none: ") as caught:
        Http(parse_target(f"otlp+https://x/v1/metrics#ca={tmp_path}/none"), {})
    assert (caught.value.reason, caught.value.final) == ("not_possible", True)
