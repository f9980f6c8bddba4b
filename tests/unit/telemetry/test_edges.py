"""Values at the boundary of what a page or a log line shows."""

import threading

import pytest

from flopsd.errors import PushError
from flopsd.system.clock import SystemClock
from flopsd.telemetry.http.response import compressed
from flopsd.telemetry.page.gaps import sources_part
from flopsd.telemetry.push.frames import Page
from flopsd.telemetry.push.pages import Parsed, parse_page
from flopsd.telemetry.push.queue import REQUEST_SECONDS, SendQueue
from flopsd.telemetry.status_text import activity_text
from tests.support.paths import GOLDEN
from tests.support.process import PATIENCE_SECONDS

PAGE = (GOLDEN / "metrics.prom").read_bytes()


@pytest.mark.parametrize(
    "sources", [[], [{"name": "nvml", "up": True, "errors": {}, "reason": "", "lastReadingAt": None}]]
)
def test_the_page_says_no_source_only_where_there_is_none(sources: list[object]) -> None:
    page = str(sources_part({"sources": sources, "journal": {"records": 3, "fault": ""}, "signingKey": None}))
    assert ("No source." in page) == (not sources)
    assert ("nvml is up" in page) == bool(sources)


def test_a_pipe_is_shown_from_half_a_percent() -> None:
    ratios = {"tensor": 0.005, "fp64": 0.0049}
    assert activity_text({"pipeActivityRatio": ratios}) == "tensor 0 %"


def test_nothing_is_sent_when_no_time_is_left() -> None:
    """A page that fails while the end comes is tried once more only if there is time."""
    sending, ended, sent = threading.Event(), threading.Event(), list[float]()

    class Failing:
        keeps = 5

        def encode(self, parsed: Parsed) -> Parsed:
            return parsed

        def send(self, _: Parsed, seconds: float) -> None:
            sent.append(seconds)
            sending.set()
            ended.wait(PATIENCE_SECONDS)
            raise PushError("gone", reason="unreachable")

    queue = SendQueue("a receiver", Failing, SystemClock(), lambda _: None)
    queue.offer(parse_page(Page(PAGE, 1)), [])
    assert sending.wait(PATIENCE_SECONDS)
    queue.finish(0)
    ended.set()
    assert queue.done.wait(PATIENCE_SECONDS)
    assert sent == [REQUEST_SECONDS]
    assert (queue.state.failures, queue.state.dropped) == ({"unreachable": 1, "timeout": 1}, 1)
    assert not queue.all_sent


@pytest.mark.parametrize("size", [1023, 1024])
def test_a_body_that_fits_into_one_packet_is_not_compressed(size: int) -> None:
    body, headers = compressed(b"x" * size, "gzip")
    assert (len(body) < size) == (("Content-Encoding", "gzip") in headers) == (size == 1024)
