"""`make docs`: writes config/parsed.json, the parsed packaged peak tables and policies, as reading YAML is slow."""

from __future__ import annotations

import json

from flopsd.settings.data_files import config_dir, packaged_files
from flopsd.settings.strict_yaml import read_yaml
from flopsd.system.sha256 import hex_sha256

FILE = config_dir() / "parsed.json"


def text() -> str:
    """One line per file, keyed by its SHA-256."""
    found = {hex_sha256(data): read_yaml(data, "")[0] for data in (path.read_bytes() for path in packaged_files())}
    lines = (f" {json.dumps(sha256)}: {json.dumps(document, ensure_ascii=False)}" for sha256, document in found.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text())
