"""A slice of `make campaign`: what a sealed ledger states of each device holds the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.cases import Case, cases
from tests.campaign.simulation import judge

EACH = 7  # of so many cases one is in the ordinary run
ALL = [
    pytest.param(case, marks=pytest.mark.exhaustive if at % EACH else (), id=case.name)
    for at, case in enumerate(cases(seed=1, random_cases=20))
]


@pytest.mark.parametrize("case", ALL)
def test_the_truth_lies_between_low_and_high(case: Case, standin: Path, tmp_path: Path) -> None:
    found = judge(case, standin, tmp_path)
    assert found
    assert [one for one in found if not one.holds] == []
