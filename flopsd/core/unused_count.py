"""Reasons why a training process's operator count is not used. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.field_reader import FieldReader, raising
from flopsd.core.model import DeviceUid
from flopsd.core.notes import Note, note

_MOST, _MAX_DEVICE = 10**39, 100


class Unused(str, Enum):
    """Why a process's count is not used. A closed set, since it is a metric label."""

    COUNT_EXCEEDS_CEILING = "count_exceeds_ceiling"
    DEVICE_CHANGED = "device_changed"
    DEVICE_NOT_METERED = "device_not_metered"


@dataclass(frozen=True, slots=True)
class UnusedCount:
    """A session's count that no figure includes. `device` is None where none was declared; `ceiling_flop` is the most
    that the device can have executed, given only where the count exceeds it."""

    reason: Unused
    session: str
    device: DeviceUid | None
    counted_flop: int
    ceiling_flop: int | None = None

    def for_journal(self) -> dict[str, Any]:
        """The daemon's refusal, as in the session's record."""
        return {
            "reason": self.reason.value,
            "device": self.device,
            "flop": self.counted_flop,
            "ceiling": self.ceiling_flop,
        }

    @classmethod
    def from_record(cls, session: str, record: Mapping[str, Any]) -> UnusedCount:
        """The inverse of `for_journal`. Raises KeyError or ValueError."""
        fields = FieldReader(record, "refused", raising(ValueError))
        fields.only("reason", "device", "flop", "ceiling", null=True)
        ceiling = None if record["ceiling"] is None else fields.whole("ceiling", 0, _MOST)
        reason, device = Unused(record["reason"]), fields.line("device", _MAX_DEVICE)
        if reason is Unused.DEVICE_NOT_METERED or (ceiling is None) == (reason is Unused.COUNT_EXCEEDS_CEILING):
            raise ValueError("a refused count has a ceiling if it exceeds it, and else null")
        return cls(reason, session, device, fields.whole("flop", 0, _MOST), ceiling)

    @property
    def note(self) -> Note:
        counted = {"session": self.session[:8], "flop": str(self.counted_flop)}
        if self.device is None:
            return note("device_not_named", **counted)
        if self.ceiling_flop is not None:
            return note("count_exceeds_ceiling", **counted, device=self.device, ceiling=str(self.ceiling_flop))
        return note(self.reason.value, **counted, device=self.device)
