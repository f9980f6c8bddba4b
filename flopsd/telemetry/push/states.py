"""How pushing to each target stands: lines from the pusher, shown as metrics by both processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from flopsd.system.clock import NS_PER_S

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX = "flopsd_push_"
REASONS = ("unreachable", "timeout", "refused", "server_error", "not_possible")


@dataclass(frozen=True, slots=True)
class PushState:
    """One target, since the pusher started. `dropped`: pages that it never got, and will not get."""

    target: str
    successes: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0
    waiting: int = 0
    last_success_wall_ns: int | None = None

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode("ascii") + b"\n"


def parse_state(line: bytes) -> PushState:
    """What `line` made. Raises ValueError."""
    try:
        return PushState(**json.loads(line))
    except TypeError as fault:
        raise ValueError(f"not a state: {fault}") from fault


def metrics(states: Iterable[PushState]) -> Iterator[Metric]:
    """The states as families; none where nothing is pushed."""
    states = tuple(states)
    if not states:
        return
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    successes = CounterMetricFamily(PREFIX + "successes", "Requests that the receiver took.", labels=("target",))
    failures = CounterMetricFamily(
        PREFIX + "failures", "Requests that failed, by reason; most are tried again.", labels=("target", "reason")
    )
    dropped = CounterMetricFamily(
        PREFIX + "dropped_snapshots",
        "Pages that were given up: refused for good, or too old in a full queue. Totals lose nothing by it.",
        labels=("target",),
    )
    waiting = GaugeMetricFamily(PREFIX + "queued_snapshots", "Pages that are yet to be pushed.", labels=("target",))
    last = GaugeMetricFamily(
        PREFIX + "last_success_timestamp_seconds", "When the receiver last took a page.", labels=("target",)
    )
    for state in states:
        name = (state.target,)
        successes.add_metric(name, state.successes)
        for reason in REASONS:
            failures.add_metric((*name, reason), state.failures.get(reason, 0))
        dropped.add_metric(name, state.dropped)
        waiting.add_metric(name, state.waiting)
        if state.last_success_wall_ns is not None:
            last.add_metric(name, state.last_success_wall_ns / NS_PER_S)
    yield from (successes, failures, dropped, waiting, last)
