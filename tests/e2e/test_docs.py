"""The pages and the site: commands are run as printed, names are known, no resource is loaded from elsewhere."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from flopsd.attestation.seal import Sealed
from flopsd.core.declarations import COUNTERS, Phase
from flopsd.core.model import Evidence, GapReason, Pipe
from flopsd.report.contents.offline_recipe import FIGURES, FUNCTIONS
from flopsd.settings.schema import SETTINGS
from flopsd.sources.registry import known_sources
from tests.make_vectors import files as vectors
from tests.second_implementation.arithmetic import payload_of, records_of
from tests.support.foreign import shell
from tests.support.image import default_of
from tests.support.kubernetes import CHART, TRAINING_CHART, flopsd_of, manifest, variables
from tests.support.paths import ROOT
from tests.support.process import Done, environment, flopsd, in_process
from tests.support.runs import sealed_run
from tests.support.scenario import Scenario, Segment, h100
from tests.support.story import PEAKS, POLICY, VECTORS

DOCS = ROOT / "docs"
RECEIVED, FORMAT = (DOCS / "you-received-a-ledger.md").read_text(), (DOCS / "ledger-format.md").read_text()
NAMES = ("format", "journal", "arithmetic", "codes")
FORMAT_PAGES = "\n".join((DOCS / f"ledger-{name}.md").read_text() for name in NAMES)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END_OF_STEP = "---- end of step ----"


@pytest.fixture
def fresh(tmp_path: Path) -> Sealed:
    return sealed_run(tmp_path, secret=bytes(range(32)))


def steps(page: str) -> list[tuple[str, str | None]]:
    """The page's commands, each with the output that the page shows for it, if any."""
    found: list[tuple[str, str | None]] = []
    for kind, text in BLOCK.findall(page):
        if kind == "sh":
            found.append((text, None))
        elif kind == "text":
            assert found, "an output before any command"
            assert found[-1][1] is None, "two outputs for one command"
            found[-1] = (found[-1][0], text)
    return found


def matches(shown: str, said: str) -> bool:
    """Whether `said` equals the page's text, where `…` stands for anything, including lines."""
    return re.fullmatch(re.escape(shown.strip()).replace("…", ".*"), said.strip(), re.DOTALL) is not None


EXAMPLE = VECTORS / "valid" / "activity-and-gaps"
WITHOUT_FLOPSD = RECEIVED.partition("\n## With flopsd")[0]
CHOICE = re.compile(r"^ledger=.*$", re.MULTILINE)  # the page's line that names the files


def _received(vector: Path, folder: Path) -> Path:
    """A folder with the files that an auditor received, and with the peak table and policy that they trust."""
    shutil.copytree(vector, folder, dirs_exist_ok=True)
    for trusted in (PEAKS, POLICY):
        shutil.copy(trusted, folder)
    return folder


def _signed_anew(
    folder: Path, edit: Callable[[dict[str, Any]], None], edit_statement: Callable[[Any], None] = lambda _: None
) -> None:
    """The page's example, received with a different statement that its signer signed too."""
    _received(EXAMPLE, folder)
    statement = payload_of(EXAMPLE / "ledger.json")
    edit(statement["predicate"])
    edit_statement(statement)
    (folder / "ledger.json").write_bytes(vectors.signed(json.dumps(statement).encode()))


def _run(page: str, folder: Path, keys: str = "ledger.pub") -> Done:
    """Run the page's commands in order, as a script for these keys."""
    script = "set -e\n" + "".join(f"{command}echo '{END_OF_STEP}'\n" for command, _ in steps(page))
    choice = f'ledger=ledger.json journal=ledger.journal.jsonl keys="{keys}" children=children trusted="p*.yaml"'
    return shell(CHOICE.sub(choice, script), folder)


@pytest.mark.tool("openssl", "jq", "sha256sum", "cosign")
def test_every_command_of_the_newcomers_page_does_what_it_shows(tmp_path: Path) -> None:
    commands = steps(RECEIVED)
    assert len(commands) >= 14
    done = _run(RECEIVED, _received(EXAMPLE, tmp_path))
    assert done.returncode == 0, done.stderr
    said = done.stdout.split(f"{END_OF_STEP}\n")[:-1]
    assert len(said) == len(commands)
    for (command, shown), output in zip(commands, said, strict=True):
        assert matches(shown or "", output), f"{command}\nshows\n{shown}\nand says\n{output}"
    (head,) = [output for (command, _), output in zip(commands, said, strict=True) if "sed -n 5p" in command]
    assert (EXAMPLE / "ledger.journal.jsonl").read_text().splitlines()[4].startswith(f'{{"h":"{head.strip()}",')


