"""Optional calls that a source may omit or answer wrongly between two reads, at no cost to a reading; and a small
recording."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flopsd.core.model import Active, Busy, Evidence, Gap, GapReason, Gauges, Pipe, Reading, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import Source, SourceSettings
from flopsd.sources.calls import devices_of, facts_version_of, poll_source, read_source
from flopsd.sources.registry import open_source
from flopsd.sources.replay.source import FORMAT, ReplaySource
from flopsd.sources.validate import Checked
from flopsd.testing import FakeClock, ScriptedSource
from tests.support.runs import H100
from tests.support.strategies import table

UNTIL_NS = 100


def fails(*_: object) -> Any:
    raise RuntimeError("a fault")


@pytest.mark.parametrize(
    ("poll", "due_ns"),
    [
        (lambda until_ns: until_ns - 1, 99), (lambda until_ns: until_ns, None), (lambda until_ns: until_ns + 1, None),
        (lambda _: None, None), (lambda _: 5.0, None), (fails, None),
    ],
)  # fmt: skip
def test_a_poll_is_due_before_the_next_read_or_not_at_all(poll: Callable[[int], Any], due_ns: int | None) -> None:
    assert poll_source(cast("Source", SimpleNamespace(poll=poll)), UNTIL_NS) == due_ns
    assert poll_source(cast("Source", SimpleNamespace()), UNTIL_NS) is None


class Failing:
    facts_version = property(fails)


@pytest.mark.parametrize(
    ("source", "version"),
    [(None, None), (SimpleNamespace(), None), (SimpleNamespace(facts_version="2"), "2"),
     (SimpleNamespace(facts_version=2), None), (Failing(), None)],
)  # fmt: skip
def test_a_version_of_facts_is_text_or_none(source: Any, version: str | None) -> None:
    assert facts_version_of(source) == version


def test_checked_devices_are_remembered_for_the_next_call() -> None:
    checked, other, clock = Checked(), replace(H100, uid="GPU-new"), FakeClock()
    source = ScriptedSource("acme", [H100], lambda: Sweep((), renamed={"GPU-old": other}))
    assert devices_of(source, checked) == (H100,)
    assert read_source(source, clock, checked).renamed == {"GPU-old": other}
    assert (checked.listed.known, checked.renamed.known) == ({H100.uid: H100}, {"GPU-new": other})
    assert (devices_of(source), read_source(source, clock).readings) == ((H100,), ())


HEAD = {"format": FORMAT, "origin": "made up", "devices": [
    {"uid": f"GPU-{at}", "index": at, "vendor": "nvidia", "model": "H100", "evidence": "activity"} for at in range(2)
]}  # fmt: skip
ROWS = [
    [1, 10, 30, {"gap": "device_lost"}],
    [0, 0, 10, {"activity": {"fp32": 7}, "gauges": {"pipes": {"fp32": 0.5}, "utilization": 0.25, "sm_clock_mhz": 900}}],
    [0, 10, 20, {"busy": 9}],
]


def recording(*rows: object, **head: object) -> bytes:
    return b"\n\n".join(json.dumps(row).encode() for row in ({**HEAD, **head}, *rows))


def test_replayed_readings_come_when_due_and_start_over_after_the_last() -> None:
    clock = FakeClock()
    source, begin_ns = ReplaySource(recording(*ROWS), "r", clock), clock.boottime_ns() + 500
    clock.advance(500)
    assert source.read().readings == ()
    clock.advance(19)
    sweep = source.read()
    work = Active(Evidence.ACTIVITY, {Pipe.FP32: 7})
    assert sweep.readings == (Reading("GPU-0", begin_ns, begin_ns + 10, work),)
    assert sweep.gauges == {"GPU-0": Gauges({Pipe.FP32: 0.5}, 0.25, 900)}
    clock.advance(21)
    found = source.read()
    assert found.readings == (
        Reading("GPU-0", begin_ns + 10, begin_ns + 20, Busy(9)),
        Reading("GPU-1", begin_ns + 10, begin_ns + 30, Gap(GapReason.DEVICE_LOST)),
        Reading("GPU-0", begin_ns + 30, begin_ns + 40, work),
    )
    assert found.gauges == {"GPU-0": Gauges({Pipe.FP32: 0.5}, 0.25, 900), "GPU-1": Gauges()}
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "a line is missing"),
        (b"{}", "format"),
        (b"[1]", "another structure"),
        (recording(), "no readings"),
        (recording(*ROWS, format="flopsd-recording/2"), "format 'flopsd-recording/2'"),
        (recording([0, 1]), "too short"),
    ],
)
def test_an_invalid_recording_is_refused_by_name(data: bytes, why: str, tmp_path: Any) -> None:
    (tmp_path / "r.jsonl").write_bytes(data)
    with pytest.raises(SourceUnavailableError, match=r"r\.jsonl is not a recording of flopsd-recording/1") as caught:
        open_source("replay", SourceSettings(FakeClock(), table(), {"file": str(tmp_path / "r.jsonl")}))
    assert why in str(caught.value)
