"""A wrapped source, with a job-mapping folder that names the owner of each device."""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from flopsd.core.meter import advance
from flopsd.core.model import Counted, Device, Evidence, Gap, GapReason, Growth, Limits, Pipe, Reading, Totals
from flopsd.core.tally import Tally
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.settings.device_selection import parse_devices
from flopsd.sources import SourceInfo
from flopsd.sources.calls import devices_of, facts_of
from flopsd.sources.nvml.ownership import NvidiaDevices
from flopsd.sources.ownership.dcgm_job_mapping import JobRule
from flopsd.sources.ownership.filtered_source import FilteredSource, ReturningDevices
from flopsd.sources.ownership.open import limited_to_job, own
from flopsd.sources.ownership.rule import (
    AllRule,
    Job,
    NamedRule,
    Ownership,
    OwnershipResult,
    OwnershipRule,
    VendorDevices,
)
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.owners import CHIPS, GPUS, LOST, SLICES, Scripted
from tests.support.process import wait_until
from tests.support.runs import H100

PATIENCE_SECONDS = 30.0  # for one of our own threads to answer; no test waits that long
A, B, C, D = (device.uid for device in GPUS)
NVIDIA = NvidiaDevices()


class Node:
    """A node with four GPUs, and the folder in which its scheduler lists the jobs of each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder / "jobs", FakeClock()
        self.folder.mkdir()
        self.source = Scripted(self.clock)

    def note(self, **jobs: str) -> None:
        for name, text in jobs.items():
            (self.folder / name.removeprefix("gpu").replace("_", ".")).write_text(text)

    def open(self, rule: OwnershipRule | None = None, grace_seconds: float = PATIENCE_SECONDS) -> FilteredSource:
        rule = rule if rule is not None else JobRule(self.folder, "4711", NVIDIA)
        return FilteredSource(self.source, rule, self.clock, grace_seconds=grace_seconds, draw_below=lambda _: 0)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def uids(source: FilteredSource) -> list[str]:
    return [device.uid for device in source.devices()]


def later(node: Node, source: FilteredSource, seconds: int = 10) -> list[str]:
    """Read `seconds` later; return the devices read, after checking that they are the listed ones."""
    node.clock.advance(seconds * NS_PER_S)
    sweep = source.read()
    read = [reading.device for reading in sweep.readings]
    assert read == list(sweep.gauges) == uids(source)
    return read


@pytest.mark.parametrize(("devices", "is_job_known", "is_wrapped"), [
    ("all", False, False), ("all", True, True), ("GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52", False, True),
])  # fmt: skip
def test_a_source_is_wrapped_if_devices_are_chosen_or_the_jobs_processes_are_known(
    node: Node, devices: str, is_job_known: bool, is_wrapped: bool
) -> None:
    root_pid = os.getpid() if is_job_known else None
    info = SourceInfo("scripted", "a test", lambda _: node.source, (Evidence.COUNT,), "none")
    found = limited_to_job(node.source, info, parse_devices(devices), Job({}, root_pid=root_pid), node.clock)
    assert isinstance(found, FilteredSource) == is_wrapped


def test_the_source_within_is_told_of_the_last_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[bool]()
    monkeypatch.setattr(node.source, "before_last_read", lambda: told.append(True), raising=False)
    node.note(gpu0="4711\n", gpu1="", gpu2="", gpu3="")
    node.open().before_last_read()
    assert told == [True]


def test_only_the_jobs_devices_are_listed_and_read(node: Node) -> None:
    node.note(gpu0="4710\n", gpu1="4711\n", gpu2=" 4711 \n4712\n\n4713\n", gpu3="")
    source = node.open()
    assert later(node, source, 1) == [B, C]
    assert [device.shared for device in source.devices()] == [None, "2 other jobs"]
    found = source.describe()
    assert found["devices"] == f"the devices of job 4711 by the mapping files in {node.folder}: 2 of 4"
    assert found["replay"] is None


def test_devices_join_and_leave_with_the_job(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flopsd")
    node.note(gpu0="4711")
    source = node.open()
    assert later(node, source, 2) == [A]
    node.note(gpu0="4712", gpu3="4711")
    assert later(node, source, 9) == [A]  # not asked again yet
    assert not caplog.records
    assert later(node, source, 1) == [D]
    node.note(gpu0="4711\n4712", gpu3="4711")
    assert later(node, source) == [A, D]
    assert source.devices()[0].shared == "1 other job"
    assert [record.getMessage() for record in caplog.records] == [
        f"device {A} is not this job's any more", f"device {D} is this job's now", f"device {A} is this job's now",
    ]  # fmt: skip


def test_readings_given_as_an_iterator_are_not_lost(node: Node) -> None:
    node.note(gpu0="4711")
    source, read = node.open(), node.source.read
    node.source.read = lambda: replace(read(), readings=iter(read().readings))  # type: ignore[method-assign,arg-type]
    assert [reading.device for reading in source.read().readings] == [A]


def test_poll_and_facts_version_of_the_wrapped_source_are_passed_on(node: Node) -> None:
    node.note(gpu0="4711")
    node.source.poll, node.source.facts_version = (lambda until_ns: until_ns - 1), "2"  # type: ignore[attr-defined]
    source = node.open()
    assert (source.poll(NS_PER_S), source.facts_version) == (NS_PER_S - 1, "2")


def test_the_last_selection_is_kept_with_a_warning_when_the_mapping_is_unreadable(
    node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flopsd")
    node.note(gpu2="4711")
    source = node.open()
    shutil.move(node.folder, tmp_path / "gone")
    assert later(node, source) == later(node, source) == [C]
    (device,) = source.devices()
    assert "can no longer determine which devices are this job's" in device.evidence_reason
    assert "No such file or directory" in device.evidence_reason
    assert "the last known selection is kept" in str(source.describe()["devices"])
    shutil.move(tmp_path / "gone", node.folder)
    node.note(gpu1="4711")
    assert later(node, source) == [A, B, C, D], "whose the others were meanwhile nobody knows"
    assert later(node, source, 1) == [B, C]
    assert {device.evidence_reason for device in source.devices()} == {""}
    first, again, came = (record.getMessage() for record in caplog.records)
    assert first.startswith("source scripted: can no longer determine which devices are this job's")
    assert first.endswith("mount it where flopsd runs")
    assert (again, came) == (
        "source scripted: can determine again which devices are this job's",
        f"device {B} is this job's now",
    )


def test_nothing_is_guessed_at_the_start(node: Node) -> None:
    shutil.rmtree(node.folder)
    with pytest.raises(SourceUnavailableError, match="No such file or directory") as caught:
        node.open()
    assert "prolog" in caught.value.hint
    assert node.source.closed


def test_no_answer_at_the_start_is_an_outage(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopsd.sources.ownership.filtered_source.OPEN_SECONDS", 0.0)
    answers = threading.Event()
    with pytest.raises(SourceUnavailableError, match="are this job's: no answer within 0 s on the rule"):
        node.open(Mock(constant=False, words="the rule", judge=lambda _: answers.wait()))
    answers.set()


def test_the_rule_is_asked_again_at_a_random_time(node: Node) -> None:
    node.note(gpu0="4711")
    rule, draws = JobRule(node.folder, "4711", NVIDIA), [0, 2 * NS_PER_S, 5 * NS_PER_S, NS_PER_S, 0]
    source = FilteredSource(
        node.source,
        rule,
        node.clock,
        grace_seconds=PATIENCE_SECONDS,
        draw_below=lambda most: min(draws.pop(), most - 1),
    )
    node.note(gpu1="4711")
    began_ns = node.clock.boottime_ns()
    assert later(node, source, 1) == [A]
    assert source.read().not_ours_at_ns == began_ns
    assert later(node, source, 1) == [A, B], "the second question is early: after a second and a nanosecond"
    node.note(gpu2="4711")
    assert later(node, source, 5) == [A, B]
    assert source.read().not_ours_at_ns == began_ns + 2 * NS_PER_S
    assert later(node, source, 1) == [A, B, C], "5 s and a nanosecond after that"
    node.note(gpu3="4711")
    assert later(node, source, 7) == [A, B, C]
    assert later(node, source, 1) == [A, B, C, D]


class Sharing(AllRule):
    """Other users of the devices; the answer comes once `answers` is set."""

    constant = False

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = 0, threading.Event()

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        self.asked += 1
        assert self.answers.wait(PATIENCE_SECONDS)
        return OwnershipResult({device.uid: Ownership(True, "another") for device in devices})


class Hanging(JobRule):
    """Answers the first question at once, and the others only after `answers` is set."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.folder, "4711", NVIDIA)
        self.answers = threading.Event()
        self._asked = 0

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        self._asked += 1
        assert self._asked == 1 or self.answers.wait(PATIENCE_SECONDS)
        return super().judge(devices)


