"""Peak tables and policies that a ledger's figures and findings rest on and that flopsd does not ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flopsd.core.companions import PEAKS, POLICY, companion_name
from flopsd.core.dataclass import dataclass
from flopsd.settings.data_files import Tables, companion_beside, has_digest, is_packaged

_ROLES = {
    PEAKS: ("peak table", "rated", "its rates are the sender's, and every FLOP follows from them"),
    POLICY: ("policy", "judged", "its rules are the sender's, and every finding by it follows from them"),
}


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file that flopsd does not ship. `file`: its name if the user gave it, else empty. `companion`: its name if it
    lies next to the ledger, else empty."""

    kind: str
    sha256: str
    id: str = ""  # of a policy
    file: str = ""
    companion: str = ""
    is_shared: bool = False  # a merged ledger has ledgers that were rated by other tables

    @property
    def role(self) -> str:
        """`peak table` or `policy`."""
        return _ROLES[self.kind][0]

    @property
    def flag(self) -> str:
        """The word that begins a warning about it."""
        return self.role.upper()

    @property
    def text(self) -> str:
        role, verb, meaning = _ROLES[self.kind]
        if self.is_shared:
            meaning = f"{meaning} in the ledgers that name it"
        names = ", ".join(name for name in (self.id, self.file, f"SHA-256 {self.sha256}") if name)
        untrusted = "" if self.file or not self.companion else f" {self.companion} came with the ledger; read it first."
        return f"{verb} by a {role} that is not flopsd's own: {names}; {meaning}.{untrusted}"

    @property
    def option(self) -> list[str]:
        """The words of a command that accept it."""
        return [f"--{self.kind}", self.file or self.companion or self.flag.replace(" ", "-")]

    def for_json(self) -> dict[str, str | None]:
        return {"kind": self.role, "sha256": self.sha256, "id": self.id or None, "file": self.file or None}


def foreign_files(predicate: Mapping[str, Any], tables: Tables, ledger: Path | None = None) -> tuple[ForeignFile, ...]:
    """The files that a predicate names and flopsd does not ship, in its order, peak tables first. `ledger`: its
    companions lie next to it. Raises LookupError or TypeError for a malformed predicate."""
    method = predicate["method"]
    named = method["peakTableSha256"]
    found = [(PEAKS, str(sha256), "") for sha256 in ([named] if isinstance(named, str) else named)]
    found += [(POLICY, str(policy["sha256"]), str(policy["id"])) for policy in method.get("policies", ())]
    shared = isinstance(named, list) and len(named) > 1
    foreign = [
        ForeignFile(kind, sha256, name, is_shared=shared and kind == PEAKS)
        for kind, sha256, name in dict.fromkeys(found)
        if not is_packaged(sha256)
    ]
    return tuple(_with_files(one, tables, ledger) for one in foreign)


def _with_files(one: ForeignFile, tables: Tables, ledger: Path | None) -> ForeignFile:
    given = tables.given(one.sha256)
    beside = None if ledger is None else companion_beside(ledger, companion_name(one.kind, one.sha256))
    companion = beside.name if beside is not None and has_digest(beside, one.sha256) else ""
    return replace(one, file="" if given is None else given[0].name, companion=companion)


def companions_of(predicate: Mapping[str, Any], tables: Tables) -> dict[str, bytes]:
    """The companions of a ledger by name, taken from the files given to `tables`."""
    found = ((one, tables.given(one.sha256)) for one in foreign_files(predicate, tables))
    return {companion_name(one.kind, one.sha256): given[1] for one, given in found if given is not None}
