"""What the verifier in JavaScript costs for a week of eight GPUs, as a command and in Chromium; and pictures of it."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.journal.state_dir import StateDir
from flopsd.testing import FakeClock
from tests.bench.journals import SECRET, fill, gpus
from tests.support.chromium import Page, chromium
from tests.support.story import CONTEXT
from tests.support.verifier import PAGE, VERIFIER, Vector, by_page, vectors

SHOWN = {
    "good": "valid/declared-mix", "refused": "invalid/totals-that-fall", "rolling": "valid/journal-goes-on",
    "merged": "merged/job",
}  # fmt: skip
DESK = 1280


def week(folder: Path, days: int = 7) -> Vector:
    """A sealed week of eight GPUs, as a vector that must be accepted."""
    clock, state = FakeClock(), StateDir(folder / "state")
    fill(state, clock, gpus(8), days * 24 * 60, CONTEXT, "week")
    key, _ = ensure_key(None, state.path)
    seal_journal(state.journal, key, folder / "ledger.json", clock, code_secrets=[SECRET])
    expected = {"arguments": ["ledger.json", "--key", "ledger.pub"], "verdict": "accept", "code": None}
    return Vector("week", folder, expected)


def verifier(folder: Path, say: Callable[[str, str, str], None]) -> None:
    sealed = week(folder)
    before = time.perf_counter()
    done = subprocess.run(
        ["node", str(VERIFIER / "cli.mjs"), *sealed.arguments], cwd=folder, capture_output=True, text=True
    )
    say("node verifier/cli.mjs, 7 days x 8 GPUs", f"{time.perf_counter() - before:.2f} s", "5 s")
    assert done.returncode == 0, done.stdout + done.stderr
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    say("  its memory", f"{most / 1024:.0f} MB", "-")
    with chromium() as page:
        page.load(PAGE)
        before = time.perf_counter()
        assert by_page(page, sealed)["verdict"] == "accept"
        say("verifier/index.html in Chromium, the same", f"{time.perf_counter() - before:.2f} s", "5 s")
        heap = page.ask("Runtime.getHeapUsage")["totalSize"]
        say("  its heap of JavaScript", f"{heap / 1e6:.0f} MB", "-")


def pictures(folder: Path) -> None:
    """What the page shows of a ledger that is good, refused, rolling, merged, and of a week."""
    given = {one.name: one for one in vectors()}
    folder.mkdir(parents=True, exist_ok=True)
    sealed = folder / "week"
    sealed.mkdir(exist_ok=True)
    shown = {name: given[vector] for name, vector in SHOWN.items()} | {"huge": week(sealed)}
    with chromium() as page:
        for name, one in shown.items():
            picture(page, one, folder / f"{name}.png")


def picture(page: Page, one: Vector, path: Path) -> None:
    page.load(PAGE)
    page.look(DESK)
    said = by_page(page, one)
    assert said["verdict"] == one.expected["verdict"], json.dumps(said)
    path.write_bytes(page.picture())
    print(path)


if __name__ == "__main__":
    pictures(Path("build/verifier"))
