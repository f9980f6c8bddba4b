"""The page at `/` in a real Chromium: live, still without a script, whole on a phone, for every reader, behind a password."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.report.html import report_html
from flopsd.settings.data_files import load_policies
from flopsd.telemetry.http.access import Access
from flopsd.telemetry.http.server import WebServer
from flopsd.telemetry.snapshot import SourceState
from tests.support.chromium import Page, chromium
from tests.support.enriched import scene
from tests.support.process import wait_until
from tests.support.runs import A100, H100, STRANGER, Run, interrupted
from tests.support.tools import missing

PHONE, DESK = 390, 1280
LIVE = "document.getElementById('freshness').textContent"
DECLARED = OperatorDeclarations(
    Phase.TRAIN, Method.LORA, Recomputation.NONE, Base("llama", "known", 4 * 10**16, None, None)
)
ATTACK = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


def measured(tmp_path: Path) -> Run:
    return Run(tmp_path / "state", declared=DECLARED, policies=load_policies())


def everything(tmp_path: Path) -> Run:
    """Gaps, a stranger, a restart, a source that is down, a journal that cannot be written, a recording."""
    run = Run(
        tmp_path / "state", devices=(H100, A100, STRANGER), replay=True, policies=load_policies(), run_id="everything"
    )
    interrupted(run)
    down = SourceState(reason=f"the driver is gone: {ATTACK}", errors={"driver_timeout": 6})
    run.writer.snapshot = replace(
        run.writer.snapshot,
        sources={**run.writer.snapshot.sources, "dcgm": down},
        journal_fault="no space left on the disk",
    )
    return run


def nothing(tmp_path: Path) -> Run:
    return Run(tmp_path / "state", devices=(), run_id="nothing-yet")


def many(tmp_path: Path) -> Run:
    run = Run(
        tmp_path / "state",
        devices=tuple(replace(H100, uid=f"GPU-{n:04d}", index=n) for n in range(16)),
        policies=load_policies(),
    )
    run.meter(5)
    return run


SCENES = {"measured": measured, "everything": everything, "nothing": nothing, "many": many}


@contextmanager
def serving(run: Run, access: Access | None = None) -> Iterator[WebServer]:
    server = WebServer("127.0.0.1", 0, lambda: run.writer.snapshot, access)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        run.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture(params=SCENES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(name: str, tmp_path: Path) -> Iterator[str]:
    run = SCENES[name](tmp_path)
    if name == "measured":
        run.meter(4)
    with serving(run) as server:
        yield server.url + "/"


def said(page: Page, before: int) -> list[object]:
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [event for event in page.events[before:] if event["method"] in kinds]


@pytest.mark.tool("chromium")
def test_nothing_is_cut_asked_for_elsewhere_or_complained_of(browser: Page, name: str, url: str) -> None:
    browser.load("about:blank")  # the page of the test before asks no more
    before = len(browser.events)
    browser.load(url)
    wait_until(lambda: browser.evaluate(LIVE).startswith("Live"), "it is live")
    kept = os.environ.get("FLOPSD_REPORT_PICTURES")
    for width in (PHONE, DESK):
        for dark in (False, True):
            browser.look(width, dark=dark)
            browser.assert_whole(width, dark=dark)
            if kept:
                Path(kept, f"page-{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(browser.picture())
    asked = {
        e["params"]["request"]["url"] for e in browser.events[before:] if e["method"] == "Network.requestWillBeSent"
    }
    assert {one for one in asked if not one.startswith("data:")} == {url}
    assert said(browser, before) == []
    assert browser.evaluate("document.title") != "owned"


@pytest.mark.tool("chromium")
def test_it_follows_pauses_and_says_when_the_daemon_is_gone(browser: Page, tmp_path: Path) -> None:
    run = measured(tmp_path)
    run.meter(3)
    total = "document.querySelector('#total .main dd').textContent"
    with serving(run) as server:
        browser.load(server.url + "/")
        first = browser.evaluate(total)
        browser.evaluate("window.mine = document.querySelector('#total'); document.querySelector('footer a').focus()")
        run.meter(3)
        wait_until(lambda: browser.evaluate(total) != first, "the total grows")
        assert browser.evaluate("window.mine === document.querySelector('#total')"), "the page was replaced"
        assert browser.evaluate("document.activeElement.textContent") == "/metrics", "the focus was lost"
        browser.evaluate("document.getElementById('pause').click()")
        assert browser.evaluate(LIVE).startswith("Paused at ")
        paused = browser.evaluate(total)
        run.meter(3)
        asked = len(browser.events)
        browser.evaluate("new Promise(done => setTimeout(done, 2500))")
        assert not [e for e in browser.events[asked:] if e["method"] == "Network.requestWillBeSent"]
        assert browser.evaluate(total) == paused
        browser.evaluate("document.getElementById('pause').click()")
        wait_until(lambda: browser.evaluate(total) != paused, "it goes on")
    wait_until(lambda: browser.evaluate(LIVE).startswith("No answer since"), "it says that nobody answers")
    assert browser.evaluate("document.body.className") == "stale"


@pytest.mark.tool("chromium")
def test_without_a_script_it_is_whole_and_renews_itself(browser: Page, tmp_path: Path) -> None:
    run = measured(tmp_path)
    run.meter(3)
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        with serving(run) as server:
            browser.load(server.url + "/")
            assert "10¹⁵" in browser.evaluate("document.body.innerText") or "FLOP/s" in browser.evaluate(
                "document.body.innerText"
            )
            assert browser.evaluate("document.querySelector('meta[http-equiv=refresh]').content") == "10"
            assert browser.evaluate("document.getElementById('pause').hidden")
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.tool("chromium")
def test_it_works_behind_a_password(browser: Page, tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"horse", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{alice: '{hashed}'}}")
    run = measured(tmp_path)
    run.meter(3)
    with serving(run, Access(tmp_path / "web.yml")) as server:
        browser.load(server.url.replace("//", "//alice:horse@") + "/")
        wait_until(lambda: browser.evaluate(LIVE).startswith("Live"), "it is live")


@pytest.mark.tool("chromium")
def test_it_is_read_with_the_keyboard_alone(browser: Page, tmp_path: Path) -> None:
    run = everything(tmp_path)
    with serving(run) as server:
        browser.load(server.url + "/")
        browser.look(DESK)
        reached = []
        for _ in range(6):
            browser.press_tab()
            reached.append(browser.evaluate("document.activeElement.textContent.slice(0, 20)"))
    assert reached[:2] == ["Skip to the figures", "Pause"]
    assert reached[2].startswith("8 further rules")
    assert reached[4:] == ["/metrics", "/api/status"]


AXE = """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(
  v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 160) + ' ' + (n.any[0] || {message: ''}).message)]))"""


@pytest.fixture(scope="module")
def axe_source() -> str:
    """The source of axe-core, which .ci/run gets from npm."""
    named = os.environ.get("AXE_CORE", "")
    if not named:
        missing("AXE_CORE does not name an axe.min.js; `npm install axe-core` gets one")
    return Path(named).read_text(encoding="utf-8")


def faults(page: Page, source: str) -> list[object]:
    page.ask("Page.setBypassCSP", enabled=True)
    page.ask("Runtime.evaluate", expression=source)
    found: list[object] = page.evaluate(AXE)
    return found


@pytest.mark.tool("chromium")
def test_axe_finds_no_fault_on_the_page(browser: Page, axe_source: str, url: str) -> None:
    browser.load(url)
    for dark in (False, True):
        browser.look(DESK, dark=dark)
        assert faults(browser, axe_source) == []


@pytest.mark.tool("chromium")
@pytest.mark.parametrize("name", ["everything", "replay"])
def test_axe_finds_no_fault_on_the_report(browser: Page, axe_source: str, tmp_path: Path, name: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(report_html(scene(name)), encoding="utf-8")
    browser.load(file)
    browser.look(DESK)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert faults(browser, axe_source) == []
