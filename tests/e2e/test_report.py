"""`flopsd report` in use: the command on real ledgers, the page in a real Chromium without a network."""

import itertools
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flopsd.core.model import Active, Device, GapReason, Reading
from flopsd.errors import NotVerifiedError
from flopsd.report.contents.build import course_of
from flopsd.report.contents.model import Report, VerificationResult, VerificationState
from flopsd.report.contents.verification import refused
from flopsd.report.html.document import page_line, report_html
from flopsd.settings.data_files import load_policies
from tests.make_vectors.files import statement_of
from tests.support.axe import axe_source, faults
from tests.support.chromium import Page
from tests.support.enriched import SCENES, report, scene
from tests.support.process import in_process
from tests.support.runs import H100, Run
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.support.strategies import table
from tests.unit.report.test_html import hostile

ACTIVITY = VECTORS / "valid" / "activity-and-gaps"
WITH_KEY = ("--key", str(ACTIVITY / "ledger.pub"), "--peaks", str(PEAKS))
PHONE, DESK, FIRST_SCREEN = 360, 1280, 800
VERIFIED = VerificationResult(
    VerificationState.VERIFIED, "VERIFIED: every figure was recomputed.", lines=("Signed by key 0.",)
)
STATES = {
    "verified": ("everything", VERIFIED),
    "refused": ("everything", refused(NotVerifiedError("the payload was edited", hint="ask for the ledger again"))),
    "not-verified": ("no-upper-bound", None),
    "above": ("lineage-above", VERIFIED),
    "replay": ("replay", VERIFIED),
    "merged": ("incomplete-job", VERIFIED),
}


MINUTES = {"minute": H100, "unknown part": replace(H100, model="NVIDIA X1 Ultra", pci_device_id=0xFFFF10DE)}


