"""All implementations of the format agree on random ledgers and mutants: a sample of `make agreement`."""

from pathlib import Path

import pytest

from tests.agreement.__main__ import compared, made


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    verdicts = made(folder, seed=7, of_ledgers=8, of_mutants=10)
    assert verdicts["ledgers accept"] == 8
    assert verdicts["mutants refuse"] >= 5
    return folder


@pytest.mark.parametrize("name", ["second", pytest.param("verifier", marks=pytest.mark.tool("node"))])
@pytest.mark.xdist_group("agreement")  # one set of cases for both
def test_every_implementation_gives_flopsds_verdicts_and_reasons(
    name: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(name, cases) == 0, capsys.readouterr().out
