"""The verifier in JavaScript: as a Node module, and as its page in a browser."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.paths import ROOT
from tests.support.story import VECTORS

VERIFIER = ROOT / "verifier"
PAGE = VERIFIER / "index.html"
J = dict[str, Any]
# Verifies the given files, and evaluates to the page's result.
VERIFIED = """new Promise(done => { document.getElementById('verify').click(); const look = () => {
  if (document.getElementById('verify').disabled) return setTimeout(look, 5);
  const code = document.querySelector('#result [data-code]');
  const shown = document.querySelector('#result [data-verdict]');
  done({verdict: shown && shown.dataset.verdict, code: code && code.dataset.code,
        status: document.getElementById('status').textContent}); }; setTimeout(look, 5) })"""


@dataclass(frozen=True)
class Vector:
    name: str
    folder: Path
    expected: J

    @property
    def arguments(self) -> list[str]:
        found: list[str] = self.expected["arguments"]
        return found


def vectors(folder: Path = VECTORS) -> Iterator[Vector]:
    for kind in ("valid", "invalid", "merged"):
        for path in sorted((folder / kind).glob("*/expected.json")):
            yield Vector(f"{kind}/{path.parent.name}", path.parent, json.loads(path.read_bytes()))


def by_node(given: Sequence[Vector]) -> list[J]:
    """The Node module's result for each vector: `status` and the JSON that it prints."""
    asked = json.dumps([{"folder": str(one.folder), "arguments": one.arguments} for one in given])
    done = subprocess.run(
        ["node", str(VERIFIER / "batch.mjs")], input=asked, capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [{"status": one["status"], "fault": one.get("fault"), **json.loads(one["out"])} for one in answers]


class Browser(Protocol):
    def evaluate(self, expression: str) -> Any: ...

    def give(self, box: str, files: Sequence[Path]) -> None: ...


def by_page(page: Browser, one: Vector) -> J:
    """The page's result for the files of a vector."""
    files: dict[str, list[Path]] = {"ledgers": [one.folder / "ledger.json"], "keys": [], "tables": [], "folder": []}
    below = 0
    journal = one.folder / "ledger.journal.jsonl"
    files["ledgers"] += [journal] if journal.exists() else []
    threshold, replay = "1", False
    words = iter(one.arguments[1:])
    for word in words:
        if word == "--allow-replay":
            replay = True
            continue
        value = next(words)
        if word == "--children":
            files["folder"] = [one.folder / value]
            below = len(list((one.folder / value).rglob("*.json*")))
        elif word == "--threshold":
            threshold = value
        elif word in ("--key", "--peaks", "--policy"):
            files["keys" if word == "--key" else "tables"].append((one.folder / value).resolve())
    page.evaluate(
        f"document.getElementById('clear').click(), document.getElementById('threshold').value = {threshold},"
        f"document.getElementById('replay').checked = {str(replay).lower()}"
    )
    for box, paths in files.items():
        if paths:
            page.give(box, paths)
    count = below + sum(len(paths) for box, paths in files.items() if box != "folder")
    page.evaluate(
        "new Promise(done => { const look = () => [...document.querySelectorAll('.given')]"
        f".reduce((sum, one) => sum + Number(one.dataset.count), 0) === {count} ? done() : setTimeout(look, 2); look() }})"
    )
    found: J = page.evaluate(VERIFIED)
    return found
