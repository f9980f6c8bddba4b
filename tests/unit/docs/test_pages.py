"""Every Markdown file of the repository: its width and its links; statements of pages, and pictures made from text,
are current."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flopsd.core.declarations import COUNTERS, Method, Phase, Recomputation
from flopsd.core.declared_facts import _FACTS
from flopsd.core.model import Device, Evidence, GapReason
from flopsd.core.rows import Rating, rows, total_of
from flopsd.core.session_protocol import (
    MAX_LINE_BYTES,
    Conversation,
    FactsDeclared,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.core.tally import Tally
from flopsd.core.values import NS_PER_S
from flopsd.daemon.sessions.peer import BYTES_A_SECOND, HELLO_SECONDS, MESSAGES_A_SECOND
from flopsd.daemon.sessions.server import MAX_SESSIONS
from flopsd.settings.client_socket import LONGEST_PATH_BYTES
from flopsd.sources.registry import BUILT_IN, built_in
from scripts import architecture, metrics_docs
from scripts.docs_site import replace_links
from scripts.metrics_docs import LABELS, families
from tests.support.paths import GOLDEN, ROOT
from tests.support.strategies import table

FOLDERS = ("config", "docs", "examples", "scripts", "slurm", "systemd", "tests")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.md") if "site-packages" not in p.parts),
    ]
)
COLUMNS = 120
# Generated, or the words of others.
WIDE = ("tests/golden/", "tests/vectors/")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """The text without its code, which may contain what looks like a link or a heading."""
    return re.sub(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_stable_python_api_is_what_pages_and_examples_import() -> None:
    """integrations import a framework, so they are looked up and not imported."""
    section = (
        (ROOT / "docs" / "stability.md").read_text().partition("## Python API")[2].partition("All other modules")[0]
    )
    held = set(re.findall(r"`(flopsd\.[\w.]+)`", section))
    for name in held:
        assert (ROOT / name.replace(".", "/")).is_dir() or (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
    sources = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("training/*.py"),
        *(ROOT / "examples").glob("*/src/**/*.py"),
    ]
    imported = {
        module
        for path in sources
        for start, name in re.findall(r"^\s*from (flopsd(?:\.\w+)*) import (\w+)", path.read_text(), re.M)
        for module in [f"{start}.{name}" if start == "flopsd.settings" else start]  # for a package its module
    }
    assert imported <= held, imported - held
    assert held - imported <= {"flopsd.client"}, "most call it as `flopsd.client.connect()`"


def test_the_accelerators_page_has_the_ceilings_of_the_peak_table() -> None:
    page = (ROOT / "docs" / "accelerators.md").read_text().partition("## Ceilings")[2].partition("\n## ")[0]
    stated = {
        part: cells
        for line in page.splitlines()
        if line.startswith("| `")
        for cells in [[cell.strip() for cell in line.split("|")[2:5:2]]]
        for part in re.findall("`([^`]+)`", line.partition(" | ")[0])
    }
    expected = {}
    for part in table().parts.values():
        limits = table().limits(Device("GPU-0", 0, part.vendor, ""), part)
        rating, second = Rating(part, limits, None, table()), {GapReason.DRIVER_ERROR: NS_PER_S}
        tally = Tally(0, NS_PER_S, gap_ns=second)
        found = [total_of(rows(tally, rating), tally, integers=of).high_flop for of in (False, True)]
        if limits is not None:
            expected[part.id] = ["not known" if high is None else f"{high / 10**12:.0f}" for high in found]
    assert stated == expected


def test_no_line_is_wider_than_a_screen() -> None:
    wide = [
        f"{name_of(page)}:{number}"
        for page in PAGES
        if not name_of(page).startswith(WIDE)
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert wide == []
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150, "it is read in one sitting"


def test_links_have_existing_targets() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose(page.read_text())):
            if re.match(r"https?:", target):
                continue
            found = (page.parent / target) if target else page
            assert found.exists(), f"{name_of(page)}: {target}"
            if anchor and found.suffix == ".md":
                assert anchor in anchors(found.read_text()), f"{name_of(page)}: {target}#{anchor}"


def test_files_that_a_page_names_exist() -> None:
    own = {"docs/plugins.md", "tests/samples/SOURCES.md"}  # they name files of others
    for page in PAGES:
        if name_of(page) in own or name_of(page).startswith((*WIDE, "CHANGELOG")):
            continue
        for name in re.findall(r"`((?:flopsd/)?[a-z_]+/[\w/.-]+\.(?:py|md|ya?ml|sh|c))`", page.read_text()):
            assert any((folder / name).exists() for folder in (ROOT, ROOT / "flopsd", page.parent)), (
                f"{name_of(page)}: {name}"
            )


def test_the_architecture_picture_is_current_and_all_its_rooms_exist() -> None:
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.picture(), "run `make docs`"
    for name, (_, _, _, where) in architecture.BOXES.items():
        if "/" in where or where.endswith(".py"):
            assert (ROOT / "flopsd" / where).exists(), name


PAGE = (ROOT / "docs" / "training-process.md").read_text()
NAMES = set(re.findall(r"`(\w+)`", PAGE))


def test_every_word_of_the_protocol_is_on_the_page() -> None:
    assert {*_FACTS, *COUNTERS} <= NAMES
    assert {word.value for words in (Phase, Method, Recomputation) for word in words} <= NAMES


def test_the_printed_lines_of_the_protocol_are_accepted() -> None:
    talk = Conversation(4711, 0)
    lines = re.findall(r'^ {4}(\{"flopsd".*\})$', PAGE, re.MULTILINE)
    lines[0] = lines[0].replace("0f…32 hexadecimal digits", "0f" * 16)
    events = [talk.receive(line.encode()) for line in lines]
    assert [type(event) for event in events] == [SessionOpened, FactsDeclared, PhaseChanged, WorkCounted, SessionClosed]


def test_the_bounds_on_the_page_are_the_real_ones() -> None:
    assert f"reads {MESSAGES_A_SECOND} lines and {BYTES_A_SECOND // 1024} KiB a second" in PAGE
    assert f"serves {MAX_SESSIONS} processes" in PAGE
    assert f"without a hello after {HELLO_SECONDS} s" in PAGE
    assert f"at most {MAX_LINE_BYTES // 1024} KiB" in PAGE
    assert f"at most {LONGEST_PATH_BYTES} bytes" in PAGE


SOURCE = "https://example.com/flopsd/blob/main"


@pytest.mark.parametrize(
    ("link", "folder", "without", "with_source"),
    [
        ("[config/peaks.yaml](../config/peaks.yaml)", "docs", "`config/peaks.yaml`", "config/peaks.yaml"),
        ("[`peaks.yaml`](../config/peaks.yaml)", "docs", "`config/peaks.yaml`", "config/peaks.yaml"),
        ("[the table](../../config/peaks.yaml#x)", "docs/adr", "the table (`config/peaks.yaml`)", "config/peaks.yaml#x"),
    ],
)  # fmt: skip
def test_a_link_out_of_the_pages_becomes_a_path_or_leads_to_the_source(
    link: str, folder: str, without: str, with_source: str
) -> None:
    assert replace_links(f"See {link}.", folder, "") == f"See {without}."
    text = link.split("]")[0]
    assert replace_links(f"See {link}.", folder, SOURCE) == f"See {text}]({SOURCE}/{with_source})."


def test_a_link_between_pages_stays_and_one_to_a_missing_file_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert replace_links("[keys](../keys.md#files)", "docs/adr", SOURCE) == "[keys](../keys.md#files)"
    replace_links("[x](../config/gone.yaml)", "docs", "")
    assert "config/gone.yaml leads to no file" in caplog.text


ACCELERATORS = (ROOT / "docs" / "accelerators.md").read_text()
ROWS = re.findall(r"^\| ([^`|]+?) \|.* % \|", ACCELERATORS.partition("| MIG slices")[0], re.MULTILINE)


def parts_of(name: str) -> list[str]:
    """The rows of the peak table that `A100 SXM 64GB (Leonardo)`, `L4` or `H100 (SXM5, PCIe, NVL)` names."""
    base, _, variants = name.lower().rstrip(")").replace(", ", ",").partition(" (")
    base = base.replace(" ", "-")
    of_variants = tuple(f"{base}-{variant}" for variant in variants.split(","))
    return [part for part in table().parts if part == base or (variants and part.startswith(of_variants))]


def test_every_part_has_one_row() -> None:
    assert sorted(part for name in ROWS for part in parts_of(name)) == sorted(table().parts)


@pytest.mark.parametrize("name", ROWS)
def test_a_parts_row_has_its_actual_evidence_and_margin(name: str) -> None:
    (line,) = [line for line in ACCELERATORS.splitlines() if line.startswith(f"| {name} |")]
    _, _, evidence, how, margin, why, _ = (cell.strip() for cell in line.split("|"))
    for part in (table().parts[part_id] for part_id in parts_of(name)):
        kinds = [kind for one in BUILT_IN if built_in(one).vendor == part.vendor for kind in built_in(one).evidence]
        if part.vendor == "nvidia":
            without = Evidence.CYCLES if part.gpm is False else Evidence.UTILIZATION
            kinds = [kind for kind in dict.fromkeys(kinds) if kind is not without]
        assert evidence == ", else ".join(f"`{kind.value}`" for kind in kinds)
        measured = [kind for kind in kinds if kind is not Evidence.UTILIZATION]
        assert margin == " / ".join(dict.fromkeys(f"{table().margin_ppm(kind) / 10_000:g} %" for kind in measured))
        if part.status == "unverified":
            assert "unverified" in why or "no source" in why
    assert how
    assert "no run" in why or "not calibrated" in why or "as H100" in why or why == "[1]"


GOLDEN = GOLDEN / "metrics.prom"


def test_the_metrics_page_lists_exactly_the_served_metrics_and_labels() -> None:
    assert metrics_docs.PAGE.read_text(encoding="utf-8") == metrics_docs.page(), "run `make docs` and read the diff"
    assert set(LABELS) == {label for family in families() for label in family.labels}
    known = {family.name: set(family.labels) for family in families()}
    served = list(text_string_to_metric_families(GOLDEN.read_text()))
    assert served
    for family in served:
        for sample in family.samples:
            assert set(sample.labels) == known[family.name], family.name
