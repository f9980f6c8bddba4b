"""What several ledgers declare, taken together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flopsd.core.declarations import Base, Method, base_from
from flopsd.core.policy.conditions import CONTRADICTION

DIFFERENT = "the ledgers declare different base models, so none is taken"
_AND = "; "


@dataclass(slots=True)
class MergedDeclarations:
    """Declarations of the children of a merged ledger, in any order."""

    _methods: set[str | None] = field(default_factory=set)
    _bases: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _differ: bool = False  # those of one child do already

    def add(self, declared: Mapping[str, Any]) -> None:
        """One child's. Raises KeyError, TypeError or ValueError where it is none."""
        method, base = declared["method"], declared["base"]
        self._methods.add(None if method is None else Method(method).value)
        if (parsed := base_from(base)) is not None:
            self._bases[repr(parsed)] = base
        self._differ = self._differ or DIFFERENT in (declared.get("conflict") or "").split(_AND)

    @property
    def method(self) -> Method | None:
        """Of the whole. Where the pretraining is in the account it is that; all else is a modification if known."""
        if Method.PRETRAINING.value in self._methods:
            return Method.PRETRAINING
        if None in self._methods or not self._methods:
            return None
        declared = {method for method in self._methods if method is not None}
        return Method(declared.pop()) if len(declared) == 1 else Method.FULL

    @property
    def base(self) -> Base | None:
        return base_from(self._base)

    @property
    def conflict(self) -> str:
        """What the children say of the base model that cannot all be so; empty: nothing."""
        differ = self._differ or len(self._bases) > 1
        found = [DIFFERENT] if differ else []
        if (differ or self._bases) and self.method is Method.PRETRAINING:
            found.append(CONTRADICTION)
        return _AND.join(found)

    @property
    def _base(self) -> Mapping[str, Any] | None:
        return next(iter(self._bases.values())) if len(self._bases) == 1 and not self._differ else None

    def for_ledger(self) -> dict[str, Any]:
        return {
            "method": None if self.method is None else self.method.value,
            "base": None if self._base is None else dict(self._base),
            "conflict": self.conflict or None,
        }
