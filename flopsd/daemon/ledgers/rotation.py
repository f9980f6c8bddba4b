"""Rotation: at a set age or size of its journal a run goes on in a new one, and the closed segment gets a ledger."""

from __future__ import annotations

from flopsd.core.values import utc_ns
from flopsd.daemon.ledgers.rolling_seal import RollingSeals
from flopsd.daemon.writing.writer import Writer
from flopsd.settings.parsers import parse_rotation
from flopsd.system.clock import NS_PER_S, Clock

PATIENCE_SECONDS = 600
RETRY_SECONDS = 10


class Rotation:
    """Rotates the journal of `writer` by the setting `every`. One thread calls it."""

    def __init__(self, every: str, writer: Writer, rolling: RollingSeals | None, clock: Clock) -> None:
        self._age_seconds, self._size_bytes = parse_rotation(every)
        self._writer, self._rolling, self._clock = writer, rolling, clock
        self._next_ns = 0
        self._due_since_ns: int | None = None
        self._began_bytes = 0  # what the segment repeats of earlier segments
        self._begun: tuple[str, int] | None = None  # when the segment began: by the journal, by our own clock

    def each_tick(self) -> None:
        """Rotate if that is due and no seal reads the journal. Counters may still show the work of an open gap, and the
        next segment would have that work without the gap: wait for them, for PATIENCE_SECONDS at most."""
        now_ns = self._clock.boottime_ns()
        if now_ns < self._next_ns or not self._is_due() or (self._rolling is not None and self._rolling.child.is_busy):
            return
        self._due_since_ns = self._due_since_ns or now_ns
        if self._writer.has_open_gap and now_ns - self._due_since_ns < PATIENCE_SECONDS * NS_PER_S:
            return
        if not self._writer.rotate():
            self._next_ns = now_ns + RETRY_SECONDS * NS_PER_S
            return
        self._due_since_ns, self._began_bytes = None, self._writer.segment.journal.size_bytes
        if self._rolling is not None:
            self._rolling.closed()

    def _is_due(self) -> bool:
        if self._size_bytes is not None:
            # Each segment repeats what processes declared. If that alone were too long, each segment would end at once.
            return self._writer.segment.journal.size_bytes >= max(self._size_bytes, 2 * self._began_bytes)
        assert self._age_seconds is not None
        return self._age_ns() >= self._age_seconds * NS_PER_S

    def _age_ns(self) -> int:
        """Return the segment's age. The wall clock is read only once for each: it may be wrong, and be set later."""
        now_ns, utc = self._clock.boottime_ns(), self._writer.segment.utc
        if self._begun is None or self._begun[0] != utc:
            before_ns = max(0, self._clock.wall_ns() - utc_ns(utc))
            self._begun = (utc, now_ns - before_ns)
        return now_ns - self._begun[1]
