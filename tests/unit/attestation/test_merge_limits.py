"""How big the parts of a ledger may be: what a merge takes in, and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flopsd.attestation.merge import streamed_envelope
from flopsd.attestation.merge.ledger_folders import most_bytes
from flopsd.attestation.merge.streamed_envelope import sign_statement
from flopsd.attestation.signing.dsse import verify_signatures
from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.core.envelope import parse_envelope
from flopsd.errors import LedgerError


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("node-0.json", 67_108_864),
        ("node-0.rolling.json", 67_108_864),
        ("node-0.journal.jsonl", 2_147_483_648),
        ("node-0.peaks.yaml", 16_777_216),
        ("node-0.pub", None),
        (".node-0.json", None),
        ("node-0.yaml", None),
    ],
)
def test_each_part_of_a_ledger_has_a_limit_by_its_name(name: str, most: int | None) -> None:
    assert most_bytes(name) == most


def test_a_merged_ledger_is_never_larger_than_a_verifier_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest that is written keeps the limit, and little is refused that would have kept it."""
    limit = 100_000
    monkeypatch.setattr(streamed_envelope, "MAX_ENVELOPE_BYTES", limit)
    made, _ = ensure_key(None, tmp_path)
    key = load_signer(made)
    ledger = tmp_path / "merged.json"

    def written(size: int) -> bool:
        try:
            sign_statement({"text": "x" * size}, key, ledger, tmp_path)
        except LedgerError as fault:
            assert "at most 100000 are allowed" in str(fault)
            return False
        assert ledger.stat().st_size <= limit
        verify_signatures(parse_envelope(ledger.read_bytes()), [key.public], 1)
        return True

    accepted, refused = 0, limit
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        accepted, refused = (middle, refused) if written(middle) else (accepted, middle)
    assert accepted > (limit - 4096) * 3 // 4 - 100
    assert written(accepted)
    ledger.unlink()
    assert not written(refused)
    assert not ledger.exists(), "what is refused is not written"
