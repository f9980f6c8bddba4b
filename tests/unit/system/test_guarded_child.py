"""A process that we started: its resource use according to /proc, and that it ends together with its children."""

import os
import select
import signal
import socket
import sys
from contextlib import suppress

import psutil
import pytest

from flopsd.system.guarded_child import GuardedChild
from flopsd.system.process_groups import how_ended
from tests.support.process import PATIENCE_SECONDS

# It stays, having used more CPU in user mode than in the kernel, and some in both.
BUSY = """
import os, signal, time
while os.times().system < 0.06: os.stat("/")
while os.times().user < 0.15: sum(range(1000))
print(os.getpid(), flush=True)
signal.pause()
"""


def test_cost_is_cpu_time_of_user_and_kernel_and_resident_memory() -> None:
    child = GuardedChild([sys.executable, "-c", BUSY], one_output=True)
    try:
        assert int(child.output.readline()) == child.process.pid
        cost, known = child.cost(), psutil.Process(child.process.pid)
        times, memory = known.cpu_times(), known.memory_info()
    finally:
        child.end()
        child.process.wait(60)
        child.output.close()
    assert cost is not None
    assert abs(cost.cpu_ns - round((times.user + times.system) * 1e9)) <= 20_000_000
    assert cost.cpu_ns >= 180_000_000
    assert abs(cost.memory_bytes - memory.rss) < 1_000_000
    assert child.cost() is None


# It starts one more, which has the same output; "alone": it kills the shell that would kill them both.
STARTS = """
import os, signal, subprocess, sys
mine = f"/proc/self/task/{os.getpid()}/children"
if sys.argv[1] == "alone":
    os.kill(int(open(mine).read()), signal.SIGKILL)
else:
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(os.path.exists("/dev/fd/3"), os.environ.get("LISTEN_FDS"), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", ["with another", "alone"])
def test_a_child_ends_with_its_children_even_without_its_guard(how: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    child = GuardedChild([sys.executable, "-c", STARTS, how], one_output=True)
    try:
        assert child.output.readline().split()[1] == b"None", "no socket is handed over"
        child.end()
        assert select.select([child.output], [], [], PATIENCE_SECONDS)[0], "one of them still lives"
        assert child.output.read() == b""
        assert child.process.wait(PATIENCE_SECONDS) < 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.output.close()
    child.end()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_program_that_cannot_be_started_leaves_no_descriptor() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Argument list too long"):
        GuardedChild(["/bin/true"], env={"X": "x" * (1 << 20)})
    assert len(os.listdir("/proc/self/fd")) == descriptors


LISTENS = """
import os, socket
null, stdin = os.stat(os.devnull), os.fstat(0)
mine = int(os.environ["LISTEN_PID"]) == os.getpid()
print(os.environ["LISTEN_FDS"], mine, socket.socket(fileno=3).getsockname()[1], os.path.samestat(null, stdin))
"""


def test_a_listening_socket_is_handed_over_as_by_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = GuardedChild([sys.executable, "-c", LISTENS], listener=listener.fileno(), one_output=True)
        assert child.output.read().decode().split() == ["1", "True", str(listener.getsockname()[1]), "True"]
        child.end()
        child.process.wait(PATIENCE_SECONDS)
        child.output.close()


def test_the_end_of_a_process_is_described() -> None:
    assert [how_ended(code) for code in (-9, -1, 0, 1)] == ["signal 9", "signal 1", "exit code 0", "exit code 1"]
