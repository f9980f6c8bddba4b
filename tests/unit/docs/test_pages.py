"""Every Markdown file of the repository: its width, its links; pictures made from text are current."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import architecture
from tests.support.paths import ROOT

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
    """The text without its code, which may hold what looks like a link or a heading."""
    return re.sub(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_line_is_wider_than_a_screen() -> None:
    wide = [
        f"{name_of(page)}:{number}"
        for page in PAGES
        if not name_of(page).startswith(WIDE)
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert wide == []


def test_links_lead_somewhere() -> None:
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


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_picture_of_the_architecture_is_current() -> None:
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.picture(), "run `make docs`"


def test_every_room_of_the_picture_exists() -> None:
    for name, (_, _, _, where) in architecture.BOXES.items():
        if "/" in where or where.endswith(".py"):
            assert (ROOT / "flopsd" / where).exists(), name
