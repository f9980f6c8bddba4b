"""Each way to read a field of a config.json: absent, null, at its limits, and of a wrong type."""

from collections.abc import Callable
from typing import Any

import pytest

from flopsd.core.architecture.config_fields import HARMLESS, Fields
from flopsd.errors import ArchitectureError
from tests.support.architectures import refused

Read = Callable[[Fields], Any]
REFUSED = object()
LEFT_OUT = object()
MOST = 10**9
CASES: list[tuple[str, Read, dict[str, Any], list[tuple[Any, Any]]]] = [
    (
        "number", lambda f: f.number("x"), {},
        [(1, 1), (MOST, MOST), *((odd, REFUSED) for odd in (LEFT_OUT, None, 0, MOST + 1, -1, True, 1.0, "1"))],
    ),
    (
        "number or default", lambda f: f.number("x", 7), {},
        [(LEFT_OUT, 7), (None, 7), (1, 1), (0, REFUSED)],
    ),
    ("the class's default first", lambda f: f.number("x", 7), {"x": 9}, [(LEFT_OUT, 9), (None, 9), (3, 3)]),
    ("number or none", lambda f: f.number("x", at_least=0), {}, [(0, 0), (-1, REFUSED), (LEFT_OUT, REFUSED)]),
    (
        "pair", lambda f: f.pair("x", 7), {},
        [(LEFT_OUT, (7, 7)), (4, (4, 4)), ([4, 5], (4, 5)), ((1, MOST), (1, MOST)),
         *((odd, REFUSED) for odd in ([4], [4, 5, 6], [0, 4], [4, 0], [4, MOST + 1], ["4", 4], [4, True], 0, "4"))],
    ),
    ("layers", lambda f: f.layers("x"), {}, [(2000, 2000), (2001, REFUSED), (0, REFUSED), (LEFT_OUT, REFUSED)]),
    ("layers or default", lambda f: f.layers("x", 12), {}, [(LEFT_OUT, 12)]),
    (
        "optional", lambda f: f.optional("x"), {},
        [(LEFT_OUT, None), (None, None), (0, None), (5, 5), (-1, REFUSED), ("5", REFUSED)],
    ),
    ("optional or default", lambda f: f.optional("x", 6), {}, [(LEFT_OUT, 6), (None, None), (0, None)]),
    (
        "flag", lambda f: f.flag("x", True), {},
        [(LEFT_OUT, True), (None, True), (False, False), (True, True), (1, REFUSED), ("no", REFUSED)],
    ),
    ("flag of the class", lambda f: f.flag("x", True), {"x": False}, [(LEFT_OUT, False), (None, False), (True, True)]),
    (
        "dropout", lambda f: f.output_unneeded("x"), {},
        [(LEFT_OUT, True), (None, True), (0, True), ("0.0", True), (0.1, None), ("0.1", None), (1, None), (1.01, REFUSED),
         (-0.1, REFUSED), ("much", REFUSED), ([1], REFUSED)],
    ),
    ("dropout or default", lambda f: f.output_unneeded("x", 0.1), {}, [(LEFT_OUT, None), (0, True)]),
    (
        "sequence", lambda f: f.sequence("x"), {},
        [(LEFT_OUT, None), (None, None), ([], []), ((1,), (1,)), ([0] * 2000, [0] * 2000), ([0] * 2001, REFUSED),
         ("list", REFUSED), ({}, REFUSED)],
    ),
    ("only", lambda f: f.only("x", 1, 2), {}, [(LEFT_OUT, None), (1, None), (2, None), (3, REFUSED), (None, REFUSED)]),
    ("only, missing", lambda f: f.only("x", 1, missing=3), {}, [(LEFT_OUT, REFUSED), (1, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("read", "defaults", "answers"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_field_is_read_or_refused_by_name(
    read: Read, defaults: dict[str, Any], answers: list[tuple[Any, Any]]
) -> None:
    for value, answer in answers:
        fields = Fields("family", {} if value is LEFT_OUT else {"x": value}, defaults)
        if answer is REFUSED:
            with pytest.raises(ArchitectureError) as caught:
                read(fields)
            assert dict(caught.value.parameters)["name"] == "x", value
            assert caught.value.hint
        else:
            found = read(fields)
            assert (type(found), found) == (type(answer), answer), value
            fields.finish()  # it has been read


@pytest.mark.parametrize("name", HARMLESS)
def test_an_unread_field_is_accepted_only_with_a_harmless_value(name: str) -> None:
    for value in HARMLESS[name]:
        Fields("family", {name: value}).finish()
    for irrelevant in ((), (name,)):
        fields = Fields("family", {name: 7})
        if irrelevant:
            fields.finish(irrelevant)
            continue
        with refused(match=f"{name} is 7"):
            fields.finish()


def test_the_first_eight_unknown_fields_are_named_and_all_are_reported() -> None:
    for count in (8, 9):
        unknown = {f"x{at}": 1 for at in range(count)}
        with pytest.raises(ArchitectureError) as caught:
            Fields("family", {**unknown, "model_type": "family", "vocab\n": 1, "rope_theta": 2.0}).finish()
        said = dict(caught.value.parameters)
        assert said["names"] == ("'vocab\\n'", *list(unknown)[:7])
        assert str(said["more"]) == str(count + 1 - 8)
        assert caught.value.fields == tuple(sorted([*unknown, "vocab\n"]))  # type: ignore[attr-defined]
    with pytest.raises(ArchitectureError) as caught:
        Fields("family", {"a\n" + "b" * 99: 1, "c" * 99: 1}).finish()
    assert dict(caught.value.parameters)["names"] == (("'a\\n" + "b" * 99)[:60], "c" * 60)
    assert "more" not in dict(caught.value.parameters)
