"""The journal's lines: `{"h":"<64 hex>","m":"<32 hex>","r":<record>}`, each hash over the previous hash and the record.

h = SHA-256(previous h as 32 raw bytes, zeros for the first || record bytes). m is the line's code (codes.py); lines of
a daemon start without a secret, and lines from the pending file, have none. Reading is strict: a line that is not byte
for byte what a daemon writes is damage.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

from flopsd.core.untrusted import parse_json
from flopsd.errors import JournalDamagedError, NotVerifiedError, UnreadableRecordError
from flopsd.system.sha256 import Hashing, fastest, sha256

GENESIS = bytes(32)
MAX_LINE_BYTES, _USUAL_LINE_BYTES = 4 * 1024 * 1024, 64 * 1024
_RECORD_BEGIN, _RECORD_END = b'{"h":"', b"}}\n"
_FRAME = re.compile(rb'\{"h":"([0-9a-f]{64})",(?:"m":"([0-9a-f]{32})",)?"r":(\{.*\})\}\n', re.DOTALL)
# A record in a circle ends in a RecursionError without `check_circular`, which costs a sixth of the time.
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
).encode
# Marks of a record that may not be readable: a fraction, half a surrogate pair, a number with too many digits. One
# pattern for all would be far slower: each of these starts with a byte that can be searched for.
_FRACTION, _EXPONENT, _ESCAPE = re.compile(rb"\.[0-9]+[,}\]]"), re.compile(rb"e[-+][0-9]+[,}\]]"), b"\\"
_ZEROS, _MANY_DIGITS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 40


class JournalLine(NamedTuple):
    """One valid line: the bytes of its record, its number from 1, its chain hash, the offset of its end, and its code
    as hex digits, empty if it has none."""

    body: bytes
    number: int
    head: bytes
    end: int
    code: bytes = b""

    def framed(self) -> bytes:
        """Return the line as it is in the file; a frame has only one form."""
        code = b'"m":"%s",' % self.code if self.code else b""
        return b'{"h":"%s",%s"r":%s}\n' % (self.head.hex().encode("ascii"), code, self.body)

    def record(self) -> Mapping[str, Any]:
        """Return the record, parsed strictly. Raises JournalDamagedError."""
        try:  # the frame lets only objects through
            record: dict[str, Any] = parse_json(self.body, f"journal line {self.number}", f"journal:{self.number}")
        except NotVerifiedError as fault:
            raise JournalDamagedError(str(fault), code=fault.code, path=fault.path) from fault
        return record

    def kind(self) -> object:
        """Return the kind of the record; None if the record cannot be read."""
        try:
            return self.record().get("kind")
        except JournalDamagedError:
            return None


def frame(
    previous: bytes, record: Mapping[str, Any], code: Callable[[bytes], bytes] | None = None
) -> tuple[bytes, bytes]:
    """Return the line for `record` after the hash `previous`, and its chain hash, from which `code` makes the line's
    code. Raises UnreadableRecordError for a record that `read_lines` or `JournalLine.record` would refuse."""
    try:
        text = _encode(record)
    except (TypeError, ValueError, RecursionError) as fault:
        raise _unreadable(record, fault) from fault
    body = text.encode("ascii")
    head = sha256(previous + body).digest()
    line = JournalLine(body, 0, head, 0, b"" if code is None else code(head).hex().encode("ascii"))
    framed = line.framed()
    if len(framed) > MAX_LINE_BYTES:
        raise _unreadable(record, f"it has {len(framed)} bytes, the limit of a line is {MAX_LINE_BYTES}")
    # Reading every line back would cost more than writing it, and nearly all lines are clearly readable.
    if _ESCAPE in body or _FRACTION.search(body) or _EXPONENT.search(body) or _MANY_DIGITS in body.translate(_ZEROS):
        try:
            line.record()
        except JournalDamagedError as fault:
            raise _unreadable(record, fault) from fault
    return framed, head


def _unreadable(record: Mapping[str, Any], why: object) -> UnreadableRecordError:
    return UnreadableRecordError(
        f"a record of kind {record.get('kind')!r} cannot be journalled, since it could not be read back: {why}"
    )


def read_lines(file: IO[bytes], head: bytes = GENESIS, hashing: Hashing | None = None) -> Iterator[JournalLine]:
    """Yield valid lines from the beginning of `file`, hashed by `hashing` or else by the fastest hash. At the first
    invalid line, raises a JournalDamagedError that names line and reason."""
    end, hashing = 0, hashing or fastest()
    for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
        body, head, code = _unframe(raw, head, number, hashing)
        end += len(raw)
        yield JournalLine(body, number, head, end, code)


def line_ends_at(fd: int, end: int, head_sha256: str) -> bool:
    """Whether a line with this chain hash ends at offset `end` of an open journal. Raises OSError."""
    if not 0 < end <= os.fstat(fd).st_size:
        return False
    for most in (_USUAL_LINE_BYTES, MAX_LINE_BYTES):
        least = max(0, end - most)
        lines = os.pread(fd, end - least, least).splitlines(keepends=True)
        if len(lines) > 1 or least == 0:
            break
    last = lines[-1] if lines else b""
    return last.startswith(b'{"h":"%s"' % head_sha256.encode("ascii")) and last.endswith(b"}\n")


def looks_like_records(file: IO[bytes]) -> bool:
    """Whether the rest of `file` contains a complete line that was once a record. A crash cuts the last line, or leaves
    blocks of NULs, possibly within that line. A complete line that is invalid was altered."""
    begins, before, is_holed = True, b"", False
    while piece := file.readline(MAX_LINE_BYTES):
        ends = piece.endswith(b"\n")
        if begins:
            before, is_holed = piece[: len(_RECORD_BEGIN)], False
        is_holed = is_holed or b"\0" in piece
        if ends and not is_holed and (before == _RECORD_BEGIN or piece.endswith(_RECORD_END)):
            return True
        begins = ends
    return False


def _unframe(raw: bytes, previous: bytes, number: int, hashing: Hashing) -> tuple[bytes, bytes, bytes]:
    if not raw.endswith(b"\n"):
        raise _damaged(number, "journal_frame", "no newline at its end: the file was cut or is being written")
    match = _FRAME.fullmatch(raw)
    if not match:
        crlf = "; its line ends are CR LF: mail, git or an editor changed the file" if raw.endswith(b"}\r\n") else ""
        raise _damaged(number, "journal_frame", f"not a framed record{crlf}")
    head = hashing(previous + match[3]).digest()
    if head.hex().encode("ascii") != match[1]:
        raise _damaged(number, "journal_chain", "its hash does not continue the chain: altered, moved or left out")
    return match[3], head, match[2] or b""


def _damaged(number: int, code: str, why: str) -> JournalDamagedError:
    return JournalDamagedError(f"journal line {number}: {why}", code=code, path=f"journal:{number}")
