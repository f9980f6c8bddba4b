"""The state of pushing to each target: lines from the pusher, shown as metrics by both processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field
from typing import TYPE_CHECKING

from flopsd.core.dataclass import dataclass
from flopsd.system.clock import NS_PER_S

if TYPE_CHECKING:
    from flopsd.telemetry.families import Family

PREFIX = "flopsd_push_"
REASONS = ("unreachable", "timeout", "refused", "server_error", "not_possible")


@dataclass(frozen=True, slots=True)
class PushState:
    """One target since the pusher started. `dropped`: pages that it did not get and never will."""

    target: str
    successes: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0
    waiting: int = 0
    last_success_wall_ns: int | None = None

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode("ascii") + b"\n"


def parse_state(line: bytes) -> PushState:
    """The state in a `line`. Raises ValueError."""
    try:
        return PushState(**json.loads(line))
    except TypeError as fault:
        raise ValueError(f"not a state: {fault}") from fault


def metrics(states: Iterable[PushState]) -> Iterator[Family]:
    """The states as metric families; none without targets."""
    states = tuple(states)
    if not states:
        return
    from flopsd.telemetry.families import counter, gauge

    successes = counter("flopsd_push_successes", labels=("target",))
    failures = counter("flopsd_push_failures", labels=("target", "reason"))
    dropped = counter("flopsd_push_dropped_snapshots", labels=("target",))
    waiting = gauge("flopsd_push_queued_snapshots", labels=("target",))
    last = gauge("flopsd_push_last_success_timestamp_seconds", labels=("target",))
    for state in states:
        name = (state.target,)
        successes.add(name, state.successes)
        for reason in REASONS:
            failures.add((*name, reason), state.failures.get(reason, 0))
        dropped.add(name, state.dropped)
        waiting.add(name, state.waiting)
        if state.last_success_wall_ns is not None:
            last.add(name, state.last_success_wall_ns / NS_PER_S)
    yield from (successes, failures, dropped, waiting, last)
