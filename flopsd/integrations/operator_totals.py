"""What each pass of a kind computed, kept for the passes of the same kind that follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from flopsd.integrations.operator_backward import Way
from flopsd.integrations.operator_mode import Counted

LEAST = "passes of one shape ran different operators: the least that was seen is counted"


@dataclass(slots=True)
class Kept:
    """Of passes with one signature: their operators, and those of their backward passes."""

    forward: Counted | None = None
    backward: dict[Way, Counted] = field(default_factory=dict)
    passes: int = 0
    is_fixed: bool = False  # a CUDA graph is replayed instead: nothing more is to be seen
    words: set[str] = field(default_factory=set)

    def next_is_counted(self) -> bool:
        """Whether the pass that begins is counted anew: the first, the second, and ever more seldom others, to see that
        nothing changed. More of them where Python reads results, and may decide by them."""
        self.passes += 1
        number = self.passes
        if self.forward is None:
            return True
        if self.is_fixed or number & (number - 1):
            return False
        return number == 2 or self.forward.reads_content or (number.bit_length() - 1) % 3 == 0  # 8, 64, 512

    def keep_forward(self, counted: Counted) -> None:
        self.forward = self._less(self.forward, counted)

    def keep_backward(self, way: Way, counted: Counted) -> None:
        self.backward[way] = self._less(self.backward.get(way), counted)

    def _less(self, before: Counted | None, now: Counted) -> Counted:
        self.words |= now.words
        if now.captured:
            self.is_fixed = True
            return before or now
        if before is None or before.total == now.total:
            return before or now
        self.words.add(LEAST)
        less = min(before, now, key=lambda one: one.total)
        less.reads_content = True
        return less
