"""Declarations and counts of training processes, read from journal records."""

from __future__ import annotations

from flopsd.core.declared_facts import facts_from, work_from
from flopsd.core.field_reader import words_of
from flopsd.core.kernel_windows import is_impossible
from flopsd.core.ledger.history import History
from flopsd.core.ledger.tally_records import Record, count, text
from flopsd.core.operator_count import counted_flop
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.unused_count import UnusedCount
from flopsd.errors import JournalDamagedError


def take_sessions(history: History, record: Record) -> None:
    """Take over the declarations and counts of training processes in a record."""
    sessions = record.get("sessions", [])
    if not isinstance(sessions, list):
        raise ValueError("sessions is not a list")
    for session in sessions:
        _session(history, session)


def _session(history: History, record: Record) -> None:
    name = text(record["id"])
    pid = record["pid"]
    process = (None if pid is None else count(pid), count(record["uid"]), text(record["client"]))
    session = history.sessions.setdefault(name, DeclaredSession(name, *process))
    if (session.pid, session.uid, session.client) != process:
        raise JournalDamagedError(f"session {name!r:.60} belongs to two processes", code="law_10")
    try:
        facts = facts_from(record["facts"]) if "facts" in record else session.facts
        work = work_from(record.get("work", {}))
        before = work_from(record.get("before", {}))
        refused = UnusedCount.from_record(name, record["refused"]) if "refused" in record else session.refused
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise JournalDamagedError(
            f"session {name!r:.60} has unreadable declarations or counters: {words_of(fault)}", code="law_10"
        ) from fault
    if session.facts.get("device", facts.get("device")) != facts.get("device"):
        raise JournalDamagedError(f"session {name!r:.60} changes its device", code="law_10")
    if "facts" in record and facts.get("model_config") != record["facts"].get("model_config"):
        raise JournalDamagedError(f"session {name!r:.60} has a model_config with too long texts", code="law_10")
    session.facts, session.refused = facts, refused
    if "before" in record:
        if history.continues is None:
            raise JournalDamagedError("a session has counters of an earlier segment, but there is none", code="law_1")
        history.work_before[name] = before
    history.has_counts |= refused is not None or counted_flop(before) > 0 or counted_flop(work) > 0
    for phase, counters in work.items():
        if not counters:
            continue  # a phase without counters is left out
        known = session.work.setdefault(phase, {})
        if any(value < known.get(counter, 0) for counter, value in counters.items()):
            raise JournalDamagedError(f"the counters of session {name!r:.60} decreased", code="law_10")
        known.update(counters)
        if is_impossible(known):
            raise JournalDamagedError(f"session {name!r:.60} reports more kernels than a device can run", code="law_10")
