"""The status of a run of many GPUs in terminals of several sizes."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.telemetry.status import status_of_snapshot
from flopsd.telemetry.status_client import from_state_dir
from flopsd.telemetry.status_screen import status_screen
from flopsd.telemetry.status_text import status_text
from tests.support.runs import H100, Run
from tests.unit.telemetry.test_status import story


def of(gpus: int, folder: Path, *, live: bool = True) -> dict[str, Any]:
    run = Run(folder, devices=tuple(replace(H100, uid=f"GPU-{n}", index=n) for n in range(gpus)))
    run.meter(3)
    return status_of_snapshot(run.writer.snapshot) if live else dict(from_state_dir(str(folder), {}))


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("gpus", "columns", "rows", "listed"),
    [
        (8, 80, 22, 8),
        (8, 100, 22, 8),
        (16, 80, 22, 11),
        (9, 80, 18, 7),
        (8, 80, 200, 8),
        (8, 47, 200, 8),
        (8, 30, 200, 8),
        (72, 60, 30, 18),
    ],
)
def test_every_gpu_has_a_line_or_is_counted(
    tmp_path: Path, gpus: int, columns: int, rows: int, listed: int, *, live: bool
) -> None:
    lines = status_screen(of(gpus, tmp_path, live=live), columns, rows).splitlines()
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns
    at = next(at for at, line in enumerate(lines) if line.startswith("device  ")) + 1
    rows_of_gpus = [line for line in lines[at:] if re.match(r" *[0-9]+  ", line)]
    assert len(rows_of_gpus) == listed
    if listed < gpus:
        assert lines[-1] == f"and {gpus - listed} more devices, 0 with gaps: `flopsd status` lists all"


def test_a_very_narrow_terminal_shows_measured_flop_of_each_gpu(tmp_path: Path) -> None:
    assert [line.split() for line in status_screen(of(2, tmp_path), 20, 200).splitlines()[-3:]] == [
        ["device", "measured"],
        *([str(gpu), "1.23x10^15", "FLOP"] for gpu in range(2)),
    ]


def test_lines_are_limited_to_the_screen_after_the_facts(tmp_path: Path) -> None:
    status = of(8, tmp_path)
    lines = {rows: len(status_screen(status, 80, rows).splitlines()) for rows in range(1, 24)}
    assert lines == {rows: 10 if rows < 12 else min(rows, 18) for rows in lines}, "ten are facts and how many GPUs"


@pytest.mark.parametrize("stranger", [False, True])
def test_bounds_and_faults_are_shown_in_few_lines_too(tmp_path: Path, *, stranger: bool) -> None:
    run = story(tmp_path, stranger=stranger)
    text = status_screen(status_of_snapshot(run.writer.snapshot), 80, 22)
    assert len(text.splitlines()) <= 22
    assert text.startswith("Metering 2 GPUs, 1 of them read as an upper bound only\n") or stranger
    bound = r"at least 2\.76x10\^15 FLOP; no upper bound is known" if stranger else r"2\.76x10\^15 to 3\.26x10\^16 FLOP"
    assert re.search(rf"^measured    6\.16x10\^15 FLOP \({bound}\)$", text, re.MULTILINE)
    assert "Indeterminate for" in text
    assert re.search(r"^     1  A100-SXM4-80GB +utilization +ceiling only", text, re.MULTILINE)


def test_a_problem_with_sealing_or_copying_has_a_line_of_its_own(tmp_path: Path) -> None:
    status = of(8, tmp_path)
    named = ["run", "measured", "guidelines", "answer", "rate", "gaps"]
    faults: tuple[dict[str, Any], ...] = (
        {}, {"signingKey": {"problem": "no token"}}, {"rollingSealFault": "NO ROLLING SEAL: read-only"},
        {"undeliveredLedgers": 2},
    )  # fmt: skip
    for more in faults:
        text = status_screen({**status, **more}, 80, 22)
        troubles = [("key", "CANNOT SIGN: no token")] * ("signingKey" in more)
        troubles += [("seals", "NO ROLLING SEAL: read-only")] * ("rollingSealFault" in more)
        troubles += [("copies", "NOT COPIED: 2 sealed ledgers are not at every destination yet;")] * (
            "undeliveredLedgers" in more
        )
        labels = re.findall(r"^([a-z]+)  +(.*)$", text.partition("\ndevice ")[0], re.MULTILINE)
        assert [label for label, _ in labels] == named + [label for label, _ in troubles]
        assert [words[: len(start)] for (_, words), (_, start) in zip(labels[6:], troubles, strict=True)] == [
            start for _, start in troubles
        ]


def test_the_whole_text_is_shown_where_it_fits(tmp_path: Path) -> None:
    status = of(1, tmp_path)
    whole = status_text(status)
    assert status_screen(status, 80, len(whole.splitlines())) == whole
    assert status_screen(status, 80, len(whole.splitlines()) - 1) != whole
