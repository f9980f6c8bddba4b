"""Values at the edge of what a page or a log line shows."""

from __future__ import annotations

import logging

import pytest

from flopsd.errors import PushError
from flopsd.system.clock import SystemClock
from flopsd.telemetry.page.devices import sources_part
from flopsd.telemetry.push.queue import Sender, SendQueue
from flopsd.telemetry.status_text import activity_text


@pytest.mark.parametrize(
    "sources", [[], [{"name": "nvml", "up": True, "errors": {}, "reason": "", "lastReadingAt": None}]]
)
def test_the_page_says_that_there_is_no_source_only_where_there_is_none(sources: list[object]) -> None:
    page = str(sources_part({"sources": sources, "journal": {"records": 3, "fault": ""}}))
    assert ("No source." in page) == (not sources)
    assert ("nvml is up" in page) == bool(sources)


def test_a_pipe_is_shown_from_half_a_percent() -> None:
    ratios = {"tensor": 0.005, "fp64": 0.0049}
    assert activity_text({"pipeActivityRatio": ratios}) == "tensor 0 %"


def test_a_push_that_cannot_begin_logs_its_hint_and_is_done_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> Sender:
        raise PushError("no credentials", reason="refused", hint="give some")

    with caplog.at_level(logging.ERROR):
        queue = SendQueue("a receiver", refuse, SystemClock(), lambda _: None)
    assert [record.message for record in caplog.records] == [
        "NOT PUSHED to a receiver: no credentials; give some; metering goes on"
    ]
    queue.finish(0)
    assert queue.done.is_set()
