"""Who else is at the profiling counters of this machine, by the names of the processes that this one can see.

The counters have one owner on a machine, whichever GPU it reads (DCGM#56). In a container without the host's processes
nobody is seen, and DCGM's own refusal is what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# As the kernel cuts names: after 15 characters.
SERVERS = ("nv-hostengine", "dcgm-exporter")
PROFILERS = ("ncu", "nsys", "nv-nsight-cu-cl")


def running(names: tuple[str, ...], root: Path = Path("/")) -> Mapping[int, str]:
    """Processes of these names, by id."""
    found = {}
    for file in (root / "proc").glob("[0-9]*/comm"):
        try:
            name = file.read_text(errors="replace").strip()
        except OSError:  # it ended meanwhile
            continue
        if name in names:
            found[int(file.parent.name)] = name
    return found
