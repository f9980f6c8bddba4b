"""Strict reading: JSON that two readers could understand differently, or that is too large, is refused. Untrusted
JSON and YAML are read field by field: every problem has a path, and no value is guessed."""

import io
import json
import random
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from flopsd.core.envelope import MAX_SIGNATURES, parse_envelope
from flopsd.core.field_reader import FieldReader, collecting, raising
from flopsd.core.untrusted import MAX_DEPTH, MAX_VALUES, parse_json
from flopsd.core.values import is_digest, is_timestamp, whole_number
from flopsd.errors import JournalDamagedError, NotVerifiedError
from flopsd.journal.framing import GENESIS, frame, read_lines
from flopsd.report.terminal import one_line

DOCUMENT = {"a": {"n": 3, "t": "x", "f": False, "l": ["x"], "q": "1e25/3", "o": [{"n": 1}]}}


def reader(value: Any, problems: list[str]) -> FieldReader:
    return FieldReader(value, "", collecting(problems, "FILE"))


def test_fields_of_the_right_type_are_read() -> None:
    problems: list[str] = []
    a = reader(DOCUMENT, problems).object("a")
    assert (a.whole("n", 1, 3), a.text("t"), a.flag("f"), a.texts("l")) == (3, "x", False, ("x",))
    assert (a.fraction("q"), a.one_of("t", ("x", "y"))) == (Fraction(10**25, 3), "x")
    assert [each.whole("n", 0, 9) for each in a.objects("o")] == [1]
    missing = (a.maybe_text("no"), a.flag("no"), a.texts("no"), a.maybe_object("no"))
    assert missing == (None, None, (), None)
    assert [(name, found.path) for name, found in reader({"a": {"e": {}}}, problems).items("a")] == [("e", "a.e")]
    assert problems == []


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda r: r.whole("k", 1, 9), "a.k: must be a whole number from 1 to 9, is true"),
        (lambda r: r.text("k"), "a.k: must be text, is true"),
        (lambda r: r.text("no"), "a.no: must be text, is missing"),
        (lambda r: r.line("long", 5), "a.long: must be text of at most 5 printable characters, is 'xxxx"),
        (lambda r: r.line("escape", 5), "a.escape: must be text of at most 5 printable characters, is '\\x1b[2J'"),
        (lambda r: r.matching("long", re.compile("[a-z]{3}"), "three letters"), "a.long: must be three letters, is"),
        (lambda r: r.texts("k"), "a.k: must be a list, is true"),
        (lambda r: r.texts("mixed"), "a.mixed: must be a list of texts, is a list"),
        (lambda r: r.flag("long"), "a.long: must be true or false, is 'xxxx"),
        (lambda r: r.one_of("k", ("x", "y")), "a.k: must be one of x, y, is true"),
        (lambda r: r.some_of("mixed", ("x", "y")), "a.mixed: must be a list from x, y, is a list"),
        (lambda r: r.fraction("zero"), "a.zero: must be a positive whole number or fraction as text"),
        (lambda r: r.object("k"), "a.k: must be a mapping, is true"),
        (lambda r: list(r.objects("mixed")), "a.mixed[0]: must be a mapping, is text"),
        (lambda r: r.only("k"), "a.long: unknown; known: k"),
        (lambda r: r.only("k", "long", "escape", "mixed", "zero", "null"), "a.null: has no value"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_reported_with_its_path(read: Callable[[FieldReader], object], problem: str) -> None:
    problems: list[str] = []
    a = {"k": True, "long": "x" * 100, "escape": "\x1b[2J", "mixed": ["x", 1], "zero": "0/7", "null": None}
    read(reader({"a": a}, problems).object("a"))
    assert problems[0].startswith(f"FILE: {problem}")
    assert len(problems[0]) < 200


def test_a_value_that_is_no_mapping_is_one_problem_however_many_fields_are_read() -> None:
    problems: list[str] = []
    top = reader(["x"], problems)
    top.only("a")
    assert (top.text("a"), top.whole("b", 2, 3), top.object("c").flag("d")) == ("", 2, None)
    assert problems == ["FILE: must be a mapping, is a list"]


def test_the_first_problem_can_raise_and_no_key_writes_escapes_to_the_terminal() -> None:
    with pytest.raises(KeyError, match=r"x\.y: must be text, is 1"):
        FieldReader({"y": 1}, "x", raising(KeyError)).text("y")
    problems: list[str] = []
    reader({"\x1b[2J": 1}, problems).only("a")
    assert problems == ["FILE: '\\x1b[2J': unknown; known: a"]
    assert reader({"a": "\n"}, problems).line("a", 5) == ""


@pytest.mark.parametrize(
    "text", ["", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "1e3", "0x1", "\u0663", "\uff11", "9" * 41, 1, 1.0, None, True, []]
)  # fmt: skip
def test_a_count_that_only_a_lenient_reader_accepts_is_refused(text: object) -> None:
    assert [whole_number(count) for count in ("0", "7", "10", "9" * 40)] == [0, 7, 10, int("9" * 40)]
    with pytest.raises(ValueError, match="is not a count"):
        whole_number(text)


def test_digests_and_timestamps_have_one_spelling() -> None:
    assert is_digest("0f" * 32)
    assert not any(map(is_digest, ("0F" * 32, "0f" * 32 + "\n", "0f" * 31, "", None, b"0f" * 32, "\u0660" * 64)))
    assert is_timestamp("2026-11-25T14:00:00Z")
    assert is_timestamp("2026-11-25T14:00:00.123456789Z")
    texts = ("2026-11-25T14:00:00Z\n", "2026-11-25 14:00:00Z", "2026-11-25T14:00:00+00:00", "2026-11-25T14:00:00.Z", 5)
    assert not any(map(is_timestamp, texts))


@pytest.mark.long
def test_a_duplicate_among_many_keys_is_refused_in_linear_time() -> None:
    names = ",".join(f'"{n}":0' for n in range(200_000))
    with pytest.raises(NotVerifiedError, match="contains the key '199999' twice"):
        parse_json(f'{{{names},"199999":1}}'.encode(), "it")


@pytest.mark.parametrize(
    "data", [b"[" + b"{}," * (MAX_VALUES // 2 + 1), b"[" * (MAX_VALUES + 1), b"," * (MAX_VALUES + 1)]
)
def test_json_that_would_fill_memory_is_not_parsed(data: bytes) -> None:
    with pytest.raises(NotVerifiedError, match=f"more than {MAX_VALUES} parts"):
        parse_json(data, "it")


def test_deep_nesting_is_refused_whatever_the_texts_contain() -> None:
    """Lists and objects in turn, to the depth limit and one beyond, with brackets, quotes and backslashes in texts."""
    rng = random.Random(7)

    def text() -> str:
        return "".join(rng.choice('[]{}"\\\n,:a\u20ac') for _ in range(rng.randrange(6)))

    for kinds in ("[", "{", "[{", "[[{"):
        for depth in (MAX_DEPTH, MAX_DEPTH + 1):
            value: Any = text()
            for at in range(depth):
                value = [text(), value, text()] if kinds[at % len(kinds)] == "[" else {text(): value, "x" * 7: text()}
            data = json.dumps(value).encode()
            if depth == MAX_DEPTH:
                assert parse_json(data, "it") == value
            else:
                with pytest.raises(NotVerifiedError, match="nested too deeply"):
                    parse_json(data, "it")


def test_a_long_name_or_number_is_shortened_in_the_error() -> None:
    for data in (
        b'{"' + b"k" * 10**6 + b'":1,"' + b"k" * 10**6 + b'":1}',
        b"1" * 10**6,
        b'{"x":' + b"9" * 10**6 + b"e5}",
    ):
        with pytest.raises(NotVerifiedError) as caught:
            parse_json(data, "it")
        assert len(str(caught.value)) < 200


def test_signatures_are_counted_before_they_are_verified() -> None:
    signatures = [{"keyid": "", "sig": "AA=="}] * (MAX_SIGNATURES + 1)
    envelope = {"payload": "e30=", "payloadType": "t", "signatures": signatures}
    with pytest.raises(NotVerifiedError, match="65 signatures; at most 64 are checked"):
        parse_envelope(json.dumps(envelope).encode())


def test_foreign_text_cannot_write_lines_or_escapes_to_a_terminal() -> None:
    assert one_line("run\nVERIFIED: signed\x1b[2J\r\u202e") == "run\\x0aVERIFIED: signed\\x1b[2J\\x0d\\x202e"
    assert one_line("node-0 é 日本") == "node-0 é 日本"


def test_a_frame_has_one_spelling() -> None:
    line, _ = frame(GENESIS, {"n": 1})
    assert [found.framed() for found in read_lines(io.BytesIO(line))] == [line]
    spaced, returned = line.replace(b'"h":', b'"h": '), line.replace(b"}\n", b"}\r\n")
    for spelt in (spaced, returned, b" " + line, line.upper(), b"\xef\xbb\xbf" + line):
        with pytest.raises(JournalDamagedError):
            list(read_lines(io.BytesIO(spelt)))
