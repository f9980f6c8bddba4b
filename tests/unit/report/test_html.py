"""The HTML report: one file, no external resources, safe for any content of a ledger, accessible to everybody."""

import base64
import copy
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest

from flopsd.errors import NotVerifiedError
from flopsd.report.contents.model import Report, VerificationResult, VerificationState
from flopsd.report.contents.verdicts import drawn_and_listed
from flopsd.report.contents.verification import refused
from flopsd.report.html.document import css_string, report_html
from flopsd.report.html.tables import devices_section, members_section
from flopsd.report.report_text import form_report, report_text
from tests.support.enriched import ESCAPES, SCENES, report, scene
from tests.support.golden import check_golden
from tests.support.paths import GOLDEN

GOLDEN = GOLDEN / "report"
STYLES = ("report.css", "print.css")
CSS = "".join((files("flopsd") / "report" / name).read_text() for name in STYLES)
VOID = {"meta", "br", "link", "img", "input", "hr"}
# Text and its background: WCAG's AA contrast is 4.5 for text, 3 for drawings.
TEXT_ON = [(ink, ground) for ink in ("ink", "soft", "link", "below", "above", "open", "limit") for ground in ("paper", "raised")]  # fmt: skip
TEXT_ON += [("raised", "above"), ("raised", "open")]  # the banners
DRAWN_ON = [
    ("data", "raised"), ("data", "paper"), ("edge", "raised"), ("edge", "paper"), ("limit", "raised"), ("mark", "raised"),
    ("raised", "below"), ("raised", "above"), ("raised", "open"), ("gap-line", "gap-ground"), ("data", "gap-ground"),
    ("data", "data-soft"), ("ink", "data-soft"), ("raised", "edge"),
]  # fmt: skip


class Reader(HTMLParser):
    """The page as tags: checks that they close in order, and keeps their content."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(params=[*SCENES, "hostile"])
def page(request: pytest.FixtureRequest) -> str:
    return report_html(report(hostile()) if request.param == "hostile" else scene(request.param))


def hostile() -> Any:
    """The fullest ledger with an attack appended to every text without a fixed form."""
    statement = copy.deepcopy(SCENES["everything"]())
    fixed = re.compile(r"-?[0-9./]+|[0-9]{4}-.*Z|[0-9a-f]{64}|node|energy/executed|below|above|indeterminate")

    def poison(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: poison(value) for name, value in found.items()}
        if isinstance(found, list):
            return [poison(value) for value in found]
        if isinstance(found, str) and not fixed.fullmatch(found):
            return found + "".join(ESCAPES)
        return found

    statement["predicate"] = poison(statement["predicate"])
    return statement


def linked(page: str) -> str:
    """The page with links to the style sheets, keeping only the line of the style that differs, the printed page's.
    The page's content security policy forbids links."""
    links = "".join(f'<link rel="stylesheet" href="../../../flopsd/report/{name}">\n' for name in STYLES)
    before, after = CSS.split('"RUNNING-HEADER"')
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*\n', links, page)
    return page.replace(f"<style>{before}", "<style>").replace(f"{after}</style>", "</style>")


@pytest.mark.parametrize(
    ("render", "suffix"),
    [(report_html, "html"), (report_text, "txt"), (form_report, "form.txt")],
    ids=["", "text", "form"],
)
@pytest.mark.parametrize("name", SCENES)
def test_the_pages_match_their_goldens(name: str, render: Callable[[Report], str], suffix: str) -> None:
    """After a change, look at them in a browser."""
    check_golden(linked(render(scene(name))), GOLDEN / f"{name}.{suffix}")


@pytest.mark.long
def test_no_content_of_a_ledger_becomes_markup() -> None:
    reader = read(report_html(report(hostile())))
    allowed = {tag for name in SCENES for tag, _ in read(report_html(scene(name))).tags}
    assert {tag for tag, _ in reader.tags} <= allowed
    assert not {"script", "img", "iframe", "object", "form", "base"} & allowed
    words = "".join(reader.text)
    assert "<script>alert(1)</script>" in words
    assert "{{ 7 * 7 }}" in words
    assert "\x1b" not in words


