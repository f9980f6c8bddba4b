"""The verifier that needs no installation: its command, and its page in a real Chromium."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flopsd.core.field_reader import FieldReader
from flopsd.core.rounding import Towards, flop_number
from flopsd.report.html.kit import typeset
from tests.second_implementation import findings
from tests.support.axe import axe_source, faults
from tests.support.chromium import Page, chromium
from tests.support.extent import Extent, sampled
from tests.support.paths import ROOT
from tests.support.process import in_process
from tests.support.story import PEAKS, POLICY, VECTORS
from tests.support.tools import missing
from tests.support.vector_arguments import NOT_ON_THE_PAGE
from tests.support.verifier import PAGE, VERIFIED, VERIFIER, Vector, by_node, by_page, vectors

IN_PART = 5
PHONE, DESK = 360, 1280
# Verdicts that need what the page does not accept: a second ledger of the same run.
BY_COMMAND = {"invalid/fork", *(f"invalid/also-of-{what}" for what in ("another-run", "another-node", "the-same-time"))}
# Whether the page, and a thread that it starts, can make a request.
_SENDS = """Promise.all([fetch('http://127.0.0.1:9/').then(() => true, () => false), new Promise(done => {
  const script = "addEventListener('securitypolicyviolation', () => postMessage(false)); fetch('http://127.0.0.1:9/').catch(() => {})";
  new Worker(URL.createObjectURL(new Blob([script]))).onmessage = ({ data }) => done(data); })])"""
YAML_FILES = [PEAKS, POLICY, *sorted((ROOT / "config" / "policies").glob("*.yaml")), ROOT / "config" / "peaks.yaml"]


def wrong(one: Vector, verdict: str | None, code: str | None) -> str | None:
    if (verdict, code) == (one.expected["verdict"], one.expected["code"]):
        return None
    return f"{one.name}: {verdict} {code}, not {one.expected['verdict']} {one.expected['code']}"


STATED = {"invalid/foreign-policy-beside", "invalid/foreign-table-beside"}


@pytest.mark.tool("node")
@sampled(10)
def test_the_command_gives_every_vector_its_verdict_and_its_reason(extent: Extent) -> None:
    every = list(vectors())
    given = extent.of(every)
    given += [one for one in every if one.name in STATED and one not in given]
    said = by_node(given)
    verdicts = ["refuse" if found["status"] == 3 else "accept" for found in said]
    assert [found["fault"] for found in said if found["fault"]] == []
    assert [
        why for one, v, found in zip(given, verdicts, said, strict=True) if (why := wrong(one, v, found["code"]))
    ] == []
    # Parts that are not computed are named, and then the ledger is not called verified.
    for found in said:
        if found["status"] != 3:
            assert found["verified"] == (found["status"] == 0) == (not found["notVerified"])
    stated = {
        one.name for one, found in zip(given, said, strict=True) if "came with the ledger" in str(found.get("message"))
    }
    assert stated == STATED
    in_part = {one.name for one, found in zip(given, said, strict=True) if found["status"] == IN_PART}
    assert in_part
    assert [one for one in in_part if not one.startswith(NOT_ON_THE_PAGE)] == []


SAID_ALIKE = {
    "invalid/begin-of-another-number-at-the-end", "invalid/begin-without-a-secret-or-none", "invalid/bent-attempts",
    "invalid/count-beyond-the-limit", "invalid/device-number-one-alone", "invalid/energy-beyond-the-time-of-its-own",
    "invalid/envelope-depth-101", "invalid/envelope-infinity", "invalid/envelope-no-payload-type",
    "invalid/gap-before-the-device", "invalid/left-out-row-of-another-id", "invalid/payload-evidence-absent-for-a-sentence",
    "invalid/session-of-two-devices", "merged/entry-of-another-rank", "merged/node-twice", "merged/segment-of-another-node",
}  # fmt: skip


@pytest.mark.tool("node")
def test_the_page_says_a_fault_in_the_words_of_flopsd_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [one for one in vectors() if one.name in SAID_ALIKE]
    assert len(given) == len(SAID_ALIKE)
    for one, found in zip(given, by_node(given), strict=True):
        monkeypatch.chdir(one.folder)
        said = in_process("verify", *one.arguments, code=3).stdout
        assert said.splitlines()[0] == f"NOT VERIFIED: {found['message']}"


@pytest.mark.tool("node")
def test_no_leaf_of_a_statement_can_be_changed_unnoticed() -> None:
    script = """
