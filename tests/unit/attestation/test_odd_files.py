"""Odd files in place of a ledger's files: too large, a FIFO, a device. They are refused clearly, in little memory
and without waiting."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flopsd.system.sha256 import hex_sha256
from tests.support.paths import VECTORS
from tests.support.process import FLOPSD, environment, in_little_memory

NODE, CHILDREN = VECTORS / "valid" / "activity-and-gaps", VECTORS / "merged" / "job"
HUGE = 20 * 10**9
BESIDE = f"ledger.peaks-{hex_sha256((VECTORS / 'peaks.yaml').read_bytes())[:16]}.yaml"


def sparse(path: Path) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(HUGE)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


TOO_LONG = {
    "ledger.json": "more than 67108864 bytes",
    "ledger.journal.jsonl": "no newline at its end",
    BESIDE: "larger than 1048576 bytes",
    "ledger.pub": "65536 bytes",
}


@pytest.mark.long
def test_an_odd_file_in_place_of_any_ledger_file_is_refused(tmp_path: Path) -> None:
    in_little_memory(*(one for spoil in (sparse, fifo, device) for one in refusals(tmp_path / spoil.__name__, spoil)))


def refusals(place: Path, spoil: Callable[[Path], None]) -> list[tuple[Sequence[str], int, str]]:
    """Commands on a ledger and a merged one with one file spoilt, with the exit code and the words of each."""
    expected: list[tuple[Sequence[str], int, str]] = []
    for number, (name, too_long) in enumerate(TOO_LONG.items()):
        folder = place / str(number)
        shutil.copytree(NODE, folder)
        shutil.copy(VECTORS / "peaks.yaml", folder / BESIDE)
        if name == "ledger.journal.jsonl" and spoil is sparse:
            (folder / name).unlink()
        spoil(folder / name)
        command = ("verify", str(folder / "ledger.json"), "--key", str(folder / "ledger.pub"))
        says = too_long if spoil is sparse else "not a regular file"
        expected.append((command, 1 if name == "ledger.pub" else 3, says))
    shutil.copytree(CHILDREN, place / "job")
    children = place / "job" / "children"
    spoil(sorted(children.rglob("*.json"))[0])
    merged = ("verify", str(place / "job" / "ledger.json"), "--key", str(CHILDREN / "ledger.pub"), "--peaks",
              str(VECTORS / "peaks.yaml"), "--policy", str(VECTORS / "policy.yaml"), "--children", str(children))  # fmt: skip
    return [*expected, (merged, 3, TOO_LONG["ledger.json"] if spoil is sparse else "not a regular file")]


def test_a_pipe_opened_by_the_caller_is_read() -> None:
    ledger, key = str(NODE / "ledger.json"), (NODE / "ledger.pub").read_bytes()
    command = [*FLOPSD, "verify", ledger, "--key", "/dev/stdin", "--peaks", str(VECTORS / "peaks.yaml")]
    assert subprocess.run(command, input=key, env=environment(None), capture_output=True, check=False).returncode == 0
