"""docs/training-process.md says what is taken: every phase, fact, counter and line of the protocol."""

from __future__ import annotations

import re

from flopsd.core.declarations import _FACTS, COUNTERS, Method, Phase, Recomputation
from flopsd.core.session_protocol import (
    MAX_LINE_BYTES,
    Conversation,
    FactsDeclared,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.daemon.session_server import BYTES_A_SECOND, HELLO_SECONDS, MAX_SESSIONS, MESSAGES_A_SECOND
from flopsd.settings.client_socket import LONGEST_PATH_BYTES
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "training-process.md").read_text()
NAMES = set(re.findall(r"`(\w+)`", PAGE))


def test_every_word_is_on_the_page() -> None:
    assert {*_FACTS, *COUNTERS} <= NAMES
    assert {word.value for words in (Phase, Method, Recomputation) for word in words} <= NAMES


def test_the_lines_of_the_protocol_are_taken_as_they_are_printed() -> None:
    talk = Conversation(4711, 0)
    lines = re.findall(r'^ {4}(\{"flopsd".*\})$', PAGE, re.MULTILINE)
    lines[0] = lines[0].replace("0f…32 hexadecimal digits", "0f" * 16)
    events = [talk.receive(line.encode()) for line in lines]
    assert [type(event) for event in events] == [SessionOpened, FactsDeclared, PhaseChanged, WorkCounted, SessionClosed]


def test_the_bounds_on_the_page_are_those_that_hold() -> None:
    assert f"reads {MESSAGES_A_SECOND} lines and {BYTES_A_SECOND // 1024} KiB a second" in PAGE
    assert f"serves {MAX_SESSIONS} processes" in PAGE
    assert f"without a hello after {HELLO_SECONDS} s" in PAGE
    assert f"at most {MAX_LINE_BYTES // 1024} KiB" in PAGE
    assert f"at most {LONGEST_PATH_BYTES} bytes" in PAGE
