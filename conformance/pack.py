"""The vectors as one archive with a manifest: the same files give the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path

from conformance.clauses import clauses
from conformance.vectors import COMMON, MANIFEST, ROOT, vectors_in

NAME = "flopsd-vectors-v1"


def pack(root: Path, refusals: Path) -> bytes:
    """A gzipped tar archive of all vectors below `root`, with the clauses and the codes that they name."""
    vectors = vectors_in(root)
    files = {name: (root / name).read_bytes() for name in COMMON}
    for vector in vectors:
        for path in sorted(vector.folder.rglob("*")):
            if path.is_file():
                files[str(path.relative_to(root))] = path.read_bytes()
    manifest = {
        "format": "flopsd-vectors/1",
        "vectors": [vector.name for vector in vectors],
        "clauses": {clause.id: {"page": clause.page, "text": clause.text} for clause in clauses(ROOT / "docs")},
        "refusals": json.loads(refusals.read_bytes())["codes"],
        "files": {name: sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    files[MANIFEST] = json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(f"{NAME}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
