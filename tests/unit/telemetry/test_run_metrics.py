"""Metrics of the run, its thresholds, sources and journal: each equals the figure it was made from, or is absent."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import inf, nextafter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.declarations import NOTHING_DECLARED, Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import ChildCost, Device
from flopsd.core.policy.finding import Limit, Verdict
from flopsd.daemon.ledgers.custody import Commands, Custody
from flopsd.settings.data_files import load_policies
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.device_metrics import Labels, device_facts, metered_devices
from flopsd.telemetry.families import Family, at_least, at_most
from flopsd.telemetry.prometheus import Kept, changing_families, families_of_now
from flopsd.telemetry.run_metrics import Rules, figures, journal, of_request, sources
from flopsd.telemetry.snapshot import DiskState, JournalState, KeyState, SourceState
from flopsd.telemetry.status import status_of_snapshot
from tests.make_vectors.runs import BF16, PLAIN
from tests.support.runs import A100, H100, STRANGER, Run
from tests.support.story import H100 as WORKING
from tests.support.story import Story

Rows = dict[tuple[str, ...], float]


def modified(base: Base | None) -> OperatorDeclarations:
    return OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE, base)


def rows(families: Iterator[Family]) -> dict[str, Rows]:
    return {family.name: {tuple(values): number for values, number in family.rows} for family in families}


def bounds(name: str, figures: dict[str, Any]) -> Rows:
    high = None if figures["high"] is None else int(figures["high"])
    found: Rows = {(name, "low"): at_least(int(figures["low"])), (name, "high"): at_most(high)}
    return found | ({(name, "measured"): float(figures["measured"])} if figures["measured"] is not None else {})


@given(st.integers(0, 10**30))
def test_a_bound_still_holds_as_a_float(flop: int) -> None:
    assert at_least(flop) <= flop <= at_most(flop)
    assert nextafter(at_least(flop), inf) > flop > nextafter(at_most(flop), -inf)
    assert at_most(None) == inf


def test_the_bounds_of_a_run_still_hold_as_floats(tmp_path: Path) -> None:
    run = Story(tmp_path, (WORKING,), precision=BF16)
    for _ in range(40):
        run.during(1, {WORKING: PLAIN})
        exact = run.writer.snapshot.view.figures
        found = rows(figures(run.writer.snapshot, Rules()))["flopsd_run_flop"]
        assert exact.high_flop is not None
        assert found["executed", "low"] <= exact.low_flop
        assert found["executed", "high"] >= exact.high_flop
    run.kill()


def test_a_gap_of_unknown_length_has_no_ceiling(tmp_path: Path) -> None:
    run = Run(tmp_path, devices=(H100,))
    run.meter(5)
    run.kill()
    assert rows(changing_families(run.writer.snapshot, Kept()))["flopsd_flop_ceiling"]
    run.state.journal.unlink()
    run.start()
    run.meter(5)
    snapshot = run.writer.snapshot
    assert snapshot.view.figures.high_flop is None
    assert rows(changing_families(snapshot, Kept()))["flopsd_flop_ceiling"] == {}
    run.kill()


@pytest.mark.parametrize("devices", [(H100,), (A100,), (H100, STRANGER)])
@pytest.mark.parametrize(
    "declared",
    [NOTHING_DECLARED, modified(Base("b", "known", 10**24, None, True)), modified(Base("b", "estimated", 10**14, None, False)),
     modified(Base("b", "known", 10**12, None, False)), OperatorDeclarations(Phase.EVALUATE, None, None, None),
     OperatorDeclarations(Phase.TRAIN, Method.PRETRAINING, None, None)],
)  # fmt: skip
def test_figures_match_those_of_the_status(tmp_path: Path, devices: Any, declared: OperatorDeclarations) -> None:
    run = Run(tmp_path, devices=devices, declared=declared, policies=load_policies())
    run.meter(5)
    facts, found = status_of_snapshot(run.writer.snapshot), rows(figures(run.writer.snapshot, Rules()))
    run.kill()
    assert found["flopsd_run_flop"] == {
        **bounds("executed", facts["executed"]),
        **bounds("guidelines", facts["guidelines"]),
        **bounds("guidelines_cumulative", facts["guidelines"]["cumulative"]),
    }
    rule, state, threshold, share = Rows(), Rows(), Rows(), Rows()
    for one in facts["thresholds"]:
        if one["state"] is None:
            continue
        name = (one["policy"], one["rule"])
        applies = "true" if one["applies"] else "unknown"
        rule |= {(*name, one["title"], applies): 1}
        state |= {(*name, each): float(each == one["state"]) for each in ("below", "above", "indeterminate")}
        threshold |= {
            (*name, end): float(Fraction(one["threshold"][end])) for end in ("low", "high") if one["threshold"][end]
        }
        quantity, ppm = " or ".join(one["quantities"]), one["sharePpm"]
        share |= {(*name, quantity, bound): int(ppm[bound]) / 10**6 for bound in ppm if ppm[bound] is not None}
    assert rule
    assert {(*labels[:3], labels[5]): one for labels, one in found["flopsd_rule_info"].items()} == rule
    assert [found[f"flopsd_{name}"] for name in ("verdict", "threshold_flop", "threshold_ratio")] == [
        state, threshold, share,
    ]  # fmt: skip


@pytest.mark.parametrize("change", [{"state": Verdict.ABOVE}, {"applies": True}, {"limit": Limit(Fraction(3), None)}])
def test_a_verdict_that_changes_is_shown_at_the_next_page(tmp_path: Path, change: dict[str, Any]) -> None:
    run = Run(tmp_path, devices=(H100,), policies=load_policies(["us-ny-raise"]))
    run.meter(1)
    before, rules = run.writer.snapshot.view.findings, Rules()
    run.kill()
    after = [replace(one, **change) for one in before]
    for findings in (before, before, after, before):
        shown = [family.rows for family in rules.families(findings)]
        assert shown == [family.rows for family in Rules().families(findings)]
    assert rows(iter(rules.families(after))) != rows(iter(rules.families(before)))


def test_labels_follow_a_device_that_is_described_anew(tmp_path: Path) -> None:
    run, labels = Run(tmp_path, devices=(H100,)), Labels()
    run.meter(1)
    entry = run.writer.snapshot.devices[0].entry
    run.kill()
    moved = replace(entry, device=replace(entry.device, index=7))
    assert [labels.of(one, "node")[0] for one in (entry, moved, entry)] == ["0", "7", "0"]
    nameless = replace(entry, device=replace(entry.device, uid="neuron0", serial=None))
    assert [labels.of(nameless, node)[1] for node in ("a", "b")] == ["a/neuron0", "b/neuron0"]


def test_the_rule_info_of_an_alert_includes_its_caveats(tmp_path: Path) -> None:
    declared = OperatorDeclarations(method=Method.PRETRAINING)
    run = Run(tmp_path, devices=(H100,), declared=declared, policies=load_policies(["us-ny-raise"]))
    run.meter(1)
    (labels,) = rows(figures(run.writer.snapshot, Rules()))["flopsd_rule_info"]
    run.kill()
    *_, citation, consequence, applies = labels
    assert citation.endswith("section 1420, from copies or summaries: the official text was not read")
    for words in (
        "Whoever trained it is a frontier developer", "The rule applies from 2027-01-01.",
        "It assumes: it is a foundation model", "not decided here: for a large frontier developer: annual gross revenue",
    ):  # fmt: skip
        assert words in consequence
    assert applies == "true"


def test_a_source_has_its_metrics_and_one_without_hardware_has_none(tmp_path: Path) -> None:
    run = Run(tmp_path)
    states = {
        "well": SourceState(True, "", 0.25, 3 * NS_PER_S, {"a": 2, "b": 1}, child=ChildCost(4, 5 * NS_PER_S, 6)),
        "down": SourceState(reason="gone"),
        "none": SourceState(absent=True),
    }
    found = rows(sources(replace(run.writer.snapshot, sources=states)))
    run.kill()
    assert found == {
        "flopsd_source_up": {("well",): 1, ("down",): 0},
        "flopsd_source_errors": {("well", "a"): 2, ("well", "b"): 1},
        "flopsd_source_read_duration_seconds": {("well",): 0.25},
        "flopsd_source_child_starts": {("well",): 4},
        "flopsd_source_child_cpu_seconds": {("well",): 5},
        "flopsd_source_child_memory_bytes": {("well",): 6},
    }


@pytest.mark.parametrize("fault", ["", "no space left"])
def test_journal_metrics_show_whether_it_can_be_written(tmp_path: Path, fault: str) -> None:
    run = Run(tmp_path)
    run.kill()
    given: dict[str, Any] = {"journal_records": 7, "journal_put_back": 9}
    assert rows(journal(replace(run.writer.snapshot, journal_fault=fault, **given))) == {
        "flopsd_journal_records": {(): 7},
        "flopsd_journal_writable": {(): float(not fault)},
        "flopsd_journal_put_back": {(): 9},
    }


SECOND, BARE = NS_PER_S, {"flopsd_time_seconds": 1.0}
SEALED = {"flopsd_ledger_seal_interval_seconds": 2.0, "flopsd_ledger_seal_failures": 0.0}


@pytest.mark.parametrize(
    ("state", "metrics"),
    [
        (JournalState(SECOND), BARE),
        (JournalState(SECOND, None, SECOND, 1, True, SECOND, 1), BARE),
        (JournalState(SECOND, undelivered_ledgers=0, disk=DiskState(1, 2, 0)),
         BARE | {"flopsd_ledger_deliveries_pending": 0, "flopsd_journal_size_bytes": 1, "flopsd_state_free_bytes": 2,
                 "flopsd_closed_segments_waiting": 0}),
        (JournalState(SECOND, key=KeyState(True)), BARE | {"flopsd_signing_key_usable": 1}),
        (JournalState(SECOND, key=KeyState(False, "denied", "no")),
         BARE | {"flopsd_signing_key_usable": 0, "flopsd_signing_key_fault_info denied": 1}),
        (JournalState(SECOND, 2 * SECOND), BARE | SEALED),
        (JournalState(SECOND, 2 * SECOND, 3 * SECOND, 4, False, 5 * SECOND, 6),
         BARE | SEALED | {"flopsd_ledger_seal_failures": 4, "flopsd_ledger_last_seal_timestamp_seconds": 3}),
        (JournalState(SECOND, 2 * SECOND, None, 0, True), BARE | SEALED | {"flopsd_ledger_copy_failures": 0}),
        (JournalState(SECOND, 2 * SECOND, None, 0, True, 5 * SECOND, 6),
         BARE | SEALED | {"flopsd_ledger_copy_failures": 6, "flopsd_ledger_last_copy_timestamp_seconds": 5}),
    ],
)  # fmt: skip
def test_unknown_facts_of_seals_copies_key_and_disk_are_absent(
    tmp_path: Path, state: JournalState, metrics: dict[str, float]
) -> None:
    run = Run(tmp_path)
    run.kill()
    snapshot = replace(run.writer.snapshot, journal_state=state, journal_last_append_ns=None, wall_offset_ns=0)
    found = {
        " ".join((name, *labels)): value
        for name, some in rows(of_request(snapshot)).items()
        for labels, value in some.items()
    }
    assert found == metrics


@pytest.mark.parametrize("step_s", [-3600, 0, 3600])
def test_ages_of_record_and_reading_are_known_although_the_wall_clock_was_set_since(
    tmp_path: Path, step_s: int
) -> None:
    run = Run(tmp_path)
    custody = Custody(Settings(), {}, run.state, run.clock, str, Commands((), (), (), ()), resumed=False)
    run.kill()
    read = {"nvml": SourceState(up=True, last_reading_ns=run.clock.boottime_ns())}
    run.clock.advance(400 * NS_PER_S)
    run.clock.step_wall(step_s * NS_PER_S)
    found = rows(families_of_now(custody.with_journal_state(replace(run.writer.snapshot, sources=read))))
    (now,) = found["flopsd_time_seconds"].values()
    for of in ("journal_last_append", "last_reading"):
        (then,) = found[f"flopsd_{of}_timestamp_seconds"].values()
        assert now - then == pytest.approx(400, abs=1)


def test_what_a_request_adds_does_not_render_the_reading_anew(tmp_path: Path) -> None:
    run = Run(tmp_path)
    custody = Custody(Settings(), {}, run.state, run.clock, str, Commands((), (), (), ()), resumed=False)
    run.kill()
    run.clock.step_wall(1)
    assert custody.with_journal_state(run.writer.snapshot) == run.writer.snapshot, "by which Exposition.render caches"


def test_the_metrics_of_rolling_seals_are_there_only_if_seals_are_made(tmp_path: Path) -> None:
    run = Run(tmp_path)
    found = []
    for every in (600.0, None):
        settings, commands = Settings(seal_every_seconds=every), Commands((), ("seal",), (), ())
        custody = Custody(settings, {}, run.state, run.clock, str, commands, resumed=False)
        shown = rows(families_of_now(custody.with_journal_state(run.writer.snapshot)))
        found.append(shown.get("flopsd_ledger_seal_interval_seconds"))
    run.kill()
    assert found == [{(): 600.0}, None]


def test_counters_include_the_devices_of_earlier_starts(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.meter(5)
    run.restart(ends=True, devices=(replace(H100, uid="GPU-other"),))
    run.meter(5)
    snapshot = run.writer.snapshot
    found = rows(changing_families(snapshot, Kept()))
    assert sum(found["flopsd_flop"].values()) == snapshot.view.figures.measured_flop
    assert sum(found["flopsd_observed_seconds"].values()) * NS_PER_S == snapshot.view.observed_ns
    assert sum(found["flopsd_energy_joules"].values()) * 1000 == snapshot.view.energy_mj
    assert [labels[1] for labels in found["flopsd_device_up"]] == ["GPU-other"]


def test_the_peak_of_a_slice_is_that_of_its_own_sms(tmp_path: Path) -> None:
    def peaks(device: Device) -> Rows:
        run = Run(tmp_path / device.uid, devices=(device,))
        run.meter(2)
        found = rows(device_facts(metered_devices(run.writer.snapshot, Labels())))["flopsd_peak_flop_per_second"]
        run.kill()
        return {labels[2:]: peak for labels, peak in found.items()}

    half = peaks(replace(H100, uid="MIG-1", sm_count=66, parent=H100.uid))
    assert half
    assert {labels: 2 * peak for labels, peak in half.items()} == peaks(H100)
    assert peaks(replace(H100, uid="GPU-o", sm_count=114)) == peaks(replace(H100, uid="GPU-w")), "of the datasheet"
