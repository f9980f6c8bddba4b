"""The records of a daemon start beside its checkpoints: its beginning, sources, declarations and earlier seals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.isolation import Isolation
from flopsd.daemon.records import Moment, begin_record
from flopsd.daemon.segment_journal import SegmentJournal
from flopsd.daemon.session_tracker import SessionTracker
from flopsd.daemon.writer_settings import WriterSettings
from flopsd.journal.recovery import Recovery
from flopsd.settings.platform import Context


class StartRecords:
    """Appends them to the journal of the segment. Nothing works before `begin`."""

    def __init__(
        self, segment: SegmentJournal, settings: WriterSettings, context: Context, peak_table_sha256: str
    ) -> None:
        self._segment, self._settings, self._context = segment, settings, context
        self._peak_table_sha256 = peak_table_sha256
        self._incarnation: int
        self._opened: dict[str, Mapping[str, Any]] = {}  # the facts of sources that were opened
        self.listed_seal: EarlierSeal | None = None  # that the journal has already

    def begin(self, at: Moment, incarnation: int, run: str, isolation: Isolation, recovery: Recovery | None) -> None:
        """The beginning of a daemon start, or of its part in the next segment, with the sources that are open."""
        self._incarnation, segment = incarnation, self._segment
        segment.append(
            begin_record(
                at,
                incarnation,
                run,
                self._context,
                self._settings,
                self._peak_table_sha256,
                isolation,
                recovery,
                segment.code_secret_sha256,
                segment.continues if incarnation == 1 else None,
            )
        )
        for name, facts in self._opened.items():
            self.opened(name, facts)

    def opened(self, name: str, facts: Mapping[str, Any]) -> None:
        """A source was opened."""
        self._opened[name] = facts
        self._segment.append({"kind": "source", "name": name, "facts": dict(facts), "incarnation": self._incarnation})

    def seal(self, seal: EarlierSeal | None) -> None:
        """The newest seal, so that every later one names it."""
        if seal is not None and seal != self.listed_seal:
            self.listed_seal = seal
            self._segment.append(seal.for_journal(self._incarnation))

    def declarations(self, sessions: SessionTracker) -> None:
        """What processes declared, in records of their own: no declaration keeps a checkpoint out."""
        for declared in sessions.new_declarations():
            self._segment.append({"kind": "declaration", "incarnation": self._incarnation, "sessions": declared})
