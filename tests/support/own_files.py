"""A peak table and two policies that do not ship with flopsd, and runs that are sealed with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.settings.data_files import config_dir
from tests.support.runs import Run

_RULES = """\
id: {name}
title: {name}
rules:
  - id: large
    citation: section 1
    at_least: "1e24"
"""


@dataclass(frozen=True)
class Own:
    """The paths of the table and the policies."""

    peaks: str
    policies: tuple[str, str]

    @classmethod
    def in_folder(cls, folder: Path) -> Own:
        folder.mkdir()
        (folder / "table.yaml").write_bytes((config_dir() / "peaks.yaml").read_bytes() + b"# ours\n")
        for name in ("one", "two"):
            (folder / f"{name}.yaml").write_text(_RULES.format(name=name))
        return cls(str(folder / "table.yaml"), (str(folder / "one.yaml"), str(folder / "two.yaml")))

    def seal(self, run: Run, ledger: Path, *policies: str, key: str | None = None, live: bool = False) -> Sealed:
        uri = key if key is not None else ensure_key(None, run.state.path)[0]
        return seal_journal(
            run.state.journal, uri, ledger, run.clock, [self.peaks], policy_files=policies, live=live, rolling=live
        )
