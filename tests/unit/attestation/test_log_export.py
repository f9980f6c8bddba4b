"""Logs are read in chunks: the result does not depend on where the chunks end."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopsd.attestation import log_events, log_export
from flopsd.attestation.log_events import LEAST_EVENT, LIST_KEYS, LogEvents
from flopsd.attestation.log_export import Anchor, SkippedLines, _anchor, _line_time, _moment, find_anchors
from flopsd.core.figures import Figures
from flopsd.errors import NotVerifiedError

HEAD = "ab" * 32
REST = f"7 records=12 bytes=345 head={HEAD} low_flop=1 measured_flop=2 high_flop=3 code=4:{'cd' * 16} coverage=5"
BEGIN = "flopsd-checkpoint run=r node=n incarnation="
LINE = BEGIN + REST
patched = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

names = st.sampled_from([*LIST_KEYS, "message", "ingestionTime", "a"])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 10**15), st.text('a"\\{}[], \né', max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)
documents = st.one_of(st.dictionaries(names, values, max_size=4), st.lists(values, max_size=4))


def objects_of(document: Any) -> Iterator[dict[str, Any]]:
    """The objects that the class promises, computed from the whole document."""
    for part in document if isinstance(document, list) else [document]:
        if isinstance(part, dict):
            lists = {key: value for key, value in part.items() if key in LIST_KEYS and isinstance(value, list)}
            yield from (one for value in lists.values() for one in value if isinstance(one, dict))
            yield {key: value for key, value in part.items() if key not in lists}


def read(text: str, first: int) -> list[Any]:
    return list(LogEvents(io.StringIO(text[first:]), text[:first], "x").objects())


@pytest.mark.long
@patched
@given(st.lists(documents, min_size=1, max_size=3), st.sampled_from([None, 1]), st.integers(0, 40), st.integers(1, 9),
       st.integers(1, 60))  # fmt: skip
def test_the_objects_of_an_export_are_found_at_any_chunk_boundary(
    monkeypatch: pytest.MonkeyPatch, listed: list[Any], indent: int | None, first: int, chunk: int, cut: int
) -> None:
    monkeypatch.setattr(log_events, "CHUNK", chunk)
    texts = [json.dumps(one, indent=indent, ensure_ascii=False) for one in listed]
    expected = [one for document in listed for one in objects_of(document)]
    assert read(" \n".join(texts) + "\n", first) == read("".join(texts), first) == expected
    with pytest.raises(NotVerifiedError, match="x starts as JSON but is not valid JSON"):
        read(texts[0][: max(1, min(cut, len(texts[0]) - 1))], first)


def test_white_space_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_events, "CHUNK", 8)
    events = LogEvents(io.StringIO(" " * 1000 + "]"), "[", "x")
    assert list(events.objects()) == []
    assert len(events._buffer) <= 8


def test_objects_beyond_the_size_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other content of a page counts towards the limit; each event is counted on its own."""
    monkeypatch.setattr(log_events, "MAX_EVENT", 40)
    monkeypatch.setattr(log_events, "CHUNK", 8)
    assert len(read('{"events":[' + ",".join(['{"message":"1234567890"}'] * 9) + "]}", 5)) == 10
    fits = json.dumps({"message": "x" * (40 - len('"message": ""'))})
    assert len(read(fits, 5)) == 1
    for text in (fits.replace('"message"', '"messages"'), '{"a":1,"events":[],"b":"' + "x" * 40 + '"}'):
        with pytest.raises(NotVerifiedError, match="an object has more than 40 characters"):
            read(text, 5)
    monkeypatch.setattr(log_events, "MAX_EVENT", 4000)
    monkeypatch.setattr(log_events, "UNJUDGED_EVENTS", 3)
    assert [len(read("[" + "{}," * (count - 1) + "{}]", 5)) for count in (1, 3)] == [1, 3]
    with pytest.raises(NotVerifiedError, match=f"its 4 objects have less than {LEAST_EVENT} characters on average"):
        read("[" + "{}," * 3 + "{}]", 5)
    each = '{"m":"' + "x" * (LEAST_EVENT - len('{"m":""},')) + '"},'
    assert len(read("[" + each * 9 + each[:-1] + "]", 5)) == 10