def test_a_hanging_question_is_abandoned_after_ten_seconds_and_the_selection_kept(node: Node) -> None:
    node.note(gpu0="4711")
    rule, began_ns = Hanging(node), node.clock.boottime_ns()
    source = node.open(rule, grace_seconds=0.0)
    assert later(node, source, 2) == later(node, source, 9) == [A]
    assert source.read().ours_until_ns == began_ns, "what was read since then waits"
    assert "no longer known" not in str(source.describe()["devices"])
    assert later(node, source, 1) == [A]
    assert source.read().ours_until_ns == node.clock.boottime_ns()
    assert "no answer within 10 s" in str(source.describe()["devices"])
    rule.answers.set()
    wait_until(lambda: later(node, source, 0) and "no answer" not in str(source.describe()["devices"]), "the answer")


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), OSError(24, "Too many open files")])
def test_a_question_that_failed_is_asked_again(node: Node, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    node.note(gpu0="4711")
    source, where = node.open(), threading.Thread if isinstance(fault, RuntimeError) else JobRule
    with monkeypatch.context() as now:
        now.setattr(where, "start" if where is threading.Thread else "judge", Mock(side_effect=fault))
        assert later(node, source, 10) == [A]
    assert str(fault) in str(source.describe()["devices"])
    node.note(gpu0="", gpu1="4711")
    assert later(node, source, 10) == [B, C, D]  # the rule was not asked for twenty seconds
    assert later(node, source, 1) == [B]


def test_only_one_question_about_sharing_runs_at_a_time(node: Node) -> None:
    sharing = Sharing()
    source = FilteredSource(
        node.source, AllRule(), node.clock, sharing=sharing, grace_seconds=0.0, draw_below=lambda _: 0
    )
    for _ in range(5):
        assert later(node, source) == [A, B, C, D]
    assert (sharing.asked, source.devices()[0].shared) == (1, None)
    sharing.answers.set()
    wait_until(lambda: later(node, source, 0) and source.devices()[0].shared == "another", "the answer")
    wait_until(lambda: later(node, source) and sharing.asked > 1, "the next question")


def test_an_unreadable_file_leaves_its_device_unchanged(node: Node) -> None:
    node.note(gpu0="4711", gpu1="4711")
    source = node.open()
    for name in ("0", "2"):
        (node.folder / name).unlink(missing_ok=True)
        (node.folder / name).symlink_to(node.folder / "nowhere")
    assert later(node, source) == [A, B]
    found = {device.uid: device.evidence_reason for device in source.devices()}
    assert found == {A: f"{node.folder}/0 cannot be read: No such file or directory", B: ""}


def test_a_device_with_unknown_owner_is_listed_and_marked(node: Node) -> None:
    node.source.listed = (*GPUS[:3], LOST)
    source = node.open(NamedRule((B, D), NVIDIA))
    assert uids(source) == [B, LOST.uid]
    lost = source.devices()[1]
    assert lost.shared == "it is not known whether this device is this job's"
    assert lost.evidence_reason == f"it cannot be identified, and may be {D}"
    assert source.describe()["devices"] == f"the devices named in the settings ({B}, {D}): 2 of 4; not found here: {D}"
    node.source.listed = GPUS
    assert later(node, source, 1) == [B, D]  # as soon as it is identified
    assert {device.shared for device in source.devices()} == {None}


def test_settings_that_select_no_device_are_errors(node: Node) -> None:
    with pytest.raises(SourceUnavailableError, match="has none of the devices named") as caught:
        node.open(NamedRule(("9",), NVIDIA))
    assert B in caught.value.hint
    assert caught.value.absent
    with pytest.raises(SourceUnavailableError, match="CUDA_VISIBLE_DEVICES= leave visible"):
        own(node.source, NVIDIA, parse_devices("visible"), Job({"CUDA_VISIBLE_DEVICES": ""}), node.clock)
    node.source.listed = CHIPS
    with pytest.raises(SourceUnavailableError, match="name NVIDIA GPUs only") as caught:
        node.open(JobRule(node.folder, "4711", VendorDevices()))
    assert "another rule" in caught.value.hint
    assert not caught.value.absent


@pytest.mark.parametrize("rest", ["x" * 20_000, "\udcff"])
def test_a_variable_of_any_length_and_bytes_fits_into_the_ledger(node: Node, rest: str) -> None:
    job = Job({"CUDA_VISIBLE_DEVICES": f"0,{rest}"})
    source = own(node.source, NVIDIA, parse_devices("visible"), job, node.clock)
    assert uids(source) == [A]
    assert "CUDA_VISIBLE_DEVICES=0," in facts_of(source)["devices"]

    class Unknown(AllRule):
        def judge(self, devices: Sequence[Device]) -> OwnershipResult:
            return OwnershipResult({one.uid: Ownership(None if one.uid == A else True, why=rest) for one in devices})

    assert len(devices_of(node.open(Unknown()))) == len(GPUS)


@pytest.mark.parametrize("fails", ["ownership", "variables", "visible"])
def test_whatever_a_plug_ins_declaration_of_its_devices_raises_is_an_outage_of_its_source(
    node: Node, fails: str
) -> None:
    class Broken(VendorDevices):
        @property
        def variables(self) -> tuple[str, ...]:  # type: ignore[override]
            return sys.exit("variables") if fails == "variables" else ()

        def visible(self, *_: object) -> Any:
            sys.exit("visible")

    def ownership(_job: Job) -> VendorDevices:
        return Broken() if fails != "ownership" else sys.exit("ownership")

    info = SourceInfo("scripted", "a test", lambda _: node.source, (Evidence.COUNT,), "none", ownership=ownership)
    with pytest.raises(SourceUnavailableError, match="which devices are this job's: .*SystemExit"):
        limited_to_job(node.source, info, parse_devices("visible"), Job({}), node.clock)
    assert node.source.closed


def test_slices_are_selected_by_gpu_and_gpu_instance(node: Node) -> None:
    node.source.listed = (*GPUS, *SLICES)
    node.note(gpu0_2="4711", gpu0_5="4712")
    source = node.open()
    assert uids(source) == [SLICES[1].uid]
    node.note(gpu0="4711")
    assert later(node, source) == [A, *(part.uid for part in SLICES)]
    assert {device.uid: device.shared for device in source.devices()}[SLICES[2].uid] == "1 other job"


def test_the_sources_own_notes_are_kept_and_unmatched_mappings_reported(node: Node) -> None:
    node.source.listed = (replace(GPUS[0], shared="MPS", evidence_reason="no GPM"), *GPUS[1:])
    node.note(gpu0="4711\n1", gpu9="4711", gpu8="4712")
    source = node.open()
    (device,) = source.devices()
    assert (device.shared, device.evidence_reason) == ("MPS; 1 other job", "no GPM")
    assert str(source.describe()["devices"]).endswith("1 of 4; not found here: 9")


def grown(node: Node, device: Device, cycles: int) -> Reading:
    totals = Totals("boot", cycles, {Pipe.FP32: cycles})
    return Reading(device.uid, 0, node.clock.boottime_ns(), Growth(), {"energy_mj": cycles}, totals)


@pytest.mark.parametrize("away", [False, True])
def test_work_of_other_jobs_meanwhile_is_not_counted(node: Node, away: bool) -> None:
    """Running counters are read while the device is another job's too: that growth is not counted here."""
    node.source.listed = GPUS[:1]
    node.note(gpu0="4711")
    source = node.open()
    tally = Tally(node.clock.boottime_ns(), node.clock.boottime_ns())
    cycles, mine = 5000, 0
    for second in range(1, 61):
        if second == 20 and away:
            node.note(gpu0="4712")
        if second == 40:
            node.note(gpu0="4711")
        node.clock.advance(NS_PER_S)
        cycles += 1000
        node.source.template = grown(node, GPUS[0], cycles)
        for reading in source.read().readings:
            tally = advance(tally, reading, Limits(1, 1))
            mine += 1
    counted = tally.active_sm_cycles[(Evidence.CYCLES, Pipe.FP32)]
    if away:
        assert counted == tally.energy_mj == 1000 * (mine - 2)  # the first reading after each begin counts nothing
        assert tally.gap_ns == {GapReason.STARTING: (62 - mine) * NS_PER_S}
        assert tally.energy_ns == (mine - 2) * NS_PER_S  # and none of the 20 seconds as another job's device
    else:
        assert counted == tally.energy_mj == 1000 * 59
    assert tally.span_ns == 60 * NS_PER_S


def test_work_before_the_first_answer_of_a_rule_may_be_anothers(node: Node) -> None:
    node.source.listed = GPUS[:1]
    node.note(gpu0="4711")
    source = node.open()
    node.source.template = grown(node, GPUS[0], 7)
    source.read()
    node.source.listed = GPUS[:2]
    shutil.rmtree(node.folder)
    for _ in range(2):
        works = [reading.work for reading in source.read().readings]
        assert works == [Growth(), Gap(GapReason.STARTING)]


def test_a_constant_rule_recovers_the_time_while_the_daemon_was_down(node: Node) -> None:
    node.source.template = grown(node, GPUS[0], 7)
    for rule, work in ((AllRule(), Growth()), (JobRule(node.folder, "4711", NVIDIA), Gap(GapReason.STARTING))):
        node.note(gpu0="4711")
        assert node.open(rule).read().readings[0].work == work


@pytest.mark.parametrize(
    ("setting", "environment", "why", "hint"),
    [
        ("job:1", {}, "no folder of job mappings", "DCGM_HPC_JOB_MAPPING_DIR"),
        ("job", {"DCGM_HPC_JOB_MAPPING_DIR": "/nowhere"}, "has no id here", "job:ID"),
        ("processes", {}, "first process is not known", "flopsd exec"),
    ],
)
def test_facts_that_a_rule_needs_and_lacks_are_named(
    node: Node, setting: str, environment: dict[str, str], why: str, hint: str
) -> None:
    with pytest.raises(SourceUnavailableError, match=why) as caught:
        own(node.source, NVIDIA, parse_devices(setting), Job(environment), node.clock)
    assert hint in caught.value.hint
    assert node.source.closed


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: Job({"DCGM_HPC_JOB_MAPPING_DIR": str(folder), "SLURM_JOB_ID": "4711"}, "slurm-4711"),
        lambda folder: Job({"DCGM_HPC_JOB_MAPPING_DIR": str(folder)}, "4711"),
    ],
)
def test_the_job_comes_from_the_scheduler_or_the_platform(node: Node, make: Callable[[Path], Job]) -> None:
    node.note(gpu3="4711")
    assert uids(own(node.source, NVIDIA, parse_devices("job"), make(node.folder), node.clock)) == [D]


