"""Parse the statement of a large merged ledger; its children are parsed one by one, each time they are iterated.

Parsed at once, the children of a job of 10,000 nodes take five times the memory of their text. A statement that is not
in the layout of `flopsd merge`, or has any fault, is parsed as a whole.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from typing import Any

from flopsd.core.untrusted import parse_json, refuse_too_many_values
from flopsd.errors import NotVerifiedError

MANY_BYTES = 1 << 20
_BEGIN, _END = b'\n  "children": [\n', b"\n  ]"
_AROUND = 3  # nesting depth of a child: the objects and lists around it


class ChildLines:
    """Children in the payload of a ledger, one on a line. `begins`: where each line begins, and one past the end."""

    def __init__(self, payload: bytes, begins: array[int]) -> None:
        self._payload, self._begins = payload, begins

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __iter__(self) -> Iterator[Any]:
        for line in self.lines():
            yield json.loads(line)

    def lines(self) -> Iterator[bytes]:
        """Each child's JSON, without the comma and the line end after it."""
        for begin, after in pairwise(self._begins):
            yield self._payload[begin : after - (1 if after == self._begins[-1] else 2)]


def parse_statement(payload: bytes, what: str, path: str = "") -> Any:
    """Like `parse_json`, but the children of a large merged ledger become `ChildLines`."""
    if len(payload) > MANY_BYTES:
        refuse_too_many_values(payload, what, path)
        try:
            found = _in_parts(payload)
        except NotVerifiedError:
            found = None  # `parse_json` below reports the first fault in the order of the text
        if found is not None:
            return found
    return parse_json(payload, what, path)


def _in_parts(payload: bytes) -> Any:
    """The statement with its `ChildLines`; None for another layout. Raises NotVerifiedError like `parse_json`."""
    begin = payload.find(_BEGIN) + len(_BEGIN)
    end = payload.find(_END, begin)
    if begin < len(_BEGIN) or end < 0:
        return None
    # Put the payload's digest in the place of the children. No text contains its own digest, so if the predicate then
    # has it as its children, these lines are the predicate's children, whatever the rest says.
    mark = sha256(payload).hexdigest()
    rest = b'%s"%s"%s' % (payload[: begin - 1], mark.encode("ascii"), payload[end:])
    found: Any = parse_json(rest, "")
    predicate = found.get("predicate") if isinstance(found, dict) else None
    if not isinstance(predicate, dict) or predicate.get("children") != [mark]:
        return None
    # A JSON string cannot contain a line end, so each line end here is between two values.
    begins = array("q")
    while begin <= end:
        begins.append(begin)
        begin = payload.find(b"\n", begin, end) + 1 or end + 1
    begins.append(end + 1)
    children = ChildLines(payload, begins)
    if any(payload[after - 2 : after - 1] != b"," for after in begins[1:-1]):
        return None
    for line in children.lines():
        parse_json(line, "", within=_AROUND)
    predicate["children"] = children
    return found
