"""The verifier's page with files of a stranger: it runs nothing, does not hang, and its verdict is about these
files."""

import base64
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import Page, chromium
from tests.support.firefox import firefox
from tests.support.jobs import Nodes, plain
from tests.support.story import VECTORS
from tests.support.verifier import PAGE, VERIFIED, Browser, Vector, by_page, vectors

pytestmark = pytest.mark.xdist_group("verifier-page")  # one Chromium for all

EVIL = "x\x1b[2K\u202e\u200b\n<img src=x onerror=document.title=1></td><script>document.title=2</script>"
MIB = 1 << 20
EVIDENCE = "valid/payload-evidence-of-64-items"
GOOD, OTHER, REFUSED = "valid/declared-mix", "valid/p256", "invalid/totals-that-fall"
KEY = (VECTORS / GOOD / "ledger.pub").read_text()
# Files made in the page itself, under any name and of any size, as if a reader had chosen them.
_PUT = """(box, ...files) => { const all = new DataTransfer();
  for (const [name, ...parts] of files) all.items.add(new File(parts, name));
  const input = document.getElementById(box); input.files = all.files; input.dispatchEvent(new Event('change')); }"""
_STATE = """({text: document.getElementById('result').innerText, status: document.getElementById('status').textContent,
  runs: document.getElementById('verify').disabled})"""
NOTHING = {"text": "", "status": "", "runs": False}
SHOWN = (GOOD, REFUSED, "valid/journal-goes-on", "valid/replay", "merged/job", "merged/lineage-of-a-job-at-hand")  # fmt: skip


@pytest.fixture(scope="module")
def opened() -> Iterator[Page]:
    with chromium() as page:
        page.load(PAGE)
        yield page


@pytest.fixture
def page(opened: Page) -> Page:
    opened.evaluate("document.getElementById('clear').click()")
    return opened


def vector(name: str) -> Vector:
    return Vector(name, VECTORS / name, json.loads((VECTORS / name / "expected.json").read_bytes()))


def put(box: str, *files: tuple[str, str]) -> str:
    """For each file its name and an expression for its content."""
    return f"({_PUT})({json.dumps(box)}, {', '.join(f'[{json.dumps(name)}, {content}]' for name, content in files)})"


def content(data: bytes) -> str:
    return f"Uint8Array.from(atob('{base64.b64encode(data).decode()}'), one => one.charCodeAt(0))"


def given(folder: Path) -> tuple[tuple[str, str], ...]:
    return tuple((name, content((folder / name).read_bytes())) for name in ("ledger.json", "ledger.journal.jsonl"))


