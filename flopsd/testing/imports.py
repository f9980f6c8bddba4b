"""Side effects of importing a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys

# Runs in a fresh interpreter, whose audit events report effects (docs.python.org/3/library/audit_events.html).
_WATCHED_IMPORT = """
import importlib, json, sys, threading
seen = []
harmless = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts",
            *(path for path in sys.path if path.startswith("/dev/")))  # packages can lie in /dev/shm
acts = ("subprocess.Popen", "os.system", "os.fork", "os.exec", "os.posix_spawn",
        "socket.connect", "socket.bind", "pty.spawn")
def watch(event, arguments):
    if event == "open":
        path = arguments[0]
        if isinstance(path, str) and path.startswith("/dev/") and not path.startswith(harmless):
            seen.append(f"opens {path}")
    elif event == "ctypes.dlopen" and arguments[0] is not None:
        seen.append(f"loads {arguments[0]}")
    elif event in acts:
        seen.append(event)
start = threading.Thread.start
def start_noted(thread):
    seen.append(f"starts the thread {thread.name}")
    start(thread)
threading.Thread.start = start_noted
sys.addaudithook(watch)
importlib.import_module(sys.argv[1])
print(json.dumps(seen))
"""


def import_effects(module: str) -> list[str]:
    """What an import of `module` opens, loads, starts or prints; should be empty."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", _WATCHED_IMPORT, module],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    if done.returncode:
        return [f"{module} cannot be imported: {line}" for line in done.stderr.strip().splitlines()[-1:]]
    *printed, seen = done.stdout.splitlines()
    return [f"importing {module} prints {line!r}" for line in printed] + [
        f"importing {module}: {act}" for act in json.loads(seen)
    ]