@pytest.mark.parametrize("listed", [lambda: None, lambda: 1 / 0, lambda: (1 / 0 for _ in "x"), lambda: ["GPU-0"]])
def test_a_source_whose_devices_cannot_be_listed_has_failed(
    node: Node, monkeypatch: pytest.MonkeyPatch, listed: Callable[[], Any]
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(node.source, "devices", listed)
    monkeypatch.setattr(node.source, "close", lambda: closed.append(True))
    with pytest.raises(SourceError, match="^source 'scripted'"):
        node.open(AllRule())
    assert closed


@pytest.mark.parametrize("work", [Growth(), Counted(7)])
def test_late_readings_of_the_time_before_a_device_joined_are_not_counted(work: Growth | Counted) -> None:
    returning = ReturningDevices()
    returning.joined(H100.uid, 10)
    spans = [(0, 5), (5, 8), (8, 12), (12, 13), (13, 14)]
    found = [returning.corrected(Reading(H100.uid, *span, work)).work for span in spans]
    assert found == [Gap(GapReason.STARTING)] * 3 + [work] * 2


def test_energy_used_while_not_the_jobs_is_subtracted_until_the_counter_restarts(node: Node) -> None:
    returning = ReturningDevices()

    def counted(energy_mj: int, *, joins: bool = False) -> int:
        if joins:
            returning.joined(H100.uid, node.clock.boottime_ns())
        return returning.corrected(grown(node, H100, energy_mj)).counters["energy_mj"]

    assert [counted(100), counted(120)] == [100, 120]
    assert [counted(150, joins=True), counted(150), counted(170)] == [0, 0, 20]
    assert [counted(30), counted(40)] == [30, 40], "from zero again"
    assert [counted(90, joins=True), counted(95)] == [0, 5]
