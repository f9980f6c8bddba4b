"""Statements of a ledger about its figures, as codes with parameters: verifiers compare codes, people read words. Pure.

The wording of every code is in `ledger/schema/words-v1.json`, which ships with flopsd and `settings/words.py` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.errors import ArchitectureError


@dataclass(frozen=True, slots=True)
class Note:
    """A code of the table and its named parameters in order; each is a text or a tuple of texts."""

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
    """A note based on another one: the other's code becomes the parameter `why`, and its parameters are copied."""
    return Note(code, (*parameters.items(), *(one for one in why.parameters if one[0] != "why"), ("why", why.code)))


def note_from(said: Mapping[str, Any], *beside: str) -> Note:
    """The inverse of `for_ledger`; `beside` are members that do not belong to the note. Raises KeyError or ValueError
    on anything else."""
    parameters = []
    for name, value in said.items():
        many = isinstance(value, list)
        if not all(isinstance(one, str) for one in (value if many else [value])):
            raise ValueError("a parameter of a note is not text")
        if name != "code" and name not in beside:
            parameters.append((name, tuple(value) if many else value))
    if not isinstance(said["code"], str):
        raise ValueError("the code of a note is not text")
    return Note(said["code"], tuple(parameters))


def is_note(said: object) -> bool:
    """Whether `said` has the form of a note in a ledger, its code known or not, with texts as parameters."""
    return isinstance(said, dict) and "code" in said and all(isinstance(value, str) for value in said.values())


def notes_for_ledger(notes: Iterable[Note]) -> list[dict[str, Any]]:
    return [one.for_ledger() for one in notes]
