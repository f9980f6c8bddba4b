"""Every alert fires when it should and is silent otherwise, by the real promtool; each leads to its section of the
runbook."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from flopsd.core.model import GapReason
from flopsd.core.unused_count import Unused
from flopsd.errors import KeyFault
from tests.support.prometheus import (
    ALERTS,
    FOLDER,
    RULES,
    TESTS,
    Case,
    World,
    apart,
    changed,
    healthy,
    one_after_the_other,
    promtool_says,
    promtool_test,
    rules,
)

RUNBOOK = FOLDER.parent.parent / "docs" / "runbook.md"
REACHED = "flopsd_threshold_ratio|"
# A change of a healthy node -> the alerts that fire, and no others.
FIRING: dict[str, tuple[Mapping[str, str | None], set[str]]] = {
    "the daemon is gone": ({"up": "1x60 0x60"}, {"FlopsdDown"}),
    "its only source is down": ({"flopsd_source_up": "1x60 0x60"}, {"FlopsdMeterBlind"}),
    "no device is found": ({"flopsd_device_info": None}, {"FlopsdMeterBlind"}),
    "its only GPU is lost": (
        {"flopsd_observed_seconds_total": "0+60x80 4800x40", "flopsd_gap_seconds_total|starting": "0x80 0+60x40",
         "flopsd_device_up": "1x80 0x40"},
        {"FlopsdMeterBlind", "FlopsdDevicesBlind", "FlopsdCoverageFalling"},
    ),
    "a GPU is blinded for a minute, and long ago": (
        {"flopsd_observed_seconds_total": "0+60x10 600 660+60x110", "flopsd_gap_seconds_total|starting": "0x10 60x110"},
        set(),
    ),
    "two per cent of the time are lost": (
        {"flopsd_observed_seconds_total": "0+58.8x120", "flopsd_gap_seconds_total|starting": "0+1.2x120"},
        {"FlopsdCoverageFalling"},
    ),
    "lost time is recovered": (
        {"flopsd_observed_seconds_total": "0+58.8x120", "flopsd_gap_seconds_total|starting": "0+1.2x120",
         "flopsd_recovered_seconds_total": "0+1.2x120"},
        set(),
    ),
    "a counter falls now and then": (
        {"flopsd_source_errors_total|": "2x95 3x25"}, {"FlopsdCountersImplausible"},
    ),
    "a counter lies for the first time": (
        {'flopsd_source_errors_total{job="flopsd",instance="a",source="nvml",reason="counter_reset"}': "_x90 1x30"},
        {"FlopsdCountersImplausible"},
    ),
    "it was away for half an hour": (
        {"flopsd_source_errors_total|": "2x60 _x30 2x30", "flopsd_run_info": "1x60 _x30 1x30"}, set(),
    ),
    "a driver error is not a lie": (
        {'flopsd_source_errors_total{job="flopsd",instance="a",source="nvml",reason="driver_error"}': "_x90 1x30"},
        set(),
    ),
    "utilisation alone": (
        {"flopsd_observed_seconds_total": None,
         'flopsd_observed_seconds_total{job="flopsd",instance="a",gpu="0",uuid="G0",evidence="utilization"}': "0+60x120"},
        set(),
    ),
    "utilisation alone since an hour": (
        {"flopsd_observed_seconds_total": "0+60x60 3600x60",
         'flopsd_observed_seconds_total{job="flopsd",instance="a",gpu="0",uuid="G0",evidence="utilization"}':
             "0x60 0+60x60"},
        {"FlopsdNoLongerMeasured"},
    ),
    "a process counts more than its GPU can do": (
        {'flopsd_operator_counts_unused{job="flopsd",instance="a",reason="count_exceeds_ceiling"}': "_x90 1x30"},
        {"FlopsdOperatorCountUnused"},
    ),
    "a process did so two hours ago": (
        {'flopsd_operator_counts_unused{job="flopsd",instance="a",reason="count_exceeds_ceiling"}': "1x120"}, set(),
    ),
    "it is started again and again": ({"flopsd_daemon_starts": "1x70 2x5 3x5 4x40"}, {"FlopsdRestarting"}),
    "another run began at the same place": ({"flopsd_daemon_starts": "6x70 1x50"}, set()),
    "started again before each scrape": ({"flopsd_daemon_starts": "1x70 5x50"}, {"FlopsdRestarting"}),
    "it was started again once": ({"flopsd_daemon_starts": "1x70 2x50"}, set()),
    "its clock is late": (
        {"flopsd_time_seconds": "-30+60x120", "flopsd_ledger_last_seal": "-30+60x120",
         "flopsd_journal_last_append": "-30+60x120"},
        {"FlopsdClockSkew"},
    ),
    "its clock is early": (
        {"flopsd_time_seconds": "30+60x120", "flopsd_ledger_last_seal": "30+60x120",
         "flopsd_journal_last_append": "30+60x120"},
        {"FlopsdClockSkew"},
    ),
    "its clock was an hour late, and is set right": (
        {"flopsd_time_seconds": "-3600+60x89 5400+60x29", "flopsd_ledger_last_seal": "-3600+60x85 1500x3 5100x30",
         "flopsd_ledger_last_copy": "-3600+60x85 1500x3 5100x30", "flopsd_journal_last_append": "-3600+60x89 5400+60x29"},
        set(),
    ),
    "it is pushed, so its time is as old as the push": (
        {"flopsd_time_seconds": "-30+60x120", "flopsd_ledger_last_seal": "-30+60x120",
         "flopsd_journal_last_append": "-30+60x120", 'push_time_seconds{job="flopsd",instance="a"}': "-30+60x120"},
        set(),
    ),
    "tensor work in no declared format": (
        {'flopsd_flop_total|precision="undeclared"': "0+60e15x120"}, set(),
    ),
    "no phases": ({'flopsd_run_flop|guidelines|"measured"': None}, set()),
    "half": ({f'{REACHED}"low"': "0.5x120", f'{REACHED}"measured"': "0.6x120", f'{REACHED}"high"': "0.9x120"},
             {"FlopsdThreshold50"}),
    "just below half, whatever the ceiling is": (
        {f'{REACHED}"measured"': "0.49x120", f'{REACHED}"high"': "1x120"}, set()),
    "four fifths": ({f'{REACHED}"measured"': "0.8x120", f'{REACHED}"high"': "0.9x120"}, {"FlopsdThreshold80"}),
    "95 %": ({f'{REACHED}"measured"': "0.95x120", f'{REACHED}"high"': "1x120"}, {"FlopsdThreshold95"}),
    "nothing measured, a half certain": (
        {f'{REACHED}"measured"': None, f'{REACHED}"low"': "0.5x120", f'{REACHED}"high"': "1x120"}, {"FlopsdThreshold50"}),
    "only the ceiling is above": ({f'{REACHED}"high"': "7x120"}, {"FlopsdThresholdNotExcluded"}),
    "above for certain": (
        {f'{REACHED}"low"': "1.1x120", f'{REACHED}"measured"': "1.2x120", f'{REACHED}"high"': "1.3x120"},
        {"FlopsdThresholdCrossed", "FlopsdThresholdCrossedCertain"}),
    "above by what is measured": (
        {f'{REACHED}"low"': "0.9x120", f'{REACHED}"measured"': "1.2x120", f'{REACHED}"high"': "1.3x120"},
        {"FlopsdThresholdCrossed"}),
    # 5e-5 a minute are 1.0 in 14 days.
    "crossing within 14 days": (
        {f'{REACHED}"measured"': "0.01+0.00005x120", f'{REACHED}"high"': "0.1x120"}, {"FlopsdThresholdCrossingForecast"}),
    "crossing in three weeks": ({f'{REACHED}"measured"': "0.01+0.000035x120", f'{REACHED}"high"': "0.1x120"}, set()),
    "only the ceiling will cross": ({f'{REACHED}"high"': "0.01+0.001x120"}, set()),
    "the journal was put back": ({"flopsd_journal_put_back": "0x90 1x30"}, {"FlopsdJournalPutBack"}),
    "it was put back two hours ago": ({"flopsd_journal_put_back": "0x10 1x110"}, set()),
    "its upper bound is lost": ({'flopsd_run_flop|executed|"high"': "63e15x59 1e308+1e308x60"}, {"FlopsdNoUpperBound"}),
    "the disk is full": ({"flopsd_journal_writable": "1x90 0x30"}, {"FlopsdJournalNotWritable"}),
    "the disk is full within an hour": ({"flopsd_state_free_bytes": "10e9-90e6x120"}, {"FlopsdStateDiskFilling"}),
    "the disk is full in a week": ({"flopsd_state_free_bytes": "10e9-1e6x120"}, set()),
    "the disk has no room for the next seal": ({"flopsd_journal_size": "6e9+1e3x120"}, {"FlopsdStateDiskFilling"}),
    "the disk is small": ({"flopsd_state_free_bytes": "99e6x120"}, {"FlopsdStateDiskFilling"}),
    "what is free is not known": ({"flopsd_state_free_bytes": None}, set()),
    "the journal stands still": ({"flopsd_journal_last_append": "0+60x90 5400x30"}, {"FlopsdJournalNotAdvancing"}),
    "its key cannot sign": ({"flopsd_signing_key_usable": "1x80 0x40"}, {"FlopsdSigningKeyUnusable"}),
    "its key could not sign for a moment": ({"flopsd_signing_key_usable": "1x94 0x6 1x20"}, set()),
    "no seal for an hour": (
        {"flopsd_ledger_last_seal": "0+60x50 3000x70"}, {"FlopsdLedgerNotSealed"}),
    "no seal for half an hour": ({"flopsd_ledger_last_seal": "0+60x70 4200x50"}, set()),
    "never sealed, and every attempt failed": (
        {"flopsd_ledger_last_seal": None, "flopsd_ledger_seal_failures": "0x20 1x100"}, {"FlopsdLedgerNotSealed"}),
    "never sealed, and no attempt either": ({"flopsd_ledger_last_seal": None}, {"FlopsdLedgerNotSealed"}),
    "never sealed, not yet due": (
        {"flopsd_ledger_last_seal": None, "flopsd_daemon_starts": "1x60 2x60"}, set()),
    "no rolling seals": (
        {"flopsd_ledger_last_seal": None, "flopsd_ledger_seal_failures": None, "flopsd_ledger_seal_interval": None}, set()),
    "a seal failed, and the next did not": ({"flopsd_ledger_seal_failures": "0x80 1x40"}, set()),
    "a closed segment is not sealed": ({"flopsd_closed_segments_waiting": "0x20 1x100"}, {"FlopsdLedgerNotSealed"}),
    "closed segments come and go": ({"flopsd_closed_segments_waiting": "0x20 1x50 0 1x49"}, set()),
    "a closed segment is not copied": (
        {"flopsd_closed_segments_waiting": "0x20 1x100", "flopsd_ledger_deliveries_pending": "0x20 1x100"},
        {"FlopsdLedgerCopyFailed"}),
    "a copy was refused": ({"flopsd_ledger_copy_failures": "0x80 1x40"}, {"FlopsdLedgerCopyFailed"}),
    "a ledger of an earlier run stays undelivered": ({"flopsd_ledger_deliveries_pending": "0x60 2x60"}, {"FlopsdLedgerCopyFailed"}),
    "a ledger is undelivered for ten minutes": ({"flopsd_ledger_deliveries_pending": "0x90 2x30"}, set()),
    "a copy failed, and a ledger is undelivered": (
        {"flopsd_ledger_deliveries_pending": "1x120", "flopsd_ledger_copy_failures": "0x80 1x40"}, {"FlopsdLedgerCopyFailed"}),
    "no copy for an hour": (
        {"flopsd_ledger_last_copy": "0+60x50 3000x70", "flopsd_ledger_copy_failures": "0x50 0+1x70"},
        {"FlopsdLedgerCopyLate", "FlopsdLedgerCopyFailed"}),
    "it has ended, and its target stays": (
        {"up": "1x60 0x60", "flopsd_run_ended": "0x59 1", "flopsd_run_info": "1x60", "flopsd_threshold": "0.1x60"},
        set()),
}  # fmt: skip
MINUTE = 100
Expected = dict[str, list[tuple[dict[str, str], float]]]


def alerts() -> dict[str, dict[str, Any]]:
    return {str(rule["alert"]): rule for rule in rules(ALERTS) if "alert" in rule}


def fires(names: set[str]) -> Expected:
    return {'count by (alertname) (ALERTS{alertstate="firing"})': [({"alertname": name}, 1) for name in sorted(names)]}


def of_m(number: int) -> World:
    """A separate run on a separate node, of lineage m."""
    return healthy(f"i{number}", f"r{number}", f"n{number}", f"G{number}", more=',lineage="m"')


def next_run() -> World:
    """A run with many faults, preceded by a healthy run at the same address that ended five minutes ago and is not
    sealed yet."""
    wrong: dict[str, str | None] = {
        "flopsd_source_errors_total": "2x80 3x40", "flopsd_daemon_starts": "1x40 2x9 3x9 4x59",
        "flopsd_journal_put_back": "0x80 1x40", "flopsd_ledger_copy_failures": "0x80 1x40",
        "flopsd_device_up": "1x85 0x35",
        'flopsd_operator_counts_unused{job="flopsd",instance="a",reason="device_changed"}': "2x120",
    }  # fmt: skip
    begun: dict[str, str | None] = {
        "flopsd_source_errors_total": None, "flopsd_ledger_last_seal": None, "flopsd_ledger_last_copy": None,
        'flopsd_operator_counts_unused{job="flopsd",instance="a",reason="device_changed"}': "1x120",
    }  # fmt: skip
    world = one_after_the_other(changed(healthy(), wrong), changed(healthy(run="r2"), begun), 90)
    clocks = ("flopsd_time_seconds", "flopsd_journal_last")
    return {name: "0+60x220" if name.startswith(clocks) else values for name, values in world.items()}


def side_by_side(worlds: Mapping[str, tuple[World, set[str]]]) -> Case:
    """Independent worlds in one Prometheus, so that all rules are evaluated once for all of them."""
    world = {apart(name, series): values for name, (one, _) in worlds.items() for series, values in one.items()}
    alerts = 'ALERTS{alertstate="firing"}'
    for label in ("instance", "lineage", "run_id", "uuid"):
        alerts = f'label_replace({alerts}, "world", "$1", "{label}", "(.+)/.*")'
    firing = [({"world": name, "alertname": alert}, 1.0) for name, (_, alerts) in worlds.items() for alert in alerts]
    return Case("side by side", world, MINUTE, {f"count by (world, alertname) ({alerts})": firing})


@pytest.mark.tool("promtool")
def test_every_alert_fires_when_it_should_and_is_silent_otherwise(tmp_path: Path) -> None:
    gone = {**healthy(), **{k: v.replace("x120", "x80") for k, v in healthy("b", node="n2", gpu="G1").items()}}
    replay = changed(
        healthy(replay="true"),
        {f'{REACHED}"measured"': "0.9x120", 'flopsd_run_flop|guidelines|"measured"': None,
         'flopsd_flop_total|precision="undeclared"': "0+60e15x120"},
    )  # fmt: skip
    six: World = {}
    for number in range(6):
        one = changed(of_m(number), {f'{REACHED}"measured"': "0.17x120", f'{REACHED}"high"': "0.9x120"})
        six |= {
            name: f"0x{20 * number + 9} 1"
            if name.startswith("flopsd_run_ended")
            else values.replace("x120", f"x{20 * number + 10}")
            for name, values in one.items()
        }
    soon = {f'{REACHED}"measured"': "0.01+0.00005x120", f'{REACHED}"high"': "0.1x120"}
    two = {**of_m(0), **changed(of_m(1), soon)}
    pair = {**healthy("a", "r1", "n1", "G0"), **healthy("b", "r1", "n2", "G1")}
    halves = changed(pair, {f'{REACHED}"measured"': "0.48x120", f'{REACHED}"high"': "0.49x120"})
    one_ended = {name: values.replace("x120", "x50") if '"b"' in name else values for name, values in halves.items()}
    wide = changed(pair, {f'{REACHED}"high"': "0.9x120"})
    back = {}
    for name, values in pair.items():
        if name.startswith(("flopsd_threshold_ratio", "flopsd_run_info", "flopsd_run_flop")):
            first = values.split("x")[0].split("+")[0]
            away = "_x120" if '"b"' in name else f"{first}x120"
            back[name] = f"{values.replace('x120', 'x100')} {away} {first}x200"
    late = {
        f'{REACHED}"{bound}"': f"_x60 {share}x60" for bound, share in (("measured", 0.4), ("low", 0.3), ("high", 0.45))
    }
    joined = {**of_m(0), **of_m(1), **changed(of_m(2), late)}
    twice = {**healthy("a", "r1", "n1", "G0"), **healthy("b", "r2", "n2", "G0")}
    one_instance = {**healthy(more=',pod="p1"'), **healthy("a", "r2", "n1", "G1", more=',pod="p2"')}
    forecast = 'alertname="FlopsdThresholdCrossingForecast"'
    stays: Expected = {f"ALERTS{{{forecast}}}": [], "count(run:flopsd_threshold_reached:ratio)": [({}, 1.0)]}
    crosses: Expected = {
        f'count by (run_id) (ALERTS{{alertstate="firing", {forecast}}})': [({}, 1.0), ({"run_id": "r1"}, 1.0)]
    }
    alone = [
        Case("a node is back after two hours", back, 400, stays),
        Case(
            "six runs below one after the other, their lineage above",
            six,
            MINUTE + 5,
            fires({"FlopsdThresholdCrossed"}),
        ),
        Case("a lineage crosses within 14 days, and a run of it", two, MINUTE, crosses),
    ]
    worlds: dict[str, tuple[World, set[str]]] = {
        "two halves, and one node is gone": (one_ended, {"FlopsdDown", "FlopsdThreshold95"}),
        "the ceilings of two nodes": (wide, {"FlopsdThresholdNotExcluded"}),
        "a run with a share joins a lineage": (joined, set()),
        "a GPU in two accounts": (twice, {"FlopsdDeviceTwice"}),
        "two pods, and the node's name as instance of both": (one_instance, {"FlopsdInstanceShared"}),
        "all is well": (healthy(), set()),
        "a recording": (replay, {"FlopsdReplayInProduction"}),
        "a node of two is gone": (gone, {"FlopsdDown"}),
        "the whole run has ended": (
            {
                k: "0x39 1" if k.startswith("flopsd_run_ended") else v.replace("x120", "x40")
                for k, v in healthy().items()
            },
            set(),
        ),
        **{name: (changed(healthy(), changes), names) for name, (changes, names) in FIRING.items()},
    }
    fired = set().union(*(names for _, names in worlds.values()))
    assert fired == set(alerts()), "an alert without a test"
    done = promtool_says(tmp_path, [*alone, side_by_side(worlds)])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.tool("promtool")
@pytest.mark.parametrize(("counts", "lineage"), [(True, ""), (False, ',lineage="m"')])
def test_an_alert_that_rests_on_a_processs_claim_is_not_called_certain(
    tmp_path: Path, counts: bool, lineage: str
) -> None:
    above = {f'{REACHED}"low"': "1.1x120", f'{REACHED}"measured"': "1.2x120", f'{REACHED}"high"': "1.3x120"}
    at = f'job="flopsd",instance="a"{lineage},gpu="0",uuid="G0"'
    row = f'flopsd_flop_total{{{at},pipe="all",evidence="operator_count"}}'
    world = changed(healthy(more=lineage), {**above, **({row: "0+1e15x120"} if counts else {})})
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in world.items()],
        "alert_rule_test": [{"eval_time": "100m", "alertname": "FlopsdThresholdCrossedCertain", "exp_alerts": []}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES), str(ALERTS)], "tests": [test]}))
    done = promtool_test(tmp_path / "test.yml")
    said = done.stdout + done.stderr  # promtool lists a firing alert as unexpected
    assert "is above the threshold of third: " in said
    assert ("third: by what is certain and what training processes say that they computed, at 110%" in said) == counts
    assert ("third: for certain, at 110%" in said) != counts
    assert ("In part by what training processes say" in said) == counts


@pytest.mark.tool("promtool")
def test_an_alert_is_never_about_another_run_at_the_same_address(tmp_path: Path) -> None:
    """Events of the previous run raise no alert for the next one, and hide none of it."""
    not_sealed = changed(healthy(run="r2"), {"flopsd_ledger_last_seal": None, "flopsd_ledger_last_copy": None})
    calm = one_after_the_other(healthy(), not_sealed, 90)
    calm |= {name: "0+60x220" for name in calm if name.startswith(("flopsd_time_seconds", "flopsd_journal_last"))}
    calm |= {name: "2x90 stale" for name in calm if name.startswith("flopsd_source_errors")}
    firing = 'count by (alertname, run_id) (ALERTS{alertstate="firing", run_id!="r1"})'
    own = {"alertname": "FlopsdOperatorCountUnused", "run_id": "r2"}
    cases = [
        Case("after trouble", next_run(), 100, {firing: [(own, 1)]}),
        Case("after an hour without trouble", calm, 100, {firing: []}),
    ]
    done = promtool_says(tmp_path, cases)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.tool("promtool")
@pytest.mark.parametrize(
    "step", [pytest.param(1, id="all", marks=pytest.mark.exhaustive), pytest.param(6, id="sample")]
)
def test_the_packaged_alert_tests_cover_every_alert_and_pass(step: int, tmp_path: Path) -> None:
    shipped = yaml.safe_load(TESTS.read_text())
    assert {str(case["name"]).partition(":")[0] for case in shipped["tests"]} == set(alerts())
    shipped["rule_files"] = [str(TESTS.parent / name) for name in shipped["rule_files"]]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({**shipped, "tests": shipped["tests"][::step]}, sort_keys=False))
    done = promtool_test(TESTS if step == 1 else tmp_path / "tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_runbook_section_and_each_section_an_alert() -> None:
    found = alerts()
    sections = dict(re.findall(r"^## (Flopsd\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.M | re.S))
    assert set(sections) == set(found)
    times = re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (\w+) \| ([\w ]+) \| ([\w ]+) \|$", RUNBOOK.read_text(), re.M)
    assert times == [
        (name, rule["labels"]["severity"], rule.get("for", "at once"), rule.get("keep_firing_for", "at once"))
        for name, rule in found.items()
    ]
    for name, rule in found.items():
        base = '{{ with query "flopsd_links" }}{{ (. | first).Labels.docs }}{{ end }}'
        assert rule["annotations"]["runbook_url"] == f"{base}/runbook.html#{name.lower()}"
        assert set(rule["annotations"]) == {"summary", "description", "action", "dashboard_url", "runbook_url"}
        if "{{ if $labels.run_id }}" in rule["annotations"]["summary"]:  # may be about a lineage, which has no run
            assert "{{ if $labels.run_id }}run/" in rule["annotations"]["dashboard_url"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        for what in ("It means:", "Check:", "Do:"):
            assert what in sections[name], f"{name} does not say {what}"


def test_no_alert_calls_every_device_a_gpu_or_leaves_out_what_processes_count() -> None:
    """A Trainium and a MIG slice are devices, too; figures hold what processes count where no counter measures."""
    texts = {
        name: f"{rule['annotations']['summary']} {rule['annotations']['description']}"
        for name, rule in alerts().items()
    }
    assert [name for name, words in texts.items() if "GPU" in words] == []
    assert "measured and at least hold only what training processes count" in texts["FlopsdNoLongerMeasured"]


def test_the_runbook_lists_every_gap_and_key_reason_and_the_alert_every_lie() -> None:
    text = RUNBOOK.read_text()
    known = {*(reason.value for reason in GapReason), *(reason.value for reason in Unused)}
    assert known == set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    assert set(get_args(KeyFault)) == set(re.findall(r"^  \| `(\w+)` \|", text, re.M))
    alert = alerts()["FlopsdCountersImplausible"]
    expression = str(alert["expr"])
    (lies,) = set(re.findall(r'reason=~"([^"]+)"', expression))
    assert f'reason=~\\"{lies}\\"' in alert["annotations"]["description"], "it names no other fault as one"
    for listed in re.findall(r'reason=~"([^"]+)"', expression):
        assert set(listed.split("|")) <= {reason.value for reason in GapReason}


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("what", [("rules", str(RULES), str(ALERTS)), ("config", str(FOLDER / "prometheus.yml"))])
def test_promtool_has_no_complaints(what: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", "check", *what], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search(r"warn|fail|duplicate|error", done.stdout, re.I), done.stdout
