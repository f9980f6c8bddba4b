"""The verifier's page equals the build of its modules, and flopsd names it by its digest."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from flopsd.report.contents.offline_recipe import recipe
from flopsd.settings import data_files
from flopsd.settings.data_files import verifier_page
from tests.support.story import VECTORS
from verifier import build

PAGE = build.PAGE.read_text()
LEDGER = VECTORS / "valid" / "activity-and-gaps" / "ledger.json"


@pytest.mark.long
def test_the_committed_page_equals_the_build() -> None:
    """If this fails, run `python -m verifier.build` after a change of config/, of report.css or of the verifier."""
    assert page_of(build.page()) == page_of(PAGE)
    stale = [name for name, made in (("tables.js", build.tables()), ("index.html", build.page())) if made != held(name)]
    assert stale == []
    assert build.DOCUMENT.read_text() == build.documented()


def held(name: str) -> str:
    return {path.name: path for path in (build.TABLES, build.PAGE)}[name].read_text()


def page_of(text: str) -> str:
    """The page without script and style, which a failure would print whole."""
    return re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S)


def test_the_page_allows_only_its_own_script_and_style() -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', PAGE)
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    (script,), (style,) = (re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.S) for tag in ("script", "style"))
    assert parts == {
        "default-src": "'none'", "script-src": f"'{digest_of(script)}'", "style-src": f"'{digest_of(style)}'",
        "worker-src": "blob:",  # the same script in a thread, under the same policy
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert re.findall(r"<(?:script|style)\b", PAGE) == ["<style", "<script"]
    assert re.findall(r'\b(?:src|srcset|href)="(?!#)[^"]*"', PAGE) == []


def digest_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize(("name", "has_journal"), [("valid/activity-and-gaps", True), ("merged/job", False)])
def test_explain_looks_for_a_journal_only_for_a_nodes_ledger(name: str, has_journal: bool) -> None:
    assert ('sealed "$journal"' in recipe(VECTORS / name / "ledger.json", [])) == has_journal


def test_explain_names_the_page_and_its_digest() -> None:
    lines = recipe(LEDGER, []).splitlines()
    path, digest = (line.removeprefix("# ") for line in lines[-2:])
    assert Path(path) == verifier_page() == build.PAGE
    assert digest == hashlib.sha256(build.PAGE.read_bytes()).hexdigest()
    assert f"{digest}  verifier/index.html" in build.DOCUMENT.read_text()


def test_an_installed_package_contains_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "__file__", str(tmp_path / "flopsd" / "settings" / "data_files.py"))
    assert verifier_page() == tmp_path / "verifier" / "index.html"
    (packaged := tmp_path / "flopsd" / "_verifier" / "index.html").parent.mkdir(parents=True)
    packaged.touch()
    assert verifier_page() == packaged
