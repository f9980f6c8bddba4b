"""The records of a daemon start that the writer journals, as `History` reads them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flopsd import __version__
from flopsd.core.declarations import OperatorDeclarations
from flopsd.core.ledger.device_records import precision_record
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history_from_records import FORMAT
from flopsd.core.ledger.isolation import Isolation
from flopsd.core.ledger.segments import Continued
from flopsd.core.ledger.tally_records import tally_columns
from flopsd.daemon.accounts.tracked_device import TrackedDevice
from flopsd.daemon.sessions.tracker import SessionTracker
from flopsd.daemon.writing.segment_journal import SegmentJournal
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.recovery import Recovery
from flopsd.settings.platform import Context
from flopsd.system.clock import rfc3339


class Moment(NamedTuple):
    """One moment on both clocks: ns since boot, and ns of the wall clock."""

    ns: int
    wall_ns: int

    @property
    def utc(self) -> str:
        return rfc3339(self.wall_ns)


class StartRecords:
    """Appends the records other than checkpoints to the journal of the segment: the beginning, sources, declarations
    and earlier seals. Call `begin` first."""

    def __init__(
        self, segment: SegmentJournal, settings: WriterSettings, context: Context, peak_table_sha256: str
    ) -> None:
        self._segment, self._settings, self._context = segment, settings, context
        self._peak_table_sha256 = peak_table_sha256
        self._incarnation: int
        self._opened: dict[str, Mapping[str, Any]] = {}  # the facts of sources that were opened
        self.declared: tuple[OperatorDeclarations, ...] = ()  # by the settings of the daemon starts of the run
        self.stops_ns: tuple[int, ...] = ()  # see History.stops_ns
        self.run_key = ""  # see History.run_key
        self.listed_seal: EarlierSeal | None = None  # the newest that the journal lists

    def begin(self, at: Moment, incarnation: int, run: str, isolation: Isolation, recovery: Recovery | None) -> None:
        """Record the beginning of a daemon start, or of its part in the next segment, and the open sources."""
        self._incarnation, settings, context, segment = incarnation, self._settings, self._context, self._segment
        segment.append(
            {
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
                "peak_table_sha256": self._peak_table_sha256,
                "config_sha256": settings.config_sha256,
                "interval_ns": settings.interval_ns,
                "checkpoint_ns": settings.checkpoint_ns,
                "context": context.for_journal(),
                "precision": precision_record(settings.precision),
                "recovered": None if recovery is None else recovery.for_journal(),
                "isolation": isolation.for_journal(),
                "declared": settings.run_declared.for_journal(),
                "policies": [{"id": policy.id, "sha256": policy.sha256} for policy in settings.policies],
                "code_secret_sha256": segment.code_secret_sha256,
                **({} if incarnation > 1 or segment.continues is None else self._of_segments(segment.continues)),
            }
        )
        for name, facts in self._opened.items():
            self.opened(name, facts)

    def _of_segments(self, continues: Continued) -> dict[str, Any]:
        """Return what the first `begin` record of a segment says of earlier segments."""
        stopped_ns = sum(self.stops_ns) if min(self.stops_ns, default=0) >= 0 else -1
        declared = [one.for_journal() for one in self.declared]
        earlier = {"declared": declared, "stopped_ns": stopped_ns, "run_key": self.run_key}
        return {"continues": continues.for_journal(), "earlier": earlier}

    def opened(self, name: str, facts: Mapping[str, Any]) -> None:
        """Record that a source was opened, or its changed facts."""
        self._opened[name] = facts
        self._segment.append({"kind": "source", "name": name, "facts": dict(facts), "incarnation": self._incarnation})

    def seal(self, seal: EarlierSeal | None) -> None:
        """Record the newest seal, so that every later seal names it."""
        if seal is not None and seal != self.listed_seal:
            self.listed_seal = seal
            self._segment.append(seal.for_journal(self._incarnation))

    def declarations(self, sessions: SessionTracker) -> None:
        """Record what processes declared, in records of its own, so that no declaration keeps a checkpoint out."""
        for declared in sessions.new_declarations():
            self._segment.append({"kind": "declaration", "incarnation": self._incarnation, "sessions": declared})


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
