"""The first difference between a recomputed document and the signed one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flopsd.core.ledger.devices import TextsOnly
from flopsd.errors import NotVerifiedError

MOST_SHOWN = 80  # characters of a value


def refuse_difference(
    again: Mapping[str, Any], signed: Mapping[str, Any], source: str, code: str = "statement_differs"
) -> None:
    """Raises NotVerifiedError if the signed statement differs from `again`, which was recomputed from `source`."""
    if again == signed and _has_the_same_flags(again, signed):  # the usual case, and fast
        return
    if json.dumps(again) == json.dumps(signed):  # equal as JSON: tuples and lists, for instance
        return
    difference = first_difference(again, signed, "statement")
    if difference is not None:
        raise NotVerifiedError(
            f"the ledger does not match {source}: {difference}", code=code, path=difference.partition(" ")[0]
        )


def _has_the_same_flags(again: Any, signed: Any) -> bool:
    """Whether two equal documents have true and false in the same places: for `==`, true equals 1."""
    pairs = [(again, signed)]
    while pairs:
        one, other = pairs.pop()
        for key, value in enumerate(one) if one.__class__ is list else one.items():
            kind = value.__class__
            if kind is str or value is None or kind is TextsOnly:  # most values are within `TextsOnly`
                continue
            if kind is dict or kind is list:
                pairs.append((value, other[key]))
            elif kind is not other[key].__class__ and bool in (kind, other[key].__class__):
                return False
    return True


def first_difference(expected: Any, found: Any, path: str) -> str | None:
    """The first difference between two JSON values, as text; None if they are equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if key not in expected or key not in found:
                return f"{path}.{key} is {'missing' if key not in found else 'a member that cannot be computed'}"
            if (difference := first_difference(expected[key], found[key], f"{path}.{key}")) is not None:
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{path} has {len(found)} entries, recomputed are {len(expected)}"
        pairs = enumerate(zip(expected, found, strict=True))
        return next((d for i, (a, b) in pairs if (d := first_difference(a, b, f"{path}[{i}]")) is not None), None)
    if type(expected) is not type(found) or expected != found:
        return f"{path} is {_shown(found)}, recomputed is {_shown(expected)}"
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"{text[:MOST_SHOWN]}…" if len(text) > MOST_SHOWN else text
