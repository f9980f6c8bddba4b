"""A sample of `make campaign`: for each device, a sealed ledger's interval contains the truth."""

from pathlib import Path

import pytest

from tests.campaign import neuron, several_sources
from tests.campaign.cases import Case, cases, hostile
from tests.campaign.sick import KINDS, Sick, pages
from tests.campaign.simulation import judge

EACH = 10  # every tenth case is in the ordinary run, and these
ALWAYS = (
    "wall clock set by -10000 ms", "a machine that sleeps", "a clock above its stated maximum",
    "answers left untouched, none", "tensor work split at times, none", "counters that are old at times",
    "a counter that stands still while little runs", "pipes of 40 bits, average",
    "utilisation that is a share", "a counter that is slow while little runs",
)  # fmt: skip
ALL = [
    pytest.param(case, marks=pytest.mark.exhaustive if at % EACH and case.name not in ALWAYS else (), id=case.name)
    for at, case in enumerate(cases(seed=1, random_cases=20))
]
ALL += [pytest.param(case, id=case.name) for case in map(hostile, (6, 136))]


@pytest.mark.parametrize("case", ALL)
def test_the_truth_lies_between_low_and_high(case: Case, standin: Path, tmp_path: Path) -> None:
    found = judge(case, standin, tmp_path)
    assert found
    assert [one for one in found if not one.holds] == []


# Each seed has found a fault: of unobserved time (4, 78, 135), of times (127), of utilisation (87), of a GPU that was
# not listed (7).
@pytest.mark.parametrize(
    ("kind", "seed"), [("calm", 4), ("calm", 87), ("calm", 127), ("sick", 78), ("owned", 7), ("owned", 135)]
)
def test_several_sick_sources_at_once(kind: str, seed: int, standin: Path, tmp_path: Path) -> None:
    assert several_sources.judge(KINDS[kind](seed), standin, tmp_path, seed) == []


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in pages()])
def test_pages_of_an_exporter_that_are_wrong(case: Sick, standin: Path, tmp_path: Path) -> None:
    assert several_sources.judge(case, standin, tmp_path) == []


@pytest.mark.parametrize("seed", [169, 237])  # each has found a fault: chips that disappear, for good or for a while
def test_neuron_machines_with_a_failing_monitor(seed: int, tmp_path: Path) -> None:
    assert neuron.judge(neuron.machine(seed), tmp_path, seed) == []
