"""What a command did with a vector, held against what is expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from conformance.vectors import ROWS, Vector

ACCEPTED, REFUSED, IN_PART = 0, 3, 5
PASSED, PARTLY, FAILED = "passed", "in part", "failed"
OF_FIGURES = ("statement_differs", "child_differs")  # refused for a figure that it computed otherwise


@dataclass(frozen=True)
class Outcome:
    """Of one vector: `passed`, `in part` or `failed`, and why; `code` and `path` are those of the command."""

    vector: Vector
    result: str
    why: str
    code: str | None = None
    path: str | None = None

    def as_json(self) -> dict[str, Any]:
        expected = self.vector.expected
        return {
            "vector": self.vector.name, "clause": expected["clause"], "result": self.result, "why": self.why,
            "code": self.code, "path": self.path, "expectedCode": expected["code"], "expectedPath": expected["path"],
        }  # fmt: skip


def judge(vector: Vector, status: int, stdout: bytes, predicate: Any = None) -> Outcome:
    """`predicate`: that of the vector's payload, which a computed one must equal; None: it cannot be read."""
    expected = vector.expected
    try:
        said = json.loads(stdout)
    except ValueError:
        said = None
    if status not in (ACCEPTED, REFUSED, IN_PART):
        return Outcome(vector, FAILED, f"no verdict: exit status {status}")
    if not isinstance(said, dict):
        return Outcome(vector, FAILED, "no JSON object on stdout")
    code, path, left_out = said.get("code"), said.get("path"), said.get("notVerified") or []
    path = path if isinstance(path, str) else None

    def outcome(result: str, why: str = "") -> Outcome:
        return Outcome(vector, result, why, code if isinstance(code, str) else None, path)

    if said.get("verified") is not (status == ACCEPTED):
        return outcome(FAILED, f"`verified` is {said.get('verified')!r} with exit status {status}")
    computed = said.get("predicate")
    compares = status != REFUSED and computed is not None and predicate is not None
    if compares and (where := difference(computed, predicate)) is not None:
        why = f"the predicate that it computed is not that of the payload, first at {where}"
        return outcome(FAILED, why + rows_of(vector))
    if status == IN_PART:
        if not isinstance(left_out, list) or not left_out or not all(isinstance(one, str) for one in left_out):
            return outcome(FAILED, "accepted in part, and `notVerified` does not say which")
        if expected["verdict"] == "accept" or is_below(expected["path"], left_out):
            return outcome(PARTLY, "not verified: " + ", ".join(left_out[:8]) + (" …" if left_out[8:] else ""))
        return outcome(FAILED, f"accepted in part; it breaks {expected['clause']}")
    if expected["verdict"] == "accept":
        if status == ACCEPTED:
            return outcome(PASSED)
        where, rows = f" at {path}" if path else "", rows_of(vector) if code in OF_FIGURES else ""
        return outcome(FAILED, f"refused ({code}{where}); it is valid{rows}")
    if status == ACCEPTED:
        return outcome(FAILED, f"accepted; it breaks {expected['clause']}")
    if code != expected["code"]:
        return outcome(FAILED, f"refused for {code!r}, not for {expected['code']!r}")
    return outcome(PASSED)


def is_below(path: str | None, paths: list[str]) -> bool:
    return path is not None and any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in paths)


def rows_of(vector: Vector) -> str:
    """Where the figures of the vector are taken apart, if they are."""
    return f"; what they are made of: {vector.name}/{ROWS}" if (vector.folder / ROWS).is_file() else ""


def difference(one: Any, other: Any, path: str = "predicate") -> str | None:
    """The first place where two JSON values differ, None where they are equal; true is no 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**other, **one}:
            if name not in one or name not in other:
                return f"{path}.{name}"
            if (found := difference(one[name], other[name], f"{path}.{name}")) is not None:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        parts = (difference(*pair, f"{path}[{at}]") for at, pair in enumerate(zip(one, other, strict=True)))
        return next((found for found in parts if found is not None), None)
    return None if type(one) is type(other) and bool(one == other) else path
