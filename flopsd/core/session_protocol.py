"""The protocol between a training process and the daemon: decodes lines into events. Pure.

A line is one JSON object, `{"flopsd":1,"kind":"hello",…}`; docs/training-process.md is the specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import phase_from
from flopsd.core.declared_facts import facts_from, refuse_unprintable, work_from
from flopsd.core.field_reader import FieldReader, raising, words_of
from flopsd.core.untrusted import parse_json
from flopsd.core.unused_count import UnusedCount
from flopsd.errors import NotVerifiedError

PROTOCOL = 1
MAX_LINE_BYTES = 64 * 1024
QUEUED_NS = 60_000_000_000  # the longest that launched operators may wait for their device
_SESSION = re.compile(r"[0-9a-f]{32}")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
_FIELDS: Mapping[str, frozenset[str]] = {
    "hello": frozenset({"session", "client", "pid"}),
    "declare": frozenset({"facts"}),
    "phase": frozenset({"phase"}),
    "work": frozenset({"work"}),
    "bye": frozenset(),
}


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A process connected. The same `session` after a lost connection is the same process. `pid` and `uid` come from
    the kernel; `pid` is None for a process in a namespace that the daemon cannot see."""

    session: str
    pid: int | None
    uid: int
    client: str


@dataclass(frozen=True, slots=True)
class FactsDeclared:
    """Facts by name. Each replaces the session's earlier declaration of that name; the others remain."""

    session: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The phase of the process from now on: a `Phase` by value, or `undeclared`."""

    session: str
    phase: str


@dataclass(frozen=True, slots=True)
class WorkCounted:
    """Counters by phase since the process began. They are absolute: take the maximum of repeated ones."""

    session: str
    work: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The connection ended. `clean`: the process said bye. Otherwise it died, or will reconnect."""

    session: str
    clean: bool


@dataclass(frozen=True, slots=True)
class NotServed:
    """A process could not connect for minutes: all connections are taken, or the socket was replaced. It has no
    session."""

    session: str = ""


Event = SessionOpened | FactsDeclared | PhaseChanged | WorkCounted | SessionClosed | NotServed


class RefusedError(ValueError):
    """A refused line. `last`: the lines after it could not be understood either, so the connection ends."""

    def __init__(self, message: str, *, last: bool) -> None:
        super().__init__(message)
        self.last = last


class Conversation:
    """One connection: decodes its lines into events."""

    def __init__(self, pid: int | None, uid: int) -> None:
        """`pid` and `uid` of the process, as the kernel reports them."""
        self.pid, self.uid = pid, uid
        self.session: str | None = None

    def receive(self, line: bytes) -> Event:
        """The event in a line. Raises RefusedError."""
        kind, message = _message(line)
        if kind == "hello":
            if self.session is not None:
                raise RefusedError("a second hello: one connection is one session", last=True)
            return self._hello(message)
        if self.session is None:
            raise RefusedError(f"{kind!r} before hello", last=True)
        try:
            if kind == "declare":
                facts = facts_from(message["facts"])
                refuse_unprintable(facts)
                return FactsDeclared(self.session, facts)
            if kind == "phase":
                return PhaseChanged(self.session, phase_from(message["phase"]))
            if kind == "work":
                return WorkCounted(self.session, work_from(message["work"]))
        except (ValueError, TypeError) as fault:
            raise RefusedError(f"{kind}: {words_of(fault)}", last=False) from None
        return SessionClosed(self.session, clean=True)

    def _hello(self, message: Mapping[str, Any]) -> SessionOpened:
        hello = FieldReader(message, "hello", raising(lambda problem: RefusedError(problem, last=True)))
        session = hello.matching("session", _SESSION, "32 hexadecimal digits")
        client = hello.matching("client", _CLIENT, "a version such as 0.1.0")
        self.session = session
        return SessionOpened(session, self.pid, self.uid, client)


def _message(line: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        message = parse_json(line, "the line")
    except NotVerifiedError as fault:
        raise RefusedError(str(fault)[:400], last=True) from None
    if not isinstance(message, dict) or "flopsd" not in message:
        raise RefusedError('expected an object such as {"flopsd":1,"kind":"hello",…}', last=True)
    version = message.pop("flopsd")
    if isinstance(version, bool) or version != PROTOCOL:
        raise RefusedError(f"protocol {version!r:.20} is not supported, only {PROTOCOL}", last=True)
    kind = message.pop("kind", None)
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise RefusedError(f"no kind {kind!r:.40}; known: {', '.join(_FIELDS)}", last=True)
    if message.keys() != fields:
        raise RefusedError(f"{kind} has the fields {', '.join(sorted(fields)) or 'flopsd and kind only'}", last=True)
    return kind, message


@dataclass(slots=True)
class DeclaredSession:
    """A training process that declared something. Its counters are absolute: a restart of either side loses none."""

    id: str
    pid: int | None  # None: in a namespace that the daemon cannot see
    uid: int
    client: str
    facts: dict[str, Any] = field(default_factory=dict)
    work: dict[str, dict[str, int]] = field(default_factory=dict)  # counters by phase
    refused: UnusedCount | None = None  # why the daemon stopped using its operator count

    @property
    def is_trained(self) -> bool:
        """Whether the session is of the trained model; it is if it declares no role."""
        return "role" not in self.facts


def has_passed(counters: Mapping[str, int]) -> bool:
    """Whether any counted work passed a model; an image encoder counts patches only."""
    return bool(counters.get("tokens") or counters.get("patches"))
