"""Texts that are kept as files and reviewed as diffs."""

import os
from pathlib import Path


def check_golden(made: str, path: Path) -> None:
    """Compare a text with the kept one. FLOPSD_UPDATE_GOLDEN=1 renews the file; read the diff."""
    if os.environ.get("FLOPSD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")
