"""Finds other users of this machine's profiling counters, by the names of the processes that this process can see.

The counters have one owner on a machine, whichever GPU it reads (DCGM#56). A container without the host's processes
shows no other user; only DCGM's own refusal does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# The kernel cuts names after 15 characters.
SERVERS = ("nv-hostengine", "dcgm-exporter")
PROFILERS = ("ncu", "nsys", "nv-nsight-cu-cl")
_NAME_BYTES = 64


def running(names: tuple[str, ...], root: Path = Path("/")) -> Mapping[int, str]:
    """Return the processes with these names, by id."""
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
