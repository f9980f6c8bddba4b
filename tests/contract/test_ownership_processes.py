"""Whose processes run on a GPU: pynvml against the stand-in, psutil on real processes, real pid namespaces."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pynvml
import pytest

from flopsd.errors import OwnershipError, SourceUnavailableError
from flopsd.settings.device_selection import parse_devices
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.ownership import NvidiaDevices, NvmlProcesses
from flopsd.sources.nvml.source import NvmlSource
from flopsd.sources.ownership.filtered_source import FilteredSource
from flopsd.sources.ownership.open import own
from flopsd.sources.ownership.processes import JobProcesses, ProcessCensus, ProcessRule
from flopsd.sources.ownership.rule import Job, VendorDevices
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.owners import CHIPS, Scripted
from tests.support.process import wait_until
from tests.support.scenario import Fault, Gpu, Process, Scenario, Segment, h100
from tests.support.sim import SharedClock, simulated
from tests.support.strategies import table
from tests.support.tools import missing

WORK = (Segment(1000, hmma=0.5, util=100),)
FOR_EVER = 10**9
# A root with a child and a grandchild, each of which prints its pid and lives until its stdin ends.
TREE = """
import os, subprocess, sys
depth = int(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]]) if depth else None
print(os.getpid(), flush=True)
sys.stdin.read()
if child:
    child.wait()
"""


class Tree:
    """A job: `pids` of the root, its child and its grandchild."""

    def __init__(self, stack: ExitStack) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TREE, "2", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(self.end)
        assert self.process.stdout is not None
        self.root = self.process.pid
        said = {int(self.process.stdout.readline()) for _ in range(3)}
        self.child, self.grandchild = (child.pid for child in psutil.Process(self.root).children(recursive=True))
        assert said == {self.root, self.child, self.grandchild}

    def end(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def job(stack: ExitStack) -> Tree:
    return Tree(stack)


Open = Callable[..., tuple[FilteredSource, SharedClock]]


@pytest.fixture
def open_sim(standin: Path, tmp_path: Path, stack: ExitStack) -> Open:
    def open_it(
        *gpus: Gpu, setting: str = "processes", root: int | None = None, environment: Mapping[str, str] | None = None
    ) -> tuple[FilteredSource, SharedClock]:
        clock = SharedClock(tmp_path / "clock")
        stack.enter_context(simulated(standin, tmp_path, Scenario(gpus), clock))
        inner = NvmlSource(pynvml, SourceSettings(clock, table()))
        source = own(inner, NvidiaDevices(), parse_devices(setting), Job(environment or {}, root_pid=root), clock)
        stack.callback(source.close)
        return source, clock

    return open_it


def gpu(*processes: tuple[int, int, int]) -> Gpu:
    return h100(WORK, processes=tuple(Process(*process) for process in processes))


def seen(source: FilteredSource, clock: SharedClock, seconds: int) -> list[int]:
    """Indices of the devices that are read `seconds` later; waits for a slow answer."""
    clock.advance(seconds * NS_PER_S)

    def answered() -> list[int] | None:
        read = [reading.device for reading in source.read().readings]
        clock.advance(NS_PER_S)  # GPM gives no second reading at the same time
        return None if source._asker.waiting else [d.index for d in source.devices() if d.uid in read]

    found: list[int] | None = None
    while found is None:
        found = answered()
    return found


def test_only_the_jobs_process_tree_belongs_to_it(job: Tree) -> None:
    processes = JobProcesses(job.root, initial=True)
    assert processes.pids() == {job.root, job.child, job.grandchild}
    own_pids = processes.pids()
    assert processes.census([job.root, job.grandchild, os.getpid(), os.getppid()], own_pids) == ProcessCensus(2, 2)
    assert processes.census([], own_pids) == ProcessCensus()
    assert processes.census([2**32 - 1], own_pids) == ProcessCensus(), "no process has this id"


def test_process_ids_that_do_not_exist_here_are_of_another_namespace(job: Tree) -> None:
    """In a container an id that exists nowhere here shows that the driver gives the host's."""
    nowhere = max(psutil.pids()) + 100_000
    inside, outside = JobProcesses(job.root, initial=False), JobProcesses(job.root, initial=True)
    own_pids = inside.pids()
    assert inside.census([job.child, nowhere], own_pids) == ProcessCensus(unknown=2)
    assert inside.census([job.child, os.getpid()], own_pids) == ProcessCensus(1, 1)
    assert outside.census([job.child, nowhere], own_pids) == ProcessCensus(
        1
    )  # in the initial namespace it has just ended


