"""The web configuration file: what promtool accepts is accepted or refused by name; what promtool refuses is
refused."""

import json
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.errors import ConfigError
from flopsd.telemetry.http.tls import context_of
from flopsd.telemetry.http.web_config import Tls, WebConfig, parse_web_config
from tests.support.certificates import Authority

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
PAIR = "tls_server_config: {cert_file: server.crt, key_file: server.key"
GOOD = {
    "nothing": "",
    "users in clear": f"basic_auth_users: {{alice: {HASH}}}",
    "tls": PAIR + "}",
    "one version": PAIR + ", min_version: TLS13, max_version: TLS13}",
    "clients": PAIR + ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}",
    "clients by name": PAIR
    + ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [prometheus]}",
    "clients if they like": PAIR + ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt}",
    "ciphers": PAIR
    + ", cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256], prefer_server_cipher_suites: false}",
    "headers": "http_server_config: {http2: false, headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff, "
    "Strict-Transport-Security: max-age=3600, X-XSS-Protection: '0', Content-Security-Policy: \"default-src 'self'\"}}",
}
_TLS = Tls(Path("server.crt"), Path("server.key"), "NoClientCert", None, (), "TLS12", "TLS13", (), True)
_CLIENTS = _TLS._replace(client_auth_type="RequireAndVerifyClientCert", client_ca_file=Path("ca.crt"))
MEANT = {
    "nothing": WebConfig(),
    "users in clear": WebConfig(users={"alice": HASH}),
    "tls": WebConfig(_TLS),
    "one version": WebConfig(_TLS._replace(min_version="TLS13")),
    "clients": WebConfig(_CLIENTS),
    "clients by name": WebConfig(_CLIENTS._replace(client_allowed_sans=("prometheus",))),
    "clients if they like": WebConfig(_CLIENTS._replace(client_auth_type="VerifyClientCertIfGiven")),
    "ciphers": WebConfig(_TLS._replace(ciphers=("ECDHE-ECDSA-AES256-GCM-SHA384",), prefer_server_ciphers=False)),
    "headers": WebConfig(headers={
        "X-Frame-Options": "deny", "X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=3600",
        "X-XSS-Protection": "0", "Content-Security-Policy": "default-src 'self'",
    }),
}  # fmt: skip
# Invalid for everybody: promtool refuses it too.
WRONG = {
    "unknown section": ("tls: {}", "unknown section"),
    "unknown key": (PAIR + ", ca: x}", "ca: unknown"),
    "unknown header": ("http_server_config: {headers: {Server: x}}", "headers.Server: cannot be set"),
    "header's value": ("http_server_config: {headers: {X-Frame-Options: allow}}", "must be one of deny, sameorigin"),
    "no certificate": ("tls_server_config: {key_file: server.key}", "cert_file: missing"),
    "no key": ("tls_server_config: {cert_file: server.crt}", "key_file: missing"),
    "authority without policy": (PAIR + ", client_ca_file: ca.crt}", "client_auth_type: missing"),
    "invented policy": (PAIR + ", client_auth_type: Maybe}", "client_auth_type: must be one of NoClientCert"),
    "invented version": (PAIR + ", min_version: TLS14}", "min_version: must be one of TLS12, TLS13, is 'TLS14'"),
    "invented cipher": (PAIR + ", cipher_suites: [ROT13]}", "cipher_suites: 'ROT13' is not supported"),
    "password in clear": ("basic_auth_users: {alice: secret}", "alice: must be the bcrypt hash"),
    "list": ("- a", "must be a mapping, is a list"),
    "twice": (f"basic_auth_users: {{alice: {HASH}}}\nbasic_auth_users: {{bob: {HASH}}}", "given twice"),
}
# Accepted by others but not by flopsd: refused by name, never ignored.
NOT_HERE = {
    "a number for a name": (f"basic_auth_users: {{7: {HASH}}}", "must be a name without a colon"),
    "names that nobody verifies": (PAIR + ", client_allowed_sans: [me]}", "needs client_auth_type: RequireAndVerify"),
    "no names": (PAIR + ", client_allowed_sans: []}", "an empty list would admit no client"),
    "no name": (f"basic_auth_users: {{'': {HASH}}}", "must be a name without a colon"),
    "colon in a name": (f"basic_auth_users: {{'a:b': {HASH}}}", "must be a name without a colon"),
    "limit": ("rate_limit: {interval: 1s, burst: 20}", "rate_limit: not supported"),
    "http2": ("http_server_config: {http2: true}", "http2: HTTP/2 is not supported"),
    "inline": ("tls_server_config: {cert: a, key: b, client_ca: c}", "cert: not supported; give cert_file"),
    "old version": (PAIR + ", min_version: TLS10}", "min_version: TLS10 is broken and not supported"),
    "unverified": (PAIR + ", client_auth_type: RequireAnyClientCert}", "RequireAnyClientCert is not supported"),
    "curves": (PAIR + ", curve_preferences: [X25519]}", "curve_preferences: not supported"),
    "versions": (PAIR + ", min_version: TLS13, max_version: TLS12}", "min_version: later than max_version"),
    "two lines": ('http_server_config: {headers: {X-XSS-Protection: "a\\nb"}}', "must be one line of text"),
    "accents": ("http_server_config: {headers: {X-XSS-Protection: é}}", "must be one line of text"),
    "no authority": (PAIR + ", client_auth_type: RequireAndVerifyClientCert}", "client_ca_file: missing"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("web")
    Authority(found).server()
    return found


def promtool(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", "check", "web-config", str(file)], capture_output=True, text=True, check=False)


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("name", GOOD)
def test_promtool_accepts_all_accepted_files(folder: Path, name: str) -> None:
    file = folder / "web.yml"
    file.write_text(GOOD[name])
    parse_web_config(file.read_bytes(), file)
    if name != "clients by name":  # newer than Debian's promtool
        checked = promtool(file)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", f"{file} SUCCESS\n")


@pytest.mark.parametrize("name", GOOD)
def test_accepted_files_are_parsed_as_meant_and_work_with_openssl(folder: Path, name: str) -> None:
    assert parse_web_config(GOOD[name].encode(), Path("web.yml")) == MEANT[name]
    tls = parse_web_config(GOOD[name].encode(), folder / "web.yml").tls
    if tls is None:
        return
    context, asked = context_of(tls, None), {"clients": ssl.CERT_REQUIRED, "clients by name": ssl.CERT_REQUIRED}
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3 if name == "one version" else ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is asked.get(name, ssl.CERT_OPTIONAL if name.startswith("clients") else ssl.CERT_NONE)
    assert bool(context.options & ssl.OP_CIPHER_SERVER_PREFERENCE) == (name != "ciphers")
    old = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert (old == {"ECDHE-ECDSA-AES256-GCM-SHA384"}) == (name == "ciphers")


@pytest.mark.parametrize("name", WRONG)
def test_files_that_promtool_refuses_are_refused_by_place(name: str) -> None:
    text, expected = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        parse_web_config(text.encode(), Path("/etc/web.yml"))
    assert expected in str(caught.value)
    assert [one.startswith("/etc/web.yml: ") for one in caught.value.problems] == [True], "one fault, one problem"


@pytest.mark.long
@pytest.mark.tool("promtool")
def test_promtool_refuses_all_wrong_files(folder: Path) -> None:
    for name, (text, _) in WRONG.items():
        (file := folder / "web.yml").write_text(text)
        assert promtool(file).returncode != 0, name


@pytest.mark.parametrize("name", NOT_HERE)
def test_unsupported_options_are_refused_by_name(name: str) -> None:
    text, expected = NOT_HERE[name]
    with pytest.raises(ConfigError) as caught:
        parse_web_config(text.encode(), Path("web.yml"))
    assert expected in str(caught.value)
    assert len(caught.value.problems) == (4 if name == "inline" else 1)
    assert "promtool" in caught.value.hint


def test_paths_are_relative_to_the_file_and_all_problems_are_reported_without_secrets() -> None:
    config = parse_web_config(b"tls_server_config: {cert_file: a.crt, key_file: /abs/b.key}", Path("/etc/x/web.yml"))
    assert config.tls is not None
    assert (str(config.tls.cert_file), str(config.tls.key_file)) == ("/etc/x/a.crt", "/abs/b.key")
    bad = b"basic_auth_users: {a: hunter2, 7: x}\nhttp_server_config: {x: 1}\ntls_server_config: 3"
    with pytest.raises(ConfigError) as caught:
        parse_web_config(bad, Path("w"))
    assert len(caught.value.problems) == 4
    assert "hunter2" not in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["tls_server_config", "http_server_config", "basic_auth_users", "headers", "cert_file", "key_file", "cipher_suites",
                     "client_auth_type", "client_allowed_sans", "min_version", "http2", "X-Frame-Options"]), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_any_document_is_accepted_or_a_config_error(document: object) -> None:
    try:
        parse_web_config(json.dumps(document).encode(), Path("web.yml"))
    except ConfigError as fault:
        assert fault.problems
