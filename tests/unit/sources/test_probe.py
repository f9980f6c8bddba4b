"""What `doctor` asks of all sources: one that fails in any call is told of, and costs no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flopsd.core.model import Device, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source
from flopsd.sources.probe import probe
from flopsd.testing import FakeClock, ScriptedSource
from tests.support.runs import A100, H100


def leave() -> None:
    raise SystemExit(3)


FAULTS: dict[str, Callable[[], Any]] = {
    "describe": lambda: 1 / 0,
    "devices": lambda: None,
    "read": leave,
    "close": lambda: 1 / 0,
}


class Faulty(ScriptedSource):
    def __init__(self, call: str) -> None:
        super().__init__("bad", [A100], lambda: Sweep(()))
        self.call = call

    def describe(self) -> Mapping[str, Any]:
        return FAULTS["describe"]() if self.call == "describe" else super().describe()

    def devices(self) -> Sequence[Device]:
        return FAULTS["devices"]() if self.call == "devices" else super().devices()

    def read(self) -> Sweep:
        return FAULTS["read"]() if self.call == "read" else super().read()

    def close(self) -> None:
        super().close()
        if self.call == "close":
            FAULTS["close"]()


@pytest.mark.parametrize("call", ["describe", "devices", "read"])
def test_a_source_that_fails_in_any_call_is_named_with_its_fault(call: str) -> None:
    good, bad = ScriptedSource("good", [H100], lambda: Sweep(())), Faulty(call)
    sources: dict[str, Source] = {"bad": bad, "good": good}
    found = probe(["bad", "good"], sources.__getitem__, FakeClock())
    assert [(one.name, bool(one.fault)) for one in found.sources] == [("bad", True), ("good", False)]
    assert "source 'bad' failed: " in found.sources[0].fault
    assert found.devices == ((H100, "good"),)
    assert bad.closed
    assert good.closed


def test_a_source_that_cannot_be_closed_is_told_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = ScriptedSource("good", [H100], lambda: Sweep(())), Faulty("close")
    sources: dict[str, Source] = {"bad": bad, "good": good}
    found = probe(["bad", "good"], sources.__getitem__, FakeClock())
    assert [one.fault for one in found.sources] == ["", ""]
    assert found.devices == ((A100, "bad"), (H100, "good"))
    assert good.closed
    assert "division by zero" in caplog.text


def test_what_opening_says_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def opener(name: str) -> Source:
        if name == "gone":
            raise SourceUnavailableError("nothing here", hint="plug it in", absent=True)
        if name == "bad":
            raise SourceError("its devices cannot be listed")
        return ScriptedSource(name, [replace(H100, sm_count=None)], lambda: Sweep(()))

    found = probe(["gone", "bad", "good"], opener, FakeClock())
    assert [(one.fault, one.absent) for one in found.sources] == [
        ("nothing here", True), ("its devices cannot be listed", False), ("", False)]  # fmt: skip
    assert not caplog.records
