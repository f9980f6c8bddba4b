"""Whether a rule applies: its conditions against the declarations. True, False, or None for not known. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flopsd.core.declarations import Base, Method
from flopsd.core.model import PPM
from flopsd.core.policy.policy_file import Conditions
from flopsd.core.values import short_flop

NOT_DECLARED = "the base model is not declared"
NO_METHOD = "the method is not declared (--method), so whether a base model was modified is not known"
CONTRADICTION = "pretraining is declared and so is a base model: one of the two is not so"
_SYSTEMIC_OPEN = "whether the base model carries systemic risk is not declared"
_Answer = tuple[bool | None, str]


def base_bounds(base: Base | None, margin_ppm: int) -> tuple[Fraction, Fraction | None]:
    """Between which exact counts the base model's compute lies; (0, None) where nothing is known of it.

    An estimate E with a margin of 30 % stands for a true value in [0.7 E, 1.3 E] (Guidelines, paragraph 120).
    """
    if base is None or base.flop is None or base.kind not in ("known", "estimated"):
        return Fraction(0), None
    if base.kind == "known":
        return Fraction(base.flop), Fraction(base.flop)
    return Fraction(base.flop * (PPM - margin_ppm), PPM), Fraction(base.flop * (PPM + margin_ppm), PPM)


def base_range(when: Conditions, base: Base | None, margin_ppm: int) -> tuple[Fraction, Fraction | None]:
    """Between which exact counts the base model's compute lies if the rule applies, whatever is not declared."""
    low, high = base_bounds(base, margin_ppm)
    if when.base_above_flop is not None:
        low = max(low, Fraction(when.base_above_flop))
    if when.base_not_above_flop is not None:
        most = Fraction(when.base_not_above_flop)
        high = most if high is None else min(high, most)
    return low, high


def applies_to(
    when: Conditions, method: Method | None, base: Base | None, margin_ppm: int, conflict: str = ""
) -> tuple[bool | None, str, bool]:
    """Whether the rule applies, why, and whether only the base model's systemic risk is open.

    `conflict` names a contradiction in what is declared of the base model; empty: there is none.
    """
    answers = _answers(when, method, base, margin_ppm, conflict)
    no = [words for holds, words in answers if holds is False]
    if no:
        return False, no[0], False
    unsure = list(dict.fromkeys(words for holds, words in answers if holds is None))
    if unsure:
        return None, "; ".join(unsure), unsure == [_SYSTEMIC_OPEN]
    return True, "; ".join(dict.fromkeys(words for _, words in answers)) or "applies to every account", False


def _answers(
    when: Conditions, method: Method | None, base: Base | None, margin_ppm: int, conflict: str
) -> list[_Answer]:
    found: list[_Answer | None] = [
        None if when.modification is None else _modification(when.modification, method, base, conflict),
        _method(when.methods, method) if when.methods else None,
    ]
    if base is None:
        found.append((None, conflict or NOT_DECLARED) if _asks_of_base(when) else None)
    else:
        found += [
            _base_kind(when.base_kinds, base) if when.base_kinds else None,
            None if when.base_systemic is None else _systemic(when.base_systemic, base),
            _base_flop(when, base, margin_ppm),
        ]
    return [answer for answer in found if answer is not None]


def _asks_of_base(when: Conditions) -> bool:
    asked = (when.base_systemic, when.base_above_flop, when.base_not_above_flop)
    return bool(when.base_kinds) or any(one is not None for one in asked)


def _modification(wanted: bool, method: Method | None, base: Base | None, conflict: str) -> _Answer:
    if method is None:
        return None, NO_METHOD
    if method is Method.PRETRAINING:
        if base is not None or conflict:
            return None, conflict or CONTRADICTION
        return not wanted, "a model trained from the start: no base model"
    return wanted, "a base model was modified"


def _method(wanted: Sequence[Method], method: Method | None) -> _Answer:
    if method is None:
        return None, NO_METHOD
    return method in wanted, f"the method is {method.value}"


def _base_kind(wanted: Sequence[str], base: Base) -> _Answer:
    words = {
        "known": "the base model's compute is declared as known",
        "estimated": "the base model's compute is declared as an estimate",
        "unknown": "the base model's compute is declared as neither known nor estimable",
    }
    return base.kind in wanted, words.get(base.kind, f"the base model's compute is declared as {base.kind}")


def _systemic(wanted: bool, base: Base) -> _Answer:
    if base.systemic is None:
        return None, _SYSTEMIC_OPEN
    return base.systemic is wanted, f"the base model carries {'' if base.systemic else 'no '}systemic risk"


def _base_flop(when: Conditions, base: Base, margin_ppm: int) -> _Answer | None:
    above = when.base_above_flop is not None
    limit = when.base_above_flop if above else when.base_not_above_flop
    if limit is None:
        return None
    low, high = base_bounds(base, margin_ppm)
    if low > limit:
        return above, f"the base model's compute is above {short_flop(limit)} FLOP"
    if high is None or high > limit:
        return None, f"whether the base model's compute is above {short_flop(limit)} FLOP is not known"
    return not above, f"the base model's compute is not above {short_flop(limit)} FLOP"
