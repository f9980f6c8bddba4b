"""Where `flopsd status` reads, and what it prints."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flopsd.cli.status import _cut
from flopsd.system.clock import SystemClock
from flopsd.telemetry.status_client import from_state_dir
from flopsd.telemetry.status_text import status_text
from tests.support.process import in_process
from tests.support.runs import Run


@pytest.mark.parametrize("at", ["--state-dir", "--url"])
def test_status_is_read_from_and_shown_in_the_requested_place_and_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    run = Run(tmp_path)
    run.meter(3)
    found, asked = from_state_dir(str(tmp_path), {}), list[object]()

    def read(*given: object) -> dict[str, Any]:
        asked.append(given)
        return found

    def watch(read: Any, *how: object) -> None:
        asked.extend((read(), *how[::3]))
        assert isinstance(how[1], SystemClock)

    monkeypatch.setattr(f"flopsd.telemetry.status_client.from_{at[2:].replace('-', '_')}", read)
    monkeypatch.setattr("flopsd.cli.status.watch", watch)
    words = ("status", at, "PLACE", "--peaks", "p", "--policy", "a", "--policy", "b")
    given = ("PLACE", os.environ, "p", ("a", "b")) if at == "--state-dir" else ("PLACE",)
    assert in_process(*words, code=0).stdout == status_text(found)
    assert in_process(*words, "--json", code=0).stdout == json.dumps(found) + "\n"
    for more, every in (((), 2.0), (("0.1",), 0.1), (("86400",), 86400.0)):
        asked.clear()
        assert in_process(*words, "--watch", *more, env={"TERM": "vt100"}, code=0).stdout == ""
        assert asked == [given, found, every, "vt100"]
    run.kill()


@pytest.mark.parametrize(("columns", "shown"), [(12, "1.5x10^18 on"), (11, "1.5x10^1..."), (2, ".."), (0, "")])
def test_a_line_that_fits_exactly_is_not_cut(columns: int, shown: str) -> None:
    assert _cut("1.5x10^18 on", columns) == shown


@pytest.mark.parametrize("seconds", ["0.0999", "0", "-1", "nan", "86400.1", "soon"])
def test_the_watch_interval_is_bounded(seconds: str) -> None:
    in_process("status", "--watch", seconds, code=2, says="--watch: must be between 0.1 and 86400 seconds")