KINDS = {
    "valid/p256": "ledger.pub",
    "valid/two-signatures": "ledger.pub key2.pub",
    "valid/liberal-envelope": "ledger.pub",  # URL-safe base64 without padding
    "valid/replay": "ledger.pub",
    "valid/middle-segment": "ledger.pub",
    "merged/job": "ledger.pub",
    "merged/segments": "ledger.pub",
    "merged/lineage": "ledger.pub",
    "merged/lineage-of-a-job-at-hand": "ledger.pub",
    "valid/journal-goes-on": "ledger.pub",  # sealed while the run continued
    "valid/companions-accepted": "ledger.pub",  # policies that came with the ledger
}


@pytest.mark.tool("openssl", "jq", "sha256sum", "cosign")
@pytest.mark.parametrize("case", KINDS)
def test_the_page_can_be_followed_literally_for_every_kind_of_ledger(case: str, tmp_path: Path) -> None:
    done = _run(WITHOUT_FLOPSD, _received(VECTORS / case, tmp_path), KINDS[case])
    assert done.returncode == 0, done.stdout + done.stderr
    executed = payload_of(tmp_path / "ledger.json")["predicate"]["totals"]["executed"]
    children = list((tmp_path / "children").rglob("*.json"))
    assert all(f'"{executed[figure]}"' in done.stdout for figure in ("low", "measured", "high"))
    assert done.stdout.count("signature ") == len(KINDS[case].split()) + len(children)
    journals = [child for child in children if child.with_suffix(".journal.jsonl").exists()]
    assert done.stdout.count("an unbroken chain") == (len(journals) or case.startswith("valid"))
    assert done.stdout.count("Verified OK") == (0 if case == "merged/lineage" else len(KINDS[case].split()))
    assert ("ledgers that it names" in done.stdout) == case.startswith("merged")


FOUND = {
    "invalid/wrong-key": "no signature is by",
    "invalid/cut-journal": "sealed.jsonl: FAILED",
    "invalid/duplicate-key-in-payload": "a member named twice",
    "merged/sum-bent": "is not the sum",
    "merged/child-changed": "is not part of it",
    "merged/entry-bent": "added up as another figure",
}


@pytest.mark.tool("openssl", "jq", "sha256sum", "cosign")
@pytest.mark.parametrize("case", FOUND)
def test_the_page_finds_the_faults_it_claims_to_find(case: str, tmp_path: Path) -> None:
    done = _run(WITHOUT_FLOPSD, _received(VECTORS / case, tmp_path))
    assert done.returncode != 0
    assert FOUND[case] in done.stdout + done.stderr


NOT_DIGESTS = ("", "{trusted}\nnot all of it", *(
    pytest.param(text, marks=pytest.mark.exhaustive) for text in (".*", "8", "[0-9a-f]*", "\x1b[1Aunseen")
))  # fmt: skip


@pytest.mark.tool("openssl", "jq", "sha256sum", "cosign")
@pytest.mark.parametrize("digest", NOT_DIGESTS)
def test_a_file_is_trusted_only_by_its_whole_digest(digest: str, tmp_path: Path) -> None:
    """Text in place of a SHA-256 in a statement is not used as a pattern that the reader's files match."""
    trusted = hashlib.sha256(PEAKS.read_bytes()).hexdigest()
    _signed_anew(tmp_path, lambda predicate: predicate["method"].update(peakTableSha256=digest.format(trusted=trusted)))
    done = _run(WITHOUT_FLOPSD, tmp_path)
    assert "none is of no file that you trust" in done.stdout
    assert trusted not in done.stdout


@pytest.mark.tool("openssl", "jq", "sha256sum", "cosign")
def test_no_other_file_can_replace_the_journal(tmp_path: Path) -> None:
    other = hashlib.sha256(b"").hexdigest() + "  /dev/null\nno digest"
    _signed_anew(tmp_path, lambda _: None, lambda statement: statement["subject"][0]["digest"].update(sha256=other))
    done = _run(WITHOUT_FLOPSD, tmp_path)
    assert done.returncode != 0
    assert "/dev/null" not in done.stdout


