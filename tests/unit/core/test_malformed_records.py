"""Strict reading: what two readers could read differently, or what would take too much to read, is not read."""

from __future__ import annotations

import json

import pytest

from flopsd.core.envelope import MAX_SIGNATURES, parse_envelope
from flopsd.core.untrusted import MAX_VALUES, parse_json
from flopsd.core.values import is_digest, is_timestamp, whole_number
from flopsd.errors import JournalDamagedError, NotVerifiedError
from flopsd.journal.framing import GENESIS, frame
from flopsd.report.terminal import one_line


@pytest.mark.parametrize("text", ["0", "7", "10", "9" * 40])
def test_counts_are_read(text: str) -> None:
    assert whole_number(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "1e3", "0x1", "\u0663", "\uff11", "9" * 41, 1, 1.0, None, True, []]
)  # fmt: skip
def test_what_only_a_lenient_reader_takes_for_a_count_is_none(text: object) -> None:
    with pytest.raises(ValueError, match="is not a count"):
        whole_number(text)


def test_digests_and_timestamps_have_one_spelling() -> None:
    assert is_digest("0f" * 32)
    assert not any(map(is_digest, ("0F" * 32, "0f" * 32 + "\n", "0f" * 31, "", None, b"0f" * 32, "\u0660" * 64)))
    assert is_timestamp("2026-11-25T14:00:00Z")
    assert is_timestamp("2026-11-25T14:00:00.123456789Z")
    for text in (
        "2026-11-25T14:00:00Z\n",
        "2026-11-25 14:00:00Z",
        "2026-11-25T14:00:00+00:00",
        "2026-11-25T14:00:00.Z",
        5,
    ):
        assert not is_timestamp(text)


def test_two_hundred_thousand_names_and_one_of_them_twice_are_refused_in_linear_time() -> None:
    names = ",".join(f'"{n}":0' for n in range(200_000))
    with pytest.raises(NotVerifiedError, match="contains the key '199999' twice"):
        parse_json(f'{{{names},"199999":1}}'.encode(), "it")


@pytest.mark.parametrize(
    "data", [b"[" + b"{}," * (MAX_VALUES // 2 + 1), b"[" * (MAX_VALUES + 1), b"," * (MAX_VALUES + 1)]
)
def test_what_would_fill_the_memory_is_not_parsed(data: bytes) -> None:
    with pytest.raises(NotVerifiedError, match=f"more than {MAX_VALUES} parts"):
        parse_json(data, "it")


def test_a_long_name_or_number_is_not_repeated_whole() -> None:
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
    with pytest.raises(NotVerifiedError, match="101 signatures, more than the limit of 100"):
        parse_envelope(json.dumps(envelope).encode())


def test_text_of_others_cannot_speak_for_us_on_a_terminal() -> None:
    assert one_line("run\nVERIFIED: signed\x1b[2J\r\u202e") == "run\\x0aVERIFIED: signed\\x1b[2J\\x0d\\x202e"
    assert one_line("node-0 é 日本") == "node-0 é 日本"


def test_a_frame_has_one_spelling() -> None:
    import io

    from flopsd.journal.framing import read_lines

    line, _ = frame(GENESIS, {"n": 1})
    assert [found.framed() for found in read_lines(io.BytesIO(line))] == [line]
    for spelt in (
        line.replace(b'"h":', b'"h": '),
        line.replace(b"}\n", b"}\r\n"),
        b" " + line,
        line.upper(),
        b"\xef\xbb\xbf" + line,
    ):
        with pytest.raises(JournalDamagedError):
            list(read_lines(io.BytesIO(spelt)))
