"""A sample of `python -m tests.campaign.lying_jobs`: processes that lie in every way, to the real daemon."""

from pathlib import Path

from tests.campaign.lying_jobs import trial


def test_no_lie_moves_high_below_the_truth_or_delays_the_daemon(tmp_path: Path, standin: Path) -> None:
    assert trial(tmp_path, standin, seed=7, seconds=2) == []
