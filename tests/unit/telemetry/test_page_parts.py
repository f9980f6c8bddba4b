"""The rate of a whole run in few points, its drawing, and advice that is given once for all devices that it applies
to."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from flopsd.core.model import GapReason
from flopsd.settings.data_files import load_policies
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.page.devices import devices_part
from flopsd.telemetry.page.sparkline import sparkline
from flopsd.telemetry.rate_history import POINTS, RateHistory, rates
from flopsd.telemetry.status import status_of_snapshot
from tests.support.runs import A100, H100, STRANGER, Run

EIGHT = tuple(replace(H100, uid=f"GPU-{n}", index=n) for n in range(8))


def test_the_rate_of_a_whole_run_fits_in_few_points(tmp_path: Path) -> None:
    run = Run(tmp_path, devices=(H100,))
    history, points = RateHistory(NS_PER_S), 0
    for seconds in (1, 1, 20, *[1] * 100):
        run.meter(seconds)
        history.note(run.clock.boottime_ns(), run.writer.snapshot.view)
        points += 1
    found = list(rates(history.points))
    assert points // 8 < len(found) < POINTS
    assert [one[1] for one in found[:-1]] == [one[0] for one in found[1:]], "an interval is missing"
    assert found[0][0] == 1 + run.clock.boottime_ns() / NS_PER_S - 122, "the begin was lost"
    measured = run.writer.snapshot.rate_flop_per_s
    assert [one[2] for one in found] == pytest.approx([measured] * len(found))
    run.kill()


def test_a_device_whose_last_reading_is_a_gap_has_no_rate(tmp_path: Path) -> None:
    run = Run(tmp_path, devices=(H100,))
    found = []
    for fault in (None, GapReason.DEVICE_LOST, None):
        run.meter(2, fault)
        found.append(run.writer.snapshot.devices[0].rate_flop_per_s)
    run.kill()
    assert [rate is None for rate in found] == [False, True, False]


def test_a_time_of_another_day_has_its_date_and_names_cannot_reverse_text(tmp_path: Path) -> None:
    """A run may be weeks old, and its page left open; a driver may name a device with any characters."""
    run = Run(tmp_path, devices=(replace(H100, model="H100 \N{RIGHT-TO-LEFT OVERRIDE}x"),))
    run.meter(3)
    run.meter(3, GapReason.DEVICE_LOST)
    found = status_of_snapshot(run.writer.snapshot)
    run.kill()
    page = devices_part(found)
    assert f"device_lost since {found['devices'][0]['gap']['since'][11:16]} UTC" in page
    assert "H100 \\x202ex" in page
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    later = devices_part({**found, "lastRecordAt": "2031-01-02T03:04:05.000000Z"})
    assert f"since {found['devices'][0]['gap']['since'][:10]} " in later
    history = [
        {
            "startedAt": f"2026-09-{day}T14:13:00Z",
            "endedAt": f"2026-09-{day + 1}T14:13:00Z",
            "measuredFlopPerSecond": "1",
        }
        for day in (21, 22)
    ]
    assert "Means since 2026-09-21 14:13 UTC, gaps" in str(sparkline(history))


def test_time_without_measurement_has_no_rate(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for fault in (None, None, GapReason.DEVICE_LOST, None):
        run.meter(10, fault)
    history = status_of_snapshot(run.writer.snapshot)["rateHistory"]
    rate = [one["measuredFlopPerSecond"] for one in history]
    assert [one is None for one in rate] == [False, False, True, False]
    assert sparkline(history) is not None
    bounded = Run(tmp_path / "bounded", devices=(A100,))
    bounded.meter(30)
    assert sparkline(status_of_snapshot(bounded.writer.snapshot)["rateHistory"]) is None
    run.kill()
    bounded.kill()


MINUTES = [f"2026-09-21T14:{minute}:00.000000Z" for minute in range(13, 20)]
DRAWN = """<div><svg class="spark" viewBox="0 0 200 32" preserveAspectRatio="none" role="img" aria-labelledby="spark-t">\
<title id="spark-t">Measured rate, means since 14:13 UTC, gaps included: {rates}{breaks}</title>
{lines}</svg><p class="sub">Means since 14:13 UTC, gaps included: {rates}</p>
</div>
"""


@pytest.mark.parametrize(
    ("rates", "words", "lines"),
    [
        ((None, 3, 7, None, None, 5), "3 FLOP/s to 7 FLOP/s", ("M33.3,18.1 L66.7,18.1 L66.7,1 L100,1", "M166.7,9.6 L200,9.6")),
        ((0, 0), "0 FLOP/s", ("M0,31 L100,31 L100,31 L200,31",)),
    ],
)  # fmt: skip
def test_a_rate_history_is_drawn_as_expected(rates: tuple[int | None, ...], words: str, lines: tuple[str, ...]) -> None:
    """From left to right over 200 units; from 31 for zero to 1 for the highest rate."""
    history = [
        {"startedAt": begin, "endedAt": end, "measuredFlopPerSecond": None if rate is None else str(rate)}
        for (begin, end), rate in zip(pairwise(MINUTES), rates, strict=False)
    ]
    breaks = ", with breaks where nothing was measured" if None in rates else ""
    drawn = DRAWN.format(
        rates=words, breaks=breaks, lines="".join(f'<path class="line" d="{line}"/>' for line in lines)
    )
    assert str(sparkline(history)).replace("\N{NO-BREAK SPACE}", " ") == drawn


def test_a_run_whose_totals_restarted_has_a_rate_from_then_on(tmp_path: Path) -> None:
    run, other = Run(tmp_path / "a"), Run(tmp_path / "b")
    history = RateHistory(NS_PER_S)
    run.meter(5)
    history.note(10 * NS_PER_S, run.writer.snapshot.view)
    other.meter(1)
    history.note(11 * NS_PER_S, other.writer.snapshot.view)
    assert history.points[0] == 11
    run.kill()
    other.kill()


def test_advice_is_given_only_once(tmp_path: Path) -> None:
    why, fix = "no counters", "run dcgm-exporter"
    worse = tuple(replace(one, evidence_reason=why, evidence_fix=fix) for one in EIGHT[3:6])
    devices = (*EIGHT[:3], *worse, EIGHT[6], replace(EIGHT[7], shared="vm-2"))
    run = Run(tmp_path, devices=devices, policies=load_policies())
    run.meter(2)
    page = devices_part(status_of_snapshot(run.writer.snapshot))
    assert re.findall(r"<li><strong>(.*?)</strong>", page) == [
        "Devices 0 to 7",
        "Devices 3 to 5",
        "Device 7",
        "The run",
    ]
    for words in ("number format", "no counters; run dcgm-exporter.", "vm-2.", "--phase train"):
        assert page.count(words) == 1
    run.meter(1, GapReason.DEVICE_LOST, {EIGHT[2].uid, EIGHT[3].uid})
    page = devices_part(status_of_snapshot(run.writer.snapshot))
    assert "<strong>Devices 2 to 3</strong>: no reading: device_lost; for what helps see FlopsdDevicesBlind in" in page
    run.kill()
    other = Run(tmp_path / "unknown", devices=(STRANGER,))
    other.meter(1)
    page = devices_part(status_of_snapshot(other.writer.snapshot))
    assert "<strong>Device 2</strong>: not in the peak table, so no total has an upper bound; to add a row see " in page
    other.kill()
    facts = status_of_snapshot(run.writer.snapshot)
    counted = {**facts["devices"][0], "evidence": ["count"]}  # AWS's count does not say what was multiplied
    assert "--precision" in devices_part({**facts, "devices": [counted]})
    assert "--precision" not in devices_part({**facts, "devices": [{**counted, "precision": "bf16"}]})
