"""Why a rule applies and on what that depends, by docs/ledger-codes.md."""

import json
from fractions import Fraction
from typing import Any

J = dict[str, Any]
ORDER = ("modification", "method", "base.kind", "base.systemic", "base.flop")


def note(code: str, **parameters: object) -> J:
    return {"code": code, **parameters}


def once(notes: list[J]) -> list[J]:
    return list({json.dumps(one, sort_keys=True): one for one in notes}.values())


def of_conditions(
    rule: J, conditions: J, applies: bool | None, method: str | None, base: J | None, conflict: tuple[str, ...],
    methods: tuple[str | None, ...],
) -> list[J]:  # fmt: skip
    if not conditions:
        return [note("every_account")]
    names = [name for name in ORDER if name in conditions and conditions[name] is applies]
    names = names[:1] if applies is False else names
    return once(
        [one for n in names for one in _of_one(n, rule["when"], conditions[n], method, base, conflict, methods)]
    )


def _of_one(
    name: str, when: J, holds: bool | None, method: str | None, base: J | None, conflict: tuple[str, ...],
    methods: tuple[str | None, ...],
) -> list[J]:  # fmt: skip
    if name == "modification" and method == "pretraining":
        return (
            [note(code) for code in conflict or ("pretraining_with_base",)]
            if holds is None
            else [note("no_base_model")]
        )
    if (name == "modification" and method is None) or (name == "method" and None in methods):
        return [note("method_not_declared")]
    if name == "method":
        return [note("method_is", method=one) for one in methods]
    if name == "modification":
        return [note("base_modified")]
    if base is None:
        return [note(code) for code in conflict or ("base_not_declared",)]
    if name == "base.kind":
        return [note(f"base_flop_{base['kind']}")]
    if name == "base.systemic":
        codes = {None: "base_systemic_not_declared", True: "base_systemic", False: "base_not_systemic"}
        return [note(codes[base["systemic"]])]
    ((which, limit),) = when[name].items()
    whole, _, parts = str(limit).partition("/")
    flop = str(Fraction(whole) / int(parts or 1))
    if holds is None:
        return [note("base_above_not_known", flop=flop)]
    return [note("base_above" if (which == "above") is holds else "base_not_above", flop=flop)]


def of_state(found: J, *, lowered: bool, whole: bool) -> list[J]:
    """`lowered`: it would be above if it applied."""
    if lowered:
        return [note("above_if_it_applies")]
    if found["state"] != "indeterminate":
        return []
    if not whole:
        return [note("account_not_whole")]
    if found["value"]["high"] is None:
        return [note("no_upper_bound")]
    if found["threshold"]["high"] is None:
        return [note("threshold_not_known")]
    same = found["threshold"]["low"] == found["threshold"]["high"]
    return [note("threshold_between" if same else "both_answers")]


def of_derived(own: list[J], applies: bool | None, names: list[str], sources: list[J]) -> list[J]:
    """`own`: the notes of its `when`; `names` and `sources`: those of the remaining rules, none where none applies."""
    if applies is True:
        return [note("as_rules", rules=names), *sources[0]["reasons"]]
    return once([*own, *sources[0]["reasons"]])