def test_a_job_that_ended_or_never_was_is_an_error(job: Tree) -> None:
    processes = JobProcesses(job.root)
    job.end()
    with pytest.raises(OwnershipError, match=f"process {job.root} has ended"):
        processes.pids()
    with pytest.raises(OwnershipError, match=f"process {job.root} is not there, or .proc hides it"):
        JobProcesses(job.root)


def test_devices_follow_the_processes(open_sim: Open, job: Tree) -> None:
    other = os.getpid()
    source, clock = open_sim(
        gpu((0, FOR_EVER, job.grandchild)),
        gpu((0, FOR_EVER, other)),
        gpu((0, FOR_EVER, job.child), (0, FOR_EVER, other), (0, FOR_EVER, os.getppid())),
        gpu((5_000, FOR_EVER, job.root)),
        root=job.root,
    )
    assert [device.index for device in source.devices()] == [0, 2]
    assert [device.shared for device in source.devices()] == [None, "2 processes of others"]
    assert source.describe()["devices"] == f"the devices on which process {job.root} and its descendants run: 2 of 4"
    assert seen(source, clock, 10) == [0, 2, 3]


def test_a_device_between_two_processes_of_the_job_stays_and_one_taken_by_others_goes(
    open_sim: Open, job: Tree
) -> None:
    source, clock = open_sim(
        gpu((0, 5_000, job.child), (40_000, FOR_EVER, job.grandchild)),
        gpu((0, 5_000, job.child), (5_000, FOR_EVER, os.getpid())),
        gpu(),
        root=job.root,
    )
    assert [device.index for device in source.devices()] == [0, 1]
    assert seen(source, clock, 10) == [0]
    assert seen(source, clock, 40) == [0, 1, 2], "nobody asked for so long"
    assert seen(source, clock, 1) == [0]
    assert source.devices()[0].shared is None


def test_process_ids_of_another_namespace_select_nothing(job: Tree) -> None:
    nowhere = max(psutil.pids()) + 100_000
    clock = FakeClock()
    inner = Scripted(clock)
    with pytest.raises(SourceUnavailableError, match="another pid namespace") as caught:
        FilteredSource(
            inner,
            ProcessRule(JobProcesses(job.root, initial=False), NvidiaDevices(lambda _: frozenset({nowhere}))),
            clock,
        )
    assert "another rule" in caught.value.hint
    assert inner.closed


def test_a_driver_that_lists_no_processes_is_not_a_no(open_sim: Open, job: Tree) -> None:
    lost = h100(WORK, (Fault(1_000, 20_000, "no_permission"),), processes=(Process(0, FOR_EVER, job.root),))
    source, clock = open_sim(lost, gpu((0, FOR_EVER, os.getpid())), root=job.root)
    assert seen(source, clock, 10) == [0]
    assert "the driver does not list the processes on it" in source.devices()[0].evidence_reason
    chips = ProcessRule(JobProcesses(job.root), VendorDevices()).judge(CHIPS).verdicts
    assert {verdict.mine for verdict in chips.values()} == {None}


def test_other_users_are_reported_under_any_rule_where_the_job_is_known(open_sim: Open, job: Tree) -> None:
    source, clock = open_sim(
        gpu((0, FOR_EVER, job.root)), gpu((0, FOR_EVER, job.root), (0, FOR_EVER, os.getpid())), setting="all",
        root=job.root,
    )  # fmt: skip
    wait_until(lambda: seen(source, clock, 10) and source.devices()[1].shared, "the sharing is reported")
    assert [device.shared for device in source.devices()] == [None, "1 process of others"]
    assert source.describe()["devices"] == "all visible devices: 2 of 2"


def test_the_rule_all_needs_no_job(open_sim: Open, job: Tree) -> None:
    job.end()
    source, _ = open_sim(gpu(), gpu(), setting="all", root=job.root)
    assert [device.index for device in source.devices()] == [0, 1]


