"""The numbered clauses of the ledger's pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGES = ("ledger-format.md", "ledger-journal.md", "ledger-arithmetic.md", "ledger-codes.md", "ledger-models.md")
_START = re.compile(r"^(?:- |\| )?\[([A-Z]+)-([1-9][0-9]*)\] (.*)")


@dataclass(frozen=True)
class Clause:
    """A clause: its id (`ENV-3`), where it stands, and its text on one line."""

    id: str
    page: str
    line: int
    text: str

    @property
    def family(self) -> str:
        return self.id.partition("-")[0]


def clauses(docs: Path) -> list[Clause]:
    """All clauses of the pages in the folder `docs`, in their order."""
    return [clause for page in PAGES for clause in clauses_of(page, (docs / page).read_text("utf-8"))]


def clauses_of(page: str, text: str) -> list[Clause]:
    """Those of one page: each goes on to the next blank line, list item, table row or clause, and has the numbered
    steps behind it."""
    found: list[Clause] = []
    is_open = has_steps = False
    for number, line in enumerate(text.splitlines(), 1):
        match = _START.match(line)
        if match and not (is_open and line.startswith("[")):  # a line of a paragraph may begin with another's id
            found.append(Clause(f"{match[1]}-{match[2]}", page, number, match[3].strip()))
            is_open = has_steps = not line.startswith("|")
        elif (has_steps and re.match(r"\d+\. ", line)) or (is_open and re.match(r"(?!- |\||#|```).*\S", line)):
            is_open = True
            last = found[-1]
            found[-1] = Clause(last.id, page, last.line, f"{last.text} {line.strip()}")
        else:
            is_open, has_steps = False, has_steps and not line.strip()
    return found
