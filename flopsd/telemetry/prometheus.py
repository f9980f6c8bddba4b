"""Render a snapshot as a page for Prometheus. Nothing here calls a driver."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from flopsd.telemetry import device_metrics, run_metrics
from flopsd.telemetry.device_metrics import Highest, Labels, Zeros
from flopsd.telemetry.families import Family, PageWriter
from flopsd.telemetry.http.request import weights_of
from flopsd.telemetry.run_metrics import Rules
from flopsd.telemetry.snapshot import Snapshot

# prometheus-client's content types of the two formats; a property test compares them.
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"


class Kept:
    """What a page takes over from those before it."""

    def __init__(self) -> None:
        self.highest, self.labels, self.zeros, self.rules = Highest(), Labels(), Zeros(), Rules()


def changing_families(snapshot: Snapshot, kept: Kept) -> Iterator[Family]:
    """The families that change from reading to reading."""
    gpus = device_metrics.metered_devices(snapshot, kept.labels)
    run_devices = device_metrics.run_devices(snapshot, kept.labels)
    yield from device_metrics.flop(run_devices, kept.highest, kept.zeros)
    yield from run_metrics.figures(snapshot, kept.rules)
    yield from device_metrics.time_and_energy(run_devices)
    yield from device_metrics.gauges(gpus)
    yield from device_metrics.up(gpus)
    yield from run_metrics.sources(snapshot)
    yield from run_metrics.journal(snapshot)
    yield from run_metrics.ended(snapshot)
    yield from run_metrics.unused_counts(snapshot)


def families_of_now(snapshot: Snapshot, more: Iterable[Family] = ()) -> Iterator[Family]:
    """The families that are computed at each request, and `more`."""
    yield from run_metrics.of_request(snapshot)
    yield from more


def constant_families(snapshot: Snapshot) -> Iterator[Family]:
    """The families that stay the same for a whole daemon start, as long as no device is added."""
    yield from device_metrics.device_facts(device_metrics.metered_devices(snapshot, Labels()))
    yield from run_metrics.run_facts(snapshot)


class Exposition:
    """Renders snapshots. The constant families, a third of the page, are rendered once, the changing ones once a
    reading; the unchanging parts of all lines are cached. Several threads may render at once."""

    def __init__(self) -> None:
        self._kept = Kept()
        self._lines, self._lines_of_now, self._lock = PageWriter(), PageWriter(), threading.Lock()
        self._known: tuple[object, ...] = ()  # the inputs of `_facts`
        self._facts: dict[bool, bytes] = {}  # by format
        self._rendered: Snapshot | None = None  # the snapshot of `_changing`
        self._changing: dict[bool, bytes] = {}
        self._accept, self._is_openmetrics = "", False  # a client sends the same header each time

    def render(self, snapshot: Snapshot, accept: str, more: Iterable[Family] = ()) -> tuple[bytes, str]:
        """The page with `more` at its end, and its content type, as the client's Accept header asks."""
        known = (snapshot.replay, snapshot.view.start, *(state.entry for state in snapshot.devices))
        with self._lock:
            if accept != self._accept:
                self._accept, self._is_openmetrics = accept, _takes_openmetrics(accept)
            is_openmetrics = self._is_openmetrics
            if known != self._known:
                self._known, self._facts = known, {}
            if is_openmetrics not in self._facts:
                facts = PageWriter().text(constant_families(snapshot), is_openmetrics=is_openmetrics)
                self._facts[is_openmetrics] = facts.encode()
            if self._rendered != snapshot:
                self._rendered, self._changing = snapshot, {}
            if is_openmetrics not in self._changing:
                text = self._lines.text(changing_families(snapshot, self._kept), is_openmetrics=is_openmetrics)
                self._changing[is_openmetrics] = text.encode()
            of_now = self._lines_of_now.text(families_of_now(snapshot, more), is_openmetrics=is_openmetrics).encode()
            parts = (self._facts[is_openmetrics], self._changing[is_openmetrics], of_now)
        return b"".join((*parts, b"# EOF\n" if is_openmetrics else b"")), _OPENMETRICS if is_openmetrics else _TEXT


def _takes_openmetrics(accept: str) -> bool:
    """Whether the client prefers OpenMetrics to Prometheus's text format, or equally, by their weights."""
    weights = weights_of(accept)
    plain = next((weights[kind] for kind in ("text/plain", "text/*", "*/*") if kind in weights), 0.0)
    wanted = weights.get("application/openmetrics-text", 0.0)
    return wanted > 0 and wanted >= plain
