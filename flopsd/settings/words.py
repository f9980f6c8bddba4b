"""Words for the codes of a ledger: the table that ships, and sentences made from a code with its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flopsd.core.notes import Note, note_of
from flopsd.core.values import short_flop
from flopsd.errors import ArchitectureError

_BETWEEN = " and "
ABSENT = "architectureAbsentReasons"
REASONS = "recovered.reasons"
TABLE = Path(__file__).resolve().parents[1] / "core" / "ledger" / "schema" / "words-v1.json"


@cache
def table() -> Mapping[str, Mapping[str, str]]:
    """For each member of the ledger, the words of each code, with the parameters in braces."""
    words: Mapping[str, Mapping[str, str]] = json.loads(TABLE.read_bytes())["words"]
    return words


class _Value(str):
    """A parameter: `{flop:flop}` shortens an exact count to 1e23, `{rules:or}` joins a list by "or"."""

    def __format__(self, how: str) -> str:
        if how == "or":
            return self.replace(_BETWEEN, " or ")
        return short_flop(int(self)) if how == "flop" and self.isdecimal() and len(self) <= 40 else str(self)


class _Values(dict[str, _Value]):
    """The parameters by name. A missing one is shown as its name, since the ledger may be from a newer flopsd."""

    def __missing__(self, name: str) -> _Value:
        return _Value(f"{{{name}}}")


def say(member: str, said: str | Note | Mapping[str, Any]) -> str:
    """A code of the member in words, as part of a sentence; a code that is not in the table stays as it is."""
    code, parameters = said, {}
    if isinstance(said, Note):
        said = said.for_ledger()
    if not isinstance(said, str):
        code = str(said.get("code", ""))
        parameters = {name: value for name, value in said.items() if name != "code"}
    words = table().get(member, {}).get(str(code))
    if words is None:
        return " ".join([str(code), *(f"{name}={_joined(value)}" for name, value in parameters.items())])
    values = _Values({name: _Value(_joined(value)) for name, value in parameters.items()})
    if "why" in parameters:  # the code of the note on which this one is based, and whose parameters it shares
        values["why"] = _Value(say(ABSENT, {"code": parameters.pop("why"), **parameters}))
    values.setdefault("who", _Value(_who(parameters)))
    job = f"job {values['job']}: " if "job" in parameters else ""
    return job + words.format_map(values)


def _who(parameters: Mapping[str, Any]) -> str:
    """`rank` and `node`, as far as given."""
    rank, node = parameters.get("rank"), parameters.get("node")
    return f"node {node}" if rank is None else f"rank {rank}" if node is None else f"rank {rank} ({node})"


def words_of(fault: ArchitectureError) -> str:
    return say(ABSENT, note_of(fault))


def say_all(member: str, said: Iterable[str | Note | Mapping[str, Any]], between: str = "; ") -> str:
    return between.join(say(member, one) for one in said)


def _joined(value: Any) -> str:
    return _BETWEEN.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
