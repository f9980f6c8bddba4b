"""What a command did with a vector, held against what is expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from conformance.vectors import Vector

ACCEPTED, REFUSED, IN_PART = 0, 3, 5
PASSED, PARTLY, FAILED = "passed", "in part", "failed"


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
    if status != REFUSED and computed is not None and predicate is not None and not equal(computed, predicate):
        return outcome(FAILED, "the predicate that it computed is not that of the payload")
    if status == IN_PART:
        if not isinstance(left_out, list) or not left_out or not all(isinstance(one, str) for one in left_out):
            return outcome(FAILED, "accepted in part, and `notVerified` does not say which")
        if expected["verdict"] == "accept" or is_below(expected["path"], left_out):
            return outcome(PARTLY, "not verified: " + ", ".join(left_out[:8]) + (" …" if left_out[8:] else ""))
        return outcome(FAILED, f"accepted in part; it breaks {expected['clause']}")
    if expected["verdict"] == "accept":
        return outcome(PASSED) if status == ACCEPTED else outcome(FAILED, f"refused ({code}); it is valid")
    if status == ACCEPTED:
        return outcome(FAILED, f"accepted; it breaks {expected['clause']}")
    if code != expected["code"]:
        return outcome(FAILED, f"refused for {code!r}, not for {expected['code']!r}")
    return outcome(PASSED)


def is_below(path: str | None, paths: list[str]) -> bool:
    return path is not None and any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in paths)


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is no 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)
