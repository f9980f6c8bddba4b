"""axe-core, which .ci/run gets from npm: finds accessibility faults of a page."""

import os
from pathlib import Path

from tests.support.chromium import Page
from tests.support.tools import missing

_RUN = """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(
  v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 160) + ' ' + (n.any[0] || {message: ''}).message)]))"""


def axe_source() -> str:
    """The script that AXE_CORE names. Without it the test is skipped, or fails where tools are required."""
    named = os.environ.get("AXE_CORE", "")
    if not named:
        missing("AXE_CORE does not name an axe.min.js; `npm install axe-core` gets one")
    return Path(named).read_text(encoding="utf-8")


def faults(page: Page, source: str) -> list[object]:
    """The violations on the page as it is now."""
    page.ask("Page.setBypassCSP", enabled=True)
    page.ask("Runtime.evaluate", expression=source)
    found: list[object] = page.evaluate(_RUN)
    return found
