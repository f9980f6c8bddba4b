"""What a ledger's figures and findings follow from that is not flopsd's own: peak tables and policies of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.settings.data_files import Tables

_ROLES = {
    "peak table": ("rated", "its rates are the sender's, and every FLOP follows from them"),
    "policy": ("judged", "its rules are the sender's, and every finding by it follows from them"),
}


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file that flopsd does not ship. `file`: the name of the one that the user gave by hand; empty: not given."""

    kind: str
    sha256: str
    id: str = ""  # of a policy
    file: str = ""

    @property
    def word(self) -> str:
        """What it stands under in a headline."""
        return self.kind.upper()

    @property
    def text(self) -> str:
        verb, meaning = _ROLES[self.kind]
        names = ", ".join(name for name in (self.id, self.file, f"SHA-256 {self.sha256}") if name)
        return f"{verb} by a {self.kind} that is not flopsd's own: {names}; {meaning}."

    @property
    def option(self) -> list[str]:
        """The words of a command that accept it."""
        flag = "--peaks" if self.kind == "peak table" else "--policy"
        return [flag, self.file or self.kind.upper().replace(" ", "-")]

    def for_json(self) -> dict[str, str | None]:
        return {"kind": self.kind, "sha256": self.sha256, "id": self.id or None, "file": self.file or None}


def foreign_files(predicate: Mapping[str, Any], tables: Tables) -> tuple[ForeignFile, ...]:
    """In the order of the predicate, peak tables first. Raises LookupError or TypeError for a malformed one."""
    method = predicate["method"]
    named = method["peakTableSha256"]
    found = [("peak table", str(sha256), "") for sha256 in ([named] if isinstance(named, str) else named)]
    found += [("policy", str(policy["sha256"]), str(policy["id"])) for policy in method.get("policies", ())]
    foreign = [one for one in dict.fromkeys(found) if not tables.is_packaged(one[1])]
    files = [tables.file_of(sha256) for _, sha256, _ in foreign]
    return tuple(ForeignFile(*one, "" if file is None else file.name) for one, file in zip(foreign, files, strict=True))
