"""Processes whose parent ends become children of an adopting process; a group is killed as a whole."""

import os
import signal
import subprocess
import sys

from flopsd.system.process_groups import kill_group

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


def test_a_child_is_killed_with_its_children() -> None:
    child = subprocess.Popen(
        ["/bin/sh", "-c", "exec 3>&1; sleep 600 & echo; wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"\n"
    output = os.dup(child.stdout.fileno())
    kill_group(child)
    assert os.read(output, 1) == b""  # no process has the other end open any more
    os.close(output)
    assert (child.returncode, child.stdin.closed, child.stdout.closed) == (-signal.SIGKILL, True, True)