def said(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(VERIFIED) | page.evaluate(_STATE)
    return found


@pytest.mark.tool("chromium")
def test_the_displayed_verdict_is_about_the_listed_files(page: Page) -> None:
    verify, other = "document.getElementById('verify').click()", put("tables", ("more.yaml", "''"))
    for change in (
        other,
        "document.getElementById('replay').click()",
        "document.getElementById('threshold').dispatchEvent(new Event('change'))",
    ):
        assert by_page(page, vector(GOOD))["verdict"] == "accept"
        # After a verdict, and while the next verification runs.
        for before in ("", verify + ","):
            page.evaluate(f"({before} {change})")
            assert page.evaluate(_STATE)["text"] == ""
            assert not page.evaluate(_STATE)["runs"]
    by_page(page, vector(GOOD))
    hidden = "['progress', 'stop', 'result'].map(one => document.getElementById(one).hidden)"
    assert page.evaluate(hidden) == [True, True, False]
    assert page.evaluate(f"({verify}, {hidden})") == [False, False, False]
    assert page.evaluate(f"({verify}, document.getElementById('stop').click(), {_STATE})") == NOTHING | {
        "status": "Stopped: there is no verdict."
    }
    # A stopped verification shows nothing more, whatever is verified next.
    page.evaluate(verify)
    assert by_page(page, vector(REFUSED))["verdict"] == "refuse"
    page.evaluate(verify)
    assert by_page(page, vector(OTHER))["verdict"] == "accept"


@pytest.mark.tool("chromium")
def test_a_file_name_is_shown_as_visible_text(page: Page, tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    shapes: list[list[str]] = []
    for name in ("plain", EVIL):
        ledger = nodes.ledger(plain(name), str(len(shapes)), run_id=name)
        page.evaluate("document.getElementById('clear').click()")
        page.evaluate(put("ledgers", *((name + path, data) for path, data in given(ledger.parent))))
        page.evaluate(put("keys", (f"{name}.pub", content(nodes.public.read_bytes()))))
        assert said(page)["verdict"] == "accept"
        shapes.append(page.evaluate("[...document.querySelectorAll('#result *, .given *')].map(one => one.tagName)"))
    assert shapes[0] == shapes[1]
    assert page.evaluate("document.title") == "Verify a flopsd ledger"
    text = page.evaluate("document.body.innerText")
    assert "\\u{1b}[2K\\u{202e}\\u{200b}\\u{a}<img src=x" in text
    assert not {"\x1b", "\u202e", "\u200b"} & set(text)


# The ledger, then the reason code, or the beginning of the status shown instead of a verdict.
STRANGE: dict[str, tuple[str, str | None]] = {
    "of 65 MiB": (f"new Uint8Array({65 * MIB})", "envelope_too_large"),
    "nested": ("'['.repeat(10000)", "json_too_deep"),
    "nested behind a long text": ("'[\"' + 'A'.repeat(2e7) + '\"' + ',['.repeat(101)", "json_too_deep"),
    "of brackets in a long text": ("'[\"' + '[\\\\n'.repeat(3e6) + '\"]'", "envelope_malformed"),
    "of many values": ("'[' + '0,'.repeat(4e6) + '0]'", "json_too_many_values"),
    "of other names": ('\'{"__proto__": {"payload": ""}, "constructor": 1, "toString": 2}\'', "envelope_malformed"),
    "of a long name": ("'{\"' + 'A'.repeat(5e6) + '\":0,\"' + 'A'.repeat(5e6) + '\":0}'", "json_duplicate_member"),
    "packed": ("new Uint8Array([31, 139, 8, 0, 255, 254])", "json_not_utf8"),
    "empty": ("''", "json_malformed"),
}  # fmt: skip
KEYS: dict[str, tuple[str, str | None]] = {
    "of nothing": ("''", "key_not_allowed"),
    "in DER": ("new Uint8Array([48, 42, 48, 5, 255])", "key_not_allowed"),
    "private": ("'-----BEGIN PRIVATE KEY-----\\nMC4CAQ==\\n-----END PRIVATE KEY-----'", "key_not_allowed"),
    "of two": (json.dumps(KEY + KEY), "key_not_allowed"),
    "of another system": (json.dumps("\ufeffBag Attributes\r\n" + KEY.replace("\n", "\r\n")), None),
}  # fmt: skip


@pytest.mark.tool("chromium")
def test_a_file_that_is_no_ledger_or_key_gets_its_reason(page: Page) -> None:
    files = given(VECTORS / GOOD)
    yaml = [(path.name, content(path.read_bytes())) for path in sorted(VECTORS.glob("*.yaml"))]
    cases = [(what, "ledgers", ("strange.json", data), code) for what, (data, code) in STRANGE.items()]
    cases += [(what, "keys", ("strange.pub", data), code) for what, (data, code) in KEYS.items()]
    for what, box, strange, code in cases:
        page.evaluate("document.getElementById('clear').click()")
        page.evaluate(put("tables", *yaml))
        page.evaluate(put("ledgers", *([strange] if box == "ledgers" else files)))
        page.evaluate(put("keys", strange if box == "keys" else ("trusted.pub", json.dumps(KEY))))
        found = said(page)
        assert (found["verdict"], found["code"]) == ("refuse" if code else "accept", code), what
        assert len(found["text"]) < 10_000


@pytest.mark.tool("chromium")
def test_files_that_do_not_belong_together_get_no_verdict(page: Page) -> None:
    (name, ledger), (_, journal) = given(VECTORS / GOOD)
    job = content((VECTORS / "merged/job/ledger.json").read_bytes())
    page.evaluate(put("keys", ("trusted.pub", json.dumps(KEY))))
    for files, says in (
        ([(name, ledger), ("another.json", ledger)], "Several ledgers were given"),
        ([("one.json", job), ("other.json", job)], "Several ledgers were given"),
        ([(name, ledger), ("a.jsonl", journal), ("b.jsonl", journal)], "Which journal"),
        ([("a.jsonl", journal)], "Give a ledger"),
    ):
        page.evaluate(put("ledgers", *files))
        found = said(page)
        assert (found["verdict"], found["text"]) == (None, ""), says
        assert found["status"].startswith(says)
        page.evaluate("document.getElementById('clear').click()")
        page.evaluate(put("keys", ("trusted.pub", json.dumps(KEY))))
    # The same file twice is one, and the journal of another ledger is refused.
    page.evaluate(put("ledgers", (name, ledger), ("ledger.journal.jsonl", given(VECTORS / OTHER)[1][1])))
    page.evaluate(put("ledgers", (name, ledger)))
    assert page.evaluate("document.querySelectorAll('#ledgers-given li').length") == 2
    found = said(page)
    assert (found["verdict"], found["code"]) == ("refuse", "journal_truncated"), found
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate(put("ledgers", (name, ledger)))
    assert said(page)["status"].startswith("Give a public key")


@pytest.mark.tool("chromium")
def test_a_dropped_folder_provides_no_key_and_no_table(page: Page) -> None:
    """Whoever made it could have put their own into it."""
    counts = "[...document.querySelectorAll('.given')].map(one => one.dataset.count).join()"  # 'beside' is last
    for dropped, expected in (  # expected.json and rows.json are no ledgers, though named like one
        ([VECTORS / GOOD], "4,0,0,0"),
        ([VECTORS / GOOD / "ledger.pub", VECTORS / "peaks.yaml"], "4,1,0,1"),
    ):
        data = {"items": [], "files": [str(path) for path in dropped], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            page.ask("Input.dispatchDragEvent", type=kind, x=200, y=300, data=data)
        look = f"const look = () => {counts} === '{expected}' ? done() : setTimeout(look, 2); look()"
        page.evaluate(f"new Promise(done => {{ {look} }})")
    assert page.evaluate("document.getElementById('ledgers-given').innerText").startswith(f"{Path(GOOD).name}/")


# For an accepted ledger: the beginning of its verdict, and the omission that it states.
LEAVES_OUT = {
    GOOD: ("Verified: every figure", "that the compute took place"),
    "valid/replay": ("Verified, but a replay", "no hardware was metered"),
    "valid/middle-segment": ("Verified: every figure", "one segment of a rotated run"),
    "valid/model-of-another-family": ("Verified in part", "predicate.totals.architecture"),
    "merged/job": ("Verified: every figure", "signatures of the ledgers that it adds up"),
    "merged/replay-allowed": (
        "Verified, but 1 of its 2 ledgers has figures of recordings",
        "Work of hardware in all of it: 1 of its 2",
    ),
    "merged/job-alone": ("Verified in part", "2 ledgers are added up, and not all were given"),
    "merged/job-with-a-hole": ("Verified: every figure", "all of its ledgers: no (no ledger of node-1)"),
    "merged/lineage-of-a-job-at-hand": ("Verified in part", "The ledgers of the jobs' nodes"),
}


@pytest.mark.tool("chromium")
def test_a_verdict_begins_with_its_omissions(page: Page) -> None:
    for name, (begins, leaves_out) in LEAVES_OUT.items():
        by_page(page, vector(name))
        shown = page.evaluate("document.querySelector('#result .check').textContent")
        assert shown.startswith(begins), name
        assert leaves_out in shown.partition("Not verified")[2], name
    # One of two children, twice, is not both.
    node = given(VECTORS / "merged" / "job" / "children" / "node-0")
    by_page(page, vector("merged/job-alone"))
    page.evaluate(put("ledgers", *((at + name, data) for at in "ab" for name, data in node)))
    assert said(page)["text"].startswith("Verified in part")
    # Nor does one signature count for both keys.
    page.evaluate(put("keys", ("second.pub", content((VECTORS / OTHER / "ledger.pub").read_bytes()))))
    assert "A signature by second.pub: there is none" in said(page)["text"].partition("Not verified")[2]
    attached = "document.getElementById('limits').textContent.includes('does not check it')"
    assert [by_page(page, vector(name)) and page.evaluate(attached) for name in (GOOD, EVIDENCE)] == [False, True]


@pytest.mark.tool("chromium")
def test_a_verdict_states_that_the_run_continued(page: Page, tmp_path: Path) -> None:
    source = vector("valid/also-of-an-earlier-seal")
    shutil.copy(source.folder / "other.json", tmp_path / "ledger.json")
    shutil.copy(source.folder / "other.journal.jsonl", tmp_path / "ledger.journal.jsonl")
    files = {
        word: str((source.folder / file).resolve()) for word, file in pairwise(source.arguments) if word != "--also"
    }
    given = [part for word in ("--key", "--peaks", "--policy") for part in (word, files[word])]
    by_page(page, Vector("rolling", tmp_path, {"arguments": ["ledger.json", *given]}))
    shown = page.evaluate("document.querySelector('#result .check').textContent")
    assert "The end of the run" in shown.partition("Not verified")[2]


QUALIFIED = {  # what stands beside figures and states
    "valid/operator-count": (
        "figures", "include software's count by the training process, which nobody checked",
        "FLOP of what was measured may be integer: no counter distinguishes them",
    ),
    "valid/operator-count#": (
        "findings", "This rests on the count of operators by its training processes, which nobody checked.",
        "This is flopsd's reading and not the text's.", "It assumes: the model can generate language",
        "The rule applies from 2025-08-02.",
    ),
    "valid/lying-declarations": ("findings", "if what its processes claim is true."),
    "valid/kernel-windows": ("findings", "Above only if the base model took from 9.99"),
    "valid/accounted-elsewhere": ("gaps", "Time that was another job's or another device's is in no figure."),
    "merged/replay-allowed": ("children", "REPLAY: no evidence"),
    "valid/journal-replaced": ("gaps", "journal replacedat least 1 s", "at least 1 s"),
}  # fmt: skip


@pytest.mark.tool("chromium")
def test_no_figure_or_state_stands_without_its_conditions(page: Page) -> None:
    for name, (part, *conditions) in QUALIFIED.items():
        by_page(page, vector(name.rstrip("#")))
        shown = page.evaluate(f"document.getElementById('{part}').textContent")
        for words in conditions:
            assert words in shown, name


def shown_by(page: Browser, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """The verdict of each ledger, and all displayed text except the time taken."""
    text = "document.getElementById('result').textContent.replace(/Time taken[0-9.]+ s/, '')"
    every = {one.name: one for one in vectors()}
    return [(by_page(page, every[name])["verdict"], page.evaluate(text)) for name in names]


@pytest.mark.tool("chromium", "firefox-esr")
def test_firefox_shows_the_same_as_chromium(page: Page) -> None:
    with firefox() as other:
        other.load(PAGE)
        assert shown_by(other, SHOWN) == shown_by(page, SHOWN)
