"""The `rows.json` of a vector, written by the second implementation, contains flopsd's own rows and sums."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from conformance.run import predicate_of
from conformance.vectors import ROWS, Vector
from flopsd.core.figures import Figures, sum_by_key
from flopsd.core.ledger.energy import compared
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.rated_tally import RatedTally
from flopsd.core.ledger.run_view import DeviceView, RunView, view_of
from flopsd.core.ledger.unended import as_of
from flopsd.core.model import ChipLimits, Limits
from flopsd.core.rows import Row
from flopsd.core.values import ceil_div, joules, seconds
from tests.make_vectors.files import parsed
from tests.second_implementation.rows import VECTORS as NAMES
from tests.support.story import table
from tests.support.vector_arguments import published

J = dict[str, Any]
WITH_ROWS = [vector for vector in published() if (vector.folder / ROWS).is_file()]
OF_RUNS = [vector for vector in WITH_ROWS if vector.name.startswith("valid/")]
NOT_IN_FLOPSD = ("cycles", "rates")  # the inputs of a row: its figures follow from these


def read(vector: Vector) -> J:
    found: J = json.loads((vector.folder / ROWS).read_bytes())
    return found


def view(vector: Vector) -> RunView:
    records = (line.record() for line in parsed((vector.folder / "ledger.journal.jsonl").read_bytes()))
    return view_of(as_of(read_history(records), predicate_of(vector)["method"]["sealedAt"]), table())


def text(n: int | None) -> str | None:
    return None if n is None else str(n)


def said(one: Figures) -> J:
    return {"low": str(one.low_flop), "measured": text(one.measured_flop), "high": text(one.high_flop)}


def phases(*parts: Mapping[str, Figures]) -> J:
    return {phase: said(one) for phase, one in sum_by_key(parts).items()}


def without(part: Any) -> Any:
    """The part without the members that flopsd's rows do not keep."""
    if isinstance(part, dict):
        return {name: without(one) for name, one in part.items() if name not in NOT_IN_FLOPSD}
    return [without(one) for one in part] if isinstance(part, list) else part


def tally_said(one: RatedTally) -> J:
    limits = one.rating.limits
    chip = limits if isinstance(limits, ChipLimits) else None
    return {
        "incarnation": one.start,
        "device": one.uid,
        "peakRow": one.rating.part and one.rating.part.id,
        "smsMhz": str(limits.sm_count * limits.sm_clock_max_mhz) if isinstance(limits, Limits) else None,
        "flopPerSecond": chip and text(chip.flop_per_s),
        "integerOperationsPerSecond": chip and text(chip.integer_per_s),
        "rows": sorted(map(row_said, one.rows), key=order),
        "executed": said(one.figures),
        "integerOperations": said(one.integers),
        "byPhase": phases(one.by_phase.recorded),
    }


def row_said(row: Row) -> J:
    return {
        "share": row.bucket, "evidence": row.evidence.value, "pipe": row.pipe and row.pipe.value,
        "precision": row.precision, "seconds": seconds(row.duration_ns), "smCycles": str(row.sm_cycles),
        "marginPpm": text(row.margin_ppm), "flop": said(row.figures), "integerOperations": said(row.integers),
        "clockUncertaintyFlop": str(row.clock_uncertainty_flop), "mayBeInteger": row.may_be_integer,
    }  # fmt: skip


def order(row: J) -> tuple[str, ...]:
    return row["share"], row["evidence"], row["pipe"] or ""


def count_said(device: DeviceView) -> J:
    assert device.count is not None
    return {
        "device": device.device.uid,
        "counted": {phase: str(flop) for phase, flop in device.count.flop.items()},
        "without": said(device.read.whole),
        "room": text(device.read.unmeasured_high),
        "rows": [{"phase": row.phase, "flop": said(row.figures)} for row in device.operator_rows],
    }


def energy_said(devices: Iterable[DeviceView]) -> list[J]:
    return [
        {
            "device": device.device.uid, "part": of.part, "precision": of.precision,
            "energyJoules": joules(one.energy_mj), "deviceSeconds": seconds(one.device_ns),
            "measuredFlop": str(one.measured_flop), "doubtFlop": str(one.doubt_flop),
        }
        for device in devices
        for of, one in compared([device]).items()
    ]  # fmt: skip


def test_all_vectors_that_need_rows_have_them() -> None:
    assert sorted(vector.name for vector in WITH_ROWS) == sorted(NAMES)


