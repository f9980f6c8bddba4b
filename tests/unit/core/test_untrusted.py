"""Untrusted JSON and YAML, field by field: every problem has a path, and no value is guessed."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from flopsd.core.untrusted import FieldReader, collecting, raising

DOCUMENT = {"a": {"n": 3, "t": "x", "f": False, "l": ["x"], "q": "1e25/3", "o": [{"n": 1}]}}


def reader(value: Any, problems: list[str]) -> FieldReader:
    return FieldReader(value, "", collecting(problems, "FILE"))


def test_fields_of_the_right_type_are_read() -> None:
    problems: list[str] = []
    a = reader(DOCUMENT, problems).object("a")
    assert (a.whole("n", 1, 3), a.text("t"), a.flag("f"), a.texts("l")) == (3, "x", False, ("x",))
    assert (a.fraction("q"), a.maybe_flop("n"), a.one_of("t", ("x", "y"))) == (Fraction(10**25, 3), 3, "x")
    assert [each.whole("n", 0, 9) for each in a.objects("o")] == [1]
    assert (a.maybe_text("no"), a.flag("no"), a.texts("no"), a.maybe_flop("no"), a.maybe_object("no")) == (
        None,
        None,
        (),
        None,
        None,
    )
    assert [(name, found.path) for name, found in reader({"a": {"e": {}}}, problems).items("a")] == [("e", "a.e")]
    assert problems == []


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda r: r.whole("k", 1, 9), "a.k: must be a whole number from 1 to 9, is true"),
        (lambda r: r.maybe_flop("k"), "a.k: True is not an exact count"),
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


def test_a_mapping_that_is_none_is_one_problem_however_many_fields_are_read() -> None:
    problems: list[str] = []
    top = reader(["x"], problems)
    top.only("a")
    assert (top.text("a"), top.whole("b", 2, 3), top.object("c").flag("d")) == ("", 2, None)
    assert problems == ["FILE: must be a mapping, is a list"]


def test_the_first_problem_raises_where_the_caller_wants_it() -> None:
    with pytest.raises(KeyError, match=r"x\.y: must be text, is 1"):
        FieldReader({"y": 1}, "x", raising(KeyError)).text("y")


def test_a_key_cannot_write_to_the_terminal() -> None:
    problems: list[str] = []
    reader({"\x1b[2J": 1}, problems).only("a")
    assert problems == ["FILE: '\\x1b[2J': unknown; known: a"]
