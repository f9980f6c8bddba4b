"""A snapshot and its journal give the same facts, shown in 80 plain columns; the log names each step towards a
threshold once."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.figures import Figures, figures_from
from flopsd.core.model import Busy, Device, Gap, GapReason, Gauges, Pipe, Reading, Sweep
from flopsd.core.notes import note
from flopsd.core.policy.finding import Limit, Verdict
from flopsd.core.session_protocol import FactsDeclared, SessionOpened, WorkCounted
from flopsd.core.values import text_or_none
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.background import THRESHOLD_SECONDS, BackgroundTasks, ThresholdLog, progress_line
from flopsd.errors import FlopsdError, JournalDamagedError, PeakTableError
from flopsd.journal.delivery_note import Delivery, Destination, NotedLedger, write_deliveries
from flopsd.journal.reading import read_journal
from flopsd.report.claims import AS_CLAIMED
from flopsd.report.html.kit import typeset
from flopsd.report.ledger_text import sealed_text
from flopsd.report.numbers import integer_facts
from flopsd.report.threshold_text import crossing_text
from flopsd.settings.data_files import load_peaks, load_policies, parse_policy
from flopsd.system.clock import NS_PER_S, rfc3339
from flopsd.telemetry.page.gaps import gaps_part, sources_part
from flopsd.telemetry.page.status_page import Assets, status_page
from flopsd.telemetry.page.thresholds import thresholds_part
from flopsd.telemetry.prometheus import constant_families
from flopsd.telemetry.snapshot import JournalState, KeyState, SourceState
from flopsd.telemetry.status import status_of_snapshot
from flopsd.telemetry.status_client import from_state_dir, from_url
from flopsd.telemetry.status_screen import status_screen
from flopsd.telemetry.status_text import coverage_text, status_text, stopped_text
from flopsd.testing import FakeClock
from tests.support.enriched import ESCAPES, vector
from tests.support.golden import check_golden
from tests.support.own_files import Own
from tests.support.paths import GOLDEN
from tests.support.process import free_port
from tests.support.runs import A100, CONTEXT, H100, STRANGER, Run, interrupted
from tests.support.tamper import chained
from tests.unit.attestation.test_lineage_base import POLICY

ONLY_LIVE = {
    "pipeActivityRatio", "utilizationRatio", "smClockMhz", "measuredFlopPerSecond", "source", "peakRow", "gap", "metered",
}  # fmt: skip
DECLARED = OperatorDeclarations(
    Phase.TRAIN, Method.LORA, Recomputation.NONE, Base("llama", "known", 3 * 10**16, None, None)
)


def story(folder: Path, *, stranger: bool, replay: bool = False) -> Run:
    devices = (H100, A100, STRANGER) if stranger else (H100, A100)
    return interrupted(Run(folder, devices=devices, declared=DECLARED, policies=load_policies(), replay=replay))


@pytest.mark.parametrize("stranger", [False, True])
def test_a_snapshot_and_its_journal_give_the_same_facts(tmp_path: Path, stranger: bool) -> None:
    run = story(tmp_path, stranger=stranger)
    places = (Destination("s3://b/l.json", Delivery.DELIVERED), Destination("s3://c/l.json"))
    write_deliveries(run.state.deliveries, [NotedLedger(tmp_path, {"ledger": "0" * 64, "publicKey": "0" * 64}, places)])
    state = JournalState(0, undelivered_ledgers=1)
    live, read = (
        status_of_snapshot(replace(run.writer.snapshot, journal_state=state)),
        from_state_dir(str(tmp_path), {}),
    )
    assert json.loads(json.dumps(live)) == live
    assert set(live) == set(read)
    for name in set(live) - {"sources", "journal", "devices", "lastRecordAt", "health"}:
        assert live[name] == read[name], name
    assert len(live["devices"]) == len(read["devices"]) == 2 + stranger
    for one, other in zip(live["devices"], read["devices"], strict=True):
        assert {key: value for key, value in one.items() if key not in ONLY_LIVE} == other
    assert live["thresholds"]
    for text in (status_text(read), sources_part(live)):
        assert "NOT COPIED: 1 sealed ledger is not at every destination yet" in text
    assert [live["health"][name] for name in ("state", "since")] == [
        read["health"][name] for name in ("state", "since")
    ]
    assert [one["name"] for one in live["sources"]] == [one["name"] for one in read["sources"]] == ["sim"]
    run.kill()


def test_a_device_is_not_metered_before_its_first_reading(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(2):  # the second time after a start that ended regularly
        snapshot = run.writer.snapshot
        for health in (status_of_snapshot(snapshot)["health"], from_state_dir(str(tmp_path), {})["health"]):
            assert health["state"] == "starting"
            assert health["sentence"].startswith("All 2 GPUs not read yet")
        assert "not read yet" in status_page(status_of_snapshot(snapshot), Assets())
        assert [device.is_up for device in snapshot.devices] == [None, None]
        assert not snapshot.ready
        run.meter(1)
        assert run.writer.snapshot.ready
        run.restart(ends=True)


def test_a_checkpoint_computes_again_what_follows_from_declarations(tmp_path: Path) -> None:
    run, process = Run(tmp_path, devices=(A100,), policies=load_policies(), declared=DECLARED), "1" * 32
    run.writer.take_event(SessionOpened(process, 7, 1000, "1"))
    run.writer.take_event(FactsDeclared(process, {"parameters_total": 10**9}))
    run.writer.take_event(WorkCounted(process, {"train": {"tokens": 10**6}}))
    run.meter(1)
    absent = [run.writer.snapshot.view.declarations.absent]
    run.writer.checkpoint()
    absent.append(run.writer.snapshot.view.declarations.absent)
    assert absent == [(note("no_process"),), ()]
    run.kill()


def test_the_status_of_a_journal_alone_needs_its_own_peak_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Own.in_folder(tmp_path / "own")
    monkeypatch.setattr("tests.support.runs.table", lambda: load_peaks(own.peaks))
    run = Run(tmp_path / "state")
    run.meter(3)
    run.finish()
    with pytest.raises(PeakTableError):
        from_state_dir(str(run.state.path), {})
    assert from_state_dir(str(run.state.path), {}, own.peaks)["executed"]["measured"] is not None


@pytest.mark.parametrize("is_rotated", [True, False])
def test_work_counted_before_this_start_is_not_in_its_rate(tmp_path: Path, is_rotated: bool) -> None:
    run, process = Run(tmp_path, devices=(A100,), policies=load_policies(), declared=DECLARED), "1" * 32
    run.writer.take_event(SessionOpened(process, 7, 1000, "1"))
    run.writer.take_event(FactsDeclared(process, {"device": A100.uid}))
    run.meter(3)
    run.writer.take_event(WorkCounted(process, {"train": {"operator_flop": 10**12}}))
    run.meter(1)
    run.restart()
    run.meter(2)
    assert not is_rotated or run.writer.rotate()
    run.meter(2)
    run.writer.checkpoint()
    for facts in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert facts["executed"]["low"] == str(10**12)
        assert {one["crossing"]["latestSeconds"] for one in facts["thresholds"] if one["crossing"]} == {None}


def test_a_run_with_a_replayed_part_stays_a_replay(tmp_path: Path) -> None:
    run = Run(tmp_path, replay=True)
    run.meter(2)
    run.state.journal.write_bytes(b"{}\n")  # by another process: the run continues in a new journal
    run.meter(12)
    assert run.writer.snapshot.replay
    run.finish()
    run.replay = False
    run.start()
    run.meter(2)
    assert status_of_snapshot(run.writer.snapshot)["replay"]
    found = [family.rows for family in constant_families(run.writer.snapshot) if family.name == "flopsd_run_info"]
    assert found[0][0][0][-1] == "true"


@pytest.mark.parametrize("rotations", [0, 2])
@pytest.mark.parametrize("why", ["sigterm", "job_ended", "launcher_gone"])
def test_time_without_a_daemon_between_its_starts_is_shown(tmp_path: Path, why: str, rotations: int) -> None:
    run = Run(tmp_path)
    run.meter(5)
    run.finish(why)
    run.clock.advance(90 * NS_PER_S)
    run.start()
    for _ in range(rotations):
        run.meter(2)
        assert run.writer.rotate()
    if rotations:
        run.kill()
        run.start()
    run.meter(2)
    run.writer.checkpoint()
    booted = " (by the wall clock, if the machine was booted meanwhile)" if rotations else ""
    words = f"no daemon ran for 90 s{booted} between its starts: what the devices did then is in no figure here"
    for facts in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert words in " ".join(status_text(facts).split())
    page = status_page(status_of_snapshot(run.writer.snapshot), Assets())
    assert f"{words[1:]}." in page
    assert "readings cover all device time so far" not in page


def test_after_a_reboot_only_the_wall_clock_says_how_long_no_daemon_ran(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(5)
    run.finish()
    run.clock = FakeClock(20 * NS_PER_S, run.clock.wall_ns() + 90 * NS_PER_S)
    run.context = replace(run.context, boot_id="boot-2")
    run.start()
    run.meter(2)
    run.writer.checkpoint()
    for facts in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert "no daemon ran for 90 s by the wall clock between its starts" in " ".join(status_text(facts).split())


def test_a_peak_table_of_the_operators_own_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(2)
    snapshot, sha256 = run.writer.snapshot, "ab" * 32
    facts = status_of_snapshot(replace(snapshot, table=replace(snapshot.table, sha256=sha256)))
    words = f"not flopsd's own: SHA-256 {sha256}; every FLOP follows from its rates"
    assert f"peak table {words}" in " ".join(status_text(facts).split())
    assert words in html.unescape(status_page(facts, Assets()))
    assert status_of_snapshot(snapshot)["ownPeakTableSha256"] is None


@pytest.mark.parametrize(
    ("times", "high", "shown", "caption"),
    [
        ({"lost": "5.0"}, "9", "5 s", "It counts in the upper bound only."),
        ({"end_unknown": "5.0"}, None, "at least 5 s", "Some gaps are of unknown length, so no upper bound is known."),
        ({"unknown_device": "5.0"}, None, "5 s", "It may hold any amount of work, so no upper bound is known."),
        ({"other_job": "5.0"}, "9", "5 s", "It is in no figure here."),
        ({"other_job": "5.0", "lost": "6.0"}, "9", "6 s",
         "It counts in the upper bound only, but time that is not counted is in no figure here."),
    ],
)  # fmt: skip
def test_the_page_says_what_the_time_of_gaps_adds_to_the_figures(
    times: dict[str, str], high: str | None, shown: str, caption: str
) -> None:
    device = {"index": 0, "gapSecondsByReason": times, "evidence": ["activity"]}
    found = str(gaps_part({"stoppedSeconds": "0.0", "devices": [device], "executed": {"high": high}}))
    assert f">{shown}<" in found
    assert f"Device time without readings. {caption}" in found


def test_the_page_excepts_what_processes_counted_in_gaps_from_what_is_in_the_upper_bound_only() -> None:
    device = {"index": 0, "gapSecondsByReason": {"lost": "5.0"}, "evidence": ["activity", "operator_count"]}
    found = str(gaps_part({"stoppedSeconds": "0.0", "devices": [device], "executed": {"high": "9"}}))
    assert "only, except for what training processes counted of it, which nobody checked." in found


def test_the_page_claims_no_coverage_of_devices_that_were_not_read(tmp_path: Path) -> None:
    assert "Not known: no device is metered." in str(gaps_part({"stoppedSeconds": "0.0", "devices": []}))
    run = Run(tmp_path)
    assert "Not known: no device was read yet." in status_page(status_of_snapshot(run.writer.snapshot), Assets())
    run.meter(2)
    assert "None: readings cover all device time so far." in status_page(
        status_of_snapshot(run.writer.snapshot), Assets()
    )
    run.kill()


def test_every_view_qualifies_time_that_is_not_this_jobs_and_gaps_of_unknown_length(tmp_path: Path) -> None:
    run = Run(tmp_path, replay=False)
    run.meter(5)
    run.meter(4, GapReason.OTHER_JOB)
    run.meter(5)
    live = status_of_snapshot(run.writer.snapshot)
    elsewhere = (
        "100 % of 20 s of device time (8 s more is not counted: another job's or device's, as the daemon states)"
    )
    run.finish()
    sealed = run.seal(tmp_path / "ledger.json")
    for text in (status_text(live), status_screen(live, 80, 24), status_page(live, Assets()), sealed_text(sealed)):
        assert elsewhere in " ".join(text.replace("&#x27;", "'").split())
    live["devices"][0]["gapSecondsByReason"] = {"end_unknown": "3.0"}
    for text in (status_text(live), status_screen(live, 80, 24), status_page(live, Assets())):
        assert text.count("at least 3 s") == 2  # by reason, and of the device


def test_the_page_says_how_much_of_its_measured_figure_may_be_integers(tmp_path: Path) -> None:
    run = Run(tmp_path, devices=(H100,))
    run.meter(3)
    live = status_of_snapshot(run.writer.snapshot)
    words = integer_facts(live["mayBeIntegerFlop"], figures_from(live["integerOperations"]))[1][1]
    assert "may be integer: no counter distinguishes them" in words
    assert typeset(words) in status_page(live, Assets())
    run.kill()


def test_devices_metered_only_by_an_earlier_start_are_shown_with_their_gaps(tmp_path: Path) -> None:
    """Like a job that continues on another machine."""
    run = Run(tmp_path)
    run.meter(5)
    run.meter(3, GapReason.DRIVER_TIMEOUT)
    run.restart(ends=True, devices=(replace(H100, uid="GPU-other"),))
    run.meter(5)
    run.writer.checkpoint()
    live, read = status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})
    assert live["health"]["sentence"] == "Metering 1 GPU"
    assert [one["metered"] for one in live["devices"]] == [False, True, False]
    found = [{key: value for key, value in one.items() if key not in ONLY_LIVE} for one in live["devices"]]
    assert found == read["devices"]
    page = status_page(live, Assets())
    assert page.count("of an earlier start<") == 2
    assert "1 device, and 2 of earlier starts: " in page
    assert "driver_timeout" in page


@pytest.mark.parametrize("lost", [3, 12])
def test_devices_are_lost_since_the_begin_of_their_gap(tmp_path: Path, lost: int) -> None:
    """In the snapshot and in its journal, within a checkpoint and across one."""
    run = Run(tmp_path)
    run.meter(8)
    begin_ns = run.clock.wall_ns()
    run.meter(1, GapReason.DRIVER_TIMEOUT)
    run.meter(lost - 1, GapReason.DEVICE_LOST)
    for found in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert (found["health"]["state"], found["health"]["since"]) == ("all-lost", rfc3339(begin_ns))
    assert status_of_snapshot(run.writer.snapshot)["devices"][0]["gap"] == {
        "reason": "device_lost",
        "since": rfc3339(begin_ns),
    }
    run.meter(1)
    for found in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert found["health"]["state"] == "metering"
    run.kill()
    assert from_state_dir(str(tmp_path), {})["health"]["state"] == "not-running"


def test_a_device_lost_in_an_earlier_start_counts_as_starting_until_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(8)
    run.meter(4, GapReason.DEVICE_LOST)
    run.restart()
    live, read = status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})
    assert live["health"]["state"] == read["health"]["state"] == "starting"
    run.kill()


def test_a_journal_with_an_impossible_time_is_refused_by_its_folder(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(15)
    run.kill()
    *bodies, last = (line.body for line in read_journal(run.state.journal))
    lines, _ = chained([*bodies, json.dumps({**json.loads(last), "utc": "yesterday"}).encode()])
    run.state.journal.write_bytes(lines)
    run.state.pending.unlink()
    with pytest.raises(JournalDamagedError, match=f"the journal in {tmp_path}: 'yesterday' is not a time"):
        from_state_dir(str(tmp_path), {})


def test_a_device_lost_since_its_run_began_is_lost_since_then(tmp_path: Path) -> None:
    run = Run(tmp_path)
    begin_ns = run.clock.wall_ns()
    run.meter(12, GapReason.DEVICE_LOST)
    for found in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert (found["health"]["state"], found["health"]["since"]) == ("all-lost", rfc3339(begin_ns))
    run.kill()


def test_a_device_lost_when_a_segment_begins_has_no_known_time_of_loss(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(8)
    run.meter(4, GapReason.DEVICE_LOST)
    assert run.writer.rotate()
    assert from_state_dir(str(tmp_path), {})["health"]["state"] == "starting", "nothing of it is in this segment yet"
    run.meter(2, GapReason.DEVICE_LOST)
    live, read = status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})
    assert live["health"]["sentence"] == "All 2 GPUs lost since 14:13 UTC: device_lost"
    assert read["health"]["sentence"].startswith("All 2 GPUs lost: device_lost (last record")
    assert read["health"]["since"] is None
    run.kill()


def test_how_long_a_daemon_of_an_earlier_version_stood_still_may_be_by_the_wall_clock() -> None:
    known = [stopped_text({"stoppedSeconds": "90.0", "stoppedByWallClock": by}) for by in (True, False, None)]
    assert stopped_text({"stoppedSeconds": "90.0"}) == known[2]
    assert len(set(known)) == 3


def test_the_text_fits_80_columns_and_is_plain(tmp_path: Path) -> None:
    run = story(tmp_path, stranger=True)
    found = status_of_snapshot(run.writer.snapshot)
    text = status_text(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    found["sources"] = [{"name": "nvml", "up": False, "reason": "the driver says: " + "very long words " * 12}]
    assert "sources     nvml DOWN: the driver says" in status_text(found)
    assert max(map(len, status_text(found).splitlines())) <= 80
    nearly: dict[str, Any] = {"knownSeconds": "999999.999999999", "jobSeconds": "1000000.000000000", "devices": []}
    assert coverage_text(nearly).startswith("99.9 % of"), "rounded down"
    nearly["devices"] = [{"gapSecondsByReason": {"end_unknown": "0.000000001"}}]
    assert coverage_text(nearly).startswith("at most 99.9 % of at least ")
    run.kill()


def page(stated: dict[str, Any]) -> str:
    assets = Assets()
    return status_page(stated, assets).replace(assets.style, "").replace(assets.script, "")


@pytest.mark.parametrize(("rank", "nodes", "words"), [
    (None, (), ""), (0, ("a",), ""), (1, ("a", "b"), ""), (0, (), "other nodes, if it has any, did"),
    (3, (), "the other nodes did"),
])  # fmt: skip
def test_a_node_whose_job_may_have_others_is_described_as_one_of_them(
    tmp_path: Path, rank: int | None, nodes: tuple[str, ...], words: str
) -> None:
    """Slurm and indexed jobs of Kubernetes give a rank and no list of nodes: "Far below" applies to this node alone."""
    run = Run(tmp_path, devices=(H100,), context=replace(CONTEXT, rank=rank, job_nodes=nodes))
    run.meter(2)
    live, read = status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})
    assert live["nodeRank"] == read["nodeRank"] == rank
    assert live["jobNodes"] == read["jobNodes"] == (len(nodes) or None)
    for shown in (status_text(live), status_text(read), page(live)):
        assert ("his is rank" in " ".join(shown.split())) is bool(words)
        assert words in " ".join(shown.split())
    run.kill()


SHAPES: dict[str, Callable[[dict[str, Any]], str]] = {
    "html": page,
    "txt": status_text,
    "json": lambda stated: json.dumps(stated, indent=1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scene", ["well", "faulty", "empty", "above"])
def test_the_status_matches_its_goldens(tmp_path: Path, shape: str, scene: str) -> None:
    if scene in ("well", "faulty"):
        run = story(tmp_path, stranger=scene == "faulty", replay=scene == "faulty")
    else:
        run = Run(tmp_path, devices=()) if scene == "empty" else run_of(tmp_path, 1000, H100)
        run.meter(2 * (scene == "above"))
    snapshot = run.writer.snapshot
    if scene == "faulty":
        sources = {**snapshot.sources, "nvml": SourceState(reason="driver gone", errors={"driver_error": 3})}
        key = KeyState(False, "disabled", "AWS KMS refused Sign with alias/k: DisabledException; enable it")
        state = JournalState(0, key=key, seal_fault="NO ROLLING SEAL: cannot write l.json: Read-only file system")
        snapshot = replace(snapshot, sources=sources, journal_fault="no space left", journal_state=state)
    made = SHAPES[shape](status_of_snapshot(snapshot) | {"flopsdVersion": "1.2.3"})
    check_golden(made, GOLDEN / f"status-{scene}.{shape}")
    run.kill()


def test_the_page_shows_claims_of_processes_as_claims(tmp_path: Path) -> None:
    run = Run(tmp_path)
    facts = status_of_snapshot(run.writer.snapshot)
    assert AS_CLAIMED not in page(facts)
    statement = vector("valid/lying-declarations")
    facts["guidelines"] = statement["predicate"]["totals"]["guidelines"]
    assert f"{AS_CLAIMED}: " in page(facts)
    run.kill()


@pytest.mark.parametrize(
    "ask", [lambda folder: from_state_dir(str(folder), {}), lambda _: from_url(f"http://127.0.0.1:{free_port()}")]
)
def test_without_a_daemon_the_hint_names_where_to_look(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    with pytest.raises(FlopsdError) as caught:
        ask(tmp_path)
    assert caught.value.hint


def test_no_crossing_is_forecast_for_a_run_that_has_ended(tmp_path: Path) -> None:
    run = story(tmp_path, stranger=False)
    going_on = from_state_dir(str(tmp_path), {})["thresholds"]
    assert any(one["crossing"] is not None for one in going_on)
    assert status_of_snapshot(run.writer.snapshot)["measuredFlopPerSecond"] is not None
    run.finish()
    of_daemon = status_of_snapshot(run.writer.snapshot)
    assert of_daemon["measuredFlopPerSecond"] is None
    assert [one["crossing"] for one in of_daemon["thresholds"]] == [None] * len(going_on)
    ended = from_state_dir(str(tmp_path), {})
    assert ended["endReason"]
    assert ended["daemon"] == "not running"
    assert ended["measuredFlopPerSecond"] is None
    assert [one["crossing"] for one in ended["thresholds"]] == [None] * len(going_on)


@pytest.mark.parametrize("work", [Busy(60_000_000_000), Gap(GapReason.DEVICE_LOST)])
def test_a_rate_that_is_not_measured_is_not_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Busy | Gap
) -> None:
    run = Run(tmp_path, devices=(H100,))
    run.meter(3)
    monkeypatch.setattr(run, "_reading", lambda device, _, now_ns: Reading(device.uid, run.since_ns, now_ns, work))
    run.meter(70)  # beyond the next checkpoint
    found = status_of_snapshot(run.writer.snapshot)
    assert found["executed"]["measured"] is not None
    assert [one["measuredFlopPerSecond"] for one in (found, found["devices"][0])] == [None, None]
    assert from_state_dir(str(tmp_path), {})["measuredFlopPerSecond"] is None
    run.kill()


@pytest.mark.parametrize(
    ("reason", "shown"), [(GapReason.ZERO_AT_FULL_LOAD, [{}, 1.0, 1500]), (GapReason.STALE, [{}, None, None])]
)
def test_no_activity_is_shown_that_is_not_counted(tmp_path: Path, reason: GapReason, shown: list[object]) -> None:
    run = Run(tmp_path, devices=(H100,))
    run.meter(2)
    run.clock.advance(NS_PER_S)
    gauges = Gauges({Pipe.TENSOR_HMMA: 0.0}, 1.0, 1500)
    reading = Reading(H100.uid, run.since_ns, run.clock.boottime_ns(), Gap(reason))
    run.writer.take(Message("sim", run.clock.boottime_ns(), (H100,), Sweep((reading,), {H100.uid: gauges})))
    (device,) = status_of_snapshot(run.writer.snapshot)["devices"]
    assert [device[name] for name in ("pipeActivityRatio", "utilizationRatio", "smClockMhz")] == shown
    run.kill()


def test_no_rate_or_crossing_is_shown_for_a_run_without_a_daemon(tmp_path: Path) -> None:
    """Those of its last record may be years old."""
    run = story(tmp_path, stranger=False)
    assert from_state_dir(str(tmp_path), {})["measuredFlopPerSecond"] is not None
    run.kill()
    found = from_state_dir(str(tmp_path), {})
    assert (found["health"]["state"], found["measuredFlopPerSecond"]) == ("not-running", None)
    assert all(one["crossing"] is None for one in found["thresholds"])


@pytest.mark.parametrize(
    ("earliest", "expected"),
    [
        ({"base-not-gpai": "900", "gpai-indicative": "864000"}, "base-not-gpai"),
        ({"base-not-gpai": "864000", "gpai-indicative": "900"}, "gpai-indicative"),
        ({"base-not-gpai": None, "gpai-indicative": "864000"}, "gpai-indicative"),
        ({"base-not-gpai": None, "gpai-indicative": None}, None),
        ({}, None),
    ],
)
def test_the_page_forecasts_the_first_crossing_of_the_rules_that_apply(
    tmp_path: Path, earliest: dict[str, str | None], expected: str | None
) -> None:
    """Rules of this run that may apply and would be crossed at once are left out."""
    run = story(tmp_path, stranger=False)
    findings = status_of_snapshot(run.writer.snapshot)["thresholds"]
    run.kill()
    for one in findings:
        if one["rule"] in earliest:
            crossing = {"earliestSeconds": earliest[one["rule"]], "latestSeconds": None}
            one.update(applies=True, state="below", crossing=crossing)
    found = re.findall(r"First crossing\. </strong>([^:]+):", thresholds_part(findings))
    titles = {rule.id: rule.title for rule in load_policies()[0].rules}
    assert [title.lower() for title in found] == ([] if expected is None else [titles[expected].lower()])


def test_the_page_counts_the_rules_that_apply_for_certain(tmp_path: Path) -> None:
    run = story(tmp_path, stranger=False)
    findings = status_of_snapshot(run.writer.snapshot)["thresholds"]
    run.kill()

    def summary(applying: int) -> str:
        for at, one in enumerate(findings):
            one.update(applies=True if at < applying else None)
        (found,) = re.findall(r"<summary>(.*?)</summary>", thresholds_part(findings))
        return str(found)

    rules = summary(0)
    assert len(findings) > 3
    assert "for certain" not in rules
    assert summary(2) == f"{rules}, 2 for certain"
    assert summary(len(findings)) == rules


def test_a_source_that_starts_or_has_no_hardware_is_not_down(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(1)
    well = {"a": SourceState(True, ""), "b": SourceState(), "c": SourceState(reason="gone", absent=True)}
    for states, expected in ((well, "metering"), ({**well, "d": SourceState(reason="gone")}, "source-down")):
        assert status_of_snapshot(replace(run.writer.snapshot, sources=states))["health"]["state"] == expected
    run.kill()


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_text_of_a_daemon_controls_the_terminal(tmp_path: Path, escape: str) -> None:
    run = story(tmp_path, stranger=False)
    found = status_of_snapshot(run.writer.snapshot)
    found["run"] = found["node"] = found["endReason"] = escape
    found["sources"] = [{"name": escape, "up": False, "reason": escape}]
    found["devices"][0]["model"] = escape
    found["signingKey"] = {"problem": escape}
    found["devices"][0]["gapSecondsByReason"] = {escape: "1.0"}
    found["thresholds"][0]["rule"] = escape
    assert all(char.isprintable() or char == "\n" for char in status_text(found))
    run.kill()


@pytest.mark.parametrize(
    ("earliest", "latest", "text"),
    [
        (259_200, 4 * 86_400 - 1, "crossed in 3 days to 4 days at the mean rate since the last start"),
        (3_599, 3_600, "crossed in 59 min to 60 min at the mean rate since the last start"),
        (86_399, 172_799, "crossed in 23 h to 48 h at the mean rate since the last start"),
        (86_399, None, "crossed in 23 h or later at the mean rate since the last start"),
        (0, 0, "crossed already"),
        (None, None, "not crossed at the mean rate since the last start"),
        (0, 90 * 60, "may be crossed already, certainly within 90 min at the mean rate since the last start"),
        (10**12, None, "not crossed within 10 000 years at the mean rate since the last start"),
        (0, 10**12, "may be crossed already"),
        (315_569_519, 315_569_521, "crossed in 9.9 years to 11 years at the mean rate since the last start"),
    ],
)
def test_a_crossing_is_rounded_outward(earliest: int | None, latest: int | None, text: str) -> None:
    assert crossing_text({"earliestSeconds": text_or_none(earliest), "latestSeconds": text_or_none(latest)}) == text


TRAINS = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE)


def logged(caplog: pytest.LogCaptureFixture, run: Run, seconds: int) -> list[str]:
    watch = ThresholdLog(run.clock)
    for _ in range(seconds):
        run.meter(1)
        watch.each_tick(run.writer.snapshot)
    return [record.message for record in caplog.records if "threshold" in record.message.lower()]


def run_of(tmp_path: Path, limit: int, device: Device) -> Run:
    rules = parse_policy(POLICY.replace("LIMIT", str(limit)).encode(), "small")
    return Run(tmp_path, devices=(device,), declared=TRAINS, policies=(rules,))


def test_each_step_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = run_of(tmp_path / "first", 10**30, H100)
    alone.meter(THRESHOLD_SECONDS)
    a_minute = alone.writer.snapshot.view.bases.guidelines.updates.low_flop
    assert a_minute
    limit = a_minute * 10
    said = logged(caplog, run_of(tmp_path / "second", limit, H100), 12 * THRESHOLD_SECONDS)
    assert len(said) == len(set(said))
    assert any("% of the threshold small whole" in line for line in said)
    assert sum("ABOVE THE THRESHOLD of small whole (section 3): It is registered." in line for line in said) == 1
    assert said[-1].startswith("ABOVE")


def test_each_task_beside_the_metering_has_its_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, settings, err = run_of(tmp_path, 1, H100), Mock(listen=None, device_precision={}), StringIO()
    custody, sessions, feed, lines = (Mock() for _ in range(4))
    tasks = BackgroundTasks(run.writer, settings, run.clock, err, custody, sessions, feed, lines, lambda: False, None)
    feed.each_tick.assert_not_called()
    for fault in (None, GapReason.DEVICE_LOST):
        run.meter(THRESHOLD_SECONDS, fault)
        tasks.each_tick()
    assert [task.each_tick.call_count for task in (custody, sessions, lines, feed)] == [3, 3, 3, 2]
    assert [line.split("  ")[1] for line in err.getvalue().splitlines()] == ["60 s", "2 min"]
    assert "ABOVE THE THRESHOLD of small" in caplog.text
    assert "no reading for 60 s: device_lost" in caplog.text


def test_steps_are_measured_or_certain_and_checked_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock, minute_ns = FakeClock(), THRESHOLD_SECONDS * NS_PER_S
    watch = ThresholdLog(clock)
    rule = SimpleNamespace(
        id="r", citation="c", consequence="", status="text", other_conditions=(), since="", assumes=""
    )
    nothing, above = Verdict.INDETERMINATE, Verdict.ABOVE
    for after_ns, low, measured, state, said in (
        (0, 499_999, 499_999, nothing, ""),
        (minute_ns - 1, 500_000, 500_000, nothing, ""),
        (1, 500_000, 499_999, nothing, "the run has reached 50 % of the threshold p r (c) by its lower bound"),
        (minute_ns, 600_000, 799_999, nothing, ""),
        (minute_ns, None, 800_000, nothing, "the run has reached 80 % of the threshold p r (c) by its measurement"),
        (minute_ns, 949_999, None, nothing, ""),
        (
            minute_ns,
            951_000,
            951_000,
            nothing,
            "the run has reached 95.1 % of the threshold p r (c) by its measurement",
        ),
        (minute_ns, None, None, None, ""),
        (minute_ns, None, None, above, "ABOVE THE THRESHOLD of p r (c)"),
        (minute_ns, 1_100_000, 1_100_000, above, ""),
    ):
        clock.advance(after_ns)
        finding = SimpleNamespace(
            policy="p", rule=rule, state=state, share_ppm=(low, measured, 10**7), applies=True, rests_on=None
        )
        snapshot: Any = SimpleNamespace(view=SimpleNamespace(findings=[finding]), replay=False)
        watch.each_tick(snapshot)
        assert [text.partition(";")[0] for text in caplog.messages] == [said] * bool(said)
        caplog.clear()


def test_a_ceiling_is_never_logged_as_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bounded = run_of(tmp_path / "state", 1000, A100)  # only an upper bound is known, and it is far above
    assert logged(caplog, bounded, 2 * THRESHOLD_SECONDS) == []
    high = bounded.writer.snapshot.view.bases.guidelines.updates.high_flop
    assert high is not None
    assert high > 1000


def test_the_progress_line_gives_coverage_beside_gaps_of_unknown_length_as_a_bound(tmp_path: Path) -> None:
    run = Run(tmp_path, devices=(H100,))
    run.meter(5)
    assert progress_line(run.writer.snapshot, 5).endswith("  coverage 100 %")
    run.kill()
    run.state.journal.unlink()
    run.start()
    run.meter(5)
    assert "  at most unknown  " in progress_line(run.writer.snapshot, 5)
    assert "  coverage at most " in progress_line(run.writer.snapshot, 5)
    run.kill()


def test_a_crossing_is_logged_with_what_it_depends_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = parse_policy(POLICY.replace("LIMIT", str(10**13)).encode(), "small")
    run, process = Run(tmp_path, devices=(A100,), declared=TRAINS, policies=(rules,), replay=True), "1" * 32
    run.writer.take_event(SessionOpened(process, 7, 1000, "1"))
    run.writer.take_event(FactsDeclared(process, {"device": A100.uid}))
    run.meter(1)
    run.writer.take_event(WorkCounted(process, {"train": {"operator_flop": 6 * 10**13}}))
    said = logged(caplog, run, 2 * THRESHOLD_SECONDS)[-1]
    assert said.startswith(
        "REPLAY, no hardware: ABOVE THE THRESHOLD of small whole (section 3): This rests on the count"
    )


def test_a_step_towards_a_threshold_that_may_not_apply_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, devices=(H100,), declared=OperatorDeclarations(Phase.TRAIN), policies=load_policies())
    finding = next(one for one in run.writer.snapshot.view.findings if one.applies is None)
    assert finding.limit is not None
    reached = Figures(int(finding.limit.low * Fraction(6, 10)) + 1, None, None)
    view = SimpleNamespace(
        findings=[replace(finding, value=reached, limit=Limit(finding.limit.low, finding.limit.low))]
    )
    snapshot: Any = SimpleNamespace(view=view, replay=False)
    ThresholdLog(run.clock).each_tick(snapshot)
    (said,) = caplog.messages
    assert ", if that applies, by its lower bound" in said
    run.kill()


def test_a_slice_of_a_gpu_is_not_called_a_gpu(tmp_path: Path) -> None:
    run = Run(tmp_path, devices=(replace(H100, uid="MIG-1", parent=H100.uid),))
    run.meter(2)
    run.writer.checkpoint()
    for facts in (status_of_snapshot(run.writer.snapshot), from_state_dir(str(tmp_path), {})):
        assert facts["health"]["sentence"].startswith("Metering 1 device")
    run.kill()