@pytest.mark.tool("openssl", "jq", "sha256sum", "cosign")
def test_text_of_a_ledger_reaches_the_terminal_only_escaped(tmp_path: Path) -> None:
    hostile = "\x1b[1A\x9b2J\u202e\r\n"

    def edit(predicate: dict[str, Any]) -> None:
        for device in predicate["devices"]:
            device["model"] += hostile
        for gap in predicate["coverage"]["gaps"]:
            gap["reason"] += hostile
        for finding in predicate["findings"]:
            finding["rule"] += hostile
        predicate["node"]["name"] += hostile
        predicate["totals"]["executed"]["byEvidence"][hostile] = {"low": "0", "measured": None, "high": "0"}

    _signed_anew(tmp_path, edit)
    done = _run(WITHOUT_FLOPSD, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.isascii()
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert done.stdout.count("2J") >= 5


def test_the_page_and_verify_explain_give_the_same_recipe(fresh: Sealed) -> None:
    answer = in_process("verify", str(fresh.ledger), "--key", str(fresh.public_key), "--explain").stdout
    printed = "".join(command for command, _ in steps(RECEIVED))
    for part in (FUNCTIONS, FIGURES):
        assert part in answer
        assert part in printed


@pytest.mark.tool("cosign")
def test_the_commands_of_the_format_page_are_accepted(fresh: Sealed) -> None:
    ((commands, _),) = steps(FORMAT)
    done = shell("set -e\n" + commands, fresh.ledger.parent, code=0)
    assert done.stderr.count("Verified OK") == 2


def _members(found: Any, but: tuple[str, ...]) -> set[str]:
    """Names of members anywhere in a JSON value; below those in `but` names are data."""
    if isinstance(found, list):
        return {name for value in found for name in _members(value, but)}
    if not isinstance(found, dict):
        return set()
    return set(found) | {n for name, value in found.items() if name not in but for n in _members(value, but)}


def test_the_format_page_names_every_member_and_every_word() -> None:
    blocks = [text for _, text in BLOCK.findall(FORMAT_PAGES)]
    words = set(re.findall(r"\w+", " ".join([*re.findall(r"`([^`]+)`", BLOCK.sub("", FORMAT_PAGES)), *blocks])))
    payload_maps = (
        "sources", "margins", "marginPpm", "byEvidence", "byPhase", "gapSecondsByReason", "counters", "sharesPpm", "facts",
    )  # fmt: skip
    record_maps = (
        "facts", "counters", "shares_ppm", "sm_cycles", "uncertainty_sm_cycles", "square_sum", "observed_ns",
        "gap_ns", "unread_ns", "phases", "running",
    )  # fmt: skip
    named: set[str] = {e.value for e in Evidence} | {p.value for p in Pipe} | {r.value for r in GapReason}
    for case in (VECTORS / "valid").iterdir():
        if case.name in ("column-of-five-names", "column-of-nothing"):  # with members that no clause names
            continue
        named |= _members(payload_of(case / "ledger.json"), payload_maps)
        records, _ = records_of(case / "ledger.journal.jsonl")
        named |= _members(records, record_maps) | {record["kind"] for record in records}
    named -= {*COUNTERS, *(phase.value for phase in Phase)}  # training-process.md has these
    assert len(named) > 150
    assert sorted(named - words) == []


def test_the_conformance_runner_drives_flopsd() -> None:
    command = [sys.executable, "-m", "conformance", "run", "--only", "*/count-t*", "--", sys.executable, "-m", "flopsd"]
    done = subprocess.run(
        [*command, "verify", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" in done.stdout


PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("kubernetes.md", "helm.md", "container.md")}


def test_the_template_on_the_page_is_the_tested_one() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGES["kubernetes.md"], re.DOTALL | re.MULTILINE)
    assert shown in (TRAINING_CHART / "templates" / "job.yaml").read_text()
    defined = set(re.findall(r'define "(flopsd\.\w+)"', (CHART / "templates" / "_sidecar.tpl").read_text()))
    assert set(re.findall(r'include "(flopsd\.\w+)"', shown)) == defined


def test_every_name_on_the_pages_is_known() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    variables = {setting.variable for setting in (*SETTINGS, *known_sources().settings)} | {"FLOPSD_SOCKET"}
    for name, page in PAGES.items():
        assert f"docs/{name}" in (ROOT / "README.md").read_text()
        assert set(re.findall(r"FLOPSD_[A-Z_]+[A-Z]", page)) <= variables
        for group, key in re.findall(
            r"(?<![\w/.-])(sidecar|daemonset|gpu|image|key|ledgerCopy|web|podMonitor)\.(?!pem|yaml)(\w+)",
            page.partition("| theirs | ours |")[0],
        ):
            assert key in schema[group]["properties"], f"{group}.{key}"
        for block in re.findall(r"^    (sidecar:\n(?:      .*\n)+)", page, re.MULTILINE):
            for group, answer in yaml.safe_load(block.replace("\n    ", "\n")).items():
                assert set(answer) <= set(schema[group]["properties"])


def test_figures_on_the_page_match_the_files() -> None:
    limits = flopsd_of(manifest("job-with-sidecar.yaml"))["resources"]["limits"]
    assert f"Limits of {limits['cpu']}, {limits['memory']}" in PAGES["kubernetes.md"]
    assert f"base `{default_of('BASE')}`" in PAGES["container.md"]
    assert f"extras `{default_of('EXTRAS')}`" in PAGES["container.md"]


def test_two_pods_ledgers_are_merged_by_the_commands_of_the_page(tmp_path: Path, standin: Path) -> None:
    """The commands are run as printed, on the files that the manifest's pods would leave in the bucket, replaced by
    a local folder."""
    (merge,) = re.findall(r"^ +flopsd (merge .*)$", PAGES["kubernetes.md"], re.MULTILINE)
    (verify,) = re.findall(r"^ +flopsd (verify .*)$", PAGES["kubernetes.md"], re.MULTILINE)
    job = manifest("job-with-sidecar.yaml")
    assert f"--nodes {job['spec']['completions']}" in merge
    scenario = Scenario(tuple(h100((Segment(1000, hmma=0.5, util=100, watts=500),)) for _ in range(2)))
    scenario.write(tmp_path / "scenario.txt")
    assert in_process("key", "new", str(tmp_path / "key.pem")).returncode == 0
    for rank in range(2):
        pod = {"metadata.name": f"llama-finetune-{rank}-abcde", "metadata.namespace": "ml",
               "metadata.labels['batch.kubernetes.io/job-name']": "llama-finetune",
               "metadata.labels['batch.kubernetes.io/controller-uid']": "0b1f5c1e-9a52-4d0e"}  # fmt: skip
        answer = {
            **variables(flopsd_of(job), pod),
            "JOB_COMPLETION_INDEX": str(rank),
            "FLOPSD_DEVICES": scenario.uuid(rank),  # each on its own node
            "FLOPSD_KEY": str(tmp_path / "key.pem"),
            "FLOPSD_STATE_DIR": str(tmp_path / f"state-{rank}"),
            "FLOPSD_CLIENT_SOCKET": str(tmp_path / "socket"),
            "FLOPSD_LISTEN": "off",
            "FLOPSD_EVIDENCE": "off",
        }
        place = answer["FLOPSD_LEDGER_COPY"].replace("s3://your-bucket/flopsd/{run}", str(tmp_path / "ledgers"))
        answer["FLOPSD_LEDGER_COPY"] = place
        flopsd("run", "--duration", "1.5", env=environment(standin, tmp_path / "scenario.txt", **answer), code=0)
    shell(f"set -e\nflopsd {merge}\nflopsd {verify}\n", tmp_path, code=0)
    found = payload_of(tmp_path / "job.json")["predicate"]
    assert (found["run"]["id"], found["completeness"]["complete"]) == ("llama-finetune-0b1f5c1e", True)
    (tmp_path / "ledgers" / "llama-finetune-0-abcde.json").unlink()
    alone = shell(f"flopsd {merge.replace('job.json', 'half.json')}", tmp_path)
    assert alone.returncode != 0
    assert "rank 0: no ledger" in alone.stdout + alone.stderr


LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "srcset", "object": "data"}