import fs from "node:fs";
import { same } from "./src/compare.js";
import { parseJson } from "./src/json.js";
const leaves = (value, path, put, found) => {
  if (value !== null && typeof value === "object") {
    for (const name of Object.keys(value)) leaves(value[name], [...path, name], (x) => (value[name] = x), found);
  } else found.push({ path: path.join("."), value, put });
  return found;
};
const missed = [];
let count = 0;
for (const folder of process.argv.slice(1)) {
  const { payload } = parseJson(fs.readFileSync(`${folder}/ledger.json`, "utf8"), "it");
  const bytes = Buffer.from(payload, "base64").toString("utf8");
  const stated = parseJson(bytes, "it"), computed = parseJson(bytes, "it");
  for (const { path, value, put } of leaves(stated, [], null, [])) {
    count++;
    put(value === null ? "0" : typeof value === "bigint" ? value + 1n : typeof value === "boolean" ? !value : value + "0");
    try {
      same(stated, computed, "statement", "it", { leaves: 0 });
      missed.push(path);
    } catch (error) {
      if (error.code !== "statement_differs") throw error;
    }
    put(value);
  }
}
console.log(JSON.stringify({ count, missed: [...new Set(missed.map((one) => one.replace(/\\.[0-9]+(?=\\.|$)/g, "[]")))].sort() }));
"""
    folders = [str(VECTORS / "valid" / name) for name in ("declared-phases", "cycles-recovered", "operator-count")]
    command = ["node", "--input-type=module", "-e", script, *folders]
    found = json.loads(subprocess.run(command, cwd=VERIFIER, capture_output=True, text=True, check=True).stdout)
    assert found["count"] > 1000
    assert found["missed"] == []


# As yamllint requires it, and as `flopsd` reads it.
OWN_POLICY = "# ours\n---\nid: ours\nrules: [{id: one, citation: c, at_least: 1.5e24}]\n"
COUNTS = ["1e24", "1.5e25", "2.50E+2", "33", "1e25/3", "7.5e3/2.5e1", "1.5", "1e25/0", "1/2/3", "-1", "10^26"]


@pytest.mark.tool("node")
def test_the_verifiers_yaml_reader_agrees_with_pyyaml(tmp_path: Path) -> None:
    own = tmp_path / "ours.yaml"
    own.write_text(OWN_POLICY, encoding="utf-8")
    script = """
import fs from "node:fs";
import { parseYaml } from "./src/yaml.js";
import { writeJson } from "./src/json.js";
for (const file of process.argv.slice(1)) console.log(writeJson(parseYaml(fs.readFileSync(file, "utf8"))).replaceAll("\\n", ""));
"""
    files = [*YAML_FILES, own]
    command = ["node", "--input-type=module", "-e", script, *map(str, files)]
    done = subprocess.run(command, cwd=VERIFIER, capture_output=True, text=True, check=True)
    for path, line in zip(files, done.stdout.splitlines(), strict=True):
        assert json.loads(line) == plain(yaml.safe_load(path.read_bytes())), path


@pytest.mark.tool("node")
def test_the_verifier_reads_the_counts_of_a_policy_as_flopsd_does() -> None:
    script = """
import { parseFraction, text } from "./src/policy.js";
for (const one of process.argv.slice(1)) { try { console.log(text(parseFraction(one))); } catch { console.log("refused"); } }
"""
    command = ["node", "--input-type=module", "-e", script, "--", *COUNTS]
    done = subprocess.run(command, cwd=VERIFIER, capture_output=True, text=True, check=True)
    for count, found in zip(COUNTS, done.stdout.splitlines(), strict=True):
        problems: list[str] = []
        exact = FieldReader({"at": count}, "", problems.append).fraction("at")
        assert found == ("refused" if problems else str(exact)), count
        assert problems or findings.number(count) == exact


@pytest.mark.tool("node")
def test_a_displayed_bound_still_holds() -> None:
    """As flopsd rounds: a lower bound down, an upper one up; a whole power of ten is exact."""
    small = [0, 9, 999, 1000, 1001, 9999, 10000, 10001, 10049, 10050, 10051, 10150, 99949, 99950, 99999]
    counts = [*small, 10**15 + 1, 10**23, 10**23 - 1, 2759652088050751, 10**40 - 1]
    script = """
import { about } from "./src/dom.js";
for (const towards of ["down", "near", "up"]) for (const one of process.argv.slice(1)) console.log(about(one, towards));
"""
    command = ["node", "--input-type=module", "-e", script, *map(str, counts)]
    done = subprocess.run(command, cwd=VERIFIER, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        typeset(flop_number(one, towards)) for towards in (Towards.DOWN, Towards.NEAREST, Towards.UP) for one in counts
    ]


def plain(value: object) -> object:
    """Numbers with a decimal point as text: the verifier has only whole numbers."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return repr(value) if isinstance(value, float) else value


