"""The dcgm-exporter that flopsd starts as its child: its start, refusal, hanging and death, and its end with us."""

import csv
import hashlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.model import Active, Device, Evidence, GapReason, Sweep
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source, SourceSettings
from flopsd.sources.dcgm import SOURCE, _require_listener, own_exporter, own_source
from flopsd.sources.dcgm.exposition import FIELD_OF_NAME
from flopsd.sources.dcgm.own import open_own
from flopsd.sources.dcgm.own_exporter import Ending, ending_of
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.sources.nvml.counter_servers import PROFILERS, running
from flopsd.sources.nvml.profiling_access import ProfilingAccess
from flopsd.sources.registry import open_source
from flopsd.system.clock import NS_PER_S
from flopsd.system.guarded_child import GuardedChild
from flopsd.testing import FakeClock
from tests.support.exporter import A100_UID, BUSY, exporting, gpu
from tests.support.neuron import alive
from tests.support.own_exporter import Installed
from tests.support.process import wait_until
from tests.support.strategies import table

INTERVAL_SECONDS = 0.1


class Own:
    """A source that starts the stand-in, on a clock stepped by hand."""

    def __init__(self, folder: Path) -> None:
        self.installed, self.clock = Installed(folder), FakeClock()
        self.source: Source | None = None

    def open(self) -> Source:
        with exporting("") as gone:
            url = gone.url
        options = {"url": url, "hostengine": str(self.installed.path), "interval_seconds": INTERVAL_SECONDS}
        self.source = open_source("dcgm", SourceSettings(self.clock, table(), options))
        return self.source

    def read(self, seconds: float = 0) -> Sweep | SourceError:
        assert self.source is not None
        self.clock.advance(round(seconds * NS_PER_S))
        try:
            return self.source.read()
        except SourceError as fault:
            return fault

    def fault(self) -> SourceError:
        """The next fault, while no time passes."""
        found: list[SourceError | Sweep] = []

        def fails() -> bool:
            found.append(self.read())
            return isinstance(found[-1], SourceError)

        wait_until(fails, "a fault")
        assert isinstance(found[-1], SourceError)
        return found[-1]

    def measures(self) -> None:
        """Wait until a collection is counted."""

        def counted() -> bool:
            sweep = self.read(INTERVAL_SECONDS)
            return isinstance(sweep, Sweep) and any(isinstance(one.work, Active) for one in sweep.readings)

        wait_until(counted, "activity")

    @property
    def facts(self) -> dict[str, object]:
        assert self.source is not None
        return dict(self.source.describe())


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    monkeypatch.setattr("flopsd.sources.dcgm.source._TIMEOUT_SECONDS", 0.1)
    one = Own(tmp_path / "bin")
    try:
        yield one
    finally:
        if one.source is not None:
            one.source.close()


