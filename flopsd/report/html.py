"""A report as one HTML file that needs nothing else: no network, no script. Needs the extra `report`."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from flopsd.errors import LedgerError
from flopsd.report.html_kit import typeset
from flopsd.report.model import Report, VerificationState

if TYPE_CHECKING:
    from jinja2 import Environment


def report_html(report: Report) -> str:
    """Raises LedgerError where the extra is not installed."""
    environment = _environment()
    style = _style(report)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    from markupsafe import Markup

    page: str = environment.get_template("report.html").render(
        report=report, content=report.content, style=Markup(style), style_sha256=digest
    )
    return page


def page_line(report: Report) -> str:
    """What stands on top of every printed page."""
    words = [flag.word for flag in report.flags if flag.word == "REPLAY"]
    words.append(
        {VerificationState.VERIFIED: "verified", VerificationState.REFUSED: "REFUSED"}.get(
            report.check.state, "NOT VERIFIED"
        )
    )
    return " · ".join([report.subject, f"payload sha256 {report.digest[:16]}…", *words])


def css_string(text: str) -> str:
    """A CSS string of any text: what is not a plain letter or digit is written as its code point."""
    return '"' + "".join(char if char.isascii() and char.isalnum() else f"\\{ord(char):06x}" for char in text) + '"'


def _style(report: Report) -> str:
    """The style sheet, with the line of the printed pages. Its digest is all that the page may apply."""
    sheet = (files("flopsd") / "report" / "templates" / "report.css").read_text(encoding="utf-8")
    return sheet.replace('"RUNNING-HEADER"', css_string(page_line(report)))


def _typeset(value: object) -> object:
    return typeset(value) if type(value) is str else value  # the style sheet is markup


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as fault:
        raise LedgerError(
            "an HTML report needs the package of the extra 'report'", hint="pip install 'flopsd[report]'"
        ) from fault
    return Environment(
        loader=PackageLoader("flopsd", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_typeset,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
