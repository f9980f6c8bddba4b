"""The codes of docs/ledger-codes.md."""

from collections.abc import Iterable
from typing import Any

J = dict[str, Any]
METHODS = ("cycles", "activity", "count", "operator_count", "none")
OF_NODE = [
    "fma_is_two_and_dense", "measured_is_cycles_times_rate", "undeclared_format", "claims_narrow_nothing",
    "phase_for_whole_reading", "integers_beside_flop", "low_without_bounded", "high_with_margins_and_ceilings",
    "unrated_pipe", "energy_by_counters", "utilization_is_a_ceiling", "cycles_run_on", "clock_of_activity",
    "count_is_the_vendors", "operators_are_the_processes_word",
]  # fmt: skip
OF_SUM = [
    "sums_are_exact", "guidelines_need_all", "missing_has_no_ceiling", "energy_of_counted", "device_names",
    "times_of_boots",
]  # fmt: skip


def methods(found: Iterable[str]) -> list[str]:
    known = set(found)
    return [name for name in METHODS if name in known] or ["none"]


def claim(kind: str, *, segment: bool = False) -> J:
    limits = ["false_driver", "executed_is_not_counted", "no_legal_advice"]
    limits += ["segment"] if segment else []
    limits += ["lineage_is_declared"] if kind == "lineage" else []
    return {"states": "read_from_the_driver" if kind == "node" else "sum_of_ledgers", "limits": limits}


def share_source(
    settings: J, method: str | None, how: str | None, *, by_model: bool, by_operators: bool, fused: bool
) -> list[str]:
    """The sources from which the counted share follows."""
    found = [how or "not_declared"]
    if how == "full" and method in ("pretraining", "full", "lora", "qlora"):
        found = [f"full_{method}"]
    is_stated = how == "none" or found[0].startswith("full_")
    found += ["model_terms"] if by_model and is_stated else []
    found += ["operators_again"] if by_operators and settings.get("recomputation") in (None, "selective") else []
    found += ["processes_word"] if how and not settings.get("recomputation") else []
    found += ["fused_head"] if fused and settings.get("recomputation") == "none" else []
    return found