@pytest.mark.tool("node")
def test_the_verifiers_types_are_valid() -> None:
    modules = os.environ.get("GRAFANA_DATA", "")
    compiler = Path(modules) / ".bin" / "tsc"
    if not modules or not compiler.exists():
        missing("GRAFANA_DATA names no node_modules with typescript and @types/node; npm installs them")
    types = ["--typeRoots", f"{modules}/@types"]
    done = subprocess.run(
        [str(compiler), "-p", str(VERIFIER / "jsconfig.json"), *types], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@sampled(40)
@pytest.mark.tool("chromium")
def test_the_page_gives_every_vector_its_verdict_without_a_request(extent: Extent) -> None:
    every = {one.name: one for one in vectors() if one.name not in BY_COMMAND}
    given = [every[name] for name in extent.of(list(every))]
    with chromium() as page:
        page.load(PAGE)
        said = [by_page(page, one) for one in given]
        asked = page.requested()
        # A thread's script is the page's own text, at an address that the page itself makes.
        assert asked[0] == PAGE.as_uri()
        assert {address.partition(":")[0] for address in asked[1:]} == {"blob"}
        assert page.said() == []
        assert page.evaluate(_SENDS) == [False, False]
        refused = [event for event in page.events if event["method"] == "Log.entryAdded"]
        assert any("Content Security Policy" in event["params"]["entry"]["text"] for event in refused)
    assert [
        why for one, found in zip(given, said, strict=True) if (why := wrong(one, found["verdict"], found["code"]))
    ] == []


@pytest.mark.tool("chromium")
def test_files_next_to_a_ledger_are_accepted_only_by_the_reader(tmp_path: Path) -> None:
    """For the page, dropping and choosing a folder give the same list."""
    for file in (VECTORS / "invalid" / "foreign-table-beside").glob("ledger.*"):
        shutil.copy(file, tmp_path)
    with chromium() as page:
        page.load(PAGE)
        page.give("keys", [tmp_path / "ledger.pub"])
        page.evaluate(_LISTED.format("keys"))
        page.give("folder", [tmp_path])
        page.evaluate(_LISTED.format("ledgers"))
        page.evaluate(_LISTED.format("beside"))
        assert page.evaluate(VERIFIED)["code"] == "peak_table_unknown"
        shown = page.evaluate("document.getElementById('result').textContent")
        assert "ledger.peaks-828813512e85e001.yaml came with the ledger and is the sender's" in shown
        page.give("tables", [next(tmp_path.glob("*.yaml"))])
        page.evaluate(_LISTED.format("tables"))
        assert page.evaluate(VERIFIED)["verdict"] == "accept"


_LISTED = (
    "new Promise(done => {{ const look = () => document.querySelectorAll('#{}-given li').length ? done() : "
    "setTimeout(look, 2); look() }})"
)


@pytest.mark.tool("chromium")
def test_the_page_is_accessible() -> None:
    source = axe_source()
    shown = {one.name: one for one in vectors()}
    with chromium() as page:
        page.load(PAGE)
        assert_read(page, source)
        for name in ("valid/declared-phases", "invalid/totals-that-fall", "merged/job-with-a-hole"):
            by_page(page, shown[name])
            assert_read(page, source)


def assert_read(page: Page, source: str) -> None:
    for width, dark in ((DESK, False), (PHONE, True)):
        page.look(width, dark=dark)
        page.assert_whole(width, dark=dark)
        assert faults(page, source) == []


@pytest.mark.tool("node")
def test_the_command_waits_for_no_fifo_and_accepts_no_other_json_as_a_ledger(tmp_path: Path) -> None:
    """Among the children they are skipped; in place of a named file they are refused."""
    folder = Path(shutil.copytree(VECTORS / "merged" / "job", tmp_path / "job"))
    (folder / "children" / "package.json").write_text('{"name": "of another program"}')
    for name in ("fifo", "children/x.json", "children/node-1/y.journal.jsonl"):
        os.mkfifo(folder / name)
    shutil.copy(folder / "children" / "node-1" / "ledger.json", folder / "children" / "node-1" / "y.json")
    command = f"node {ROOT}/verifier/cli.mjs ledger.json --key ledger.pub --policy {POLICY} --children children --peaks"
    for peaks, status in ((PEAKS, 0), ("fifo", 2)):
        done = subprocess.run([*command.split(), str(peaks)], cwd=folder, capture_output=True, timeout=60)
        assert done.returncode == status, done


@pytest.mark.tool("node")
@pytest.mark.parametrize("words", ["--threshold 0", "--threshold x", "--threshold=", "--threshold 1 --threshold 2"])
def test_the_command_accepts_no_unsigned_ledger_for_an_odd_threshold(words: str) -> None:
    command = ["node", str(ROOT / "verifier" / "cli.mjs"), "ledger.json", "--peaks", str(PEAKS), *words.split()]
    stranger = ["--key", str(VECTORS / "valid" / "p256" / "ledger.pub")]
    done = subprocess.run([*command, *stranger], cwd=VECTORS / "valid" / "activity-and-gaps", capture_output=True)
    assert (done.returncode, done.stdout) == (2, b""), done
