"""The kept corpus: for each target the smallest set of small inputs that reaches every step of our code reached by
any input."""

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import flopsd

CORPUS = Path(__file__).parent / "corpus"
OURS = str(Path(flopsd.__file__).parent)
MAX_FILES, MAX_BYTES = 18, 6000  # per target, and per input: in total the corpus stays below 500 KB
Step = tuple[str, int, int]


def kept(target: str) -> list[Path]:
    """The files of a target. Those of faults begin with `fault-` and are never minimised away."""
    return sorted((CORPUS / target).glob("*"))


def keep(target: str, run: Callable[[bytes], None], seeds: Iterable[bytes], found: Iterable[bytes]) -> tuple[int, int]:
    """Rewrite the corpus of a target from its files and `found`; returns its new numbers of files and bytes."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    pinned = {path.read_bytes() for path in kept(target) if path.name.startswith("fault-")}
    covered: set[Step] = set()
    for data in (*seeds, *pinned):
        covered |= steps(run, data)
    inputs = {*found, *(path.read_bytes() for path in kept(target))} - pinned
    reached = {data: steps(run, data) - covered for data in inputs if len(data) <= MAX_BYTES}
    chosen: list[bytes] = []
    while reached and len(chosen) < MAX_FILES:
        best = max(reached, key=lambda data: (len(reached[data]), -len(data), data))
        new = reached.pop(best)
        if not new:
            break
        chosen.append(best)
        reached = {data: more - new for data, more in reached.items()}
    for path in kept(target):
        if not path.name.startswith("fault-"):
            path.unlink()
    for data in chosen:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    files = kept(target)
    return len(files), sum(path.stat().st_size for path in files)


def steps(run: Callable[[bytes], None], data: bytes) -> set[Step]:
    """The transitions between lines of our code that an input causes."""
    found: set[Step] = set()

    def enter(frame: FrameType, _event: str, _arg: Any) -> Callable[[FrameType, str, Any], Any] | None:
        name = frame.f_code.co_filename
        if not name.startswith(OURS):
            return None
        last = 0

        def line(frame: FrameType, event: str, _arg: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run(data)
    finally:
        sys.settrace(before)
    return found
