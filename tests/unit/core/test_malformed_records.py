"""Strict reading: what two readers could read differently, or what would take too much to read, is not read."""

from __future__ import annotations

import json

import pytest

from flopsd.core.envelope import (
    MAX_SIGNATURES,
    is_digest,
    is_timestamp,
    parse_count,
    parse_envelope,
)
from flopsd.core.untrusted import MAX_VALUES, parse_json
from flopsd.errors import JournalDamagedError, NotVerifiedError
from flopsd.journal.framing import GENESIS, frame
from flopsd.report.terminal import one_line


@pytest.mark.parametrize("text", ["0", "7", "10", "9" * 40])
def test_counts_are_read(text: str) -> None:
    assert parse_count(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "1e3", "0x1", "\u0663", "\uff11", "9" * 41, 1, 1.0, None, True, []]
)  # fmt: skip
def test_what_only_a_lenient_reader_takes_for_a_count_is_none(text: object) -> None:
    with pytest.raises(ValueError, match="is not a count"):
        parse_count(text)


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


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sm_count": [1, 2, 3]}, "is not a count"),  # a list times 10**15 is a list of that length
        ({"sm_clock_max_mhz": True}, "is not a count"),
        ({"uuid": ["GPU-h"]}, "is not text"),
        ({"index": None}, "is not a count"),
        ({"precision": {"shares_ppm": {"bf16": [1]}, "declared_by": "config"}}, "is not a count"),
        ({"peak_row": {}}, "is not text"),
        ({"incarnation": True}, "is not a count"),
    ],
)
def test_a_device_of_odd_types_is_no_record(changed: dict[str, object], reason: str) -> None:
    from flopsd.core.ledger.history import History, extend
    from flopsd.core.ledger.journal_codec import DeviceEntry, device_record
    from flopsd.core.model import Tally
    from tests.support.runs import CONTEXT, H100

    history = History()
    begin = {"kind": "begin", "format": "flopsd-journal/1", "incarnation": 1, "run": "r", "node": "n", "boot_id": "b", "ns": 1,
             "wall_ns": 1, "utc": "u", "flopsd_version": "0", "peak_table_sha256": "0", "config_sha256": "0", "context": CONTEXT.for_journal()}  # fmt: skip
    extend(history, begin)
    record = device_record(1, 0, DeviceEntry(H100, "sim", None, 1), Tally(1, 1))
    with pytest.raises(JournalDamagedError, match=reason):
        extend(history, {**record, **changed})
    extend(history, record)


@pytest.mark.parametrize("name", ["run", "node"])
def test_a_context_cannot_rename_the_run_or_node(name: str) -> None:
    from flopsd.core.ledger.history import History, extend
    from tests.support.runs import CONTEXT

    context = CONTEXT.for_journal()
    context[name]["id" if name == "run" else "name"] = "another"
    begin = {"kind": "begin", "format": "flopsd-journal/1", "incarnation": 1, "run": "r", "node": "n", "boot_id": "b", "ns": 1,
             "wall_ns": 1, "utc": "u", "flopsd_version": "0", "peak_table_sha256": "0", "config_sha256": "0", "context": context}  # fmt: skip
    with pytest.raises(JournalDamagedError, match="the context does not have its members"):
        extend(History(), begin)


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
