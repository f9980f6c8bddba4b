"""The launcher with children that hang, leave processes behind or change user."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flopsd.sources.ownership.processes import JobProcesses
from tests.support.process import FLOPSD, PATIENCE_SECONDS, environment, wait_until

# A launcher whose daemon and sealer ignore every signal, and that has no SIGKILL to send.
DEAF = r"""
import os, sys
import flopsd.daemon.launcher
from flopsd.system.clock import SystemClock

os.kill = lambda pid, number: None
flopsd.system.children.KILL_SECONDS = 0.2
deaf = ("sh", "-c", 'trap "" TERM; exec sleep 600', "daemon")
flopsd.daemon.launcher.os.pread = lambda *_: b"what the daemon wrote"
launcher = flopsd.daemon.launcher.Launcher(deaf, deaf, SystemClock(), 0.5, print)
sys.exit(launcher.run(("sh", "-c", "exit 7"), os.environ))
"""


@pytest.mark.long
def test_a_daemon_that_cannot_be_killed_does_not_delay_the_job(tmp_path: Path) -> None:
    """Like a daemon stuck in a driver or on a dead disk: SIGKILL does not reach it, and the sealer hangs likewise."""
    with (tmp_path / "said").open("w") as out:
        done = subprocess.run([sys.executable, "-c", DEAF], env=environment(None), stdout=out, timeout=60, check=False)
    said = (tmp_path / "said").read_text()
    left = re.findall(r"(.*) hangs in the kernel, .*; process (\d+) is left behind", said)
    for _, pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert done.returncode == 7, said
    assert [name for name, _ in left] == ["the daemon", "sealing"]


# A job that reads an inherited open file and leaves a process behind. The daemon also leaves one, which ends with it.
LEAVING = r"""
import os, sys
from flopsd.daemon.launcher import Launcher
from flopsd.system.clock import SystemClock

job = 'cat <&9; setsid sleep 600 >/dev/null 2>&1 9<&- & echo left $!; exit 7'
daemon = '(while kill -0 $$ 2>&-; do sleep 0.05; done) & exec sleep 600'
launcher = Launcher(("sh", "-c", daemon), None, SystemClock(), 0.1, lambda words: print(words, flush=True))
sys.exit(launcher.run(("sh", "-c", job), os.environ))
"""


@pytest.mark.tool("setsid")
def test_the_job_inherits_open_files_and_processes_it_leaves_are_named(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("given\n")
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" 9<{tmp_path}/given', sys.executable, LEAVING],
        env=environment(None), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (left,) = re.findall(r"^left (\d+)$", done.stdout, re.MULTILINE)
    os.kill(int(left), signal.SIGKILL)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("given\n")
    assert f"processes of the job still run ({left}): metering ended when its command did" in done.stdout


# No descriptor is free when the daemon is first started. It does not seal; the sealer says that it did.
WITHOUT_DESCRIPTORS = r"""
import os, sys
import flopsd.daemon.launcher
from flopsd.system.clock import SystemClock

pipe = os.pipe
def none_left():
    os.pipe = pipe
    raise OSError(24, "Too many open files")

os.pipe = none_left
flopsd.daemon.launcher.os.pread = lambda *_: b"what the daemon wrote"
daemon, sealer = ("sh", "-c", "exec cat >/dev/null"), ("sh", "-c", "echo sealed")
log = lambda words: print(words, file=sys.stderr)
launcher = flopsd.daemon.launcher.Launcher(daemon, sealer, SystemClock(), 5, log)
sys.exit(launcher.run(("sh", "-c", "echo job; sleep 0.5; exit 7"), os.environ))
"""


def test_a_daemon_without_descriptors_starts_later_and_keeps_out_of_job_output() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], env=environment(None), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, "job\n"), done.stderr
    assert "METERING IS OFF: the daemon cannot be started: Too many open files; the job goes on" in done.stderr
    assert "METERING INTERRUPTED: the daemon ended with exit code" in done.stderr
    assert "\nsealed\n" in done.stderr


# A job that became another user, so that its launcher may not signal it.
FOREIGN = r"""
import os, sys
from flopsd.daemon.launcher import Launcher
from flopsd.system.clock import SystemClock

def refused(*_):
    raise PermissionError