@pytest.mark.parametrize("vector", OF_RUNS, ids=lambda one: one.name.partition("/")[2])
def test_rows_and_sums_match_flopsds(vector: Vector) -> None:
    found, run, predicate = read(vector), view(vector), predicate_of(vector)
    assert without(found["tallies"]) == [tally_said(one) for one in run.rated]
    by_uid = sorted(run.devices, key=lambda one: one.device.uid)
    assert found.get("operatorCount", []) == [count_said(one) for one in by_uid if one.count is not None]
    assert found.get("energy", []) == energy_said(by_uid)
    totals = predicate["totals"]
    assert found["executed"] == {name: totals["executed"][name] for name in found["executed"]} == said(run.figures)
    assert found["integerOperations"] == said(run.integers)
    assert found["byPhase"] == totals["executed"]["byPhase"]
    stated, operators = found["guidelines"], [one.counted_by_phase for one in run.devices if one.operator_rows]
    flop, integers = [one.by_phase for one in run.rated], [one.integers_by_phase for one in run.rated]
    assert stated["requiredPpm"] == totals["guidelines"]["requiredPpm"]
    assert stated["bySettings"] == phases(*(one.settings for one in [*flop, *operators]))
    assert stated["measured"] == phases(*(one.measured for one in [*flop, *operators]))
    claimed = phases(*(one.claimed for one in [*flop, *operators]))
    assert stated["asClaimed"] == (claimed if totals["guidelines"]["asClaimed"] else None)
    assert stated["integerOperations"]["bySettings"] == phases(*(one.settings for one in integers))
    assert stated["integerOperations"]["measured"] == phases(*(one.measured for one in integers))


def test_the_figures_of_each_row_follow_from_its_cycles_rates_and_margin() -> None:
    """By [ROW-2], [ROW-3], [ROW-5] and [ROW-6], whichever implementation made the row."""
    seen = set()
    for vector in OF_RUNS:
        for tally in read(vector)["tallies"]:
            for row in tally["rows"]:
                if row["evidence"] != "count" and tally["peakRow"] is not None:
                    seen |= {follows(tally, row, name) for name in ("flop", "integerOperations")}
    assert seen == {"pipe", "unread", "busy", "gap", "chip", "unbounded"}


def follows(tally: J, row: J, name: str) -> str:
    cycles, rates, figures = row["cycles"], row[name]["rates"], row[name]
    m, high, bound = int(row["marginPpm"] or 0), figures["high"], rates["high"]
    if cycles["measured"] is not None:
        low = int(cycles["low"]) * int(rates["low"] or 0) * (10**6 - m) // 10**6
        assert int(figures["low"]) == low
        assert figures["measured"] == text(rates["measured"] and int(cycles["measured"]) * int(rates["measured"]))
        assert high == text(bound and ceil_div(int(cycles["high"]) * int(bound) * (10**6 + m), 10**6))
        return "pipe"
    assert (figures["low"], figures["measured"]) == ("0", None)
    if high is None:
        return "unbounded"
    if cycles["high"] is not None:
        assert int(high) == int(cycles["high"]) * int(bound)
        return "unread" if row["pipe"] else "busy"
    ns = int(row["seconds"].replace(".", ""))
    if tally["smsMhz"] is None:
        of_chip = tally["flopPerSecond" if name == "flop" else "integerOperationsPerSecond"]
        assert int(high) == ceil_div(ns * int(of_chip), 10**9)
        return "chip"
    assert int(high) == ceil_div(ns * int(tally["smsMhz"]) * int(bound), 1000)
    return "gap"


def test_models_add_up_to_flopsds_architecture_basis() -> None:
    walked = 0
    for vector in OF_RUNS:
        totals = predicate_of(vector)["totals"]
        models = read(vector).get("models", [])
        assert bool(models) == (totals["architecture"] is not None), vector.name
        for model in models:
            assert len(models) == 1
            required, by_training = model["required"], model["executedByTraining"]
            assert required == {name: totals["architecture"][name] for name in required}
            assert model["executed"] == totals["architecture"]["executed"]
            if vector.name.startswith("valid/model-"):
                share = int(required["computed"]) * 10**6 // int(by_training["computed"])
                assert totals["guidelines"]["requiredPpm"]["stated"] == str(share)
            for walk in model.get("walks", ()):
                walked += 1
                total = sum(int(walk[name]) for name in ("forward", "inputs", "weights"))
                aside = model["forwardPasses"].get("other", {}).get(walk["level"], "0")
                assert required[walk["level"]] == str(total + (0 if walk["level"] == "low" else int(aside)))
    assert walked == 9


def test_children_add_up_to_flopsds_totals() -> None:
    merged = [vector for vector in WITH_ROWS if vector not in OF_RUNS]
    for vector in merged:
        found, totals = read(vector), predicate_of(vector)["totals"]
        counted = totals["guidelines"]
        of_all = {name: totals[name] for name in ("executed", "integerOperations")}
        of_all |= {"updates": counted, "cumulative": counted["cumulative"]}
        for name, sums in found["sums"].items():
            for of in ("low", "measured", "high") if found["complete"] else ("low", "measured"):
                assert sums[of] == of_all[name][of], (vector.name, name, of)
            assert found["complete"] or of_all[name]["high"] is None
            lows = [int(child[name]["low"]) for child in found["children"]]
            assert str(sum(lows)) == sums["low"]
    assert {read(vector)["complete"] for vector in merged} >= {True, False}
