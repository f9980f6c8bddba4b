"""What lies in place of a ledger's files: too much, a FIFO, a device. A clear refusal in little memory, and no waiting."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
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


@pytest.mark.parametrize("spoil", [sparse, fifo, device])
@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("ledger.json", ("more than 67108864 bytes", "not a regular file")),
        ("ledger.journal.jsonl", ("no newline at its end", "not a regular file")),
        (BESIDE, ("larger than 1048576 bytes", "not a regular file")),
        ("ledger.pub", ("65536 bytes", "not a regular file")),
    ],
)
def test_whatever_lies_there_in_place_of_a_file_is_refused(
    tmp_path: Path, name: str, reasons: tuple[str, str], spoil: Callable[[Path], None]
) -> None:
    for file in NODE.glob("ledger*"):
        shutil.copy(file, tmp_path)
    shutil.copy(VECTORS / "peaks.yaml", tmp_path / BESIDE)
    if name == "ledger.journal.jsonl" and spoil is sparse:
        (tmp_path / name).unlink()
    spoil(tmp_path / name)
    in_little_memory(
        "verify", str(tmp_path / "ledger.json"), "--key", str(tmp_path / "ledger.pub"),
        code=1 if name == "ledger.pub" else 3, says=reasons[spoil is not sparse],
    )  # fmt: skip


@pytest.mark.parametrize("spoil", [sparse, fifo, device])
def test_among_the_children_of_a_merged_ledger_too(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    shutil.copytree(CHILDREN, tmp_path / "job")
    spoil(sorted((tmp_path / "job" / "children").rglob("*.json"))[0])
    in_little_memory(
        "verify", str(tmp_path / "job" / "ledger.json"), "--key", str(CHILDREN / "ledger.pub"), "--peaks",
        str(VECTORS / "peaks.yaml"), "--policy", str(VECTORS / "policy.yaml"), "--children",
        str(tmp_path / "job" / "children"), code=3,
        says="more than 67108864 bytes" if spoil is sparse else "not a regular file",
    )  # fmt: skip


def test_a_pipe_that_the_caller_opened_is_read() -> None:
    ledger, key = str(NODE / "ledger.json"), (NODE / "ledger.pub").read_bytes()
    command = [*FLOPSD, "verify", ledger, "--key", "/dev/stdin", "--peaks", str(VECTORS / "peaks.yaml")]
    assert subprocess.run(command, input=key, env=environment(None), capture_output=True, check=False).returncode == 0
