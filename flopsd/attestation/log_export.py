"""Checkpoint lines in the export of a log service or container runtime: plain text or JSON, gzipped or not.

Read as a stream, in bounded memory. Two clocks are kept apart: `ingestionTime` is of the log service's clock, every
other time is of the host that wrote the line.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import IO, Any

from flopsd.attestation.log_events import CHUNK, LogEvents
from flopsd.core.dataclass import dataclass
from flopsd.core.figures import Figures
from flopsd.core.values import is_digest, is_whole, whole_number
from flopsd.errors import NotVerifiedError
from flopsd.system.bounded_streams import Unpacked, WithoutHoles
from flopsd.system.clock import rfc3339
from flopsd.system.regular_files import open_regular

MARK = "flopsd-checkpoint run="
FREE_BYTES = 64 * 1024**2  # a log of any size may unpack to this, and a hole in it may have this size
MAX_CHECKPOINT = 4096  # a checkpoint line is some 400 characters
MOST_NAMES, MAX_NAME = 5, 200  # names of other runs and nodes in a message; characters of each
_PACKED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
}
_REST = re.compile(r"[0-9]{1,9}(?: [a-z_]{1,40}=[0-9a-z:]{1,80})+")
_CODE = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-f]{32})")
_EXPORT = re.compile(r'"(?:events|logEvents)"\s*:\s*\[|"ingestionTime"\s*:\s*[0-9]')
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """One checkpoint line, its place in the log and its times."""

    where: str
    incarnation: int
    records: int
    size_bytes: int
    head_sha256: str
    figures: Figures
    ingested_ms: int | None = None  # Unix milliseconds at which the log service received it, by its own clock
    line_time: str | None = None  # by the clock of the host that wrote the line
    text: str = ""  # up to the code, which authenticates this text
    code: str | None = None
    code_index: int = 0  # which line of its daemon start it is about

    @property
    def ingested_at(self) -> str | None:
        """When the log service received the line, by its own clock."""
        return None if self.ingested_ms is None else rfc3339(self.ingested_ms * 1_000_000)

    def for_json(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "records": self.records,
            "headSha256": self.head_sha256,
            "ingestedAt": self.ingested_at,
            "lineTime": self.line_time,
        }


@dataclass(slots=True)
class SkippedLines:
    """Skipped checkpoint lines, for the report."""

    unreadable: int = 0  # of this run and node, but damaged
    others: int = 0  # of other runs, nodes or segments
    names: dict[str, None] = field(default_factory=dict)  # the first few of those runs and nodes


def find_anchors(path: Path, run: str, node: str, skipped: SkippedLines, segment: int = 1) -> Iterator[Anchor]:
    """The checkpoint lines of `run` on `node` in a log file, in file order; of one `segment` of a rotated run.
    Raises NotVerifiedError."""
    numbers = (f" segment={segment}", *([""] if segment == 1 else []))  # a run without rotation has one, unnumbered
    begins = [f"flopsd-checkpoint run={run} node={node}{number} incarnation=" for number in numbers]
    search = _Search({form: begin for begin in begins for form in (begin, json.dumps(begin)[1:-1])}, path.name, skipped)
    try:
        with open_regular(path) as raw, _opened(raw, path) as text:
            first = text.read(CHUNK)
            if first.lstrip()[:1] in ("{", "[") and _EXPORT.search(first):
                yield from search.in_export(LogEvents(text, first, path.name))
            else:
                yield from search.in_text(text, first)
    except (OSError, EOFError, zlib.error) as fault:
        raise NotVerifiedError(f"cannot read the log {path}: {getattr(fault, 'strerror', None) or fault}") from fault


def _opened(raw: IO[bytes], path: Path) -> io.TextIOWrapper:
    """The text of a log file; bytes that are not text become replacement characters, which match nothing.
    Raises NotVerifiedError for a compression other than gzip."""
    file: Any = raw
    packed = file.peek(2)[:2] == b"\x1f\x8b"
    plain = io.BufferedReader(Unpacked(raw, FREE_BYTES) if packed else WithoutHoles(raw, FREE_BYTES), 1 << 16)
    if form := next((name for begin, name in _PACKED.items() if plain.peek(10).startswith(begin)), None):
        raise NotVerifiedError(
            f"the log {path} is packed with {form}{', within gzip' if packed else ''}: nothing in it was read",
            hint="unpack it; a log is read as it is, or gzipped once",
        )
    utf16 = plain.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")  # as PowerShell redirects
    return io.TextIOWrapper(plain, encoding="utf-16" if utf16 else "utf-8-sig", errors="replace", newline="\n")


class _Search:
    """Finds checkpoint lines in pieces of text."""

    def __init__(self, wanted: Mapping[str, str], name: str, skipped: SkippedLines) -> None:
        """`wanted`: each form in which a log may contain the beginning of a line, with what the daemon wrote."""
        self._wanted, self._name, self._skipped = wanted, name, skipped

    def in_text(self, text: IO[str], first: str) -> Iterator[Anchor]:
        """The checkpoint lines in plain text of any line length: pieces overlap by more than a checkpoint line."""
        buffer, begin, line, more = first, 0, 1, True
        while more:
            chunk = text.read(CHUNK)
            more = bool(chunk)
            buffer += chunk
            end = len(buffer) - MAX_CHECKPOINT if more else len(buffer)
            at = buffer.find(MARK, begin)
            counted = 0
            while 0 <= at < end:
                line += buffer.count("\n", counted, at)
                counted = at
                for anchor in self._at(buffer, at, f"{self._name} line {line}", None, None):
                    since = max(0, at - MAX_CHECKPOINT)
                    time = _TIME.search(buffer, max(since, buffer.rfind("\n", since, at) + 1), at)
                    yield replace(anchor, line_time=None if time is None else time[0])
                at = buffer.find(MARK, at + 1)
            kept = max(0, end - MAX_CHECKPOINT)  # the text before a checkpoint on the same line may contain its time
            line += buffer.count("\n", counted, kept) if kept > counted else -buffer.count("\n", kept, counted)
            buffer, begin = buffer[kept:], max(begin, end) - kept

    def in_export(self, export: LogEvents) -> Iterator[Anchor]:
        """The checkpoint lines in the events of a log service."""
        for number, event in enumerate(export.objects(), start=1):
            texts = [value for value in event.values() if isinstance(value, str) and MARK in value]
            if not texts:
                continue
            ingested_ms, time = _moment(event.get("ingestionTime")), _line_time(event.get("timestamp"))
            for text in texts:
                at = text.find(MARK)
                while at >= 0:
                    yield from self._at(text, at, f"{self._name} event {number}", ingested_ms, time)
                    at = text.find(MARK, at + 1)

    def _at(self, text: str, at: int, where: str, ingested_ms: int | None, line_time: str | None) -> Iterator[Anchor]:
        """The checkpoint line at `at` in a text, if it is of this run and undamaged."""
        wanted = next((w for w in self._wanted if text.startswith(w, at)), None)
        if wanted is None:
            self._skipped.others += 1
            if len(self._skipped.names) < MOST_NAMES:
                name = text[at + len(MARK) - len("run=") : at + MAX_NAME].split("\n")[0].partition(" incarnation=")[0]
                self._skipped.names[name] = None
            return
        rest = _REST.match(text, at + len(wanted), at + len(wanted) + MAX_CHECKPOINT)
        anchor = None if rest is None else _anchor(self._wanted[wanted], rest[0], where, ingested_ms, line_time)
        if anchor is None:
            self._skipped.unreadable += 1
        else:
            yield anchor


def _anchor(begin: str, rest: str, where: str, ingested_ms: int | None, line_time: str | None) -> Anchor | None:
    """The line made of `begin`, which ends in `incarnation=`, and `rest`; None if it is truncated. The last value may
    be truncated, so coverage is not read."""
    incarnation, *pairs = rest.split(" ")
    values = dict(pair.split("=", 1) for pair in pairs)
    if len(values) != len(pairs) or list(values)[-1] in ("head", "low_flop", "measured_flop", "high_flop", "code"):
        return None
    found = _CODE.fullmatch(values["code"]) if "code" in values else None
    if "code" in values and found is None:
        return None
    try:
        low, measured, high = (
            None if values[f"{name}_flop"] == "unknown" else whole_number(values[f"{name}_flop"])
            for name in ("low", "measured", "high")
        )
        if low is None or not is_digest(values["head"]):
            return None
        return Anchor(
            where,
            whole_number(incarnation),
            whole_number(values["records"]),
            whole_number(values["bytes"]),
            values["head"],
            Figures(low, measured, high),
            ingested_ms,
            line_time,
            begin + rest.partition(" code=")[0],
            None if found is None else found[2],
            0 if found is None else int(found[1]),
        )
    except (KeyError, ValueError):
        return None


def _moment(ms: object) -> int | None:
    """Unix milliseconds of a year with four digits, else None."""
    return ms if is_whole(ms) and 0 < ms < 253_402_300_800_000 else None


def _line_time(timestamp: object) -> str | None:
    ms = _moment(timestamp)
    return None if ms is None else rfc3339(ms * 1_000_000)
