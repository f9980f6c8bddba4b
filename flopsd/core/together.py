"""What several ledgers declare, taken together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flopsd.core.declared import Base, Method, base_from

CONFLICT = "the ledgers declare different base models, so none is taken"


@dataclass(slots=True)
class Together:
    """Declarations of the children of a merged ledger, in any order."""

    _methods: set[str | None] = field(default_factory=set)
    _bases: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, declared: Mapping[str, Any]) -> None:
        """One child's. Raises KeyError, TypeError or ValueError where it is none."""
        method, base = declared["method"], declared["base"]
        self._methods.add(None if method is None else Method(method).value)
        if (parsed := base_from(base)) is not None:
            self._bases[repr(parsed)] = base

    @property
    def method(self) -> Method | None:
        """Of the whole. Whose pretraining is in the account has no base; all else is a modification if it is known."""
        if Method.PRETRAINING.value in self._methods:
            return Method.PRETRAINING
        if None in self._methods or not self._methods:
            return None
        told = {method for method in self._methods if method is not None}
        return Method(told.pop()) if len(told) == 1 else Method.FULL

    @property
    def base(self) -> Base | None:
        return base_from(self._base)

    @property
    def _base(self) -> Mapping[str, Any] | None:
        if self.method is Method.PRETRAINING or len(self._bases) != 1:
            return None
        return next(iter(self._bases.values()))

    def for_ledger(self) -> dict[str, Any]:
        conflict = len(self._bases) > 1 and self.method is not Method.PRETRAINING
        return {
            "method": None if self.method is None else self.method.value,
            "base": None if self._base is None else dict(self._base),
            "conflict": CONFLICT if conflict else None,
        }
