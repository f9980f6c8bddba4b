"""The work that a training process counted: noted in the thread that counts, summed up in the thread that sends."""

from __future__ import annotations

import operator
import threading
from collections import deque
from collections.abc import Mapping, Set
from typing import Any

from flopsd.core.declarations import COUNTERS, MAX_COUNT, Phase

PHASES: Mapping[str, str] = {phase.value: phase.value for phase in Phase}
_COUNTERS = frozenset(COUNTERS)
# The thread that counts sums up this many counts itself, if the sending thread did not do so in time.
MAX_NOTED = 256


Work = Mapping[str, Mapping[str, int]]  # counters by phase
Note = tuple[str, dict[str, int]]  # a phase, and counters that no longer change


class CountedWork:
    """Sums of counters by phase, as the current run has them. Thread-safe and reentrant: a signal handler may count
    while its thread is in one of these methods."""

    def __init__(self) -> None:
        # A note needs no lock: append and popleft of a deque are atomic, even in a Python without a GIL.
        self._noted: deque[Note] = deque()
        self._lock = threading.RLock()
        self._summing = False
        self._sums: dict[str, dict[str, int]] = {}
        self._has_unsent = False

    def add(self, note: Note) -> None:
        self._noted.append(note)
        if len(self._noted) >= MAX_NOTED:
            self._sum_up()

    def stop(self) -> None:
        """Count nothing from now on, and take no lock: a forked child may find it locked for ever."""
        self._noted = deque(maxlen=0)

    def changed(self, forgotten: Set[str], kept: Work) -> tuple[dict[str, dict[str, int]], set[str]]:
        """Return the sums, empty if nothing was added since the last call, and what `forget` returns: nothing is
        counted between the two."""
        with self._lock:
            phases = self.forget(forgotten, kept)
            has_unsent, self._has_unsent = self._has_unsent, False
            return {phase: dict(counters) for phase, counters in self._sums.items()} if has_unsent else {}, phases

    def forget(self, names: Set[str], kept: Work) -> set[str]:
        """Set these counters back to what is `kept`; return the phases in which any of them had counted more."""
        self._sum_up()
        found = set[str]()
        with self._lock:
            for phase, counters in self._sums.items():
                before = kept.get(phase, {})
                for name in names & counters.keys():
                    if counters[name] != before.get(name):
                        found.add(phase)
                        counters.pop(name) if name not in before else counters.update({name: before[name]})
        return found

    def move(self, sent: Work, known: Work) -> None:
        """Set the sums to what is `known`, with what was added since `sent`."""
        self._sum_up()
        with self._lock:
            added, self._sums = self._sums, {phase: dict(counters) for phase, counters in known.items()}
            for phase, counters in added.items():
                sums, before = self._sums.setdefault(phase, {}), sent.get(phase, {})
                for name, value in counters.items():
                    if value > before.get(name, 0):
                        sums[name] = sums.get(name, 0) + value - before.get(name, 0)

    def send_again(self) -> None:
        """Let the next `changed` return the sums even if nothing was added: a new daemon does not have them."""
        with self._lock:
            self._has_unsent = bool(self._sums)

    def _sum_up(self) -> None:
        """Sum up the notes. A signal handler that counts meanwhile leaves its note to the call that it interrupted."""
        with self._lock:
            if self._summing:
                return
            self._summing = True
            try:
                while self._noted:
                    phase, counters = self._noted.popleft()
                    sums = self._sums.setdefault(phase, {})
                    for name, value in counters.items():
                        total = sums.get(name, 0) + value
                        sums[name] = total if total <= MAX_COUNT else MAX_COUNT  # the daemon refuses more
                    self._has_unsent = True
            finally:
                self._summing = False


def note_of(phase: str, counters: dict[str, int]) -> Note:
    """Return work of `phase` as a note; the caller must not change `counters` later. Raises ValueError or TypeError."""
    try:
        named = PHASES[phase]
    except KeyError:
        raise ValueError(f"phases are {', '.join(sorted(PHASES))}") from None
    for name, value in counters.items():
        if type(value) is not int or not 0 <= value <= MAX_COUNT or name not in _COUNTERS:
            return named, _checked(counters)
    return named, counters


def _checked(counters: Mapping[str, Any]) -> dict[str, int]:
    """Return counters of other types of whole numbers, such as NumPy's, as int. Raises ValueError or TypeError."""
    return {name: _whole(name, value) for name, value in counters.items()}


def _whole(name: str, value: Any) -> int:
    if name not in _COUNTERS:
        from flopsd.settings.suggestions import did_you_mean

        near = did_you_mean(name, COUNTERS) or "; docs/training-process.md lists them"
        raise ValueError(f"{name!r} is not a counter{near}")
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: a counter is a whole number, not {type(value).__name__}")
    count = operator.index(value)
    if count < 0:
        raise ValueError(f"{name}: a counter cannot decrease")
    if count > MAX_COUNT:
        raise ValueError(f"{name}: a counter is at most {MAX_COUNT}")
    return count
