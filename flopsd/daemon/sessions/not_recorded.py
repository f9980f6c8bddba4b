"""The mark of a run that does not record all declarations of its processes: a fact of one of them (docs/adr/0037)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.declarations import Phase
from flopsd.core.declared_facts import MAX_LEFT_OUT

_FACT, _PHASE = "not_counted", Phase.TRAIN.value
_WORDS = "processes, facts and counters beyond what flopsd records of a run"


def is_marked(facts: Mapping[str, Any]) -> bool:
    return _WORDS in facts.get(_FACT, {}).get(_PHASE, ())


def marked(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts with the mark added; if there is no room, it replaces one text of the process."""
    named = facts.get(_FACT, {})
    texts = sorted({_WORDS, *named.get(_PHASE, ())[: MAX_LEFT_OUT - 1]})
    return {**facts, _FACT: {**named, _PHASE: texts}}
