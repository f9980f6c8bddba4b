"""The line that shows progress on a terminal."""

import io
import logging
import threading
from queue import Queue

import pytest

from flopsd.system.progress import ProgressLine, is_screen
from flopsd.testing import FakeClock


class Turns(FakeClock):
    """A clock whose waits end when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self._turns = Queue[float](), Queue[bool]()

    def wait(self, event: threading.Event, seconds: float) -> bool:  # noqa: ARG002
        self.asked.put(seconds)
        ended = self._turns.get()
        if not ended:
            self.advance(round(seconds * 10**9))
        return ended

    def turn(self, *, ended: bool = False) -> None:
        """End the current wait; return in the next one, unless it was the last."""
        self._turns.put(ended)
        if not ended:
            self.asked.get()


@pytest.mark.parametrize(
    ("is_terminal", "term", "rewrites"),
    [(True, "xterm", True), (True, "dumb", False), (True, "", False), (True, None, False), (False, "xterm", False)],
)
def test_only_a_capable_terminal_gets_a_progress_line(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, term: str | None, rewrites: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert is_screen(stream) is rewrites


def test_the_line_appears_after_a_second_is_rewritten_and_removed() -> None:
    out, clock = io.StringIO(), Turns()
    with ProgressLine(out, clock, "verifying", is_shown=True) as line:
        assert clock.asked.get() == 1.0
        line("reading", 1, 3)
        assert out.getvalue() == ""
        clock.turn()
        line("reading", 4, 3)  # a journal grows
        clock.turn()
        logging.getLogger("flopsd").warning("trouble")
        line("ledgers:", 7, 0)
        clock.turn()
        line("writing the report", 0, 0)
        clock.turn()
        line.above(out.write)("above\n")
        clock.turn(ended=True)
    assert out.getvalue().split("\r\x1b[K") == [
        "",
        "verifying: reading 33 %, 1 s",
        "verifying: reading 100 %, 1 s",
        "",
        "verifying: ledgers: 7, 1 s",
        "verifying: writing the report, 1 s",
        "above\n",
    ]


def test_the_line_is_cut_to_the_width_and_quick_work_leaves_no_trace() -> None:
    out, clock = io.StringIO(), Turns()
    with ProgressLine(out, clock, "x" * 200, is_shown=True) as line:
        clock.asked.get()
        clock.turn()
        clock.turn(ended=True)
    assert not line._thread.is_alive()
    assert out.getvalue() == f"\r\x1b[K{'x' * 79}\r\x1b[K"
    quick = io.StringIO()
    for is_shown in (True, False):
        with ProgressLine(quick, clock, "verifying", is_shown=is_shown):
            if is_shown:
                clock.turn(ended=True)
    assert quick.getvalue() == ""
    assert logging.getLogger("flopsd").filters == []
