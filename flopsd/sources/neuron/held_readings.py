"""Holds readings of chips if a process, or a core it used, is no longer listed: it ended, or was left out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Counted, Gap, GapReason, Reading
from flopsd.sources.neuron.document import MonitorDocument
from flopsd.system.clock import NS_PER_S

HELD_NS = 5 * NS_PER_S  # what is missing for longer has ended; shorter than readings may be late


@dataclass(frozen=True, slots=True)
class Missing:
    """Cores that a runtime used and no longer lists, or all that it used if it is not listed; and their chips."""

    cores: frozenset[int]
    chips: frozenset[int]


class HeldReadings:
    """Readings count once what is missing stayed away. If it is listed again, its work meanwhile is in no report."""

    def __init__(self) -> None:
        self._missing: dict[str, tuple[int, Missing]] = {}  # by runtime, since when
        self._ended: set[str] = set()  # those that are not listed at all
        self._held: dict[int, list[Reading]] = {}  # by chip

    def returned(self, document: MonitorDocument) -> dict[str, frozenset[int]]:
        """Return the runtimes that `document` lists again, with the cores that they used."""
        return {one.key: self._missing[one.key][1].cores for one in document.runtimes if one.key in self._ended}

    def take(
        self, readings: Sequence[Reading], missing: Mapping[str, Missing], document: MonitorDocument, at_ns: int
    ) -> list[Reading]:
        """Return the readings that are known now, in order. `readings`: one of each chip, of a `document` whose period
        ended at `at_ns`. `missing`: what is missing since then."""
        listed: dict[str, set[int]] = {}
        for runtime in document.runtimes:
            listed.setdefault(runtime.key, set()).update(runtime.cores)
        known: list[Reading] = []
        for key, (since_ns, what) in list(self._missing.items()):
            is_back = key in listed and (key in self._ended or not what.cores.isdisjoint(listed[key]))
            if is_back:
                known += self._released(what.chips, is_known=False)
            if is_back or at_ns - since_ns >= HELD_NS:
                del self._missing[key]
        for key, what in missing.items():
            _, before = self._missing.get(key, (0, what))
            self._missing[key] = at_ns, Missing(before.cores | what.cores, before.chips | what.chips)
        self._ended = self._missing.keys() - listed.keys()
        waiting = {chip for _, what in self._missing.values() for chip in what.chips}
        known += self._released(self._held.keys() - waiting, is_known=True)
        for chip, reading in enumerate(readings):
            if chip in waiting and (chip in self._held or isinstance(reading.work, Counted)):
                self._held.setdefault(chip, []).append(reading)
            else:
                known.append(reading)
        return known

    def release(self) -> list[Reading]:
        """Return all held readings as gaps: what follows is not known either."""
        self._missing.clear()
        self._ended.clear()
        return self._released(self._held.keys(), is_known=False)

    def _released(self, chips: Collection[int], *, is_known: bool) -> list[Reading]:
        found = [reading for chip in sorted(chips) for reading in self._held.pop(chip, ())]
        return found if is_known else [_as_gap(reading) for reading in found]


def _as_gap(reading: Reading) -> Reading:
    work = reading.work
    return replace(reading, work=Gap(GapReason.MISSED_READING, work.flop)) if isinstance(work, Counted) else reading
