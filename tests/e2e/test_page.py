"""The page at `/` in a real Chromium: live, static without a script, complete on a phone, for every reader, behind a
password."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from flopsd.core.declarations import NOTHING_DECLARED, Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import GapReason, Precision
from flopsd.settings.data_files import load_policies, parse_policy
from flopsd.telemetry.http.access import Access
from flopsd.telemetry.http.server import WebServer
from flopsd.telemetry.snapshot import SourceState
from tests.support.axe import axe_source, faults
from tests.support.chromium import Page
from tests.support.process import wait_until
from tests.support.runs import A100, H100, STRANGER, Run, interrupted
from tests.unit.attestation.test_lineage_base import POLICY

PHONE, DESK = 360, 1280
SENTENCE = "document.getElementById('sentence').textContent"
TONE = "[document.body.className, getComputedStyle(document.getElementById('banner')).backgroundColor]"
LIVE = "document.getElementById('freshness').textContent"
DECLARED = OperatorDeclarations(
    Phase.TRAIN, Method.LORA, Recomputation.NONE, Base("llama", "known", 4 * 10**16, None, None)
)
ATTACK = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


def measured(tmp_path: Path) -> Run:
    run = Run(tmp_path / "state", declared=DECLARED, policies=load_policies())
    run.meter(1)
    return run


def everything(tmp_path: Path) -> Run:
    """Gaps, an unknown device, a restart, a source that is down, a journal that cannot be written, a recording."""
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


def eight(tmp_path: Path, **how: Any) -> Run:
    """Eight H100 with complete declarations, in a run with a gap."""
    declared = replace(NOTHING_DECLARED, phase=Phase.TRAIN, method=Method.PRETRAINING)
    devices = tuple(replace(H100, uid=f"GPU-{n:04d}", index=n) for n in range(8))
    settings: dict[str, Any] = {"declared": declared, "policies": load_policies(), "devices": devices}
    settings["precision"] = Precision((("bf16", 1_000_000),), "settings")
    run = Run(tmp_path / "state", **{**settings, **how})
    run.meter(24)
    run.meter(14, GapReason.DRIVER_TIMEOUT)
    run.meter(32)
    return run


def undeclared(tmp_path: Path) -> Run:
    return eight(tmp_path, declared=NOTHING_DECLARED, precision=None)


def lost(tmp_path: Path) -> Run:
    run = eight(tmp_path)
    run.meter(90, GapReason.DEVICE_LOST, {"GPU-0002", "GPU-0003", "GPU-0006"})
    return run


def all_lost(tmp_path: Path) -> Run:
    run = eight(tmp_path)
    run.meter(90, GapReason.DRIVER_ERROR)
    return run


def full(tmp_path: Path) -> Run:
    run = eight(tmp_path)
    fault = f"cannot write the journal /var/lib/flopsd/journal.jsonl: {os.strerror(errno.ENOSPC)}"
    run.writer.snapshot = replace(run.writer.snapshot, journal_fault=fault)
    return run


def ended(tmp_path: Path) -> Run:
    run = eight(tmp_path)
    assert run.writer.close("sigterm")
    return run


def above(tmp_path: Path) -> Run:
    return eight(tmp_path, policies=(parse_policy(POLICY.replace("LIMIT", "1000").encode(), "small"),))


SCENES: dict[str, tuple[Callable[[Path], Run], str]] = {  # with the state that its page must show
    "measured": (measured, "metering"), "everything": (everything, "not-written"), "nothing": (nothing, "no-device"),
    "undeclared": (undeclared, "metering"), "healthy": (eight, "metering"), "lost": (lost, "some-lost"),
    "all-lost": (all_lost, "all-lost"), "full": (full, "not-written"), "ended": (ended, "ended"),
    "replay": (lambda path: eight(path, replay=True), "replay"), "above": (above, "metering"),
}  # fmt: skip


@contextmanager
def serving(run: Run, access: Access | None = None) -> Iterator[WebServer]:
    server = WebServer("127.0.0.1", [0], lambda: run.writer.snapshot, access)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        run.kill()


@pytest.fixture(params=SCENES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(name: str, tmp_path: Path) -> Iterator[str]:
    run = SCENES[name][0](tmp_path)
    with serving(run) as server:
        yield server.url + "/"


# The state; the bottom of the answer and of the table of devices; the width of the table.
FIRST_SCREEN = """(() => { const table = document.querySelector('.lines') || document.body.firstChild;
  const ends = [document.querySelector('#thresholds h2'), table].map(e => e.getBoundingClientRect().bottom);
  return [document.getElementById('banner').dataset.state, Math.max(...ends), table.scrollWidth] })()"""


def keep(page: Page, name: str) -> None:
    """Save a picture of the page if $FLOPSD_REPORT_PICTURES names a folder."""
    if folder := os.environ.get("FLOPSD_REPORT_PICTURES"):
        Path(folder, f"page-{name}.png").write_bytes(page.picture())


@pytest.mark.tool("chromium")
def test_the_page_is_not_cut_off_loads_nothing_else_and_logs_no_error(browser: Page, name: str, url: str) -> None:
    browser.load(url)
    wait_until(lambda: browser.evaluate(LIVE).startswith("Live"), "it is live")
    for width in (PHONE, DESK):
        for dark in (False, True):
            browser.look(width, dark=dark)
            browser.assert_whole(width, dark=dark)
            keep(browser, f"{name}-{width}-{'dark' if dark else 'light'}")
    browser.look(DESK, media="print")
    keep(browser, f"{name}-print")
    browser.look(DESK)
    state, bottom, width = browser.evaluate(FIRST_SCREEN)
    assert state == SCENES[name][1]
    assert bottom <= 800, "what matters lies below the first screen"
    assert width <= DESK - 40, "the table must be scrolled"
    assert {one for one in browser.requested() if not one.startswith("data:")} == {url}
    assert browser.said() == []
    assert browser.evaluate("document.title") != "owned"


@pytest.mark.tool("chromium")
def test_the_page_updates_pauses_and_reports_a_missing_daemon(browser: Page, tmp_path: Path) -> None:
    run = measured(tmp_path)
    run.meter(3)
    total = "document.querySelector('#total .main dd').textContent"
    with serving(run) as server:
        browser.load(server.url + "/")
        browser.look(DESK)
        first = browser.evaluate(total)
        browser.evaluate("window.mine = document.querySelector('#total'); document.querySelector('footer a').focus()")
        run.meter(3)
        wait_until(lambda: browser.evaluate(total) != first, "the total grows")
        assert browser.evaluate("window.mine === document.querySelector('#total')"), "the page was replaced"
        assert browser.evaluate("document.activeElement.textContent") == "/metrics", "the focus was lost"
        browser.evaluate("document.getElementById('pause').click()")
        assert browser.evaluate(SENTENCE).startswith("Paused at ")
        assert browser.evaluate(TONE) == ["stale", "rgb(122, 74, 0)"]
        paused = browser.evaluate(total)
        run.meter(3)
        asked = len(browser.events)
        browser.evaluate("new Promise(done => setTimeout(done, 2500))")
        assert browser.requested(since=asked) == []
        assert browser.evaluate(total) == paused
        browser.evaluate("document.getElementById('pause').click()")
        wait_until(lambda: browser.evaluate(total) != paused, "it goes on")
        assert browser.evaluate(SENTENCE).startswith("Metering 2 GPUs")
        assert browser.evaluate(TONE) == ["", "rgb(23, 99, 63)"]
    wait_until(lambda: browser.evaluate(SENTENCE).startswith("No answer from the daemon since"), "it is stale")
    assert browser.evaluate(TONE) == ["stale", "rgb(122, 74, 0)"]
    assert browser.evaluate("document.getElementById('age').textContent").endswith(" s ago)")
    for width, dark in ((DESK, False), (DESK, True), (PHONE, False)):
        browser.look(width, dark=dark)
        browser.evaluate("scrollTo(0, 0)")
        browser.assert_whole(width, dark=dark)
        keep(browser, f"stale-{width}-{'dark' if dark else 'light'}")
        if os.environ.get("AXE_CORE"):
            assert faults(browser, axe_source()) == []


@pytest.mark.tool("chromium")
def test_after_the_end_a_missing_answer_is_no_fault(browser: Page, tmp_path: Path) -> None:
    with serving(ended(tmp_path)) as server:
        browser.load(server.url + "/")
        browser.look(DESK)
    wait_until(lambda: browser.evaluate(LIVE) == "The daemon has stopped.", "it asks in vain")
    assert browser.evaluate(SENTENCE).startswith("The run ended at ")
    assert browser.evaluate(TONE) == ["", "rgb(29, 79, 145)"]


@pytest.mark.tool("chromium")
def test_without_a_script_the_page_is_complete_and_reloads(browser: Page, tmp_path: Path) -> None:
    run = measured(tmp_path)
    run.meter(3)
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    with serving(run) as server:
        browser.load(server.url + "/")
        assert "10¹⁵" in browser.evaluate("document.body.innerText") or "FLOP/s" in browser.evaluate(
            "document.body.innerText"
        )
        assert browser.evaluate("document.querySelector('meta[http-equiv=refresh]').content") == "10"
        assert browser.evaluate("document.getElementById('pause').hidden")


@pytest.mark.tool("chromium")
def test_the_page_works_behind_a_password(browser: Page, tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"horse", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{alice: '{hashed}'}}")
    run = measured(tmp_path)
    run.meter(3)
    with serving(run, Access(tmp_path / "web.yml")) as server:
        browser.load(server.url.replace("//", "//alice:horse@") + "/")
        wait_until(lambda: browser.evaluate(LIVE).startswith("Live"), "it is live")


@pytest.mark.tool("chromium")
def test_the_page_can_be_read_with_the_keyboard_only(browser: Page, tmp_path: Path) -> None:
    run = everything(tmp_path)
    with serving(run) as server:
        browser.load(server.url + "/")
        browser.look(DESK)
        reached = []
        for _ in range(8):
            browser.press_tab()
            reached.append(
                browser.evaluate(
                    "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
                )
            )
    assert reached == [
        "Skip to the figures", "Pause", "9 rules in detail", "Devices", "Details of each device", "Gaps by reason",
        "/metrics", "/api/status",
    ]  # fmt: skip


@pytest.mark.tool("chromium")
def test_axe_finds_no_fault_on_the_page(browser: Page, url: str) -> None:
    source = axe_source()
    browser.load(url)
    for dark in (False, True):
        browser.look(DESK, dark=dark)
        assert faults(browser, source) == []
