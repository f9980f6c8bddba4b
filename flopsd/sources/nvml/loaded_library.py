"""The file that this process loaded the driver's library from, and its digest."""

from __future__ import annotations

from pathlib import Path

from flopsd.system.sha256 import file_sha256

NAME = "libnvidia-ml.so"


def loaded_library(maps: Path = Path("/proc/self/maps")) -> tuple[str | None, str | None]:
    """Return the path of the loaded library and the SHA-256 of its file; None: not known. The digest of a file that was
    replaced after it was loaded is not known: the path leads to another file."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None, None
    columns = (line.split(maxsplit=5) for line in lines)
    paths = (column[5] for column in columns if len(column) == 6)
    path = next((path for path in paths if path.rsplit("/", 1)[-1].startswith(NAME)), None)
    if path is None:
        return None, None
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown, None if path.endswith(" (deleted)") else file_sha256(path)
