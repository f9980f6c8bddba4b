"""Processes whose parent ends become children of whoever adopts orphans."""

import subprocess
import sys

SCRIPT = """
import os, signal, subprocess
from pathlib import Path
from flopsd.system.process_groups import adopt_orphans

adopt_orphans()
pid = int(subprocess.check_output(["/bin/sh", "-c", "sleep 600 >/dev/null & echo $!"]))
parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
os.kill(pid, signal.SIGKILL)
print(int(parent) == os.getpid(), os.waitpid(pid, 0)[0] == pid)
"""


def test_a_process_whose_parent_has_ended_is_adopted() -> None:
    assert subprocess.check_output([sys.executable, "-c", SCRIPT], text=True) == "True True\n"