def test_the_page_loads_nothing_and_its_policy_forbids_everything(page: str) -> None:
    reader = read(page)
    (policy,) = [a["content"] for tag, a in reader.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    attributes = {name for _, found in reader.tags for name in found}
    assert not {"style", "src", "srcset"} & attributes
    assert not [name for name in attributes if name.startswith("on")]
    links = [found["href"] for _, found in reader.tags if found.get("href")]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    assert not re.findall(r"url\((?!#)|@import|http", style)


def test_the_page_is_accessible(page: str) -> None:
    reader = read(page)
    tags = [tag for tag, _ in reader.tags]
    assert dict(reader.tags)["html"]["lang"] == "en"
    for landmark in ("header", "main", "footer", "title", "h1"):
        assert (
            tags.count(landmark)
            - (landmark == "title") * tags.count("desc")
            - (landmark == "title") * _bare_titles(reader)
            == 1
        ), landmark
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [found["id"] for _, found in reader.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for _, found in reader.tags:
        for name in ("aria-labelledby", "href"):
            for target in (found.get(name) or "").split():
                assert target.removeprefix("#") in ids
    assert tags.count("table") == tags.count("caption")
    assert all(found.get("scope") in ("col", "row") for tag, found in reader.tags if tag == "th")
    drawings = [found for tag, found in reader.tags if tag == "svg" and found.get("role") == "img"]
    assert all(found.get("aria-labelledby") for found in drawings)
    regions = [found for tag, found in reader.tags if tag == "div" and found.get("class") == "scroll"]
    assert all(found.get("tabindex") == "0" and found.get("aria-label") for found in regions)


def _bare_titles(reader: Reader) -> int:
    """Titles of drawings that need no description."""
    return sum(1 for tag, found in reader.tags if tag == "title" and (found.get("id") or "").startswith("strip-"))


VERIFIED = VerificationResult(VerificationState.VERIFIED, "VERIFIED: every figure was recomputed.")


@pytest.mark.parametrize(
    ("name", "check", "caveat"),
    [
        ("everything", VERIFIED, ""),
        ("everything", None, "of a ledger that was not verified"),
        ("lineage-above", None, "of a ledger that was not verified"),
        ("everything", refused(NotVerifiedError("the payload was edited")), "of a ledger that was refused"),
        ("replay", VERIFIED, "of a recording"),
        ("replay", None, "of a recording that was not verified"),
    ],
)
def test_an_unverified_verdict_is_never_shown_as_verified(
    name: str, check: VerificationResult | None, caveat: str
) -> None:
    made = report(SCENES[name](), check)
    assert made.caveat == caveat
    page, text = report_html(made), " ".join(report_text(made).split())
    classes = [(found.get("class") or "").split() for _, found in read(page).tags]
    coloured = {
        one for found in classes for one in found if re.fullmatch("(state|chip)-(below|above|indeterminate)", one)
    }
    assert bool(coloured) == (not caveat)
    if made.content is None:
        assert ["banner", "banner-refused"] in classes
        assert ["toc"] not in classes, "nothing of what it says is shown"
        return
    assert ["toc"] in classes
    assert any("banner" in one for one in classes) == (made.check.state is not VerificationState.VERIFIED)
    assert (made.check.state is VerificationState.VERIFIED) != (["banner", "banner-not-verified"] in classes)
    if caveat:
        assert f"Answer {caveat}" in page
        assert f"Answer {caveat}" in text
        assert all(f"({caveat}): {rule.title}" in text for rule in made.content.rules)
        assert page.count(caveat) >= 1 + len(drawn_and_listed(made.content.rules)[0])


def test_equal_devices_share_a_row_and_omitted_members_are_counted_below() -> None:
    made = scene("incomplete-job").content
    assert made is not None
    assert made.completeness is not None
    below = str(members_section(replace(made, members_left_out=3), made.completeness))
    assert below.index("Nodes of the job") < below.index("</table>") < below.index("And 3 more")
    assert "<li>and" not in below
    assert "<li>and 4 more</li>" in str(members_section(made, replace(made.completeness, missing_left_out=4)))
    (device, *_) = (one for name in SCENES if (known := scene(name).content) for one in known.devices)
    both = str(devices_section(replace(made, devices=(device, replace(device, index=1, uuid="other")))))
    assert '<span class="short">2 devices, figures of each</span>' in both


def test_a_css_string_cannot_be_closed_by_its_content() -> None:
    assert css_string('a"; } * { color: red') == r'"a\000022\00003b\000020\00007d\000020\00002a\000020\00007b\000020color\00003a\000020red"'  # fmt: skip
    assert css_string("é</style>") == r'"\0000e9\00003c\00002fstyle\00003e"'


def _palettes() -> Iterator[tuple[str, dict[str, str]]]:
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", CSS[: CSS.index("@media")]))
    dark_block = CSS[CSS.index("prefers-color-scheme: dark") :]
    dark = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark_block[: dark_block.index("\n}\n")]))
    printed = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", CSS[CSS.index("@media print") :]))
    yield from (("light", light), ("dark", dark), ("print", printed))


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(
    ("name", "palette"), list(_palettes()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_colours_have_sufficient_contrast(name: str, palette: dict[str, str]) -> None:
    assert set(palette) == set(dict(_palettes())["light"]), name
    faint = {f"{ink} on {ground}": round(contrast(palette[ink], palette[ground]), 2)
             for wanted, pairs in ((4.5, [*TEXT_ON, ("ink", "sunken")]), (3.0, DRAWN_ON))
             for ink, ground in pairs if contrast(palette[ink], palette[ground]) < wanted}  # fmt: skip
    assert not faint