os.killpg = refused
launcher = Launcher(("sh", "-c", "exec sleep 600", "daemon"), None, SystemClock(), 0.1, lambda words: print(words, flush=True))
sys.exit(launcher.run(("sh", "-c", "kill -USR1 $PPID; sleep 0.1; exit 7"), os.environ))
"""


def test_a_signal_that_cannot_be_passed_on_is_logged_and_ends_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN], env=environment(None), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 7, done.stderr
    assert f"signal {int(signal.SIGUSR1)} cannot be passed on: the job now runs as another user" in done.stdout


def test_the_exit_code_is_returned_when_the_parent_ignores_sigchld(tmp_path: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ignoring, *FLOPSD, "exec", "--source", "replay", "--listen", "off", "--no-seal",
         "--state-dir", str(tmp_path), "--", "sh", "-c", "sleep 1; exit 7"],
        env=environment(None), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr


class Shell:
    """An interactive bash on its own terminal."""

    def __init__(self, fd: int) -> None:
        self._fd, self._seen = fd, b""

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def foreground(self) -> int:
        """The process group that has the terminal."""
        return os.tcgetpgrp(self._fd)

    def wait_for(self, pattern: str) -> re.Match[bytes]:
        """Wait for output that matches `pattern`, after everything matched before."""
        while not (match := re.search(pattern.encode(), self._seen)):
            ready, _, _ = select.select([self._fd], [], [], PATIENCE_SECONDS)
            assert ready, f"{pattern!r} never came: {self._seen!r}"
            self._seen += os.read(self._fd, 1 << 16)
        self._seen = self._seen[match.end() :]
        return match


@contextmanager
def terminal(*command: str) -> Iterator[Shell]:
    """A session leader with a terminal, whose keyboard and screen the Shell is."""
    env = environment(None) | {
        "PS1": "ready> ",
        "TERM": "dumb",
        "F": f"{' '.join(FLOPSD)} exec --source replay --listen off --no-seal",
    }
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, env)
    try:
        yield Shell(fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(fd)
        os.waitpid(pid, 0)


def _runs(pid: int) -> bool:
    return psutil.Process(pid).status() != psutil.STATUS_STOPPED


JOB = 'echo "job is up: $$"; read word; echo "got $word"; exit 7'


@pytest.mark.long
def test_control_z_stops_job_and_launcher_and_fg_continues_them(tmp_path: Path) -> None:
    with terminal("bash", "--norc", "--noediting", "-i") as shell:
        shell.wait_for("ready> ")
        shell.type(f"$F --checkpoint-output off --state-dir {tmp_path} -- sh -c '{JOB}' 2>/dev/null; echo code=$?\n")
        job = int(shell.wait_for(r"\njob is up: (\d+)\r")[1])  # the leader of its own process group
        for _ in range(2):
            wait_until(lambda: shell.foreground() == job and _runs(job), "the job has the terminal")
            shell.type("\x1a")
            shell.wait_for("Stopped")
            shell.wait_for("ready> ")
            shell.type("echo $((6*7))\n")
            shell.wait_for("\n42")
            # The job wants the keyboard, which the shell has.
            shell.type("bg; until jobs -s | grep -q checkpoint; do sleep 0.05; done; echo $((6*9))\n")
            shell.wait_for("\n54")
            shell.type("fg\n")
            shell.wait_for("-- sh -c")
        shell.type("hello\n")
        shell.wait_for("got hello")
        shell.wait_for("ready> ")
        shell.type("echo $((6*8))\n")
        shell.wait_for("\n48")


def test_control_z_without_a_shell_stops_nothing(tmp_path: Path) -> None:
    """As under `ssh -t`, where nobody could ever continue it."""
    with terminal(*FLOPSD, "exec", "--source", "replay", "--listen", "off", "--no-seal", "--state-dir", str(tmp_path),
                  "--", "sh", "-c", JOB) as shell:  # fmt: skip
        shell.wait_for("job is up")
        shell.type("\x1a")
        shell.wait_for(r"\^Z")
        shell.type("hello\n")
        shell.wait_for("got hello")


def exec_of(folder: Path, job: str) -> list[str]:
    return [*FLOPSD, "exec", "--source", "replay", "--listen", "off", "--no-seal", "--state-dir", str(folder / "state"),
            "--", "sh", "-c", job]  # fmt: skip


def test_a_job_stopped_without_a_terminal_does_not_stop_its_caller(tmp_path: Path) -> None:
    """Whoever continues the job continues it alone: a caller in our own group would wait for ever."""
    job = "echo $$ >pid.new; mv pid.new pid; kill -TSTP $$; exit 7"
    with subprocess.Popen(
        exec_of(tmp_path, job), env=environment(None), cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,
    ) as launcher:  # fmt: skip
        try:
            wait_until((tmp_path / "pid").exists, "the job has begun")
            pid = int((tmp_path / "pid").read_text())
            wait_until(lambda: not _runs(pid), "it has stopped itself")
            os.kill(pid, signal.SIGCONT)
            assert launcher.wait(PATIENCE_SECONDS) == 7
        finally:
            launcher.kill()


def test_a_detached_process_still_belongs_to_the_job(tmp_path: Path) -> None:
    """Otherwise its device would belong to another job, and its work would be missing from the ledger."""
    job = "(sleep 600 & echo $! >detached.new); mv detached.new detached; exec sleep 600"
    command = exec_of(tmp_path, job)
    with subprocess.Popen(command, env=environment(None), cwd=tmp_path, stderr=subprocess.DEVNULL) as launcher:
        try:
            wait_until((tmp_path / "detached").exists, "the job has started it")
            pid = int((tmp_path / "detached").read_text())
            wait_until(lambda: pid in JobProcesses(launcher.pid).pids(), "it is the job's, though its parent has ended")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not psutil.pid_exists(pid), "it was waited for")
        finally:
            launcher.terminate()
            launcher.wait(PATIENCE_SECONDS)


def test_a_task_that_only_runs_its_command_has_default_signals(tmp_path: Path) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and a program inherits ignored signals when it is started."""
    env = environment(None) | {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "1", "SLURM_PROCID": "1"}
    done = subprocess.run([*FLOPSD, "exec", "--", "grep", "SigIgn", "/proc/self/status"], env=env, cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "task 1 of this node" in done.stderr
    ignored = int(done.stdout.split()[1], 16)
    assert [number for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> (number - 1) & 1] == []
