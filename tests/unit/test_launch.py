"""The launcher: what it does with children that do as they like."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.process import FLOPSD, environment

# A launcher whose daemon and sealer are deaf to all, and that has no SIGKILL to send.
DEAF = r"""
import os, sys
import flopsd.launch
from flopsd.clock import SystemClock

os.kill = lambda pid, number: None
flopsd.launch.KILL_SECONDS = 0.2
deaf = ("sh", "-c", 'trap "" TERM; exec sleep 600', "daemon")
launcher = flopsd.launch.Launcher(deaf, deaf, SystemClock(), 0.5, print)
sys.exit(launcher.run(("sh", "-c", "exit 7"), os.environ))
"""


def test_a_daemon_that_nothing_ends_does_not_keep_the_job_from_ending(tmp_path: Path) -> None:
    """As one in a driver or on a disk that is dead: SIGKILL does not reach it, and the sealer is no better off."""
    with (tmp_path / "said").open("w") as out:
        done = subprocess.run([sys.executable, "-c", DEAF], env=environment(None), stdout=out, timeout=60, check=False)
    said = (tmp_path / "said").read_text()
    left = re.findall(r"(.*) hangs in the kernel, .* is left behind: process (\d+)", said)
    for _, pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert done.returncode == 7, said
    assert [name for name, _ in left] == ["the daemon", "sealing"]


def test_whoever_starts_it_with_ignored_children_gets_the_exit_code_all_the_same(tmp_path: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ignoring, *FLOPSD, "exec", "--source", "replay", "--listen", "off", "--no-seal",
         "--state-dir", str(tmp_path), "--", "sh", "-c", "sleep 1; exit 7"],
        env=environment(None), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
