"""What a process that we started has used, as /proc has it."""

import sys

import psutil

from flopsd.system.guarded_child import GuardedChild

# It stays, having used more CPU in user mode than in the kernel.
BUSY = """
import os, signal, time
while time.process_time() < 0.2: sum(range(1000))
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
