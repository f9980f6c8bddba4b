"""Tests the conditions of a rule against the declarations: True, False, or None for not known. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flopsd.core.declarations import Base, Method
from flopsd.core.model import PPM
from flopsd.core.notes import Note, note
from flopsd.core.policy.policy_file import Conditions

PRETRAINING_WITH_BASE = "pretraining_with_base"
_NO_METHOD = Note("method_not_declared")
_SYSTEMIC_OPEN = Note("base_systemic_not_declared")
_Answer = tuple[bool | None, tuple[Note, ...]]


def base_bounds(base: Base | None, margin_ppm: int) -> tuple[Fraction, Fraction | None]:
    """Bounds of the base model's compute as exact counts; (0, None) where nothing is known. An estimate E with a margin
    of 30 % stands for a true value in [0.7 E, 1.3 E] (Guidelines, paragraph 120)."""
    if base is None or base.flop is None:
        return Fraction(0), None
    if base.kind == "known":
        return Fraction(base.flop), Fraction(base.flop)
    return Fraction(base.flop * (PPM - margin_ppm), PPM), Fraction(base.flop * (PPM + margin_ppm), PPM)


def base_range(when: Conditions, base: Base | None, margin_ppm: int) -> tuple[Fraction, Fraction | None]:
    """Bounds of the base model's compute as exact counts if the rule applies, whatever is undeclared."""
    low, high = base_bounds(base, margin_ppm)
    if when.base_above_flop is not None:
        low = max(low, Fraction(when.base_above_flop))
    if when.base_not_above_flop is not None:
        most = Fraction(when.base_not_above_flop)
        high = most if high is None else min(high, most)
    return low, high


def applies_to(
    when: Conditions,
    method: Method | None,
    base: Base | None,
    margin_ppm: int,
    conflict: Sequence[str],
    methods: Sequence[Method | None],
) -> tuple[bool | None, tuple[Note, ...], bool]:
    """Whether the rule applies, why, and whether only the base model's systemic risk is open. `conflict` holds the
    codes of contradictions in the declared base model; `methods` are those of a sum's parts, None where undeclared."""
    found: list[_Answer | None] = [
        None if when.modification is None else _modification(when.modification, method, base, conflict),
        _method(when.methods, method, methods) if when.methods else None,
    ]
    if base is None:
        found.append((None, tuple(map(Note, conflict or ["base_not_declared"]))) if _depends_on_base(when) else None)
    else:
        found += [
            (base.kind in when.base_kinds, (Note(f"base_flop_{base.kind}"),)) if when.base_kinds else None,
            None if when.base_systemic is None else _systemic(when.base_systemic, base),
            _base_flop(when, base, margin_ppm),
        ]
    answers = [answer for answer in found if answer is not None]
    no = [why for holds, why in answers if holds is False]
    if no:
        return False, no[0], False
    unsure = tuple(dict.fromkeys(one for holds, why in answers if holds is None for one in why))
    if unsure:
        return None, unsure, unsure == (_SYSTEMIC_OPEN,)
    return True, tuple(dict.fromkeys(one for _, why in answers for one in why)) or (Note("every_account"),), False


def _depends_on_base(when: Conditions) -> bool:
    asked = (when.base_systemic, when.base_above_flop, when.base_not_above_flop)
    return bool(when.base_kinds) or any(one is not None for one in asked)


def _modification(wanted: bool, method: Method | None, base: Base | None, conflict: Sequence[str]) -> _Answer:
    if method is None:
        return None, (_NO_METHOD,)
    if method is Method.PRETRAINING:
        if base is not None or conflict:
            return None, tuple(map(Note, conflict or [PRETRAINING_WITH_BASE]))
        return not wanted, (Note("no_base_model"),)
    return wanted, (Note("base_modified"),)


def _method(wanted: Sequence[Method], method: Method | None, methods: Sequence[Method | None]) -> _Answer:
    """Open for a sum in which some parts have one of the wanted methods and others do not."""
    each = [one for one in methods or [method] if one is not None]
    if method is None or None in methods:
        return None, (_NO_METHOD,)
    within = {one in wanted for one in each}
    return within.pop() if len(within) == 1 else None, tuple(note("method_is", method=one.value) for one in each)


def _systemic(wanted: bool, base: Base) -> _Answer:
    if base.systemic is None:
        return None, (_SYSTEMIC_OPEN,)
    return base.systemic is wanted, (Note("base_systemic" if base.systemic else "base_not_systemic"),)


def _base_flop(when: Conditions, base: Base, margin_ppm: int) -> _Answer | None:
    above = when.base_above_flop is not None
    limit = when.base_above_flop if above else when.base_not_above_flop
    if limit is None:
        return None
    low, high = base_bounds(base, margin_ppm)
    if low > limit:
        return above, (note("base_above", flop=str(limit)),)
    if high is None or high > limit:
        return None, (note("base_above_not_known", flop=str(limit)),)
    return not above, (note("base_not_above", flop=str(limit)),)
