"""The list of faults that no test can find: what they change has no effect that anybody could notice."""

from __future__ import annotations

from pathlib import Path

LIST = Path(__file__).with_name("equivalent.txt")
Key = tuple[str, str, str, str]


def read_equivalent(text: str) -> dict[Key, str]:
    """Reasons by `Fault.key`. An entry is four lines: path and function, `- before`, `+ after`, `= reason`."""
    found: dict[Key, str] = {}
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for where, before, after, reason in zip(*[iter(lines)] * 4, strict=True):
        if not (before.startswith("- ") and after.startswith("+ ") and reason.startswith("= ")):
            raise ValueError(f"an entry is path and function, '- ', '+ ' and '= ': {where}")
        path, _, function = where.partition(" ")
        found[path, function, before[2:], after[2:]] = reason[2:]
    return found