class Loaded(HTMLParser):
    """The addresses that a page loads without a click."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name == LOADING.get(tag)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run([*command, "--site-dir", str(out)], capture_output=True, text=True, env=env, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.mark.package("mkdocs", "material")
@pytest.mark.xdist_group("docs_site")  # one build for all
def test_every_page_is_built(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages == {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")}


@pytest.mark.package("mkdocs", "material")
@pytest.mark.xdist_group("docs_site")  # one build for all
def test_the_link_of_each_alert_leads_to_its_section(site: Path) -> None:
    rules = (ROOT / "config" / "prometheus" / "flopsd.alerts.yml").read_text()
    links = re.findall(r"runbook_url: '\{\{ with query .*?\{\{ end \}\}/([^#\s]+)#(\w+)'", rules)
    assert len(links) == rules.count("runbook_url:")
    for page, section in links:
        assert f'id="{section}"' in (site / page).read_text(encoding="utf-8")


@pytest.mark.package("mkdocs", "material")
@pytest.mark.xdist_group("docs_site")  # one build for all
def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Loaded()
        page.feed(path.read_text(encoding="utf-8"))
        assert page.addresses
        assert [address for address in page.addresses if re.match(r"(https?:)?//", address)] == [], path
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)[\s\"']*(https?:)?//", style.read_text(encoding="utf-8")), style
