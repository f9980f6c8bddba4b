"""`flopsd report` as it is used: the command on real ledgers, the page in a real Chromium without a network."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flopsd.report.html import page_line, report_html
from tests.support.chromium import Page, chromium
from tests.support.enriched import SCENES, report, scene
from tests.support.process import flopsd
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.unit.report.test_html import hostile

ACTIVITY = VECTORS / "valid" / "activity-and-gaps"
WITH_KEY = ("--key", str(ACTIVITY / "ledger.pub"), "--peaks", str(PEAKS))
PHONE, DESK = 390, 1280


def test_without_a_key_it_says_that_nobody_verified_and_how_to() -> None:
    done = flopsd("report", str(ACTIVITY / "ledger.json"), code=0)
    assert "NOT VERIFIED by this report" in done.stdout
    assert "flopsd verify ledger.json --key PUBLIC-KEY" in done.stdout
    assert done.stderr == ""


def test_with_the_key_it_verifies_first(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = flopsd("report", str(ACTIVITY / "ledger.json"), *WITH_KEY, "--format", "html", "-o", str(page))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    text = page.read_text()
    assert "VERIFIED: signature checked, every total recomputed from 13 journal records." in text
    assert "NOT VERIFIED" not in text
    answer = json.loads(flopsd("report", str(ACTIVITY / "ledger.json"), *WITH_KEY, "--json").stdout)
    assert (answer["verified"], answer["kind"], answer["flags"]) == (True, "node", ["PEAK TABLE"])
    assert answer["predicate"]["totals"]["executed"]["measured"] == "6011834917271040"


@pytest.mark.parametrize(
    ("case", "shape"),
    [("edited-payload", "html"), ("edited-journal", "text"), ("wrong-key", "form"), ("replay-as-evidence", "text")],
)
def test_a_ledger_that_does_not_hold_gets_no_figures_and_exit_3(case: str, shape: str) -> None:
    folder = VECTORS / "invalid" / case
    answer = json.loads((folder / "expected.json").read_bytes())
    keys = [part for name in answer["keys"] for part in ("--key", str(folder / name))]
    done = flopsd("report", str(folder / "ledger.json"), *keys, "--peaks", str(PEAKS), "--format", shape, code=3)
    assert "REFUSED" in done.stdout
    assert not re.search("10[⁰¹²³⁴⁵⁶⁷⁸⁹]", done.stdout)


def test_what_is_no_ledger_is_refused_and_grounds_without_a_key_are_a_usage_error(tmp_path: Path) -> None:
    nothing = tmp_path / "x.json"
    nothing.write_text("{}")
    done = flopsd("report", str(nothing))
    assert (done.returncode, done.stdout) == (3, "")

    flopsd("report", str(ACTIVITY / "ledger.json"), "--threshold", "2", "--allow-replay", code=2,
           says=("--threshold verifies, which needs a key", "--allow-replay verifies, which needs a key"))  # fmt: skip


def test_merged_ledgers_are_verified_and_reported() -> None:
    folder = VECTORS / "merged" / "job-with-a-hole"
    done = flopsd("report", str(folder / "ledger.json"), "--key", str(folder / "ledger.pub"), "--children",
                  str(folder / "children"), "--peaks", str(PEAKS), "--policy", str(POLICY), code=0)  # fmt: skip
    assert "every sum recomputed" in done.stdout
    assert "INCOMPLETE" in done.stdout
    assert "1 of its 1 ledger given and unchanged" in " ".join(done.stdout.split())


def test_the_form_names_the_figures_of_the_form() -> None:
    done = flopsd("report", str(ACTIVITY / "ledger.json"), "--format", "form", code=0)
    assert "Amount of computation used for training:" in done.stdout
    assert "between 0 and 3.4x10^16 FLOP" in " ".join(done.stdout.split())  # nothing declares what of it counts
    assert "NOT VERIFIED" in done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every scene as a page; FLOPSD_REPORT_PICTURES names a folder to keep the pictures in."""
    kept = os.environ.get("FLOPSD_REPORT_PICTURES")
    found = Path(kept) if kept else tmp_path_factory.mktemp("reports")
    found.mkdir(exist_ok=True)
    for name in SCENES:
        (found / f"{name}.html").write_text(report_html(scene(name)), encoding="utf-8")
    (found / "hostile.html").write_text(report_html(report(hostile())), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    del folder
    with chromium() as opened:
        yield opened


@pytest.mark.tool("chromium")
@pytest.mark.parametrize("name", [*SCENES, "hostile"])
def test_the_page_asks_for_nothing_and_nothing_is_cut_or_lies_over_something_else(
    page: Page, folder: Path, name: str
) -> None:
    before = len(page.events)
    page.load(folder / f"{name}.html")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)", "no style applies"
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width, dark in itertools.product((PHONE, DESK), (False, True)) if name in SCENES else ():
        page.look(width, dark=dark)
        page.assert_whole(width, dark=dark)
        picture = page.picture()
        assert picture.startswith(b"\x89PNG")
        if os.environ.get("FLOPSD_REPORT_PICTURES"):
            (folder / f"{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(picture)
    events = page.events[before:]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked == [(folder / f"{name}.html").as_uri()]
    assert not [event for event in events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")]  # fmt: skip


@pytest.mark.tool("chromium", "pdftotext")
@pytest.mark.parametrize("name", ["everything", "replay"])
def test_it_prints_with_the_run_and_the_digest_on_every_page(
    page: Page, folder: Path, tmp_path: Path, name: str
) -> None:
    page.load(folder / f"{name}.html")
    page.look(DESK, dark=True)
    (tmp_path / "report.pdf").write_bytes(page.pdf())
    if os.environ.get("FLOPSD_REPORT_PICTURES"):
        (folder / f"{name}.pdf").write_bytes((tmp_path / "report.pdf").read_bytes())
    text = subprocess.run(["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"], capture_output=True, text=True, check=True).stdout  # fmt: skip
    sheets = text.split("\f")[:-1]
    assert 3 <= len(sheets) <= 14
    for number, sheet in enumerate(sheets, 1):
        assert sheet.lstrip().startswith(page_line(scene(name))), f"page {number}"
        assert f"{number}/{len(sheets)}" in sheet.replace(" ", "")
    assert "the head that was sealed" in text, "what is folded away on screen is printed"


@pytest.mark.tool("chromium")
def test_it_can_be_read_with_the_keyboard_alone(page: Page, folder: Path) -> None:
    page.load(folder / "everything.html")
    page.look(DESK)
    reached = []
    for _ in range(60):
        page.press_tab()
        reached.append(page.evaluate("document.activeElement.className + ' ' + document.activeElement.tagName"))
    assert reached[0] == "skip A"
    for what in ("SUMMARY", "scroll DIV", "PRE"):
        assert any(what in one for one in reached), what
