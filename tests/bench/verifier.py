"""The cost of the verifier in JavaScript for a week of eight GPUs, as a command and in Chromium; and pictures of it."""

import json
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.journal.state_dir import StateDir
from flopsd.testing import FakeClock
from tests.bench.journals import SECRET, fill, gpus
from tests.bench.measuring import cost_of
from tests.bench.merge import Nodes
from tests.support.axe import axe_source, faults
from tests.support.chromium import Page, chromium
from tests.support.paths import ROOT
from tests.support.story import CONTEXT
from tests.support.verifier import PAGE, VERIFIER, Vector, by_page, vectors

SHOWN = {
    "good": "valid/declared-mix", "judged": "valid/finding-straddling", "refused": "invalid/totals-that-fall",
    "rolling": "valid/journal-goes-on", "replay": "valid/replay", "in-part": "valid/model-of-another-family",
    "gaps": "valid/gaps-of-1003", "merged": "merged/job", "hole": "merged/job-with-a-hole",
}  # fmt: skip
PHONE, DESK = 390, 1280
MERGED, JOBS = 2000, 20
MISSED = 50  # each device has no readings in one minute of so many


def week(folder: Path, days: int = 7) -> Vector:
    """A sealed week of eight GPUs with thousands of gaps, as a vector that must be accepted."""
    clock, state = FakeClock(), StateDir(folder / "state")
    fill(state, clock, gpus(8), days * 24 * 60, CONTEXT, "week", missed=MISSED)
    key, _ = ensure_key(None, state.path)
    seal_journal(state.journal, key, folder / "ledger.json", clock, code_secrets=[SECRET])
    return _accepted("week", folder)


def job(folder: Path, count: int = MERGED) -> Vector:
    """A job of `count` nodes with all of its children."""
    nodes = Nodes(folder, 1)
    nodes.write(folder / "children", count, count)
    cost_of(
        "merge", str(folder / "children"), *nodes.trusted, *nodes.into(folder / "ledger.json"), "--nodes", str(count)
    )
    return _accepted("job", folder, "--children", "children")


def lineage(folder: Path, count: int = JOBS) -> Vector:
    """A lineage of `count` jobs of two nodes each."""
    nodes, jobs = Nodes(folder, 1), folder / "children"
    for place in nodes.write(folder / "nodes", 2 * count, 2):
        (jobs / place.name).mkdir(parents=True)
        cost_of("merge", str(place), *nodes.trusted, *nodes.into(jobs / place.name / "ledger.json"), "--nodes", "2")
    cost_of(
        "merge",
        str(jobs),
        *nodes.trusted,
        *nodes.into(folder / "ledger.json"),
        "--kind", "lineage", "--lineage", "bench",
    )  # fmt: skip
    return _accepted("lineage", folder, "--children", "children")


def _accepted(name: str, folder: Path, *more: str) -> Vector:
    return Vector(
        name, folder, {"arguments": ["ledger.json", "--key", "ledger.pub", *more], "verdict": "accept", "code": None}
    )


def verifier(folder: Path, say: Callable[[str, str, str], None]) -> None:
    sealed = week(folder / "week")
    before = time.perf_counter()
    done = subprocess.run(
        ["node", str(VERIFIER / "cli.mjs"), *sealed.arguments], cwd=sealed.folder, capture_output=True, text=True
    )
    say("node verifier/cli.mjs, 7 days x 8 GPUs", f"{time.perf_counter() - before:.2f} s", "5 s")
    assert done.returncode == 0, done.stdout + done.stderr
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    say("  its memory", f"{most / 1024:.0f} MB", "-")
    for one, budget in ((sealed, "5 s"), (job(folder / "job"), "-"), (lineage(folder / "lineage"), "-")):
        with chromium() as page:
            page.load(PAGE)
            before = time.perf_counter()
            assert by_page(page, one)["verdict"] == "accept"
            say(f"verifier/index.html in Chromium: {one.name}", f"{time.perf_counter() - before:.2f} s", budget)
            say("  memory of its process, at most", f"{_peak_kb() / 1024:.0f} MB", "-")


def _peak_kb() -> int:
    """Peak memory of the Chromium process that shows the page and verifies."""
    shown = [one for one in psutil.Process().children(recursive=True) if "--type=renderer" in one.cmdline()]
    texts = [Path(f"/proc/{one.pid}/status").read_text() for one in shown]
    return max(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("VmHWM:"))


def pictures(out: Path) -> None:
    """Pictures of the page on a desktop and a phone, light and dark, and printed; and axe-core's findings in it."""
    given, source = {one.name: one for one in vectors()}, axe_source()
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        shown = {name: given[vector] for name, vector in SHOWN.items()}
        shown |= {one.name: one for one in (make(Path(scratch) / make.__name__) for make in (week, job, lineage))}
        for name, one in shown.items():
            with chromium() as page:
                picture(page, one, out / name, source)


def picture(page: Page, one: Vector, path: Path, axe: str) -> None:
    page.load(PAGE)
    page.look(DESK)
    said = by_page(page, one)
    assert said["verdict"] == one.expected["verdict"], json.dumps(said)
    for width in (DESK, PHONE):
        for dark in (False, True):
            page.look(width, dark=dark)
            page.assert_whole(width, dark=dark)
            path.with_name(f"{path.name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(page.picture())
            print(path.name, width, "dark" if dark else "light", "axe:", faults(page, axe))
    path.with_suffix(".pdf").write_bytes(page.pdf())


if __name__ == "__main__":
    pictures(ROOT / "build" / "verifier")
