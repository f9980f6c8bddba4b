"""The records of a daemon start that the writer journals, as `History` reads them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flopsd import __version__
from flopsd.core.ledger.history_from_records import FORMAT
from flopsd.core.ledger.isolation import Isolation
from flopsd.core.ledger.journal_codec import precision_record, tally_columns
from flopsd.core.ledger.segments import Continued
from flopsd.daemon.tracked_device import TrackedDevice
from flopsd.daemon.writer_settings import WriterSettings
from flopsd.journal.recovery import Recovery
from flopsd.settings.platform import Context
from flopsd.system.clock import rfc3339


class Moment(NamedTuple):
    """One moment on both clocks."""

    ns: int
    wall_ns: int

    @property
    def utc(self) -> str:
        return rfc3339(self.wall_ns)


def begin_record(
    at: Moment, incarnation: int, run: str, context: Context, settings: WriterSettings, peak_table_sha256: str,
    isolation: Isolation, recovery: Recovery | None, code_secret_sha256: str | None, continues: Continued | None,
) -> dict[str, Any]:  # fmt: skip
    """`continues`: what this journal continues, where this begins it."""
    return {
        "kind": "begin",
        "format": FORMAT,
        "incarnation": incarnation,
        "run": run,
        "node": context.node,
        "boot_id": context.boot_id,
        "ns": at.ns,
        "wall_ns": at.wall_ns,
        "utc": at.utc,
        "flopsd_version": __version__,
        "peak_table_sha256": peak_table_sha256,
        "config_sha256": settings.config_sha256,
        "interval_ns": settings.interval_ns,
        "checkpoint_ns": settings.checkpoint_ns,
        "context": context.for_journal(),
        "precision": precision_record(settings.precision),
        "recovered": None if recovery is None else recovery.for_journal(),
        "isolation": isolation.for_journal(),
        "declared": settings.run_declared.for_journal(),
        "policies": [{"id": policy.id, "sha256": policy.sha256} for policy in settings.policies],
        "code_secret_sha256": code_secret_sha256,
        **({} if continues is None else {"continues": continues.for_journal()}),
    }


def checkpoint_record(
    at: Moment, incarnation: int, tracked: Sequence[TrackedDevice], sessions: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "kind": "checkpoint",
        "incarnation": incarnation,
        "ns": at.ns,
        "utc": at.utc,
        "devices": [one.number for one in tracked],
        "tallies": tally_columns([one.in_segment for one in tracked]),
        "gaps": [
            [one.number, begin_ns, end_ns, reason.value] for one in tracked for begin_ns, end_ns, reason in one.gaps
        ],
        **({"sessions": sessions} if sessions else {}),
    }


def end_record(at: Moment, incarnation: int, why: str, child_exit_code: int | None) -> dict[str, Any]:
    return {
        "kind": "end", "incarnation": incarnation, "ns": at.ns, "utc": at.utc, "reason": why,
        "child_exit_code": child_exit_code,
    }  # fmt: skip