class Uneven(Run):
    """Each device did a little more than the previous one, so no two are equal."""

    def _reading(self, device: Device, fault: GapReason | None, now_ns: int) -> Reading:
        read = super()._reading(device, fault, now_ns)
        assert isinstance(read.work, Active)
        cycles = {pipe: seen * (100 + device.index) // 110 for pipe, seen in read.work.sm_cycles.items()}
        return replace(read, work=replace(read.work, sm_cycles=cycles))


def minute_on_eight_gpus(part: Device = H100) -> Report:
    """A short run right after the installation: nothing is declared, so every rule is open."""
    with TemporaryDirectory() as folder:
        uuids = [f"GPU-3f2a9c0{at}-7c1e-4b52-9d0a-8e6f01b4a00{at}" for at in range(8)]
        devices = tuple(replace(part, uid=uuid, index=at) for at, uuid in enumerate(uuids))
        run = Uneven(Path(folder), devices=devices, policies=load_policies())
        run.meter(60)
        run.finish()
        journal = run.state.journal.read_bytes()
        records = len(journal.splitlines())
        course = course_of(run.state.journal, records, table())
    return report({**statement_of(journal, peaks=table(), policies=load_policies()), "course": course}, VERIFIED)


def test_with_the_key_the_report_verifies_first(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = in_process("report", str(ACTIVITY / "ledger.json"), *WITH_KEY, "--format", "html", "-o", str(page))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    text = page.read_text()
    assert "VERIFIED: signature checked, every total recomputed from 13 journal records." in text
    assert "NOT VERIFIED" not in text


@pytest.mark.parametrize("name", [b"a\xff\xfe.json", "a\u202e\x1b[2J\n<b>.json".encode()])
def test_the_file_name_of_a_ledger_is_shown_as_visible_text(tmp_path: Path, name: bytes) -> None:
    """A name that is not UTF-8, and one that would reverse the text around it."""
    for source, ending in (("ledger.json", ""), ("ledger.journal.jsonl", ".journal.jsonl")):
        copy = os.fsencode(tmp_path) + b"/" + (name.removesuffix(b".json") + ending.encode() if ending else name)
        Path(os.fsdecode(copy)).write_bytes((ACTIVITY / source).read_bytes())
    ledger, page = os.fsdecode(os.fsencode(tmp_path) + b"/" + name), tmp_path / "report.html"
    in_process("report", ledger, *WITH_KEY, "--format", "html", "-o", str(page), code=0)
    text = page.read_text()
    assert not {"\x1b", "\u202e"} & set(text)
    assert "<dd>a\\x" in text


@pytest.mark.parametrize(
    ("case", "shape"),
    [("edited-payload", "html"), ("edited-journal", "text"), ("wrong-key", "form"), ("replay-as-evidence", "text")],
)
def test_a_ledger_that_does_not_verify_gets_no_figures_and_exit_3(case: str, shape: str) -> None:
    folder = VECTORS / "invalid" / case
    arguments = json.loads((folder / "expected.json").read_bytes())["arguments"]
    names = [name for option, name in itertools.pairwise(arguments) if option == "--key"]
    keys = [part for name in names for part in ("--key", str(folder / name))]
    done = in_process("report", str(folder / "ledger.json"), *keys, "--peaks", str(PEAKS), "--format", shape, code=3)
    assert "REFUSED" in done.stdout
    assert not re.search("10[⁰¹²³⁴⁵⁶⁷⁸⁹]", done.stdout)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "x.json"
    nothing.write_text("{}")
    done = in_process("report", str(nothing))
    assert (done.returncode, done.stdout) == (3, "")


def test_merged_ledgers_are_verified_and_reported() -> None:
    folder = VECTORS / "merged" / "job-with-a-hole"
    done = in_process("report", str(folder / "ledger.json"), "--key", str(folder / "ledger.pub"), "--children",
                  str(folder / "children"), "--peaks", str(PEAKS), "--policy", str(POLICY), code=0)  # fmt: skip
    assert "every sum recomputed" in done.stdout
    assert "INCOMPLETE" in done.stdout
    assert "1 of its 1 ledger given and unchanged" in " ".join(done.stdout.split())


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


@pytest.fixture
def page(browser: Page) -> Page:
    return browser


@pytest.mark.tool("chromium")
@pytest.mark.parametrize("name", [*SCENES, "hostile"])
def test_the_page_loads_nothing_and_no_element_is_cut_off_or_overlaps(page: Page, folder: Path, name: str) -> None:
    page.load(folder / f"{name}.html")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)", "no style applies"
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width, dark in itertools.product((PHONE, DESK), (False, True)) if name in SCENES else ():
        page.look(width, dark=dark)
        page.assert_whole(width, dark=dark)
    if name == "everything":  # a rule titled with the address of its law
        page.look(PHONE)
        page.evaluate("document.querySelectorAll('.rule h3').forEach(h => h.append('https://' + 'x'.repeat(150)))")
        page.assert_whole(PHONE, dark=False)
        picture = page.picture()
        assert picture.startswith(b"\x89PNG")
        if os.environ.get("FLOPSD_REPORT_PICTURES"):
            (folder / f"{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(picture)
    assert page.requested() == [(folder / f"{name}.html").as_uri()]
    assert page.said() == []


@pytest.mark.tool("chromium", "pdftotext")
@pytest.mark.parametrize("name", ["minute", "unknown part", "everything", "replay"])
def test_the_report_prints_on_few_pages_with_run_and_digest_on_each(
    page: Page, folder: Path, tmp_path: Path, name: str
) -> None:
    made = minute_on_eight_gpus(MINUTES[name]) if name in MINUTES else scene(name)
    (folder / f"{name}.html").write_text(report_html(made), encoding="utf-8")
    page.load(folder / f"{name}.html")
    page.look(DESK, dark=True)
    (tmp_path / "report.pdf").write_bytes(page.pdf())
    if os.environ.get("FLOPSD_REPORT_PICTURES"):
        (folder / f"{name}.pdf").write_bytes((tmp_path / "report.pdf").read_bytes())
    text = subprocess.run(["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"], capture_output=True, text=True, check=True).stdout  # fmt: skip
    sheets = text.split("\f")[:-1]
    assert len(sheets) <= (5 if name == "everything" else 4)  # a scene with every possible warning
    for number, sheet in enumerate(sheets, 1):
        assert sheet.lstrip().startswith(page_line(made)), f"page {number}"
        assert f"{number}/{len(sheets)}" in sheet.replace(" ", "")
    assert made.content is not None
    assert all(device.uuid in text for device in made.content.devices), "what is folded away on screen is printed"
    assert "the head that was sealed" not in text, "a script is not typed from paper"


@pytest.mark.tool("chromium")
@pytest.mark.parametrize("name", STATES)
def test_the_first_screen_contains_the_answer_and_the_verification_state(page: Page, folder: Path, name: str) -> None:
    made = report(SCENES[STATES[name][0]](), STATES[name][1])
    (folder / f"state-{name}.html").write_text(report_html(made), encoding="utf-8")
    page.load(folder / f"state-{name}.html")
    page.look(DESK)
    bottom, width, top = (f"Math.round(document.querySelector('%s').getBoundingClientRect().{side})" for side in ("bottom", "width", "top"))  # fmt: skip
    if made.check.state is VerificationState.VERIFIED:
        assert page.evaluate(bottom % ".check-verified") < FIRST_SCREEN
    else:
        assert page.evaluate(width % ".banner") == DESK
        assert page.evaluate(bottom % ".banner") < FIRST_SCREEN // 2
        assert page.evaluate(top % ".banner") < page.evaluate(top % "h1")
    if made.content is None:
        assert page.evaluate(width % "main") > DESK * 3 // 4, "a page without a table of contents is as wide"
        return
    assert page.evaluate(bottom % "h2.headline + .lead") <= FIRST_SCREEN
    colours = "new Set([...document.querySelectorAll('h2.headline, .answer .chip')].map(e => getComputedStyle(e).color)).has(getComputedStyle(document.querySelector('.eyebrow')).color)"  # fmt: skip
    assert page.evaluate(colours) == bool(made.caveat), "no verdict is coloured under a caveat"
    page.ask("Emulation.setEmulatedMedia", media="print")
    uncut = "[...document.querySelectorAll('.rule, .card')].every(e => getComputedStyle(e).breakInside === 'avoid')"
    assert page.evaluate(uncut)
    page.ask("Emulation.setEmulatedMedia", media="")


@pytest.mark.tool("chromium")
@pytest.mark.parametrize("name", STATES)
def test_axe_finds_no_fault_in_any_state(page: Page, tmp_path: Path, name: str) -> None:
    source, file = axe_source(), tmp_path / "report.html"
    file.write_text(report_html(report(SCENES[STATES[name][0]](), STATES[name][1])), encoding="utf-8")
    page.load(file)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width, dark in ((DESK, False), (DESK, True), (PHONE, False)):
        page.look(width, dark=dark)
        assert faults(page, source) == [], (width, dark)


@pytest.mark.tool("chromium")
def test_the_report_can_be_read_with_the_keyboard_only(page: Page, folder: Path) -> None:
    page.load(folder / "everything.html")
    page.look(DESK)
    reached = []
    for _ in range(60):
        page.press_tab()
        reached.append(page.evaluate("document.activeElement.className + ' ' + document.activeElement.tagName"))
    assert reached[0] == "skip A"
    for what in ("SUMMARY", "scroll DIV", "PRE"):
        assert any(what in one for one in reached), what
