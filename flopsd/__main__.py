"""The program: as `flopsd`, as `python -m flopsd`, and by this file's path, which is how it starts itself again.

The working directory and PYTHONPATH are the job's. A `queue.py` there is not ours: the folder that Python puts first is
left out, and PYTHONPATH is looked at last. It is not left out, since flopsd or what it needs may lie there.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import NoReturn


def search_path(found: list[str], environment: dict[str, str], first: str | None) -> list[str]:
    """Where modules are looked for, of what Python `found`; `first` is the script's folder, None: there is none."""
    ours = found[1:] if found and first is not None and found[0] in ("", first) else found
    given = environment.get("PYTHONPATH")
    theirs = {_absolute(part) for part in given.split(os.pathsep)} if given else set[str]()
    return sorted(ours, key=lambda folder: _absolute(folder) in theirs)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:
        return path  # the working directory is gone


def _restore_locale() -> None:
    """Set LC_CTYPE back to what was given: Python replaces the C locale (PEP 538), and a job would inherit that."""
    try:
        with open("/proc/self/environ", "rb") as file:
            lines = [one.partition(b"=") for one in file.read().split(b"\0")]
    except OSError:
        return
    os.environ.pop("LC_CTYPE", None)
    os.environb.update({name: value for name, _, value in lines if name == b"LC_CTYPE"})


def _uncaught(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook`: Ctrl-C before a verb has begun, which has its own way to end, is not a fault. Python before
    3.12 raises a RuntimeError from it while a class is made."""
    if KeyboardInterrupt not in (kind, type(fault.__cause__)):
        from flopsd.cli.main import log_uncaught

        log_uncaught(kind, fault, trace)


def main() -> NoReturn:
    """Run one verb and exit, with modules of flopsd's own environment."""
    here = os.path.dirname(_absolute(__file__))
    by_path = __package__ in (None, "")
    sys.path[:] = search_path(sys.path, dict(os.environ), here if by_path else _absolute(""))
    if by_path:
        sys.path.insert(0, os.path.dirname(here))
        import flopsd  # noqa: F401 - the one beside this file, whichever else could be found

        del sys.path[0]
    if sys.argv[1:2] in (["run"], ["exec"]):  # before all else: until then other processes of this user can read it
        from flopsd.system.process_memory import protect_memory, use_little_memory

        _restore_locale()
        protect_memory()  # then this process can no longer read all of /proc/self either
        use_little_memory()
    sys.excepthook = _uncaught
    from flopsd.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
