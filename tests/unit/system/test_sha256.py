"""Without OpenSSL the same digests."""

import hashlib
import hmac
from random import Random

import pytest

from flopsd.system.sha256 import MANY_BYTES, hex_sha256, hmac_sha256, sha256, sha256_for


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 600, 100_000])
def test_the_same_as_openssls(size: int) -> None:
    drawn = Random(size)
    data = drawn.randbytes(size)
    assert hex_sha256(data) == hashlib.sha256(data).hexdigest()
    for key in (data, drawn.randbytes(32), bytearray(drawn.randbytes(64)), drawn.randbytes(65)):
        assert hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


def test_what_reads_much_takes_the_fast_one() -> None:
    assert sha256_for(MANY_BYTES - 1) is sha256
    assert sha256_for(MANY_BYTES) is hashlib.sha256
    assert sha256 is not hashlib.sha256
