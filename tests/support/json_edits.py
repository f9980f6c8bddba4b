"""Edits of JSON that keep it JSON, for fuzzing and for the campaign of mutants."""

import json
import random
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, 10**39, -(10**39), 10**40, "", "x", "\x1b[2J\r\nVERIFIED", "\x00", "\u202e", "\u2028",
    "1", "-1", "0" * 41, "9" * 40, "01", "1\n", "1e9", "\u0661", [], {}, [[]], {"": {}}, "gap", "activity", "train", [1, 2, 3],
    "a" * 3000, {"id": "other-run", "name": "other-node"}, "2026-02-30T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z",
)  # fmt: skip
NAMES = ("", "extra", "kind", "devices", "replay", "number", "ns", "\x1b[2J")
DEPTHS = (10, 90, 900, 5000)


def edited_value(rng: random.Random, value: Any, donor: Any = None) -> Any:
    """`value` with one thing in it changed, removed, added, duplicated, reordered, or taken from elsewhere in `donor`.

    The edit's place is drawn from all parts alike, so that most edits are deep.
    """
    parts = list(_paths(value, ()))
    return _edited_at(rng, value, rng.choice(parts), value if donor is None else donor)


def _paths(value: Any, here: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _paths(part, (*here, key))


def _edited_at(rng: random.Random, value: Any, path: tuple[Any, ...], donor: Any) -> Any:
    if path:
        changed = _edited_at(rng, value[path[0]], path[1:], donor)
        if isinstance(value, dict):
            return {**value, path[0]: changed}
        return [*value[: path[0]], changed, *value[path[0] + 1 :]]
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return _other(rng, value, donor)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return rng.choice(
            [rng.sample(value, len(value)), value[:at] + [value[at]] * rng.choice([0, 2, 3]) + value[at + 1 :]]
        )
    key, another, kind = rng.choice(list(value)), rng.choice(list(value)), rng.randrange(3)
    if kind == 0:
        return {k: v for k, v in value.items() if k != key}
    if kind == 1:
        return {**value, rng.choice(NAMES): rng.choice(ODD)}
    return {**value, key: value[another]}


def _other(rng: random.Random, value: Any, donor: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.7:
        return rng.choice([value + 1, value - 1, -value, value * 2, value * 10**9, value // 2, str(value), 1.5])
    if isinstance(value, str) and value.isdecimal() and rng.random() < 0.7:
        return rng.choice(
            [str(int(value) + 1), str(int(value) * 2), f"-{value}", f"0{value}", int(value), f"{value}.0"]
        )
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(["", "\x07", "0", "f", "é", " "]) + value[at + 1 :]
    if rng.random() < 0.3:
        return _somewhere(rng, donor)
    if rng.random() < 0.1:
        depth = rng.choice(DEPTHS)
        return _Raw("[" * depth + "]" * depth)
    return rng.choice(ODD)


def _somewhere(rng: random.Random, value: Any) -> Any:
    """A part of a document, found by random descent."""
    while isinstance(value, dict | list) and value and rng.random() < 0.8:
        value = rng.choice(list(value.values()) if isinstance(value, dict) else value)
    return value


class _Raw(str):
    """JSON text that is written out unchanged: json.dumps could not nest so deep."""


def spelt(rng: random.Random, value: Any) -> bytes:
    """`value` as compact JSON; now and then with a duplicate member, or a number that JSON does not allow."""
    raws: list[str] = []

    def keep(part: Any) -> Any:
        if isinstance(part, _Raw):
            raws.append(part)
            return f"\x00raw{len(raws) - 1}"
        if isinstance(part, dict):
            return {name: keep(inner) for name, inner in part.items()}
        return [keep(inner) for inner in part] if isinstance(part, list) else part

    text = json.dumps(keep(value), sort_keys=rng.random() < 0.9, separators=(",", ":"), ensure_ascii=rng.random() < 0.8)
    for number, raw in enumerate(raws):
        text = text.replace(f'"\\u0000raw{number}"', raw)
    if rng.random() < 0.04:
        text = rng.choice([text.replace("{", '{"kind":0,', 1), text.replace(":", ":NaN,", 1), text.replace(":", ": ", 1),
                           text.replace('"', '"\\ud800', 1), text[:-1], text + "}", f"\ufeff{text}"])  # fmt: skip
    return text.encode("utf-8", "surrogatepass")


def edited_json(rng: random.Random, data: bytes) -> bytes:
    """`edited_value` for JSON text, or lines of JSON; any other text comes back unchanged."""
    lines = data.split(b"\n")
    try:
        at = rng.choice([n for n, line in enumerate(lines) if line.strip()])
        whole = json.loads(data) if data[:1] == b"{" and len(lines) > 1 and lines[0].strip() == b"{" else None
        if whole is not None:
            return spelt(rng, edited_value(rng, whole))
        kind = rng.randrange(20)
        if kind < 3:
            lines = [lines[:at] + lines[at + 1 :], [*lines, lines[at]], rng.sample(lines, len(lines))][kind]
        else:
            lines[at] = spelt(rng, edited_value(rng, json.loads(lines[at]), json.loads(rng.choice(lines) or b"0")))
    except (ValueError, IndexError, RecursionError, OverflowError):
        return data
    return b"\n".join(lines)