def test_the_exporter_gets_our_fields_and_no_environment_and_ends_with_the_source(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCGM_REMOTE_HOSTENGINE_INFO", "elsewhere:5555")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    source = own.open()
    own.measures()
    (device,) = source.devices()
    assert (device.uid, device.evidence) == (A100_UID, Evidence.ACTIVITY)
    (start,) = own.installed.starts
    assert start["flags"]["collect-interval"] == "100"
    assert "remote-hostengine-info" not in start["flags"]
    assert not {"DCGM_REMOTE_HOSTENGINE_INFO", "AWS_SECRET_ACCESS_KEY"} & set(start["names"])
    facts = own.facts
    assert facts["own_exporter"] == str(own.installed.path)
    assert facts["own_exporter_version"] == "4.5.3-4.8.2"
    assert len(str(facts["own_exporter_sha256"])) == 64
    assert (facts["own_exporter_starts"], facts["own_exporter_fault"]) == (1, None)
    assert isinstance(facts["own_exporter_memory_bytes"], int)
    assert facts["own_exporter_memory_bytes"] > 1_000_000
    source.close()
    assert own.installed.is_gone


def test_every_field_that_the_exporter_collects_is_read() -> None:
    lines = own_exporter._COUNTERS.read_text(encoding="utf-8").splitlines()
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    assert all(len(row) == 3 for row in rows)
    assert {row[0] for row in rows} - FIELD_OF_NAME.keys() == {"DCGM_FI_DRIVER_VERSION"}


def test_a_killed_exporter_is_restarted_and_a_page_in_between_is_ignored(own: Own) -> None:
    source = own.open()
    own.measures()
    version = getattr(source, "facts_version", None)
    own.source._exporter.lines.append("No permission to read what is not asked for")  # type: ignore[union-attr]
    os.kill(own.installed.pids[0], signal.SIGKILL)
    fault = own.fault()
    assert "ended with signal 9" in str(fault)
    assert not fault.reason
    assert isinstance(own.read(0.5), SourceUnavailableError)
    assert len(own.installed.pids) == 1
    own.read(0.5)
    own.measures()
    assert len(own.installed.pids) == 2
    assert own.facts["own_exporter_starts"] == 2
    assert getattr(source, "facts_version", None) != version
    os.kill(own.installed.pids[1], signal.SIGKILL)
    own.fault()
    own.read(1)
    wait_until(lambda: len(own.installed.pids) == 3, "a third start: an answer made the next wait a short one again")


@pytest.mark.parametrize(("mode", "says"), [("refused", "Host engine is running as non-root"),
                                            ("unsupported", "module of DCGM that is not currently loaded")])  # fmt: skip
def test_a_permanent_failure_is_not_tried_again(own: Own, mode: str, says: str) -> None:
    own.installed.becomes(mode)
    own.open()
    fault = own.fault()
    assert says in str(fault)
    assert ("does not try again" if mode == "refused" else "datacenter-gpu-manager-4-proprietary") in fault.hint
    for _ in range(3):
        assert own.read(3600) is fault
    assert len(own.installed.pids) == 1
    assert own.installed.is_gone
    assert own.facts["own_exporter_fault"] == str(fault)


def test_counters_used_by_another_profiler_have_their_own_reason_and_rarer_tries(own: Own) -> None:
    own.installed.becomes("in_use")
    own.open()
    fault = own.fault()
    assert str(fault).startswith("another profiler has the profiling counters: ended with exit code 1: DCGM collector")
    assert fault.reason == GapReason.COUNTERS_IN_USE.value
    assert "only one program on a machine" in fault.hint
    assert own.read(59) is fault
    own.read(1)
    wait_until(lambda: len(own.installed.pids) == 2, "a second start")
    own.fault()
    own.read(119)
    assert len(own.installed.pids) == 2
    own.installed.becomes("")
    own.read(1)
    own.measures()


def test_while_profiling_is_paused_there_is_a_ceiling_with_that_reason(own: Own) -> None:
    source = own.open()
    own.measures()
    own.installed.becomes("paused")

    def is_bounded() -> bool:
        own.read(INTERVAL_SECONDS)
        return source.devices()[0].evidence is Evidence.UTILIZATION

    wait_until(is_bounded, "the ceiling")
    (device,) = source.devices()
    assert "another profiler has the counters, or profiling is paused" in device.evidence_reason
    assert "dcgmi profile --resume" in device.evidence_fix
    assert own.facts["profiling_lost"] == 1
    own.installed.becomes("")
    own.measures()
    assert len(own.installed.pids) == 1


def test_profiling_that_is_paused_from_the_start_is_no_fault_of_the_exporter(own: Own) -> None:
    own.installed.becomes("paused")
    source = own.open()

    def is_bounded() -> bool:
        assert isinstance(own.read(INTERVAL_SECONDS), Sweep)
        return [one.evidence for one in source.devices()] == [Evidence.UTILIZATION]

    wait_until(is_bounded, "the ceiling")
    own.installed.becomes("")
    own.measures()
    assert len(own.installed.pids) == 1


def test_an_exporter_that_has_profiling_fields_is_used_whatever_it_said(own: Own) -> None:
    own.open()
    own.source._exporter.lines.append("No permission to read what is not asked for")  # type: ignore[union-attr]
    own.measures()
    assert own.facts["own_exporter_fault"] is None


def test_a_hanging_exporter_is_killed_and_restarted(own: Own) -> None:
    own.open()
    own.measures()
    own.installed.becomes("hang")
    own.read()
    assert isinstance(own.read(15), SourceError)
    (pid,) = own.installed.pids
    assert alive(pid)
    fault = own.read(1e-9)
    assert "hangs: it has given no page for 15 s" in str(fault)
    assert not alive(pid)
    own.installed.becomes("")
    own.read(1)
    own.measures()
    assert len(own.installed.pids) == 2


def test_an_exporter_without_a_page_is_given_up_after_a_minute(own: Own) -> None:
    own.installed.becomes("hang")
    own.open()
    sweep = own.read(60)
    assert isinstance(sweep, Sweep)
    assert sweep.readings == ()
    assert "hangs: it has given no page for 60 s" in str(own.read(1e-9))
    assert own.installed.is_gone


def test_our_exporter_ends_if_another_one_keeps_running(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter seen only once may be the attempt of another flopsd."""
    seen: dict[int, str] = {}

    def running_here(names: tuple[str, ...]) -> dict[int, str]:
        known = {**seen, own.installed.pids[0]: "dcgm-exporter"}
        return {pid: name for pid, name in known.items() if name in names}

    monkeypatch.setattr(own_source, "running", running_here)
    own.open()
    with exporting("") as theirs:
        readers, closed = list[DcgmSource](), list[DcgmSource]()
        monkeypatch.setattr(DcgmSource, "close", lambda reader: closed.append(reader))

        def other() -> DcgmSource:
            readers.append(DcgmSource(own.clock, table(), theirs.url))
            return readers[0]

        own.source._open_other = other  # type: ignore[union-attr]
        own.measures()
        seen[1] = "nv-hostengine"
        own.read(60)
        seen.clear()
        own.read(60)
        seen[2] = "dcgm-exporter"
        own.read(60)
        (pid,) = own.installed.pids
        assert alive(pid)
        assert "shows no GPU" in str(own.read(60))
        assert not alive(pid)
        theirs.shows(gpu(BUSY))
        assert isinstance(own.read(1), Sweep)
        assert isinstance(own.read(1), Sweep)
        assert len(readers) == len(closed) == 1
        assert closed != readers, "of our own exporter's page, with its hold on NVML"
        assert own.facts["url"] == theirs.url


@pytest.mark.parametrize("is_asked", [False, True])
def test_counters_are_left_to_a_later_profiler_unless_a_setting_names_the_exporter(
    own: Own, monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    seen, looks = dict[int, str](), list[tuple[str, ...]]()

    def running_here(names: tuple[str, ...]) -> dict[int, str]:
        looks.append(names)
        return {pid: name for pid, name in seen.items() if name in names}

    monkeypatch.setattr(own_source, "running", running_here)
    own.open()
    own.source._open_other = None if is_asked else pytest.fail  # type: ignore[union-attr]
    own.measures()
    own.read(10)
    looked = looks.count(PROFILERS)
    own.read(9)
    assert looks.count(PROFILERS) == looked, "a look takes milliseconds where a thousand processes run"
    seen[4711] = "ncu"
    own.read(10)
    if is_asked:
        own.measures()
        return
    fault = own.fault()
    assert "ncu runs here (process 4711), and flopsd leaves the counters to it" in str(fault)
    assert fault.reason == GapReason.COUNTERS_IN_USE.value
    assert own.installed.is_gone
    own.read(60)
    assert len(own.installed.pids) == 1, "it still runs"
    seen.clear()
    own.read(119)
    assert len(own.installed.pids) == 1
    own.read(1)
    own.measures()
    assert len(own.installed.pids) == 2


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        # Lines of users' reports: dcgm-exporter#407, #427, #327, #707; DCGM#106; dcgm_errors.c of DCGM 4.6.0.
        ("FATA[0000] Failed to watch metrics: Error watching fields: Host engine is running as non-root", "refused"),
        ("Warning #2: dcgm-exporter doesn't have sufficient privileges to expose profiling metrics.", "refused"),
        (
            'level=info msg="Not collecting DCP metrics: Error getting supported metrics: Profiling is not supported for '
            'this group of GPUs or GPU"',
            "not_supported",
        ),
        ("Error watching fields: The third-party Profiling module returned an unrecoverable error", "in_use"),
        ("The requested operation could not be completed because the affected resource is in use", "in_use"),
        ("The hostengine and all modules are paused", "in_use"),
        (
            'time="2022-05-24T08:06:48Z" level=fatal msg="Error starting nv-hostengine: DCGM initialization error"',
            "fault",
        ),
    ],
)
def test_the_reason_of_an_end_follows_from_the_last_line(line: str, ending: str) -> None:
    found, words = ending_of(["first", line])
    assert found is Ending(ending)
    assert words in line
    assert not words.startswith("time=")


@pytest.mark.parametrize(
    ("options", "says", "absent"),
    [
        ({"hostengine": "/nowhere/dcgm-exporter"}, "/nowhere/dcgm-exporter is not an executable", False),
        ({"hostengine": "off"}, "no exporter answers", True),
        ({"hostengine": "auto"}, "no exporter answers", True),  # the user's own url: their exporter has to answer
    ],
)
def test_an_exporter_is_not_started_without_need_or_program(options: dict[str, str], says: str, absent: bool) -> None:
    with exporting("") as gone:
        url = gone.url
    with pytest.raises(SourceUnavailableError, match=says) as caught:
        open_source("dcgm", SourceSettings(FakeClock(), table(), {"url": url, **options}))
    assert caught.value.absent is absent


@pytest.mark.parametrize(("seconds", "interval_ms"), [(None, 5000), (7, 7000)])
@pytest.mark.parametrize("read_other", [lambda: None, None])
def test_our_exporter_collects_at_the_set_interval(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, interval_ms: int, read_other: Any
) -> None:
    devices = (Device("GPU-0", 0, "nvidia", "A100"),)
    monkeypatch.setattr("flopsd.sources.dcgm.own.gpus_without_gpm", lambda *_: (devices, ProfilingAccess.OPEN_TO_ALL))
    monkeypatch.setattr("flopsd.sources.dcgm.own.running", lambda _: {})
    monkeypatch.setattr("flopsd.sources.dcgm.own.OwnDcgmSource", lambda *given: given)
    settings = SourceSettings(FakeClock(), table(), {"interval_seconds": seconds})
    given: Any = open_own(settings, "/x", SourceUnavailableError("none", hint=""), read_other)
    clock, found, path, collects_ms, read, _, other = given
    assert (clock, found, path, collects_ms, other) == (settings.clock, devices, "/x", interval_ms, read_other)
    with exporting(gpu(BUSY)) as ours:
        source = read(ours.url)
        assert (source.describe()["interval_ms"], source.describe()["url"]) == (interval_ms, ours.url)
        source.close()


@pytest.mark.parametrize(
    ("url", "own", "is_started"),
    [
        ("default", "auto", True), ("default", "off", False), ("default", None, True), ("default", "named", True),
        ("elsewhere", "auto", False), ("elsewhere", "named", True), ("wrong", "named", None),
    ],
)  # fmt: skip
def test_our_exporter_starts_if_nothing_listens_at_the_default_or_a_setting_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, own: str | None, is_started: bool | None
) -> None:
    with exporting("") as gone:
        urls = {"default": gone.url, "elsewhere": gone.url + "?x", "wrong": "ftp://here"}
    monkeypatch.setattr("flopsd.sources.dcgm._URL", urls["default"])
    installed = Installed(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr("flopsd.sources.dcgm.own.open_own", lambda *given: started.append(given))
    monkeypatch.setattr("flopsd.sources.dcgm.source.open_exporter", lambda *given: given)
    hostengine = str(installed.path) if own == "named" else own
    settings = SourceSettings(FakeClock(), table(), {"url": urls[url], "hostengine": hostengine, "interval_seconds": 7})
    if is_started:
        SOURCE.open(settings)
        ((given, path, fault, read_other),) = started
        assert (given, path, read_other is None) == (settings, str(installed.path), own == "named")
        if read_other is not None:
            assert read_other() == (settings, urls[url], 7.0, (0, os.geteuid()))
        assert "no exporter answers" in str(fault)
        return
    with pytest.raises(SourceUnavailableError) as caught:
        SOURCE.open(settings)
    assert caught.value.absent is (is_started is False)
    assert not started


def test_a_listener_that_accepts_no_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopsd.sources.dcgm._SECONDS", 0.1)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(SourceUnavailableError, match="no exporter answers at .*: timed out") as caught:
            _require_listener(f"http://127.0.0.1:{full.getsockname()[1]}/metrics")
        assert not caught.value.absent


def test_the_collection_interval_is_between_a_tenth_of_a_second_and_an_hour() -> None:
    (parse,) = (option.parse for option in SOURCE.options if option.name == "interval_seconds")
    assert [parse(text) for text in ("0.1", "3600")] == [0.1, 3600]
    for text in ("0.09", "3601"):
        with pytest.raises(ValueError, match="expected"):
            parse(text)


def test_processes_are_found_by_name(tmp_path: Path) -> None:
    for pid, name in ((7, "nv-hostengine"), (8, "sleep"), (9, "ncu")):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "comm").write_text(f"{name}\n")
    assert running(("nv-hostengine", "ncu"), tmp_path) == {7: "nv-hostengine", 9: "ncu"}


def test_the_digest_is_of_the_running_program_and_not_of_its_replacement(tmp_path: Path) -> None:
    program = tmp_path / "dcgm-exporter"
    shutil.copy("/bin/sleep", program)
    own = own_exporter.OwnExporter(str(program), 100)
    try:
        own._child = GuardedChild([str(program), "60"], one_output=True)
        exe = Path(f"/proc/{own.pid}/exe")
        wait_until(lambda: exe.readlink() == program, "the program in place of the shell that started it")
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        program.unlink()
        program.write_text("another")
        assert own.program_sha256() == digest
    finally:
        own.close()
    assert own.program_sha256() is None


@pytest.mark.parametrize(
    ("is_asked", "access", "gpus", "others", "says", "hint"),
    [
        (True, ProfilingAccess.NO_CAPABILITY, 1, (), "closed to this process", "dcgm-exporter as root"),
        (False, ProfilingAccess.NO_CAPABILITY, 1, (), "closed to this process", "dcgm-exporter as root"),
        (False, ProfilingAccess.PERFMON_ONLY, 1, (), "not known to be open", "install dcgm-exporter"),
        (False, ProfilingAccess.OPEN_TO_ALL, 0, (), "NVML shows no GPU that needs one", "theirs"),
        (False, ProfilingAccess.OPEN_TO_ALL, 1, ("ncu", "nv-hostengine"), "ncu, nv-hostengine runs here", "theirs"),
    ],
)  # fmt: skip
def test_our_exporter_does_not_start_if_counters_are_closed_taken_or_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_asked: bool, access: ProfilingAccess, gpus: int,
    others: tuple[str, ...], says: str, hint: str,
) -> None:  # fmt: skip
    installed, devices = Installed(tmp_path), tuple(Device(f"GPU-{at}", at, "nvidia", "A100") for at in range(gpus))
    found = {(FakeClock, PeakTable): (devices, access)}
    monkeypatch.setattr(
        "flopsd.sources.dcgm.own.gpus_without_gpm", lambda clock, peaks: found[type(clock), type(peaks)]
    )
    monkeypatch.setattr("flopsd.sources.dcgm.own.running", lambda _: dict(enumerate(others)))
    for name in ("KUBERNETES_SERVICE_HOST", "SLURM_JOB_ID", "TRAINING_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    fault = SourceUnavailableError("no exporter answers", hint="theirs", absent=True)
    settings = SourceSettings(FakeClock(), table(), {"url": "http://127.0.0.1:9400/metrics"})
    with pytest.raises(SourceUnavailableError) as caught:
        open_own(settings, str(installed.path), fault, None if is_asked else lambda: pytest.fail("opened"))
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.absent is not is_asked
    assert not installed.starts