FILL = st.text("x \n", max_size=9)


@patched
@given(
    st.lists(st.tuples(FILL, st.sampled_from(["", "2026-11-25T14:00:00.5Z ", "2026-11-25 14:00:00,25+01:00 a "])), max_size=4),
    FILL, st.integers(60, 700),
)  # fmt: skip
def test_lines_are_found_with_number_and_time_at_any_chunk_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[tuple[str, str]], tail: str, chunk: int
) -> None:
    monkeypatch.setattr(log_export, "CHUNK", chunk)
    monkeypatch.setattr(log_export, "MAX_CHECKPOINT", len(LINE) + 40)
    text, expected = "", []
    for fill, time in parts:
        text += f"{fill}\n{time}"
        expected.append((f"some.log line {text.count(chr(10)) + 1}", time.removesuffix(" a ").strip() or None))
        text += f"{LINE}\n"
    log = tmp_path / "some.log"
    log.write_text(text + tail)
    skipped = SkippedLines()
    found = list(find_anchors(log, "r", "n", skipped))
    assert [(one.where, one.line_time) for one in found] == expected
    assert skipped == SkippedLines()


def test_a_time_at_the_beginning_of_a_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    log.write_text(f"2026-11-25T14:00:00.5Z {LINE}\n")
    assert [one.line_time for one in find_anchors(log, "r", "n", SkippedLines())] == ["2026-11-25T14:00:00.5Z"]


def test_a_checkpoint_line_without_all_its_fields_is_none() -> None:
    whole = _anchor(BEGIN, REST, "here", 5, "then")
    figures = Figures(1, 2, 3)
    text = LINE.partition(" code=")[0]
    assert whole == Anchor("here", 7, 12, 345, HEAD, figures, 5, "then", text, "cd" * 16, 4)
    without = REST.replace(f" code=4:{'cd' * 16}", "")
    plain = _anchor(BEGIN, without, "here", None, None)
    assert plain == Anchor("here", 7, 12, 345, HEAD, figures, None, None, BEGIN + without, None, 0)
    unknown = _anchor(BEGIN, without.replace("high_flop=3", "high_flop=unknown"), "here", None, None)
    assert unknown is not None
    assert unknown.figures == Figures(1, 2, None)
    for pair in without.split(" ")[1:-1]:
        assert _anchor(BEGIN, without.replace(f" {pair}", ""), "here", None, None) is None
    torn = [without.partition(f" {name}=")[0] for name in ("coverage", "high_flop", "measured_flop", "low_flop")]
    twice, bent = f"{without} head={HEAD}", REST.replace("code=4:", "code=04:")
    for rest in (*torn, twice, bent, REST.partition(" coverage")[0], without.replace("low_flop=1", "low_flop=unknown")):
        assert _anchor(BEGIN, rest, "here", None, None) is None, rest


@pytest.mark.parametrize(
    ("ms", "time"),
    [
        (1, "1970-01-01T00:00:00.001000Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999000Z"),
        (0, None), (-1, None), (253_402_300_800_000, None), (True, None), (1.5, None), ("1", None), (None, None),
    ],
)  # fmt: skip
def test_a_moment_has_a_four_digit_year(ms: object, time: str | None) -> None:
    assert (_moment(ms), _line_time(ms)) == (None if time is None else ms, time)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, lambda data: gzip.compress(gzip.compress(data))])
def test_a_log_compressed_in_another_format_is_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "log").write_bytes(pack(b"a line\n"))
    with pytest.raises(NotVerifiedError, match="is packed with (bzip2|xz|gzip, within gzip): nothing in it was read"):
        list(find_anchors(tmp_path / "log", "run", "node", SkippedLines()))
