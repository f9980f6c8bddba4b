"""A snapshot as a page for Prometheus. No collector touches a driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from flopsd.telemetry import metric_families
from flopsd.telemetry.snapshot import Snapshot

# prometheus-client names whatever version is requested, and writes this one.
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def changing_families(snapshot: Snapshot, more: Iterable[Metric] = ()) -> Iterator[Metric]:
    """What changes from reading to reading."""
    yield from metric_families.flop(snapshot)
    yield from metric_families.time_and_energy(snapshot)
    yield from metric_families.gauges(snapshot)
    yield from metric_families.sources(snapshot)
    yield from metric_families.journal(snapshot)
    if snapshot.journal_state is not None:
        yield from metric_families.journal_state(snapshot.journal_state)
    yield from more


def constant_families(snapshot: Snapshot) -> Iterator[Metric]:
    """What stays the same for a whole daemon start, as long as no device joins."""
    yield from metric_families.device_facts(snapshot)
    yield from metric_families.run_facts(snapshot)


class _Families(Collector):
    def __init__(self, families: Iterator[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families


class Exposition:
    """Renders snapshots. The facts, a third of the page, are rendered once and kept."""

    def __init__(self) -> None:
        self._facts: dict[tuple[object, ...], bytes] = {}

    def render(self, snapshot: Snapshot, accept: str, more: Iterable[Metric] = ()) -> tuple[bytes, str]:
        """The page, with `more` below, and its content type, as the client's Accept header asks."""
        encoder, content_type = choose_encoder(_OPENMETRICS if _takes_openmetrics(accept) else "")
        key = (content_type, snapshot.replay, *(state.entry for state in snapshot.devices))
        if key not in self._facts:
            self._facts = {k: v for k, v in self._facts.items() if k[1:] == key[1:]}
            self._facts[key] = encoder(_Families(constant_families(snapshot))).removesuffix(b"# EOF\n")
        return self._facts[key] + encoder(_Families(changing_families(snapshot, more))), content_type


def _takes_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is accepted; who accepts several is Prometheus, which prefers it."""
    for part in accept.lower().split(","):
        kind, *options = (piece.strip() for piece in part.split(";"))
        if kind == "application/openmetrics-text":
            return not any(option.startswith("q=") and not option[2:].strip("0.") for option in options)
    return False
