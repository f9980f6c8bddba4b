"""The rights with which the suite runs, and whether GPM also answers an unprivileged user (D.6, question 5).

`python -m tests.hardware.privileges UUID` prints, as JSON, GPM's answer to the user who runs it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

from flopsd.system.clock import SystemClock
from tests.hardware.meter import ROOT
from tests.hardware.raw import ANY_TENSOR, Gpu, GpuError

NOBODY = 65534
CAP_SYS_ADMIN = 21
_SECONDS = 60
_PROBE_SECONDS = 0.3


def facts(uid: str) -> dict[str, Any]:
    """{euid, sys_admin, container, as_nobody}. `as_nobody`: GPM's answer without root, or the reason that it was not
    queried."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    marks = ("/.dockerenv", "/run/.containerenv", "/run/secrets/kubernetes.io")
    return {
        "euid": os.geteuid(),
        "sys_admin": bool(int(status.get("CapEff", "0"), 16) >> CAP_SYS_ADMIN & 1),
        "container": any(Path(mark).exists() for mark in marks),
        "as_nobody": _as_nobody(uid) if os.geteuid() == 0 else {"asked": False, "why": "this run is not root's"},
    }


def probe(uid: str) -> dict[str, Any]:
    """GPM's answer to this user: two samples, and the status of the tensor percentage between them."""
    clock = SystemClock()
    try:
        gpu = Gpu(uid, clock)
        first = gpu.sample()
        clock.wait(Event(), _PROBE_SECONDS)
        metric = gpu.metrics(first, gpu.sample(), (ANY_TENSOR,))[str(ANY_TENSOR)]
        return {"works": metric["status"] == 0, "status": metric["status"]}
    except GpuError as fault:
        return {"works": False, "status": str(fault)}


def _as_nobody(uid: str) -> dict[str, Any]:
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.hardware.privileges", uid], env={**os.environ, "PYTHONPATH": path},
            user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True,
            timeout=_SECONDS, check=True,
        )  # fmt: skip
        return {"asked": True, **json.loads(done.stdout)}
    except (OSError, subprocess.SubprocessError, ValueError) as fault:
        return {"asked": False, "why": f"a process of user {NOBODY} cannot run the probe here: {type(fault).__name__}"}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
