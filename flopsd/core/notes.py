"""What a ledger states about its figures, as a code with parameters: verifiers compare it, words are for people. Pure.

The words of every code are in the table that ships (`ledger/schema/words-v1.json`), which `settings/words.py` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.errors import ArchitectureError


@dataclass(frozen=True, slots=True)
class Note:
    """A code of the table and its parameters by name, in their order: texts, or tuples of texts."""

    code: str
    parameters: tuple[tuple[str, str | tuple[str, ...]], ...] = ()

    def for_ledger(self) -> dict[str, Any]:
        said = {name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters}
        return {"code": self.code, **said}


def note(code: str, **parameters: str | tuple[str, ...]) -> Note:
    return Note(code, tuple(parameters.items()))


def note_of(fault: ArchitectureError) -> Note:
    return Note(fault.code, fault.parameters)


def with_reason(code: str, why: Note, **parameters: str) -> Note:
    """A note that rests on another: its code is the parameter `why`, and its parameters are this one's too."""
    return Note(code, (*parameters.items(), *(one for one in why.parameters if one[0] != "why"), ("why", why.code)))


def note_from(said: Mapping[str, Any], *beside: str) -> Note:
    """The inverse of `for_ledger`; `beside` are members that are none of the note. Raises KeyError, TypeError for what
    is not a note."""
    parameters = []
    for name, value in said.items():
        many = isinstance(value, list)
        if not all(isinstance(one, str) for one in (value if many else [value])):
            raise TypeError("a parameter of a note is not text")
        if name != "code" and name not in beside:
            parameters.append((name, tuple(value) if many else value))
    if not isinstance(said["code"], str):
        raise TypeError("the code of a note is not text")
    return Note(said["code"], tuple(parameters))


def is_note(said: object) -> bool:
    """Whether it is a note as a ledger has it, of a code that is known or of another, with texts for parameters."""
    return isinstance(said, dict) and "code" in said and all(isinstance(value, str) for value in said.values())


def notes_for_ledger(notes: Iterable[Note]) -> list[dict[str, Any]]:
    return [one.for_ledger() for one in notes]
