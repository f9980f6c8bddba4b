"""Who else is at the profiling counters of this machine, by the names of the processes that this one can see.

The counters have one owner on a machine, whichever GPU it reads (DCGM#56). In a container without the host's processes
nobody is seen, and DCGM's own refusal is what is left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# As the kernel cuts names: after 15 characters.
SERVERS = ("nv-hostengine", "dcgm-exporter")
PROFILERS = ("ncu", "nsys", "nv-nsight-cu-cl")
_NAME_BYTES = 64


def running(names: tuple[str, ...], root: Path = Path("/")) -> Mapping[int, str]:
    """Processes of these names, by id."""
    found, proc, wanted = {}, str(root / "proc"), {name.encode(): name for name in names}
    try:
        entries = os.listdir(proc)
    except OSError:
        return {}
    for entry in filter(str.isdecimal, entries):  # no glob, no text files: a node has thousands of processes
        try:
            with open(f"{proc}/{entry}/comm", "rb", buffering=0) as file:
                name = wanted.get(file.read(_NAME_BYTES).rstrip(b"\n"))
        except OSError:  # it ended meanwhile
            continue
        if name is not None:
            found[int(entry)] = name
    return found
