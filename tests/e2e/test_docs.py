"""The pages for readers of ledgers: every command on them is run as it is printed, and says what they say it does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.seal import Sealed
from flopsd.core.declarations import COUNTERS, Phase
from flopsd.core.model import Evidence, GapReason, Pipe
from flopsd.report.offline_recipe import CHAIN, DIGEST, FIGURES, PAYLOAD, SIGNATURE
from tests.support.foreign import shell
from tests.support.independent import payload_of, records_of
from tests.support.process import flopsd
from tests.support.runs import sealed_run
from tests.support.story import PEAKS, POLICY, VECTORS

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECEIVED, FORMAT = (DOCS / "you-received-a-ledger.md").read_text(), (DOCS / "ledger-format.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END_OF_STEP = "---- end of step ----"


@pytest.fixture
def fresh(tmp_path: Path) -> Sealed:
    return sealed_run(tmp_path)


def steps(page: str) -> list[tuple[str, str | None]]:
    """The page's commands, each with the output that the page shows for it, if any."""
    found: list[tuple[str, str | None]] = []
    for kind, text in BLOCK.findall(page):
        if kind == "sh":
            found.append((text, None))
        elif kind == "text":
            assert found, "an output before any command"
            assert found[-1][1] is None, "two outputs for one command"
            found[-1] = (found[-1][0], text)
    return found


def matches(shown: str, said: str) -> bool:
    """Whether `said` is what the page shows, where `…` stands for anything, lines included."""
    return re.fullmatch(re.escape(shown.strip()).replace("…", ".*"), said.strip(), re.DOTALL) is not None


@pytest.mark.tool("openssl", "jq", "sha256sum")
def test_every_command_of_the_newcomers_page_does_what_it_shows(fresh: Sealed) -> None:
    commands = steps(RECEIVED)
    assert len(commands) >= 10
    script = "set -e\n" + "".join(f"{command}echo '{END_OF_STEP}'\n" for command, _ in commands)
    done = shell(script, fresh.ledger.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.split(f"{END_OF_STEP}\n")[:-1]
    assert len(said) == len(commands)
    for (command, shown), output in zip(commands, said, strict=True):
        assert matches(shown or "", output), f"{command}\nshows\n{shown}\nand says\n{output}"
    print(f"{len(commands)} commands, every output as shown")


@pytest.mark.tool("openssl", "jq", "sha256sum")
def test_the_fingerprint_and_the_checkpoint_are_those_of_the_ledger(fresh: Sealed) -> None:
    """Outputs that the page cannot show, since they differ from run to run."""
    command = {shown: text for text, shown in steps(RECEIVED)}
    names = f"journal={fresh.journal.name} key={fresh.public_key.name}\n"
    fingerprint = shell(names + command["…  -\n"], fresh.ledger.parent).stdout.split()[0]
    assert f'"keyid": "{fingerprint}"' in fresh.ledger.read_text()
    head = shell(names + command["…\n"], fresh.ledger.parent).stdout.strip()
    assert fresh.journal.read_text().splitlines()[4].startswith(f'{{"h":"{head}",')


def test_the_page_and_verify_explain_the_same(fresh: Sealed) -> None:
    told = flopsd("verify", str(fresh.ledger), "--key", str(fresh.public_key), "--explain").stdout
    printed = "".join(command for command, _ in steps(RECEIVED))
    for part in (PAYLOAD, SIGNATURE, DIGEST, CHAIN, FIGURES):
        assert part in told
        assert part in printed


@pytest.mark.tool("cosign")
def test_the_commands_of_the_format_page_are_accepted(fresh: Sealed) -> None:
    ((commands, _),) = steps(FORMAT)
    done = shell("set -e\n" + commands, fresh.ledger.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Verified OK") == 2


def _members(found: Any, but: tuple[str, ...]) -> set[str]:
    """Names of members anywhere in a JSON value; below those in `but` names are data."""
    if isinstance(found, list):
        return {name for value in found for name in _members(value, but)}
    if not isinstance(found, dict):
        return set()
    return set(found) | {n for name, value in found.items() if name not in but for n in _members(value, but)}


def test_the_format_page_names_every_member_and_every_word() -> None:
    blocks = [text for _, text in BLOCK.findall(FORMAT)]
    words = set(re.findall(r"\w+", " ".join([*re.findall(r"`([^`]+)`", BLOCK.sub("", FORMAT)), *blocks])))
    payload_maps = (
        "sources", "margins", "marginPpm", "byEvidence", "byPhase", "gapSecondsByReason", "counters", "sharesPpm", "facts",
    )  # fmt: skip
    record_maps = (
        "facts",
        "counters",
        "shares_ppm",
        "sm_cycles",
        "uncertainty_sm_cycles",
        "observed_ns",
        "gap_ns",
        "unread_ns",
        "phases",
    )
    named: set[str] = {e.value for e in Evidence} | {p.value for p in Pipe} | {r.value for r in GapReason}
    for case in (VECTORS / "valid").iterdir():
        named |= _members(payload_of(case / "ledger.json"), payload_maps)
        records, _ = records_of(case / "ledger.journal.jsonl")
        named |= _members(records, record_maps) | {record["kind"] for record in records}
    named -= {*COUNTERS, *(phase.value for phase in Phase)}  # training-process.md has these
    assert len(named) > 150
    assert sorted(named - words) == []


@pytest.mark.parametrize("case", ["valid/activity-and-gaps", "valid/two-signatures", "valid/replay", "invalid/one-key-twice", "invalid/cut-journal"])  # fmt: skip
def test_the_command_in_a_vectors_readme_gives_the_verdict(case: str, tmp_path: Path) -> None:
    shutil.copytree(VECTORS / case, tmp_path / case)
    shutil.copy(PEAKS, tmp_path)
    shutil.copy(POLICY, tmp_path)
    (command,) = re.findall(r"^    (flopsd verify .*)$", (tmp_path / case / "README.md").read_text(), re.MULTILINE)
    done = shell(command, tmp_path / case)
    assert done.returncode == (0 if case.startswith("valid") else 3), done.stdout + done.stderr
    assert done.stdout.startswith("VERIFIED" if case.startswith("valid") else "NOT VERIFIED")
