"""Codes of journal and ledger: why a daemon start ended, and what one found wrong with the journal that it continues.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.notes import Note, is_note, note
from flopsd.core.values import is_digest, whole_number
from flopsd.errors import JournalDamagedError

ROTATED = "rotated"  # the end of a journal that another one continues
END_REASONS = {"job_ended", "sigterm", "sigint", "sighup", "duration", "launcher_gone", ROTATED, "journal_replaced"}
# Codes with the parameters of each.
RECOVERED: Mapping[str, frozenset[str]] = {
    "line_invalid": frozenset({"refusal", "line"}),
    "tail_not_known": frozenset(),
    "not_continued": frozenset({"refusal", "line"}),
    "journal_replaced": frozenset({"records", "head"}),
    "journal_missing": frozenset(),
    "restored": frozenset({"ledger", "records", "sealed"}),
    "restored_unsealed": frozenset({"ledger", "records"}),
    "time_not_known": frozenset({"seconds"}),
}
LOSSES = {"not_continued", "journal_replaced", "journal_missing"}  # the content of an earlier journal is not known
_MALFORMED = "record_malformed"


def refused_line(code: str, fault: JournalDamagedError) -> Note:
    """A note about a line that a reader refuses with `fault`."""
    return note(code, refusal=fault.code or _MALFORMED, line=fault.path.rpartition(":")[2])


def refuse_end(reason: object, exit_code: object) -> None:
    if not isinstance(reason, str) or reason not in END_REASONS:
        raise JournalDamagedError(f"the end has an unknown reason: {reason!r:.60}", code=_MALFORMED)
    if exit_code is not None and type(exit_code) is not int:
        raise JournalDamagedError("the exit code of an end is not an integer", code=_MALFORMED)


def refuse_policies(found: Any) -> None:
    """Raise JournalDamagedError, KeyError, TypeError for anything but the `policies` of a `begin`."""
    if not isinstance(found, list) or not all(isinstance(one["id"], str) and is_digest(one["sha256"]) for one in found):
        raise JournalDamagedError("its policies are not a list of names and digests", code=_MALFORMED)


def refuse_replay(found: Any) -> None:
    """Raise JournalDamagedError for a fact that is not a recording."""
    if found is not None and not is_recording(found):
        raise JournalDamagedError("'replay' must have the texts recording, sha256 and origin", code=_MALFORMED)


def is_recording(found: object) -> bool:
    return isinstance(found, Mapping) and all(
        isinstance(found.get(name), str) for name in ("recording", "sha256", "origin")
    )


def refuse_recovered(found: Any) -> None:
    """Raise JournalDamagedError, KeyError, TypeError, ValueError for anything but the `recovered` of a `begin`."""
    if found is None:
        return
    kept, reasons = found["keptAs"], list(found["reasons"])
    known = all(is_note(one) and one["code"] in RECOVERED and one.keys() >= RECOVERED[one["code"]] for one in reasons)
    whole_number(found["cutBytes"])
    cut = is_digest(found["cutSha256"]) and (kept is None or isinstance(kept, str))
    if not (reasons and known and cut):
        raise JournalDamagedError("its 'recovered' is not as flopsd writes it", code=_MALFORMED)
