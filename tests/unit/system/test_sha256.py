"""The same digests without OpenSSL."""

import hashlib
import hmac
import sys
from random import Random

import pytest

from flopsd.system import sha256 as module
from flopsd.system.sha256 import MANY_BYTES, hex_sha256, hmac_sha256, same_digest, sha256, sha256_for


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 600, 100_000])
def test_digests_match_openssls(size: int) -> None:
    drawn = Random(size)
    data = drawn.randbytes(size)
    assert hex_sha256(data) == hashlib.sha256(data).hexdigest()
    for key in (data, drawn.randbytes(32), bytearray(drawn.randbytes(64)), drawn.randbytes(65)):
        assert hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


def test_large_inputs_use_the_fast_implementation() -> None:
    assert sha256_for(MANY_BYTES - 1) is sha256
    assert sha256_for(MANY_BYTES) is hashlib.sha256
    assert sha256 is not hashlib.sha256


@pytest.mark.parametrize("without", [(), ("_operator",)])
def test_digests_can_be_compared_on_any_python(monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...]) -> None:
    for name in without:
        monkeypatch.setitem(sys.modules, name, None)
    one = sha256(b"one").digest()
    assert same_digest(one, bytes(one))
    assert not any(same_digest(one, other) for other in (one[:-1] + b"x", one[:-1], b""))


def test_without_the_built_in_module_openssls_is_used_or_its_lack_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_sha2", "_sha256"):
        monkeypatch.setitem(sys.modules, name, None)
    assert module._pythons_own() is hashlib.sha256
    monkeypatch.setitem(sys.modules, "hashlib", None)
    with pytest.raises(ImportError, match="this Python has no SHA-256"):
        module._pythons_own()
