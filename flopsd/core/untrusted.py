"""Parser for untrusted JSON that accepts only text which every parser reads alike. Pure; see `field_reader.py`."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from flopsd.errors import NotVerifiedError

MAX_VALUES = 4_000_000  # objects, lists and members of one JSON text: what a reader must hold in memory at once
_LONG_TEXT = 16_384  # bytes
MAX_DEPTH = 100  # nested objects and lists
_WHITE_SPACE = " \t\n\r"
_AS_BRACES, _NO_STRUCTURE = bytes.maketrans(b"[]", b"{}"), bytes(one for one in range(256) if one not in b'{}[]"')
_OPENED = ord("{")
_ZEROS, _MANY_DIGITS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 40
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape for half of a surrogate pair


class _RefusedError(Exception):
    """Valid JSON that parsers do not all read alike."""


def _begin(text: str) -> str:
    return f"{text[:40]}…" if len(text) > 40 else text


def _refuse(text: str) -> NoReturn:
    raise _RefusedError(f"the number {_begin(text)!r}, not a whole number of at most 40 digits", "json_number")


def _whole(text: str) -> int:
    return int(text) if len(text) <= 40 else _refuse(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {twice[:80]!r} twice", "json_duplicate_member")
    return found


# Building a decoder takes as long as decoding a short text.
_decoder, _decoder_long = (
    json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse, parse_int=whole, object_pairs_hook=_unique)
    for whole in (int, _whole)
)


def _decode(text: str, decoder: Any) -> Any:
    """As `decoder.decode`, without its two regular expressions for white space."""
    try:
        parsed, end = decoder.scan_once(text, 0)
    except StopIteration:
        return decoder.decode(text)  # leading white space, or no JSON
    if end == len(text) or not text[end:].strip(_WHITE_SPACE):
        return parsed
    return decoder.decode(text)  # raises the error


def refuse_too_many_values(data: bytes, what: str, path: str = "") -> None:
    """Raise NotVerifiedError for JSON of more parts than a reader must hold."""
    if len(data) > MAX_VALUES and sum(map(data.count, (b"{", b"[", b","))) > MAX_VALUES:
        raise NotVerifiedError(f"{what} has more than {MAX_VALUES} parts", code="json_too_many_values", path=path)


def parse_json(data: bytes, what: str, path: str = "", *, within: int = 0) -> Any:
    """Parse JSON that every reader reads alike; `path` is for the error, `within` the number of objects and lists
    around it. Raises NotVerifiedError for duplicate keys, floats, NaN, huge integers, lone surrogates, text that is not
    UTF-8, and JSON that would take too much memory."""

    def refused(text: str, code: str) -> NotVerifiedError:
        return NotVerifiedError(f"{what} {text}", code=code, path=path)

    refuse_too_many_values(data, what, path)
    if _is_deep(data, MAX_DEPTH - within):
        raise refused("is nested too deeply", "json_too_deep")
    # Checking every number of a record would take as long as the rest of the parsing, and most texts have no number
    # near the limit. A text as long as a ledger has few numbers, since its counts are text.
    long = len(data) > _LONG_TEXT or _MANY_DIGITS in data.translate(_ZEROS)
    try:
        text = data.decode("utf-8")
        parsed = _decode(text, _decoder_long if long else _decoder)
        if "\\u" in text and _SURROGATE.search(text):
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be encoded
    except _RefusedError as fault:
        raise refused(f"contains {fault.args[0]}", fault.args[1]) from fault
    except UnicodeError as fault:
        code = "json_not_utf8" if isinstance(fault, UnicodeDecodeError) else "json_surrogate"
        raise refused("is not valid UTF-8 text", code) from fault
    except json.JSONDecodeError as fault:
        raise refused(f"is not JSON: {fault}", "json_malformed") from fault
    return parsed


def _is_deep(data: bytes, most: int) -> bool:
    """Whether JSON nests more than `most` objects and lists."""
    if len(data) <= _LONG_TEXT and data.count(b"{") + data.count(b"[") <= most:  # an upper limit, and cheap
        return False
    if b"\\" in data:
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    structure = data.translate(_AS_BRACES, _NO_STRUCTURE)
    # Two adjacent quotes enclose a text without brackets, which can be left out.
    quoted = structure.replace(b'""', b"").split(b'"')
    braces = left = b"".join(quoted[::2])
    for _ in range(most):
        if not left:
            return False
        left = left.replace(b"{}", b"")
    depth = 0
    for one in braces:  # too deep, or not JSON; the decoder detects the latter unless it is too deep first
        depth += 1 if one == _OPENED else -1
        if not 0 <= depth <= most:
            break
    return depth > most
