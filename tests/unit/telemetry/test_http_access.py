"""TLS, client certificates and passwords, as a client sees them; and changes of the file while the daemon serves."""

import base64
import http.client
import queue
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509

import flopsd.telemetry.http.access as access_module
from flopsd.errors import ConfigError
from flopsd.telemetry.http.access import Access, BusyError
from flopsd.telemetry.http.server import WebServer
from tests.support.certificates import Authority
from tests.support.process import PATIENCE_SECONDS
from tests.support.runs import Run

PASSWORD = "pässword: with a colon"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "tls")
    authority.server()
    return authority


@contextmanager
def serving(file: Path, folder: Path) -> Iterator[int]:
    run = Run(folder / "state")
    run.meter(1)
    server = WebServer("127.0.0.1", [0], lambda: run.writer.snapshot, Access(file))
    server.start()
    try:
        scheme, _, port = server.url.split(":")
        assert scheme == ("https" if "tls_server_config" in file.read_text() else "http")
        yield int(port)
    finally:
        server.stop()
        run.kill()


def written(authority: Authority, text: str) -> Path:
    file = authority.folder / "web.yml"
    file.write_text(text)
    return file


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def header(word: str) -> str:
    return basic(f"alice:{word}")


def ask(
    port: int, authority: Authority | None = None, *, client: tuple[Path, Path] | None = None, login: str = "",
    limit: ssl.TLSVersion | None = None, path: str = "/metrics",
) -> http.client.HTTPResponse:  # fmt: skip
    connection: http.client.HTTPConnection
    if authority is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    else:
        context = ssl.create_default_context(cafile=str(authority.ca))
        if client is not None:
            context.load_cert_chain(*client)
        if limit is not None:
            context.maximum_version = limit
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    headers = {"Authorization": basic(login)} if login else {}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def test_tls_refuses_too_old_a_version_and_clear_text(authority: Authority, tmp_path: Path) -> None:
    file = written(authority, "tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: TLS13}")
    with serving(file, tmp_path) as port:
        assert ask(port, authority).status == 200
        with pytest.raises(ssl.SSLError):
            ask(port, authority, limit=ssl.TLSVersion.TLSv1_2)
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(port)  # in clear text
        assert ask(port, authority).status == 200


def test_only_clients_with_a_certificate_and_an_allowed_name_are_served(authority: Authority, tmp_path: Path) -> None:
    good = authority.issue("prometheus", x509.DNSName("prometheus.example"))
    other = authority.issue("other", x509.DNSName("other.example"))
    stranger = Authority(tmp_path / "strangers").issue("prometheus", x509.DNSName("prometheus.example"))
    file = written(
        authority,
        "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt,\n"
        "  client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example]}",
    )
    refused = (ssl.SSLError, OSError, http.client.HTTPException)
    with serving(file, tmp_path) as port:
        assert ask(port, authority, client=good).status == 200
        for client in (None, other, stranger):
            with pytest.raises(refused):
                ask(port, authority, client=client)
        assert ask(port, authority, client=good).status == 200


def test_passwords_are_checked_and_headers_are_set(authority: Authority, tmp_path: Path) -> None:
    file = written(
        authority,
        f"basic_auth_users: {{alice: {HASH}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n"
        "tls_server_config: {cert_file: server.crt, key_file: server.key}",
    )
    with serving(file, tmp_path) as port:
        for _ in range(2):  # first by bcrypt, then from the cache
            answer = ask(port, authority, login=f"alice:{PASSWORD}")
            assert (answer.status, answer.headers["X-Frame-Options"]) == (200, "deny")
            for wrong in ("", f"bob:{PASSWORD}", "alice:", f"alice:{PASSWORD} ", f"Alice:{PASSWORD}", "alice"):
                answer = ask(port, authority, login=wrong)
                assert answer.status == 401, wrong
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        for path in ("/", "/-/healthy", "/-/ready", "/nope"):
            assert ask(port, authority, path=path).status == 401