@pytest.mark.parametrize("driver", ["595.91.07", "535.54.03"])
def test_nvml_is_started_for_the_question_and_mps_and_graphics_clients_count(
    standin: Path, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    listed = gpu((0, FOR_EVER, 10), (0, FOR_EVER, 11))
    clock, scenario = SharedClock(tmp_path / "clock"), Scenario((listed,), driver=driver)
    with simulated(standin, tmp_path, Scenario((h100(WORK, (Fault(0, FOR_EVER, "gone"),)),)), clock):
        pynvml.nvmlInit()  # the earlier state of NVML is no answer
        pynvml.nvmlShutdown()
    stack.enter_context(simulated(standin, tmp_path, scenario, clock))
    asked = NvmlProcesses()  # a GPU that does not answer soon is asked again: this machine may be busy

    def answers(*pids: int) -> bool:
        return asked.on(scenario.uuid(0)) == frozenset(pids)

    wait_until(lambda: answers(10, 11), "the processes")
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    client = pynvml.nvmlFriendlyObject({"pid": 12})
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMPSComputeRunningProcesses_v2", lambda _: [client])
    wait_until(lambda: answers(10, 11, 12), "the client of MPS")

    refused: list[object] = []

    def forbidden(handle: object) -> None:
        refused.append(handle)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetGraphicsRunningProcesses_v2", forbidden)
    pynvml.nvmlInit()
    stack.callback(pynvml.nvmlShutdown)
    assert NvmlProcesses().on(scenario.uuid(0)) is None
    wait_until(lambda: refused, "the question")
    assert len(refused) == 1, "NVML runs, so that to start it would change nothing"


def test_the_mps_server_is_not_another_user(tmp_path: Path, stack: ExitStack, job: Tree) -> None:
    server = tmp_path / "nvidia-cuda-mps-server"
    server.symlink_to(sys.executable)
    program = [str(server), "-c", "print(flush=True); input()"]
    process = stack.enter_context(subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    stack.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()
    processes = JobProcesses(job.root)
    assert processes.census([process.pid, job.root], processes.pids()) == ProcessCensus(1, 0)
    assert processes.census([process.pid, os.getpid()], processes.pids()) == ProcessCensus(0, 1)


NESTED = """
import os, subprocess, sys
from pathlib import Path
from flopsd.sources.ownership.processes import JobProcesses, translate
host = Path(sys.argv[1])
child = subprocess.Popen(["sleep", "600"])
try:
    found = {int(p.name): translate(int(p.name), host) for p in host.iterdir() if p.name.isdigit()}
    ours = {here: pid for pid, here in found.items() if here}
    assert ours[child.pid] != child.pid, "the host knows it by another id"
    assert os.getpid() in ours, ours
    job = JobProcesses(child.pid, host)
    theirs, sibling = int(sys.argv[2]), int(sys.argv[3])
    assert found[theirs] == 0, found[theirs]
    assert "1" in (host / str(sibling) / "status").read_text().partition("NSpid:")[2].splitlines()[0].split()[1:]
    assert found[sibling] == 0, "process 1 of another container is not process 1 of this one"
    print(job.census([ours[child.pid], theirs], job.pids()))
    print(JobProcesses(child.pid).census([ours[child.pid], theirs], job.pids()))
    print(job.census([ours[child.pid], 4_000_000], job.pids()))
    print(job.census([child.pid], job.pids()))
finally:
    child.kill()
    child.wait()
"""


@pytest.mark.tool("unshare")
def test_host_ids_are_translated_through_the_hosts_proc(tmp_path: Path, stack: ExitStack) -> None:
    """In a pid namespace of its own, with the outer /proc at another place, like a sidecar's HOST_PROC."""
    host = tmp_path / "hostproc"
    host.mkdir()
    inner = f'mount --rbind /proc {host} && exec unshare --pid --fork --mount-proc "$@"'
    sibling = stack.enter_context(
        subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "600"], stderr=subprocess.DEVNULL)
    )
    stack.callback(sibling.kill)
    wait_until(lambda: sibling.poll() is not None or psutil.Process(sibling.pid).children(), "the sibling runs")
    if sibling.poll() is not None:
        pytest.skip("this user may not make pid namespaces")
    first = psutil.Process(sibling.pid).children()[0].pid
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inner, "sh", sys.executable, "-c", NESTED, str(host), str(os.getpid()),
         str(first)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "cannot change root filesystem propagation" in done.stderr:
        missing("a mount namespace cannot be made in a chroot")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ProcessCensus(mine=1, others=1, unknown=0)",
        "ProcessCensus(mine=0, others=0, unknown=2)",
        "ProcessCensus(mine=1, others=0, unknown=1)",
        "ProcessCensus(mine=1, others=0, unknown=0)",
    ]
