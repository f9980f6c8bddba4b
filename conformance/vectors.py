"""The test vectors in a folder, or packed in an archive."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("valid", "invalid", "merged")
COMMON = ("peaks.yaml", "policy.yaml", "clauses.json")
MANIFEST = "manifest.json"
ROWS = "rows.json"  # beside some: what the figures are made of


@dataclass(frozen=True)
class Vector:
    """One vector: its name (`invalid/fork`), its folder, and what is expected of it."""

    name: str
    folder: Path
    expected: dict[str, Any]


def vectors_in(root: Path) -> list[Vector]:
    """All vectors below `root`, by name."""
    files = [path for kind in KINDS for path in sorted((root / kind).glob("*/expected.json"))]
    return [
        Vector(f"{path.parent.parent.name}/{path.parent.name}", path.parent, json.loads(path.read_bytes()))
        for path in files
    ]


def unpack(archive: Path, folder: Path) -> Path:
    """The vectors of an archive, unpacked into `folder` and held against their manifest. Raises ValueError."""
    with tarfile.open(archive) as packed:
        for member in packed:
            if not member.isfile() or member.name.startswith("/") or ".." in Path(member.name).parts:
                raise ValueError(f"{archive}: {member.name!r} is not a plain file within it")
            content = packed.extractfile(member)
            assert content is not None
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    (manifest,) = folder.glob(f"*/{MANIFEST}")
    listed = json.loads(manifest.read_bytes())["files"]
    root = manifest.parent
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and path != manifest}
    if found.keys() != listed.keys():
        raise ValueError(f"{archive}: the files are not those of its manifest")
    for name, path in found.items():
        if sha256(path.read_bytes()).hexdigest() != listed[name]:
            raise ValueError(f"{archive}: {name} is not the file of its manifest")
    return root