def test_changes_of_the_file_are_followed(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
    file = written(authority, tls)
    with serving(file, tmp_path) as port:
        first = ssl.get_server_certificate(("127.0.0.1", port))
        authority.server()  # renewed
        assert ssl.get_server_certificate(("127.0.0.1", port)) != first
        assert ask(port, authority).status == 200
        file.write_text(f"{tls}basic_auth_users: {{alice: {HASH}}}\n")
        assert ask(port, authority).status == 401
        assert ask(port, authority, login=f"alice:{PASSWORD}").status == 200
        nowhere = "tls_server_config: {cert_file: nope, key_file: nope}"
        for broken in ("basic_auth_users: {alice: secret}", "", nowhere, tls):
            file.write_text(broken)
            for _ in range(2):
                with pytest.raises((OSError, http.client.HTTPException)):  # no client is admitted, not even as before
                    ask(port, authority, login=f"alice:{PASSWORD}")
        file.write_text(f"{tls}basic_auth_users: {{bob: {HASH}}}\n")
        assert ask(port, authority, login=f"bob:{PASSWORD}").status == 200
        assert ask(port, authority, login=f"alice:{PASSWORD}").status == 401
    assert "must be the bcrypt hash" in caplog.text
    assert "TLS cannot be switched on or off" in caplog.text
    assert caplog.text.count("the last user cannot be removed without a restart") == 1


def test_a_handshake_with_the_old_file_does_not_delay_the_new_one_for_others(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = "tls_server_config: {{cert_file: server.crt, key_file: server.key, client_ca_file: {}, client_auth_type: {}}}"
    file = written(authority, tls.format(authority.ca, "VerifyClientCertIfGiven"))
    access, read, held = Access(file), threading.Event(), threading.Event()
    file.write_text(file.read_text() + "\n# touched\n")
    real = access_module._bytes_of

    def slow(path: Path) -> bytes:
        if threading.current_thread().name == "before" and path.name == "server.crt":
            read.set()
            held.wait(PATIENCE_SECONDS)
        return real(path)

    monkeypatch.setattr(access_module, "_bytes_of", slow)
    before = threading.Thread(target=access.context, name="before")
    before.start()
    assert read.wait(PATIENCE_SECONDS)
    file.write_text(tls.format(authority.ca, "RequireAndVerifyClientCert"))
    access.config()
    held.set()
    before.join()
    assert access.context().verify_mode is ssl.CERT_REQUIRED


def test_a_kept_connection_is_checked_again_for_each_request(authority: Authority, tmp_path: Path) -> None:
    file = written(authority, "")
    with serving(file, tmp_path) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for text, status in (("", 200), (f"basic_auth_users: {{alice: {HASH}}}\n", 401), ("rubbish", 500)):
            file.write_text(text)
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
        connection.close()


@pytest.mark.tool("openssl")
@pytest.mark.parametrize("text", ["tls_server_config: {cert_file: ca.crt, key_file: server.key}",
                                  "tls_server_config: {cert_file: nope.crt, key_file: server.key}",
                                  "tls_server_config: {cert_file: server.crt, key_file: locked.key}"])  # fmt: skip
def test_unusable_certificates_are_an_error_at_the_start(authority: Authority, text: str) -> None:
    subprocess.run(["openssl", "pkey", "-in", str(authority.folder / "server.key"), "-aes256", "-passout", "pass:x",
                    "-out", str(authority.folder / "locked.key")], check=True)  # fmt: skip
    with pytest.raises(ConfigError, match="cannot"):
        Access(written(authority, text))


def test_concurrent_wrong_guesses_are_all_refused(authority: Authority) -> None:
    access = Access(written(authority, f"basic_auth_users: {{alice: {HASH}, bob: {HASH}}}"))
    found: list[tuple[bool | None, bool]] = []

    def guess(number: int) -> None:
        right = number % 8 == 0
        admitted: bool | None
        try:
            admitted = access.admits(access.config(), header(PASSWORD if right else f"guess {number}"))
        except BusyError:
            admitted = None
        found.append((admitted, right))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(256)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 256
    assert all(admitted in (right, None) for admitted, right in found)


def test_no_number_of_guesses_keeps_a_user_out(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(written(authority, f"basic_auth_users: {{alice: {HASH}}}"))
    assert access.admits(access.config(), header(PASSWORD))
    checked = threading.Semaphore(0)
    hold = threading.Event()
    asked: list[object] = []
    monkeypatch.setattr(access_module, "_matches", lambda password, _: asked.append(password))
    # The last hundred are known to be wrong; all others are checked again.
    assert not any(access.admits(access.config(), header(f"guess {n}")) for n in (*range(300), *range(200, 300), 199))
    assert asked == [f"guess {number}".encode() for number in (*range(300), 199)]

    def slow(*_: object) -> bool:
        checked.release()
        return not hold.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(access_module, "_matches", slow)
    outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()

    def guess(number: int) -> None:
        try:
            outcomes.put(str(access.admits(access.config(), header(f"slow {number}"))))
        except BusyError:
            outcomes.put("busy")

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    assert checked.acquire(timeout=PATIENCE_SECONDS)
    assert {outcomes.get(timeout=PATIENCE_SECONDS) for _ in range(40 - 4)} == {"busy"}
    assert access.admits(access.config(), header(PASSWORD))
    hold.set()
    assert [outcomes.get(timeout=PATIENCE_SECONDS) for _ in range(4)] == ["False"] * 4
    for thread in threads:
        thread.join()


def test_a_client_that_must_wait_for_a_check_is_asked_to_try_again(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> bool:
        raise BusyError

    with serving(written(authority, f"basic_auth_users: {{alice: {HASH}}}"), tmp_path) as port:
        monkeypatch.setattr(Access, "admits", busy)
        answer = ask(port, login=f"alice:{PASSWORD}")
    assert (answer.status, answer.headers["Retry-After"], answer.headers["Connection"]) == (503, "1", "close")
