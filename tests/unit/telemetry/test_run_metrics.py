"""Metrics of thresholds and of the run are those of the status, as floats, and absent where that has none."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.declarations import NOTHING_DECLARED, Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.settings.data_files import load_policies
from flopsd.telemetry.families import Family
from flopsd.telemetry.run_metrics import figures
from flopsd.telemetry.status import facts_of
from tests.support.runs import A100, H100, STRANGER, Run

Rows = dict[tuple[str, ...], float]


def modified(base: Base | None) -> OperatorDeclarations:
    return OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.NONE, base)


def rows(families: Iterator[Family]) -> dict[str, Rows]:
    return {family.name: {tuple(values): number for values, number in family.rows} for family in families}


def bounds(name: str, figures: dict[str, Any]) -> Rows:
    found: Rows = {(name, bound): float(figures[bound] or "inf") for bound in ("low", "high")}
    return found | ({(name, "measured"): float(figures["measured"])} if figures["measured"] is not None else {})


@pytest.mark.parametrize("devices", [(H100,), (A100,), (H100, STRANGER)])
@pytest.mark.parametrize(
    "declared",
    [NOTHING_DECLARED, modified(Base("b", "known", 10**24, None, True)), modified(Base("b", "estimated", 10**14, None, False)),
     modified(Base("b", "known", 10**12, None, False)), OperatorDeclarations(Phase.EVALUATE, None, None, None)],
)  # fmt: skip
def test_the_figures_are_those_of_the_status(tmp_path: Path, devices: Any, declared: OperatorDeclarations) -> None:
    run = Run(tmp_path, devices=devices, declared=declared, policies=load_policies())
    run.meter(5)
    facts, found = facts_of(run.writer.snapshot), rows(figures(run.writer.snapshot))
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
        rule |= {(*name, one["title"], one["citation"], one["consequence"] or ""): 1}
        state |= {(*name, each): float(each == one["state"]) for each in ("below", "above", "indeterminate")}
        threshold |= {
            (*name, end): float(Fraction(one["threshold"][end])) for end in ("low", "high") if one["threshold"][end]
        }
        quantity, ppm = " or ".join(one["quantities"]), one["sharePpm"]
        share |= {(*name, quantity, bound): int(ppm[bound]) / 10**6 for bound in ppm if ppm[bound] is not None}
    assert rule
    assert [found[f"flopsd_{name}"] for name in ("rule_info", "verdict", "threshold_flop", "threshold_ratio")] == [
        rule, state, threshold, share,
    ]  # fmt: skip
