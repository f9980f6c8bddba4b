"""The definition of a fault, and the faults known to change nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EQUIVALENT = Path(__file__).with_name("equivalent.txt")


@dataclass(frozen=True)
class Fault:
    """One change of one module. `change` is the form that its implementation uses; `place` the source line where it
    begins; `times` the number of like faults before it in its function."""

    module: str
    function: str
    kind: str
    text: str
    place: str
    line: int
    change: Any
    times: int = 0

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}: {self.kind}: {self.text}\n      in: {self.place}"

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """Its identity, regardless of line numbers."""
        return self.module, self.function, f"{self.kind}: {self.text}", self.place, self.times


def numbered(found: Iterable[tuple[str, str, str, str, str, int, Any]]) -> Iterator[Fault]:
    """Faults, with like ones numbered."""
    times: dict[tuple[str, ...], int] = {}
    for one in found:
        alike = one[:5]
        times[alike] = times.get(alike, -1) + 1
        yield Fault(*one, times[alike])


def equivalent(path: Path = EQUIVALENT) -> dict[tuple[str, str, str, str, int], str]:
    """Faults that no vector can find, by `key`, each with the reason."""
    found = {}
    blocks = path.read_text().split("\n\n")[1:]
    for block in blocks:
        where, kind, place, why = block.strip("\n").split("\n")
        module, _, function = where.partition(" ")
        times, _, line = place.partition(": ")
        assert (times[:2], why[:2]) == ("in", "= "), block
        found[module, function, kind, line, int(times[2:] or 1) - 1] = why[2:]
    return found


def shortened(text: str) -> str:
    """The text on one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:87] + "..."
