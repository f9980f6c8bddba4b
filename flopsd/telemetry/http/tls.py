"""The TLS context of a web configuration. Imported only if TLS is on: OpenSSL takes 5 MB."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from flopsd.errors import ConfigError
from flopsd.telemetry.http.web_config import HINT, Tls

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


def context_of(tls: Tls, path: Path | None) -> ssl.SSLContext:
    """The TLS context for a server. `path`: the web configuration, for messages. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    if tls.ciphers:
        context.set_ciphers(":".join(tls.ciphers))
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        # An encrypted key would make OpenSSL prompt on the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_passphrase)
    except (OSError, ValueError) as fault:
        raise _wrong(path, [tls.cert_file, tls.key_file], fault) from fault
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (OSError, ValueError) as fault:
            raise _wrong(path, [tls.client_ca_file], fault) from fault
        required = tls.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted; a web configuration cannot give a passphrase")


def _wrong(path: Path | None, files: Sequence[Path], fault: Exception) -> ConfigError:
    names = " and ".join(str(file) for file in files)
    return ConfigError([f"{path}: cannot use {names}: {fault}"], hint=HINT)
