"""Paths in the checkout."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
VECTORS = TESTS / "vectors"
SAMPLES = TESTS / "samples"
GOLDEN = TESTS / "golden"
SCHEMA = ROOT / "flopsd" / "core" / "ledger" / "schema" / "ledger-v1.schema.json"
