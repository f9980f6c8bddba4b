"""Every recording rule by the real promtool: two nodes of a run, one of them scraped twice, an earlier run, a
recording."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.prometheus import (
    RULES,
    Case,
    World,
    changed,
    healthy,
    one_after_the_other,
    promtool_says,
    rules,
    together,
)

OF_M = ',lineage="m"'


def ends(world: World, minute: int) -> World:
    """The target disappears: its last sample is at `minute`."""
    return {name: values.replace("x120", f"x{minute}") for name, values in world.items()}


def anew(world: World, minute: int) -> World:
    """Counters restart at zero after `minute`."""
    return {
        name: re.sub(r"^0\+(\S+)x120$", rf"0+\1x{minute - 1} 0+\1x{120 - minute}", values)
        for name, values in world.items()
    }


def longer(world: World, minutes: int) -> World:
    return {name: values.replace("x120", f"x{minutes}") for name, values in world.items()}


def fleet() -> World:
    """At 1e15 FLOP/s each: r0 until minute 50, then r1 on two nodes, and a recording."""
    return {
        **ends(healthy("old", "r0", "n0", "G9", more=OF_M), 50),
        **healthy("a", "r1", "n1", "G0", more=OF_M),
        **healthy("a", "r1", "n1", "G0", more=OF_M, job="flopsd-again"),
        **changed(
            healthy("b", "r1", "n2", "G1", more=OF_M), {'flopsd_run_flop|executed|"high"': " ".join(["Inf"] * 121)}
        ),
        **healthy("c", "r2", "n3", "G2", more=OF_M, replay="true"),
    }


def _last(values: str) -> str:
    """The last value of `0+STEPxTIMES` or `VALUExTIMES`."""
    begin, _, step, times = re.fullmatch(r"([\d.e-]+)(\+([\d.e]+))?x(\d+)", values).groups()  # type: ignore[union-attr]
    return repr(float(begin) + float(step or 0) * int(times))


def of(name: str, **labels: str) -> str:
    return f"{name}{{{','.join(f'{k}={json.dumps(v)}' for k, v in labels.items())}}}"


def bounds(labels: Mapping[str, str], **values: float) -> list[tuple[dict[str, str], float]]:
    return [({**labels, "bound": bound}, value) for bound, value in values.items()]


R1 = {"lineage": "m", "run_id": "r1", "replay": "false"}
N1 = {**R1, "node": "n1"}
G0 = {**N1, "gpu": "0", "uuid": "G0"}
R1_ALONE, GPU = {"run_id": "r1", "replay": "false"}, {"node": "n1", "gpu": "0", "uuid": "G0"}
SHARE = {"policy": "p", "rule": "third", "quantity": "updates"}
SECONDS = 100 * 60
ROW = {"pipe": "tensor_hmma", "precision": "bf16"}
A = {"job": "flopsd", "instance": "a", "lineage": "m", "run_id": "r1", "node": "n1"}
EXPECTED: dict[str, list[tuple[dict[str, str], float]]] = {
    of("pipe:flopsd_flop:sum", uuid="G0", pipe="tensor_hmma"): [({**G0, **ROW}, 1e15 * SECONDS)],
    of("pipe:flopsd_flop:rate5m", uuid="G0", pipe="tensor_hmma"): [({**G0, **ROW}, 1e15)],
    of("pipe:flopsd_peak:max", uuid="G0"): [({**G0, **ROW}, 2e15)],
    of("instance:flopsd_runs:count", instance="a", job="flopsd"): [({"job": "flopsd", "instance": "a"}, 1)],
    of("instance:flopsd_run_info:newest", instance="a", job="flopsd"): [({**A, "platform": "host", "replay": "false"}, 1)],
    of("instance:flopsd_daemon_starts:run", instance="a", job="flopsd"): [(A, 1)],
    of("instance:flopsd_source_errors:run", instance="a", job="flopsd"): [({**A, "source": "nvml", "reason": "stale"}, 2)],
    of("instance:flopsd_operator_counts_unused:run"): [],
    of("instance:flopsd_journal_put_back:run", instance="a", job="flopsd"): [(A, 0)],
    of("instance:flopsd_ledger_copy_failures:run", instance="a", job="flopsd"): [(A, 0)],
    of("instance:flopsd_device_up:run", instance="a", job="flopsd"): [({**A, "gpu": "0", "uuid": "G0"}, 1)],
    of("device:flopsd_flop:rate5m", uuid="G0"): [(G0, 1e15)],
    of("device:flopsd_power_watts:rate5m", uuid="G0"): [(G0, 600)],
    of("device:flopsd_energy_joules:max", uuid="G0"): [(G0, 600 * SECONDS)],
    of("device:flopsd_energy_joules:last", uuid="G0"): [(G0, 600 * SECONDS)],
    of("device:flopsd_job_seconds:sum", uuid="G0"): [(G0, SECONDS)],
    of("device:flopsd_known_seconds:sum", uuid="G0"): [(G0, SECONDS)],
    of("device:flopsd_measured_seconds:sum", uuid="G0"): [(G0, SECONDS)],
    of("device:flopsd_coverage:ratio5m", uuid="G0"): [(G0, 1)],
    of("device:flopsd_hfu:ratio5m", uuid="G0"): [(G0, 0.5)],
    of("device:flopsd_peak_bf16:max", uuid="G0"): [(G0, 2e15)],
    of("instance:flopsd_of_another_run:bool"): [],
    of("instance:flopsd_run_ended:last", instance="old"): [({"job": "flopsd", "instance": "old"}, 0)],
    of("instance:flopsd_run:last", instance="old"): [
        ({"job": "flopsd", "instance": "old", "lineage": "m", "run_id": "r0", "node": "n0", "platform": "host",
          "replay": "false"}, 50 * 60)],
    of("instance:flopsd_down:bool"): [({"job": "flopsd", "instance": "old"}, 1)],  # it did not report its end
    of("node:flopsd_run_info:max", run_id="r1", node="n1"): [(N1, 1)],
    of("run:flopsd_nodes:count", run_id="r1"): [(R1, 2)],
    of("node:flopsd_run_flop:max", node="n1", basis="executed", bound="measured"):
        bounds({**N1, "basis": "executed"}, measured=1e15 * SECONDS),
    of("node:flopsd_run_flop:last", node="n1", basis="executed", bound="measured"):
        bounds({**N1, "basis": "executed"}, measured=1e15 * SECONDS),
    of("run:flopsd_nodes_gone:count"): [],
    of("node:flopsd_job_seconds:sum", node="n1"): [({"run_id": "r1", "replay": "false", "node": "n1"}, SECONDS)],
    of("node:flopsd_daemon_starts:max", node="n1"): [({"run_id": "r1", "replay": "false", "node": "n1"}, 1)],
    of("node:flopsd_process_start:max", node="n1"): [({"run_id": "r1", "replay": "false", "node": "n1"}, 1000)],
    of("run:flopsd_begun_anew:last"): [],
    of("run:flopsd_run_flop:sum", run_id="r1", basis="executed"):
        bounds({**R1, "basis": "executed"}, low=2 * 0.95e15 * SECONDS, measured=2e15 * SECONDS, high=float("inf")),
    of("run:flopsd_flop:rate5m", run_id="r1"): [(R1, 2e15)],
    of("run:flopsd_power_watts:rate5m", run_id="r1"): [(R1, 1200)],
    of("run:flopsd_flop_by_process:sum"): [],
    of("run:flopsd_energy_joules:sum", run_id="r1"): [(R1, 1200 * SECONDS)],
    of("run:flopsd_flop_per_joule:ratio5m", run_id="r1"): [(R1, round(1e15 / 600))],
    of("run:flopsd_coverage:ratio", run_id="r1"): [(R1, 1)],
    of("run:flopsd_coverage:ratio1h", run_id="r1"): [(R1, 1)],
    of("run:flopsd_hfu:ratio5m", run_id="r1"): [(R1, 0.5)],
    of("run:flopsd_mfu_bf16:ratio10m", run_id="r1"): [(R1, 0.2)],
    of("node:flopsd_threshold_share:max", node="n1", bound="measured"): bounds({**N1, **SHARE}, measured=0.02),
    of("node:flopsd_threshold_share:last", node="n1", bound="measured"): bounds({**N1, **SHARE}, measured=0.02),
    of("run:flopsd_threshold_share:ratio", run_id="r1"): bounds({**R1, **SHARE}, low=0.02, measured=0.04, high=0.06),
    of("run:flopsd_threshold_forecast:ratio14d", run_id="r1"): bounds({**R1, **SHARE}, low=0.02, measured=0.04),
    of("run:flopsd_threshold_reached:ratio", run_id="r1"): bounds({**R1, **SHARE}, measured=0.04),
    of("lineage:flopsd_node_flop:last", run_id="r0", basis="executed", bound="measured"):
        bounds({"lineage": "m", "run_id": "r0", "node": "n0", "basis": "executed"}, measured=1e15 * 50 * 60),
    # The ended run, and the two nodes of the other once each; not the recording.
    of("lineage:flopsd_run_flop:sum", basis="guidelines", bound="measured"):
        bounds({"lineage": "m", "basis": "guidelines"}, measured=1e15 * (50 * 60 + 2 * SECONDS)),
    of("lineage:flopsd_node_threshold_share:last", run_id="r0", bound="measured"):
        bounds({"lineage": "m", "run_id": "r0", "node": "n0", **SHARE}, measured=0.02),
    of("lineage:flopsd_threshold_share:ratio"): bounds({"lineage": "m", **SHARE}, low=0.03, measured=0.06),
    of("lineage:flopsd_threshold_reached:ratio"): bounds({"lineage": "m", **SHARE}, measured=0.06),
    of("lineage:flopsd_node_threshold_flop:last"): [],
    of("lineage:flopsd_threshold_forecast:ratio14d"): bounds({"lineage": "m", **SHARE}, low=0.03, measured=0.06),
    "fleet:flopsd_flop:rate5m": [({}, 2e15)],
    "fleet:flopsd_power_watts:rate5m": [({}, 1200)],
    "fleet:flopsd_devices:count": [({}, 2)],
    "fleet:flopsd_coverage:ratio1h": [({}, 1)],
}  # fmt: skip


def rounded(expected: Mapping[str, Sequence[tuple[Mapping[str, str], float]]]) -> dict[str, Any]:
    """promtool compares to the last bit: round large figures to a FLOP, shares to a thousandth."""
    return {
        f"round({expression}, {1 if any(value > 1e9 for _, value in samples) else 0.001})": samples
        for expression, samples in expected.items()
    }


@pytest.mark.tool("promtool")
def test_every_recording_rule_gives_its_value_without_double_counting(tmp_path: Path) -> None:
    found = str(list(EXPECTED))
    assert all(str(rule["record"]) in found for rule in rules(RULES)), "a rule without a test"
    missing = {**healthy("a", "r1", "n1", "G0"), **ends(healthy("b", "r1", "n2", "G1"), 60)}
    only_one = {"run_id": "r1", "replay": "false", "basis": "executed"}
    alone_r1 = {"run_id": "r1", "replay": "false", **SHARE}
    no_end = {
        **healthy("a", "r1", "n1", "G0"),
        **changed(healthy("b", "r1", "n2", "G1"), {'flopsd_threshold_ratio|"high"': None}),
    }

    def limits(*flop: str) -> World:
        two = {**healthy("a", "r1", "n1", "G0", more=OF_M), **healthy("b", "r2", "n2", "G1", more=OF_M)}
        return two | {
            f'flopsd_threshold_flop{{job="flopsd",instance="{at}"{OF_M},policy="p",rule="third",bound="low"}}': f"{one}x120"
            for at, one in zip("ab", flop, strict=True)
        }

    thirds, same = limits("2e24", "3e24"), limits("2e24", "2e24")
    unsure = changed(healthy(), {'flopsd_flop_total|precision="undeclared"': "0+60e15x120"})
    unmeasured = changed(healthy(), {'flopsd_threshold_ratio|"measured"': None})
    with_base = changed(
        {**healthy("a", "r1", "n1", "G0"), **healthy("b", "r1", "n2", "G1")}, {"flopsd_threshold_ratio": None}
    )
    with_base |= {
        f'flopsd_threshold_ratio{{job="flopsd",instance="{i}",policy="p",rule="r",quantity="base+updates",bound="{b}"}}':
        f"{share}x120" for i, share in (("a", 0.3), ("b", 0.4)) for b in ("low", "measured")
    }  # fmt: skip
    half_known = {
        **changed(healthy("a", "r1", "n1", "G0"), {'flopsd_threshold_ratio|"low"': "0.015x120"}),
        **changed(healthy("b", "r1", "n2", "G1"), {
            'flopsd_threshold_ratio|"measured"': None, 'flopsd_threshold_ratio|"low"': "0.03x120"}),
    }  # fmt: skip
    lone = healthy("a", "r1", "n1", "G0", more=OF_M)
    over = {name: values.replace("x120", "x60") for name, values in fleet().items()}
    moved = {
        **ends(healthy("old", "r1", "algo-1", "G0", more=OF_M), 50),
        **changed(
            {name: f"_x55 {values}" for name, values in healthy("new", "r1", "algo-1", "G1", more=OF_M).items()},
            {'flopsd_run_flop|executed|"measured"': "_x55 3600e15+60e15x70"},
        ),
    }
    earlier = {  # the next daemon start's samples for the GPU that it does not meter
        name.replace('instance="old"', 'instance="new"'): f"_x55 {_last(values)}x70"
        for name, values in moved.items()
        if 'instance="old"' in name and re.match(r"flopsd_\w+_(total|seconds_total|joules_total){.*uuid=", name)
    }
    lost = {
        name: values.replace("x120", "x60 " + _last(values.replace("x120", "x60")) + "x60")
        if re.match(r"flopsd_(flop|observed_seconds|energy_joules)_total", name)
        else values
        for name, values in healthy("a", "r1", "n1", "G0").items()
    }
    lost = changed(lost, {'flopsd_gap_seconds_total|starting"': "0x60 0+60x60"})
    used = 'flopsd_observed_seconds_total{job="flopsd",instance="%s",gpu="0",uuid="%s",evidence="utilization"}'
    bounded = changed(healthy("a", "r1", "n1", "G0"), {
        "flopsd_observed_seconds_total": "0+60x60 3600x60", used % ("a", "G0"): "0x60 0+60x60",
        "flopsd_flop_total|tensor_hmma": "0+60e15x60 3600e15x60",
    })  # fmt: skip
    never = changed(healthy("b", "r1", "n1", "G1"), {
        "flopsd_observed_seconds_total": None, used % ("b", "G1"): "0+60x120", "flopsd_flop_total|": None,
    })  # fmt: skip
    given_up = healthy("a", "r1", "n1", "G0") | {
        'flopsd_flop_total{job="flopsd",instance="a",gpu="0",uuid="G0",pipe="tensor_hmma",precision="bf16",'
        'evidence="operator_count"}': "1e18x97 5e17x23"
    }
    beside = {
        **healthy("a", "r1", "n1", "G0"),
        **{name: values if name.startswith("flopsd_peak") else f"{_last(values.replace('x120', 'x60'))}x120"
           for name, values in healthy("a", "r1", "n1", "G1").items() if 'uuid="G1"' in name},
    }  # fmt: skip
    emptied = anew(healthy("a", "r1", "n1", "G0"), 30)
    unseen = changed(emptied, {"process_start": "1000x30 _x20 4000x68"})
    unseen = {name: values if "x30 _" in values else f"{values.split('x')[0]}x120" for name, values in unseen.items()}
    restarted = changed(unseen, {"flopsd_daemon_starts": "1x30 _x20 2x68"})
    pods = {
        **ends(healthy("a", "r1", "n1", "G0"), 20),
        **{name: f"_x25 {values}" for name, values in ends(healthy("b", "r1", "n1", "G1"), 40).items()},
    }
    relabelled = {**ends(healthy("a", "r1", "n1", "G0"), 60), **healthy("a", "r1", "n1", "G0", more=OF_M)}
    total = {"lineage": "m", "basis": "executed", "bound": "measured"}
    second, at = healthy("n1/r1", "r2"), {name: name.replace("n1/r1", "n1/r2") for name in healthy("n1/r1", "r2")}
    taken_over = {
        **one_after_the_other(
            healthy("n1/r1", "r1"), {**second, 'flopsd_run_ended{job="flopsd",instance="n1/r1"}': "1x120"}, 60
        ),
        **{at[name]: f"_x61 {values}" for name, values in second.items()},
    }
    taken_over = {
        name.replace("up{", f'up{{run_id="{"r1" if "n1/r1" in name else "r2"}",node="n1",')
        if name.startswith("up{")
        else name: values
        for name, values in taken_over.items()
    }
    of_a_job = {
        name: "0x59 1" if name.startswith("flopsd_run_ended") else values
        for name, values in ends(healthy(), 60).items()
    }
    # Without `up` nothing is recorded, as while Prometheus is down.
    paused = {
        'instance:flopsd_run_ended:last{job="flopsd",instance="a"}': "1x10",
        'instance:flopsd_run:last{job="flopsd",instance="a",run_id="r1",node="n1",replay="false"}': "-30000x10",
        'up{job="flopsd",instance="a"}': "_x31 0x100",
    }
    labelled = {
        name.replace("up{", 'up{run_id="theirs",node="host-7",') if name.startswith("up{") else name: values
        for name, values in {**healthy("ns/a"), **healthy("ns/b", node="n2", gpu="G1")}.items()
    }
    handed_on = {
        name: values.replace(" stale", "")
        for name, values in {
            **one_after_the_other(healthy(), healthy(run="r2"), 90), **healthy("b", "other", "n2", "G1"),
        }.items()
    }  # fmt: skip
    twice = {**healthy(more=',replica="0"'), **healthy(more=',replica="1"')}
    machine = {
        re.sub(r"^(flopsd_run_info.*)node=", r"\1exported_node=", name).replace("{", '{node="machine",', 1): values
        for name, values in {**healthy("a"), **healthy("b", node="n2", gpu="G1")}.items()
    }
    shared = {**healthy(more=',pod="p1"'), **healthy(run="r2", gpu="G1", more=',pod="p2"')}
    idle = {"flopsd_flop_total|bf16": "0x120", "flopsd_energy": "0x120"}
    next_run = one_after_the_other(healthy(), changed(healthy(run="r2"), idle), 90)
    rates = ("device:flopsd_flop:rate5m", "device:flopsd_power_watts:rate5m", "device:flopsd_hfu:ratio5m",
             "run:flopsd_flop:rate5m", "run:flopsd_power_watts:rate5m")  # fmt: skip
    alone = [  # rules of instances named after their node and run compare these names as a whole
        Case("the fleet", fleet(), 100, EXPECTED),
        Case("a run that died, and another answers at the address that its file names", taken_over, 100, {
            "instance:flopsd_of_another_run:bool": [({"job": "flopsd", "instance": "n1/r1"}, 1)],
            "instance:flopsd_down:bool == 1": [({"job": "flopsd", "instance": "n1/r1"}, 1)],
            of("instance:flopsd_run:last", instance="n1/r1"): [
                ({"job": "flopsd", "instance": "n1/r1", "run_id": "r1", "node": "n1", "platform": "host",
                  "replay": "false"}, 60 * 60)],
            of("run:flopsd_run_flop:sum", basis="executed", bound="measured"):
                bounds({"run_id": "r2", "replay": "false", "basis": "executed"}, measured=1e15 * 39 * 60)}),
    ]  # fmt: skip
    cases = [
        Case("a node is gone: what it counted stays, and no upper bound is shown", missing, 100, {
            of("run:flopsd_run_flop:sum", basis="executed"):
                bounds(only_one, low=0.95e15 * (SECONDS + 60 * 60), measured=1e15 * (SECONDS + 60 * 60)),
            "run:flopsd_energy_joules:sum": [({"run_id": "r1", "replay": "false"}, 600 * (SECONDS + 60 * 60))],
            "run:flopsd_coverage:ratio": [],
            "run:flopsd_threshold_share:ratio": bounds(alone_r1, low=0.02, measured=0.04),
            "run:flopsd_nodes_gone:count": [({"run_id": "r1", "replay": "false"}, 1)]}),
        Case("long gone: still none", longer(missing, 450), 430, {
            of("run:flopsd_run_flop:sum", basis="executed", bound="high"): [],
            "run:flopsd_nodes_gone:count": [({"run_id": "r1", "replay": "false"}, 1)]}),
        Case("a node came back on an empty disk: no upper bound, later too", emptied, 100, {
            of("run:flopsd_run_flop:sum", basis="executed"):
                bounds({"run_id": "r1", "replay": "false", "basis": "executed"}, low=0.95e15 * 60 * 70, measured=1e15 * 60 * 70),
            of("run:flopsd_threshold_share:ratio", bound="high"): [],
            "run:flopsd_begun_anew:last": [({"run_id": "r1", "replay": "false"}, 1)]}),
        Case("the same while Prometheus did not see it, for longer than it had run", unseen, 100, {
            of("run:flopsd_run_flop:sum", basis="executed", bound="high"): [],
            "run:flopsd_begun_anew:last": [({"run_id": "r1", "replay": "false"}, 1)]}),
        Case("a later start of the same account", restarted, 100, {"run:flopsd_begun_anew:last": []}),
        Case("a target gets the label lineage, and both labels exist for a while", relabelled, 100, {
            "run:flopsd_begun_anew:last": [],
            of("run:flopsd_run_flop:sum", basis="executed", bound="high"):
                bounds({"lineage": "m", **only_one}, high=1.05e15 * SECONDS)}),
        Case("a pod that is gone, as is the one that it replaced: only the later address", pods, 100, {
            "instance:flopsd_down:bool == 1": [({"job": "flopsd", "instance": "b"}, 1)]}),
        Case("a pod that replaced another, and whose run ended", changed(pods, {
            'flopsd_run_ended|instance="b"': "_x25 0x39 1"}), 100, {"instance:flopsd_down:bool == 1": []}),
        Case("a node without an upper bound: the run has none", no_end, 100, {
            "run:flopsd_threshold_share:ratio": bounds(alone_r1, low=0.02, measured=0.04)}),
        Case("thirds of two base models do not add up", thirds, 100, {
            "lineage:flopsd_threshold_share:ratio": [], "lineage:flopsd_threshold_reached:ratio": []}),
        Case("the same threshold for both", same, 100, {
            of("lineage:flopsd_threshold_share:ratio", bound="measured"):
                bounds({"lineage": "m", **SHARE}, measured=0.04),
            of("lineage:flopsd_node_threshold_flop:last", run_id="r1"):
                bounds({"lineage": "m", "run_id": "r1", "node": "n1", "policy": "p", "rule": "third"}, low=2e24)}),
        Case("no share of a guessed peak", unsure, 100, {
            "device:flopsd_hfu:ratio5m": [], "run:flopsd_hfu:ratio5m": [],
            "run:flopsd_flop:rate5m": [({"run_id": "r1", "replay": "false"}, 2e15)]}),
        Case("nothing measured: what is certain, and it says so", unmeasured, 100, {
            "run:flopsd_threshold_reached:ratio": bounds({"run_id": "r1", "replay": "false", **SHARE}, low=0.01)}),
        Case("a node gives only what is certain, and that is more", half_known, 100, {
            "run:flopsd_threshold_reached:ratio": bounds({"run_id": "r1", "replay": "false", **SHARE}, low=0.045)}),
        Case("a lineage of one run says no more than the run", lone, 100, {"lineage:flopsd_threshold_reached:ratio": []}),
        Case("a lineage whose runs have all ended", over, 100, {
            "lineage:flopsd_threshold_reached:ratio": [],
            of("lineage:flopsd_threshold_share:ratio", bound="measured"):
                bounds({"lineage": "m", **SHARE}, measured=0.06)}),
        Case("a base model is counted once, and is then a lower bound", with_base, 100, {
            "run:flopsd_threshold_share:ratio":
                bounds({"run_id": "r1", "replay": "false", "policy": "p", "rule": "r", "quantity": "base+updates"}, low=0.4)}),
        Case("a run that ended is remembered for six hours where its target is gone", {**of_a_job, "other": "1x450"}, 430, {
            "instance:flopsd_run:last": [], "instance:flopsd_run_ended:last": []}),
        Case("a run that had ended before Prometheus paused for twenty minutes", paused, 60, {
            "instance:flopsd_run_ended:last": [({"job": "flopsd", "instance": "a"}, 1)],
            "instance:flopsd_down:bool": []}),
        Case("labels of the target's own, which are called as those of a run", labelled, 100, {
            "instance:flopsd_of_another_run:bool": [], "instance:flopsd_down:bool == 1": []}),
        Case("the run before is still there, as in what another Prometheus hands on", handed_on, 94, {
            of("run:flopsd_flop:rate5m", run_id="other"): [({"run_id": "other", "replay": "false"}, 1e15)],
            "sum by (run_id) (run:flopsd_nodes:count)": [({"run_id": "r2"}, 1), ({"run_id": "other"}, 1)]}),
        Case("two replicas of Prometheus, each with a label of its own", twice, 100, {
            "run:flopsd_flop:rate5m": [({"run_id": "r1", "replay": "false"}, 1e15)],
            "device:flopsd_hfu:ratio5m": [({"run_id": "r1", "replay": "false", "node": "n1", "gpu": "0", "uuid": "G0"}, 0.5)],
            "sum(device:flopsd_job_seconds:sum)": [({}, SECONDS)],
            "sum(device:flopsd_known_seconds:sum)": [({}, SECONDS)]}),
        Case("two pods, whose targets have a label node for the machine of both", machine, 100, {
            of("run:flopsd_run_flop:sum", basis="executed", bound="high"):
                bounds(only_one, high=2 * 1.05e15 * SECONDS),
            "run:flopsd_nodes:count": [({"run_id": "r1", "replay": "false"}, 2)],
            "instance:flopsd_down:bool == 1": []}),
        Case("two runs under one instance: no figure, rather than one run with those of both", shared, 100, {
            "run:flopsd_flop:rate5m": [], "run:flopsd_run_flop:sum": [], "instance:flopsd_down:bool == 1": []}),
        Case("an idle run where another one worked four minutes ago", next_run, 94, {
            f"sum by (run_id) ({rate})": [] if "power" in rate else [({"run_id": "r2"}, 0)] for rate in rates}),
        Case("a device without a reading: nothing is known of it, rather than 0", lost, 100, {
            **{rate: [] for rate in rates}, "device:flopsd_coverage:ratio5m": [({**R1_ALONE, **GPU}, 0)]}),
        Case("a device with only an upper bound: nothing is measured, rather than 0", bounded, 100, {
            rate: [] for rate in (*(one for one in rates if "power" not in one), "run:flopsd_flop_per_joule:ratio5m")}),
        Case("one beside it, which is not in the FLOP, is not in their joules either",
             healthy("a", "r1", "n1", "G0") | never, 100, {
            "run:flopsd_flop_per_joule:ratio5m": [(R1_ALONE, round(1e15 / 600))]}),
        Case("a process's count that is given up, at a restart", given_up, 100, {"device:flopsd_flop:rate5m": []}),
        Case("five minutes later", given_up, 104, {"device:flopsd_flop:rate5m": [({**R1_ALONE, **GPU}, 1e15)]}),
        Case("a device whose time is not this run's any more: no share of it, and it is not counted", beside, 100, {
            "run:flopsd_hfu:ratio5m": [(R1_ALONE, 0.5)], "run:flopsd_mfu_bf16:ratio10m": [(R1_ALONE, 0.2)],
            "sum by (run_id) (device:flopsd_job_seconds:sum)": [({"run_id": "r1"}, SECONDS + 3600)]}),
        Case("a run that goes on on another machine", moved, 100, {
            of("lineage:flopsd_run_flop:sum", basis="executed", bound="measured"): [
                (total, 3600e15 + 60e15 * 45)]}),
        Case("the same, which shows the devices of before too", moved | earlier, 100, {
            "run:flopsd_begun_anew:last": [],
            of("run:flopsd_run_flop:sum", basis="executed", bound="high"): bounds(
                {"lineage": "m", **only_one}, high=63e15 * 45)}),
    ]  # fmt: skip
    minutes = sorted({case.minute for case in cases})
    at_once = [together([case for case in cases if case.minute == minute]) for minute in minutes]
    done = promtool_says(tmp_path, [replace(case, expected=rounded(case.expected)) for case in (*alone, *at_once)])
    assert done.returncode == 0, done.stdout + done.stderr


MONITORING = RULES.parents[2] / "docs" / "monitoring.md"


@pytest.mark.tool("promtool")
def test_the_documented_joins_match(tmp_path: Path) -> None:
    """By the labels of dcgm-exporter 4 and kube-state-metrics 2."""
    whole, sliced, owned = re.findall(r"```promql\n(.+?)```", MONITORING.read_text(), re.S)
    at = 'job="flopsd",instance="a",namespace="ml",pod="train-0"'
    flop = 'pipe="tensor_hmma",precision="bf16",evidence="activity"'
    world = {
        f'flopsd_flop_total{{{at},gpu="0",uuid="GPU-0",{flop}}}': "0+48e15x20",
        f'flopsd_flop_total{{{at},gpu="1",uuid="MIG-1",{flop}}}': "0+48e14x20",
        f'flopsd_device_info{{{at},gpu="0",uuid="GPU-0",gpu_instance_id="",profile="",parent=""}}': "1x20",
        f'flopsd_device_info{{{at},gpu="1",uuid="MIG-1",gpu_instance_id="3",profile="1g.10gb",parent="GPU-1"}}': "1x20",
        'DCGM_FI_DEV_GPU_UTIL{job="dcgm",gpu="0",UUID="GPU-0",namespace="ml",pod="train-0",container="main"}': "90x20",
        'DCGM_FI_DEV_FB_USED{job="dcgm",gpu="1",UUID="GPU-1",GPU_I_ID="3",GPU_I_PROFILE="1g.10gb"}': "4096x20",
        'kube_pod_owner{job="ksm",namespace="ml",pod="train-0",owner_kind="Job",owner_name="train"}': "1x20",
    }
    expected: dict[str, list[tuple[dict[str, str], float]]] = {
        whole: [({"uuid": "GPU-0", "namespace": "ml", "pod": "train-0"}, 8e14)],
        sliced: [({"parent": "GPU-1", "gpu_instance_id": "3"}, 8e13)],
        owned: [({"namespace": "ml", "owner_name": "train"}, 8.8e14)],
    }
    done = promtool_says(tmp_path, [Case("joins", world, 15, expected)])
    assert done.returncode == 0, done.stdout + done.stderr
