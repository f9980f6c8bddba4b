"""Standard streams that are gone, full, closed or old: they cost words, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.process import FLOPSD, environment, predicate, wait_until


def shell(script: str, tmp_path: Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """A script in which $F is flopsd without hardware, on a state folder of its own."""
    env = environment(None) | {
        "F": " ".join(FLOPSD), "FLOPSD_SOURCE": "replay", "FLOPSD_LISTEN": "off", "PYTHONIOENCODING": encoding,
        "PYTHONUNBUFFERED": "",  # as a service starts it, whatever runs the tests
    }  # fmt: skip
    return subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a run that ended and was not sealed."""
    folder = tmp_path_factory.mktemp("unsealed")
    assert shell("$F run --no-seal --state-dir s --duration 1", folder).returncode == 0
    return folder / "s"


EXEC = "$F exec --run-id r --evidence off --state-dir s --ledger o/l.json --ledger-copy copy/l.json --"


@pytest.mark.parametrize(
    "streams", ["2>/dev/full", ">/dev/full", "2>&1 | head -1", "<&-", "<&- >&- 2>&-"]
)  # fmt: skip
def test_with_broken_streams_the_exit_code_is_returned_and_the_ledger_copied(tmp_path: Path, streams: str) -> None:
    done = shell(f"{EXEC} sh -c 'sleep 1; exit 7' {streams}; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode == 7, done.stderr
    wait_until((tmp_path / "copy" / "l.json").exists, "the copy")
    assert [one["endReason"] for one in predicate(tmp_path / "copy" / "l.json")["incarnations"]] == ["job ended"]


@pytest.mark.parametrize("streams", ["2>/dev/full", "--progress 2>&1 | head -1", "2>&- >&-"])
def test_a_run_with_closed_streams_seals_and_copies(tmp_path: Path, streams: str) -> None:
    done = shell(
        f"$F run --metric-line 1 --evidence off --state-dir s --ledger l.json --ledger-copy copy/l.json --duration 3 {streams};"
        "exit ${PIPESTATUS[0]}",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / "l.json").exists()


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>/dev/full"])
def test_sealing_copies_before_it_prints(tmp_path: Path, unsealed: Path, streams: str) -> None:
    seal = f"$F seal --evidence off --state-dir {unsealed} --ledger l.json --ledger-copy copy/l.json"
    done = shell(f"{seal} {streams}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "copy" / "l.json").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_path_that_the_terminal_cannot_encode_is_printed_with_escapes(
    tmp_path: Path, unsealed: Path, encoding: str
) -> None:
    seal = f"$F seal --evidence off --state-dir {unsealed} --ledger 日.json --ledger-copy c/日.json"
    done = shell(seal, tmp_path, encoding)
    assert done.returncode == 0, done.stderr
    name = "日" if encoding == "utf-8" else r"\u65e5"
    assert f"/{name}.json" in done.stdout
    assert f"copied to   c/{name}.json" in done.stdout


def test_data_that_could_not_be_written_is_a_failure(tmp_path: Path) -> None:
    done = shell("$F config show >/dev/full", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
