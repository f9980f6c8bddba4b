"""The declarations of training processes: the active phase, and what is not in the journal yet.

Declarations are bounded, so that they keep no measurement out of the journal. Beyond the bounds nothing is recorded:
the phase is undeclared then, and the journal says that the recorded work is incomplete (docs/adr/0037).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import OperatorDeclarations, Work
from flopsd.core.kernel_windows import OBSERVED, REFUSED, WINDOW_NS, is_impossible
from flopsd.core.ledger.segments import added_work
from flopsd.core.model import DeviceUid
from flopsd.core.operator_count import (
    OPERATOR_COUNTERS,
    OPERATOR_FLOP,
    OperatorCounts,
    counted_flop,
    counts_of,
)
from flopsd.core.phases import ActivePhase
from flopsd.core.session_protocol import (
    QUEUED_NS,
    DeclaredSession,
    Event,
    FactsDeclared,
    NotServed,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.core.unused_count import Unused, UnusedCount
from flopsd.daemon.sessions.agreed_phase import RETURN_NS, AgreedPhase
from flopsd.daemon.sessions.declared_models import MAX_LAYERS, DeclaredModels
from flopsd.daemon.sessions.not_recorded import is_marked, marked
from flopsd.daemon.sessions.segment_work import SegmentWork
from flopsd.daemon.sessions.unwritten_work import RECORD_BYTES, UnwrittenWork, size_of
from flopsd.settings.words import say

log = logging.getLogger("flopsd")
MAX_SESSIONS, MAX_FACTS_BYTES = 2000, 4 * 1024 * 1024  # in a run: eight processes restarted 250 times
_REFUSED_ONLY, _OF_WINDOWS = frozenset({REFUSED}), OBSERVED | {REFUSED}  # only the daemon counts refusals
MAX_COUNTERS = 65_536  # of all processes and phases; the callback counts some 20 in each process


@dataclass(slots=True)
class SessionTracker:
    """All sessions of training processes in this run, closed ones included. One thread owns it."""

    declared: OperatorDeclarations
    known: dict[str, DeclaredSession]
    now_ns: Callable[[], int]
    ceiling_flop: Callable[[DeviceUid, int], int | None]  # the most that a device can execute in some ns
    segment: SegmentWork  # the counters since this journal began
    is_segment: bool = False  # whether this journal continues another
    counts_since_ns: int | None = None  # of new sessions, if earlier daemon starts may have met them
    was_lost: bool = False  # whether an earlier journal of the run, with its sessions, is lost
    _phase: AgreedPhase = field(init=False)
    _declared: dict[str, None] = field(default_factory=dict)  # sessions whose facts the journal does not have yet
    _unwritten: UnwrittenWork = field(init=False)  # sessions whose counters the journal does not have yet
    _is_over: bool = False  # whether something was left unrecorded
    _facts_bytes: int = field(init=False)  # of all facts in the journal or due to be, including replaced ones
    _counters: int = field(init=False)
    models: DeclaredModels = field(default_factory=DeclaredModels)
    _opened: dict[str, tuple[int, int]] = field(default_factory=dict)  # when first opened, and FLOP counted before
    _counts: OperatorCounts | None = field(init=False)  # None: to be computed again

    def __post_init__(self) -> None:
        self._unwritten = UnwrittenWork(self.now_ns)
        self._facts_bytes = sum(size_of(session.facts) for session in self.known.values())
        self._counters = sum(_counters_of(session.work) for session in self.known.values())
        self._is_over = self.was_lost or any(is_marked(session.facts) for session in self.known.values())
        for session in self.known.values():
            self.models.take(session.id, session.facts)
        self.models.unread.clear()
        self._phase = AgreedPhase(self.declared.phase, self.known, self.now_ns)
        self._counts = counts_of(self.known.values())
        if self.is_segment:
            self.segment.hold(one.id for one in self.known.values() if not counted_flop(self.segment.of(one)))

    def apply(self, event: Event) -> None:
        """Fold in an event. A change of phase takes effect now, when the daemon receives it."""
        name = event.session
        if isinstance(event, NotServed):
            self._leave_incomplete("a training process could not connect")
        elif isinstance(event, SessionOpened):
            self._open(event)
        elif isinstance(event, SessionClosed):
            self._phase.leave(name, clean=event.clean)
        elif name not in self.known or not self._phase.is_recorded(name):
            return
        elif isinstance(event, FactsDeclared):
            self._declare(self.known[name], event.facts)
        elif isinstance(event, WorkCounted):
            self._count(self.known[name], event.work)
        elif isinstance(event, PhaseChanged):
            self._phase.change(name, event.phase)
        self._phase.follow()

    def awaited(self, since_ns: int) -> list[int | None]:
        """The processes of earlier daemon starts that may still connect again, if they can connect since then; by pid,
        as in DeclaredSession."""
        if self.now_ns() - since_ns >= RETURN_NS:
            return []
        return [session.pid for name, session in self.known.items() if name not in self._opened]

    @property
    def active_phase(self) -> ActivePhase:
        """The phase now, and since when."""
        return self._phase.active

    @property
    def counts(self) -> OperatorCounts:
        """The operator counts of all processes."""
        if self._counts is None:
            self._counts = counts_of(self.known.values())
        return self._counts

    @property
    def counts_of_journal(self) -> OperatorCounts:
        """The operator counts of all processes since the journal of this segment began."""
        return counts_of(replace(one, work=self.segment.of(one)) for one in self.known.values())

    def new_declarations(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the processes and facts that the journal does not have yet, once, in pieces that fit a record."""
        piece: list[dict[str, Any]] = []
        size = 0
        for name in self._declared:
            record = self._record(name, "facts")
            if piece and size + size_of(record) > RECORD_BYTES:
                yield piece
                piece, size = [], 0
            piece.append(record)
            size += size_of(record)
        self._declared.clear()
        if piece:
            yield piece

    def new_work(self, *, whole: bool) -> list[dict[str, Any]]:
        """Return the counters that changed since they were `journalled`, for a checkpoint record: of as many processes
        as fit and, unless `whole`, as the average rate allows by now."""
        return self._unwritten.piece(lambda name: self._record(name, "work"), whole=whole)

    def journalled(self, written: Sequence[Mapping[str, Any]], *, whole: bool) -> bool:
        """Note that the journal holds what `new_work` returned; return whether nothing more waits."""
        self.segment.journalled(record["id"] for record in written)
        self._unwritten.written(written, whole=whole)
        if self._unwritten.is_late:
            self._leave_incomplete("processes count more than can be recorded in time")
        return self._unwritten.is_empty

    @property
    def is_behind(self) -> bool:
        """Whether counters wait to be written and the journal does not say that it is incomplete."""
        return not (self._is_over or self._unwritten.is_empty)

    def forget_journal(self) -> None:
        """Note that the journal no longer holds any session; what earlier segments hold still counts there."""
        self._declared = dict.fromkeys(self.known)
        self._unwritten.replace(name for name, session in self.known.items() if session.work)

    def rotated(self) -> None:
        """Note that a new journal begins, in which counters start at zero."""
        self.segment.begin(self.known)
        self._declared = dict.fromkeys(self.known)
        self._unwritten.replace(())

    def _record(self, name: str, part: str) -> dict[str, Any]:
        """Return a session's identity and its facts or its work, as the journal of this segment holds them."""
        session = self.known[name]
        found, before = asdict(session), self.segment.before(name)
        record = {key: found[key] for key in ("id", "pid", "uid", "client", part)}
        if part == "work":
            moved = {"before": before} if self.segment.is_moved(name) else {}
            return {**record, "work": self.segment.of(session), **moved}
        refused = session.refused
        return {
            **record,
            **({"before": before} if before else {}),
            **({} if refused is None else {"refused": refused.for_journal()}),
        }

    def _open(self, event: SessionOpened) -> None:
        name = event.session
        if name not in self.known:
            if len(self.known) >= MAX_SESSIONS:
                self._leave_out(name, f"more than {MAX_SESSIONS} processes connected")
                return
            self.known[name] = DeclaredSession(name, event.pid, event.uid, event.client)
            since_ns = self.now_ns() if self.counts_since_ns is None else self.counts_since_ns
            self._declared[name], self._opened[name] = None, (since_ns, 0)
            if self._is_over:
                self._mark()
        # A session that is in the journal already may have counted while no daemon ran.
        self._opened.setdefault(name, (0, counted_flop(self.known[name].work)))

    def _declare(self, session: DeclaredSession, new: Mapping[str, Any]) -> None:
        facts = {**session.facts, **new}
        if is_marked(session.facts):
            facts = marked(facts)
        if (device := session.facts.get("device", facts.get("device"))) != facts.get("device"):
            facts["device"] = device
            self._refuse(session, Unused.DEVICE_CHANGED, counted_flop(session.work), None)
        if facts == session.facts:
            return
        size = size_of(facts)
        if session.id in self._declared:  # they replace facts that are not written yet
            size -= size_of(session.facts)
        if self._facts_bytes + size > MAX_FACTS_BYTES:
            self._leave_out(session.id, f"processes declared more than {MAX_FACTS_BYTES >> 20} MiB")
            return
        if not self.models.take(session.id, facts):
            self._leave_out(session.id, f"processes declared models of more than {MAX_LAYERS} layers")
            return
        session.facts, self._facts_bytes = facts, self._facts_bytes + size
        self._declared[session.id], self._counts = None, None  # its counts may have a device now

    def _leave_out(self, name: str, why: str) -> None:
        """Record nothing more of a process; while it is connected, the phase is undeclared."""
        self._phase.leave_unrecorded(name)
        self._leave_incomplete(f"{why} in this run")

    def _leave_incomplete(self, why: str) -> None:
        """Make the journal say that it lacks some of what processes declare and count."""
        if not self._is_over:
            log.warning(
                "%s: the rest is not recorded, or late; its phase is undeclared, and the FLOP by model and tokens have "
                "no upper bound",
                why,
            )
        self._is_over = True
        self._mark()

    def _mark(self) -> None:
        first = next(iter(self.known.values()), None)
        if first is not None and not is_marked(first.facts):
            first.facts = marked(first.facts)
            self._declared[first.id] = None

    def _count(self, session: DeclaredSession, work: Mapping[str, Mapping[str, int]]) -> None:
        before = _counters_of(session.work)
        new = sum(1 for phase, counters in work.items() for name in counters if name not in session.work.get(phase, {}))
        if self._counters + new > MAX_COUNTERS:  # some of them without the others could give too high a figure
            self._leave_out(session.id, f"processes have more than {MAX_COUNTERS} counters")
            return
        counts = not self._is_refused(session, work)
        left_out = _REFUSED_ONLY if self._takes_windows(session, work) else _OF_WINDOWS
        for phase, counters in work.items():
            known = session.work.setdefault(phase, {})
            for counter, value in counters.items():
                if counter in OPERATOR_COUNTERS:
                    if not counts:
                        continue
                    self._counts = None
                if counter in left_out:
                    continue
                if value > known.get(counter, 0):  # values are absolute and only grow: an old message changes nothing
                    known[counter] = value
                    self._unwritten.note(session.id)
        self._counters += _counters_of(session.work) - before
        self.segment.counted(session)

    def _is_refused(self, session: DeclaredSession, work: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether the operator count of a session is refused: since the process connected, it has grown by more than
        the device can have executed."""
        device = session.facts.get("device")
        since_ns, before = self._opened[session.id]
        counted = sum(
            max(known.get(phase, {}).get(OPERATOR_FLOP, 0) for known in (session.work, work))
            for phase in {**session.work, **work}
        )
        ceiling = None if device is None else self.ceiling_flop(device, self.now_ns() - since_ns + QUEUED_NS)
        if ceiling is not None and counted - before > ceiling:
            self._refuse(session, Unused.COUNT_EXCEEDS_CEILING, counted, before + ceiling)
        return session.refused is not None

    def _takes_windows(self, session: DeclaredSession, work: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether the kernel windows of a message are possible. Their growth is judged, so that no sum of them is
        impossible either. Impossible ones are left out as a whole, and the session counts how often."""
        grown = {phase: _grown(session.work.get(phase, {}), counters) for phase, counters in work.items()}
        if not any(grown.values()):
            return True
        windows_ns = sum(counters.get(WINDOW_NS, 0) for counters in added_work(session.work, grown).values())
        since_ns, _ = self._opened[session.id]
        if windows_ns <= self.now_ns() - since_ns + QUEUED_NS and not any(map(is_impossible, grown.values())):
            return True
        known = session.work.setdefault(next(phase for phase, counters in grown.items() if counters), {})
        known[REFUSED] = known.get(REFUSED, 0) + 1
        self._unwritten.note(session.id)
        if known[REFUSED] == 1:
            log.warning("process %s reported kernels that no device can have run; they are left out", session.pid)
        return False

    def _refuse(self, session: DeclaredSession, why: Unused, counted: int, ceiling: int | None) -> None:
        """Stop using the operator count of a session."""
        if session.refused is None:
            session.refused = UnusedCount(why, session.id, session.facts["device"], counted, ceiling)
            self._declared[session.id], self._counts = None, None
            words = say("declared.contradictions", session.refused.note)
            log.warning("%s; its count of operators is not used", words)


def _grown(known: Work, counters: Work) -> dict[str, int]:
    """Return by how much a message raises each counter of kernel windows."""
    return {
        name: value - known.get(name, 0)
        for name, value in counters.items()
        if name in OBSERVED and value > known.get(name, 0)
    }


def _counters_of(work: Mapping[str, Work]) -> int:
    return sum(map(len, work.values()))
