"""The documentation site builds without a warning, refuses a broken link, and loads nothing from a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.package("mkdocs"),
    pytest.mark.package("material"),
    pytest.mark.xdist_group("docs_site"),  # one build for all
]
LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "srcset", "object": "data"}


def build(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(folder / "mkdocs.yml")]
    return subprocess.run(
        [*command, "--site-dir", str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )


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
    built = build(ROOT, out)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_every_page_is_built(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages == {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")}


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Loaded()
        page.feed(path.read_text(encoding="utf-8"))
        assert page.addresses
        assert [address for address in page.addresses if re.match(r"(https?:)?//", address)] == [], path
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)[\s\"']*(https?:)?//", style.read_text(encoding="utf-8")), style


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    for name in ("docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for entry in ROOT.iterdir():
        if not (tmp_path / entry.name).exists():
            (tmp_path / entry.name).symlink_to(entry)
    page = tmp_path / "docs" / "index.md"
    broken = ("[a](gone.md)", "[b](keys.md#no-such-part)", "[c](../config/gone.yaml)", "[d](/keys.md)")
    page.write_text("\n".join((page.read_text(), *broken)))
    built = build(tmp_path, tmp_path / "out")
    assert built.returncode == 1
    assert f"Aborted with {len(broken)} warnings in strict mode" in built.stdout + built.stderr
