"""Dataclasses with less overhead at import and construction. Pure. ADR 35 gives the reasons."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen=False, slots=False):
        """As `dataclasses.dataclass`, except that only the type checker enforces `frozen`: a frozen class has a hash,
        but nothing at run time prevents setting a member."""

        def made(cls):
            cls = dataclasses.dataclass(repr=False, eq=False, slots=slots)(cls)
            compared = [field.name for field in dataclasses.fields(cls) if field.compare]
            cls._compared = attrgetter(*compared) if len(compared) > 1 else staticmethod(_tuple_getter(compared))
            own = {"__eq__": _equal, "__hash__": _hash if frozen else None, "__repr__": _shown}
            for name, method in own.items():
                if name not in cls.__dict__:
                    setattr(cls, name, method)
            return cls

        return made


def _tuple_getter(names: list[str]) -> Any:
    return lambda one: tuple(getattr(one, name) for name in names)


def _equal(self: Any, other: Any) -> Any:
    return self._compared(self) == self._compared(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _shown(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"
