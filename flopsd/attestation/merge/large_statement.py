"""The statement of a large merged ledger, whose children are parsed one by one, each time that they are asked for.

Parsed at once, the children of a job of 10,000 nodes take five times the memory of their text. What is not a layout of
`flopsd merge`, or not right in any way, is parsed as a whole.
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
_AROUND = 3  # objects and lists that a child is in


class ChildLines:
    """Children in the payload of a ledger, each on a line of its own from `begins` to one before the next."""

    def __init__(self, payload: bytes, begins: array[int]) -> None:
        self._payload, self._begins = payload, begins

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __iter__(self) -> Iterator[Any]:
        for line in self.lines():
            yield json.loads(line)

    def lines(self) -> Iterator[bytes]:
        """Each without the comma and the line end behind it."""
        for begin, after in pairwise(self._begins):
            yield self._payload[begin : after - (1 if after == self._begins[-1] else 2)]


def parse_statement(payload: bytes, what: str, path: str = "") -> Any:
    """As `parse_json`, with `ChildLines` for the children of a large merged ledger."""
    if len(payload) > MANY_BYTES:
        refuse_too_many_values(payload, what, path)
        try:
            found = _in_parts(payload)
        except NotVerifiedError:
            found = None  # whose first fault is to be found in its order
        if found is not None:
            return found
    return parse_json(payload, what, path)


def _in_parts(payload: bytes) -> Any:
    """None for another layout. Raises NotVerifiedError as `parse_json`."""
    begin = payload.find(_BEGIN) + len(_BEGIN)
    end = payload.find(_END, begin)
    if begin < len(_BEGIN) or end < 0:
        return None
    # Whatever the rest means, the children are those of the predicate if the predicate has this in their place: no
    # text contains its own digest.
    mark = sha256(payload).hexdigest()
    rest = b'%s"%s"%s' % (payload[: begin - 1], mark.encode("ascii"), payload[end:])
    found: Any = parse_json(rest, "")
    predicate = found.get("predicate") if isinstance(found, dict) else None
    if not isinstance(predicate, dict) or predicate.get("children") != [mark]:
        return None
    # A text of JSON has no line end, so that each of these is between two values.
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
