"""Finds runtimes that report time that was counted already: more than passed, or a report printed again. Pure."""

from __future__ import annotations

from flopsd.core.dataclass import dataclass
from flopsd.sources.neuron.document import MonitorDocument, Runtime
from flopsd.system.clock import NS_PER_S

_AHEAD_NS = 2 * NS_PER_S  # how late a first document may have come, so that later ones seem to come too early
_KEPT_NS = 60 * NS_PER_S  # for a runtime that is no longer listed: it may only have been left out
_MOST_KEPT = 10_000


@dataclass(slots=True)
class _Counted:
    """One runtime: its last reports, when they came, and by how much its periods exceed the time that passed."""

    reports: list[int]
    at_ns: int
    ahead_ns: int = 0


class CountedPeriods:
    def __init__(self) -> None:
        self._runtimes: dict[str, _Counted] = {}

    def ahead(self, document: MonitorDocument, at_ns: int) -> frozenset[str]:
        """Return the runtimes whose work in a document must not be counted. `at_ns`: when its period ended."""
        listed: dict[str, list[tuple[Runtime, int]]] = {}
        for runtime, report in zip(document.runtimes, document.reports, strict=False):
            listed.setdefault(runtime.key, []).append((runtime, report))
        found = set()
        for key, ones in listed.items():
            reports = [report for _, report in ones]
            worked = [one.period_seconds for one, _ in ones if any(core.flop_per_s for core in one.cores.values())]
            period_ns = round(max(worked, default=0) * NS_PER_S)
            before = self._runtimes.setdefault(key, _Counted([], at_ns - period_ns))
            ahead_ns = max(0, before.ahead_ns + period_ns - (at_ns - before.at_ns))
            # Periods are printed to the nanosecond and rates to the FLOP/s: no two reports of a busy runtime are alike.
            if worked and (ahead_ns > _AHEAD_NS or reports == before.reports):
                found.add(key)
                ahead_ns = max(0, ahead_ns - period_ns)
            self._runtimes.pop(key)
            self._runtimes[key] = _Counted(reports, at_ns, ahead_ns)  # the last one listed is the last one kept
        kept = [(key, one) for key, one in self._runtimes.items() if at_ns - one.at_ns < _KEPT_NS]
        self._runtimes = dict(kept[-_MOST_KEPT:])
        return frozenset(found)
