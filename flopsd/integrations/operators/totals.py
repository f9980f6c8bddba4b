"""Keep the counts of one pass of a kind for the passes of the same kind that follow."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import field
from functools import partial
from pathlib import Path

from flopsd.core.dataclass import dataclass
from flopsd.integrations.modules.sparse_passes import SparsePasses
from flopsd.integrations.operators.backward import Way
from flopsd.integrations.operators.mode import OperatorFlop
from flopsd.integrations.operators.sessions import DeviceSessions

MAX_WAYS = 16
_TEMPLATES = "products that torch.compile generated kernels for (max-autotune)"
CAPTURED = "a CUDA graph that the loop captured: its replays are not seen"
LEAST = "passes of one shape ran different operators: the least that was seen is counted"


@dataclass(slots=True)
class PassCounts:
    """The counts of passes with one signature, and of their backward passes."""

    forward: OperatorFlop | None = None
    backward: dict[Way, OperatorFlop] = field(default_factory=dict)
    passes: int = 0
    is_fixed: bool = False  # a CUDA graph is replayed instead: nothing more can be seen
    is_wanted: bool = False  # count the next pass in full
    words: set[str] = field(default_factory=set)
    _sparse: SparsePasses = field(default_factory=partial(SparsePasses, 2))
    _due: int = 0
    # The fewest and the most autograd nodes of passes that were counted in full. 0: not known, or none.
    _nodes: tuple[int, int] = (0, 0)
    # By kind of backward pass, None for the forward pass: how often the kept counts were added since a pass was last
    # counted in full, and the FLOP that may have been added too much.
    _added: dict[Way | None, int] = field(default_factory=dict)
    _owed: dict[Way | None, int] = field(default_factory=dict)

    def next_is_counted(self, *, often: bool = False) -> bool:
        """Whether to count the beginning pass in full: the first, the second, and others ever less often, to detect
        changes. More of them if Python reads results, on which it may decide, or with `often`."""
        self.passes += 1
        is_due = self._sparse.next_is_due()
        self._due += is_due
        wanted, self.is_wanted = self.is_wanted, False
        if self.forward is None or (wanted and len(self.backward) < MAX_WAYS):
            return True
        if self.is_fixed or not is_due:
            return False
        return self.passes == 2 or often or self.forward.reads_content or self._due % 3 == 1  # of 5 to 8, of 33 to 64

    def to_add(self, way: Way | None = None) -> OperatorFlop | None:
        """The counts to add for a pass that is not counted in full; None until earlier excess is made up for."""
        kept = self.forward if way is None else self.backward[way]
        if kept is not None and (owed := self._owed.get(way)):
            self._owed[way] = max(0, owed - kept.total)
            return None
        self._added[way] = self._added.get(way, 0) + 1
        return kept

    def may_be_more_than(self, nodes: int) -> bool:
        """Whether a pass with so many autograd nodes, which is not counted in full, may compute less than the kept
        counts: it skipped layers. If experts are chosen by content, passes differ by a few nodes."""
        fewest, most = self._nodes
        return not self.is_fixed and 0 < nodes < fewest and fewest - nodes >= most - fewest

    def may_be_less_than(self, nodes: int) -> bool:
        """Whether such a pass may compute more than the kept counts."""
        return not self.is_fixed and 0 < self._nodes[1] < nodes

    def keep_forward(self, counted: OperatorFlop, nodes: int = 0) -> None:
        if nodes:
            fewest, most = self._nodes
            self._nodes = min(fewest or nodes, nodes), max(most, nodes)
        before, self.forward = self.forward, self._less(self.forward, counted, counted.reads_content)
        self._settle(None, before, self.forward)

    def keep_backward(self, way: Way, counted: OperatorFlop) -> None:
        reads = counted.reads_content or self.forward is None or self.forward.reads_content
        before, self.backward[way] = self.backward.get(way), self._less(self.backward.get(way), counted, reads)
        self._settle(way, before, self.backward[way])

    def _settle(self, way: Way | None, before: OperatorFlop | None, now: OperatorFlop) -> None:
        added = self._added.pop(way, 0)
        if before is not None and now.total < before.total:
            self._owed[way] = self._owed.get(way, 0) + added * (before.total - now.total)

    def _less(self, before: OperatorFlop | None, now: OperatorFlop, reads_content: bool) -> OperatorFlop:
        self.words |= now.words
        if reads_content:  # for instance whether a mask masks anything; if not, a kernel skips half of the pairs
            now = now.without_spare()
        if now.captured:
            self.is_fixed = True
            if before is None:
                self.words.add(CAPTURED)
            return before or now
        if before is None or before.total == now.total:
            return before or now
        self.words.add(LEAST)
        less = min(before, now, key=lambda one: one.total)
        less.reads_content = True
        return less


class OperatorTotals:
    """Adds up the counts of passes that were counted in full, and kept counts for the others."""

    def __init__(self, sessions: DeviceSessions) -> None:
        self.sessions = sessions
        self._lock = threading.RLock()  # backward passes have threads of their own
        self._adding: dict[tuple[int, str], tuple[OperatorFlop, list[Callable[[], None]]]] = {}
        self._templates_seen = 0

    def add_counted(self, counts: PassCounts, counted: OperatorFlop | None, phase: str) -> None:
        if counted is None:
            return
        with self._lock:
            if self._has_templates():
                counts.words.add(_TEMPLATES)
            if counts.words:
                self.sessions.say(counts.words, phase)
            self.sessions.add(counted, phase)
            self.sessions.see_formats(counted)

    def add_kept(self, counted: OperatorFlop | None, phase: str) -> None:
        if counted is None or not counted.flop:
            return
        known = self._adding.get((id(counted), phase))
        if known is None:
            with self._lock:
                known = self._adding[id(counted), phase] = counted, self.sessions.adding(counted, phase)
        for add in known[1]:
            add()

    def _has_templates(self) -> bool:
        """Whether torch.compile has generated kernels for products since the last call, which no operator shows."""
        cache = getattr(sys.modules.get("torch._inductor.codecache"), "PyCodeCache", None)
        modules = list(getattr(cache, "modules", ()))
        new, self._templates_seen = modules[self._templates_seen :], len(modules)
        return any(b"_tem_" in Path(one.__file__).read_bytes() for one in new if getattr(one, "__file__", None))
