"""Whose modules flopsd runs: its own environment's, never the job's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flopsd.__main__ import search_path
from flopsd.cli.run import ME
from tests.support.process import FLOPSD, environment, predicate

STANDARD = ["/lib/python", "/lib/site"]


def test_the_folder_that_python_puts_first_is_left_out_and_pythonpath_comes_last() -> None:
    told = {"PYTHONPATH": "/job:/job/src"}
    assert search_path(["", "/job", "/job/src", *STANDARD], told, "/work") == [*STANDARD, "/job", "/job/src"]
    assert search_path(["/work", *STANDARD], {}, "/work") == STANDARD
    assert search_path(["/venv/bin", *STANDARD], {"PYTHONPATH": ""}, "/work") == ["/venv/bin", *STANDARD]
    assert search_path([os.getcwd(), *STANDARD], {"PYTHONPATH": ":"}, None) == [*STANDARD, os.getcwd()]


def test_a_job_whose_folders_hold_modules_of_the_same_names_is_metered(tmp_path: Path) -> None:
    """In the working directory and on PYTHONPATH lie files that end whoever imports them."""
    for folder in ("work", "path"):
        (tmp_path / folder).mkdir()
        for name in ("queue", "subprocess", "yaml", "select"):
            (tmp_path / folder / f"{name}.py").write_text("raise SystemExit(9)\n")
    (tmp_path / "work" / "flopsd").mkdir()
    (tmp_path / "work" / "flopsd" / "__init__.py").write_text("raise SystemExit(9)\n")
    env = environment(None)
    theirs = str(tmp_path / "path")
    env["PYTHONPATH"] = os.pathsep.join([theirs, *filter(None, [env.get("PYTHONPATH")])])
    ledger = tmp_path / "l.json"
    done = subprocess.run(
        [*ME, "exec", "--source", "replay", "--listen", "off", "--evidence", "off", "--seal-every", "1", "--checkpoint",
         "0.5", "--ledger", str(ledger), "--", "sh", "-c", 'sleep 3; echo "$PYTHONPATH"; exit 7'],
        cwd=tmp_path / "work", env={**env, "FLOPSD_STATE_DIR": str(tmp_path / "s")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert env["PYTHONPATH"] in done.stdout.splitlines(), "the job's own variable is as it was"
    for told in ("METERING INTERRUPTED", "NO ROLLING SEAL", "NOT SEALED"):
        assert told not in done.stderr, done.stderr
    assert [one["endReason"] for one in predicate(ledger)["incarnations"]] == ["job ended"]


def test_by_its_path_it_is_the_package_that_the_file_lies_in(tmp_path: Path) -> None:
    done = subprocess.run([*ME, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == subprocess.run([*FLOPSD, "--version"], capture_output=True, text=True, check=True).stdout
    assert ME[0] == sys.executable
