"""Headless Chromium, driven through its debugging pipe: no port, no client library, no network."""

import base64
import fcntl
import json
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
PATIENCE_SECONDS = 60
FREE = 20
J = dict[str, Any]
_WIDER_THAN_THE_PAGE = """
  [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .skip, .defs, svg') && e.getClientRects().length
    && (e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline'))
  .map(e => e.outerHTML.slice(0, 120))
"""
_TEXTS_OUTSIDE = """
  [...document.querySelectorAll('svg[role=img]')].flatMap(svg => { const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect();
      return b.width && (b.left < box.left - 16 || b.right > box.right + 16 || b.top < box.top - 3 || b.bottom > box.bottom + 3) })
    .map(t => t.textContent) })
"""
_TEXTS_THAT_OVERLAP = """
  [...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]).filter(b => b[1].width);
    return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([, y]) =>
      x.left < y.right && y.left < x.right && x.top + 2 < y.bottom && y.top + 2 < x.bottom).map(([b]) => a + ' / ' + b)) })
"""


class Page:
    """One page, with its events and the requests that it made."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._last, self._session, self._target = write, read, b"", 0, "", ""
        self.events: list[J] = []
        self.renew()

    def renew(self) -> None:
        """Replace this page by an empty one, without the requests and events so far."""
        old, self._session = self._target, ""
        self._target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        if old:
            self.ask("Target.closeTarget", targetId=old)
        self._session = self.ask("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        self.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> J:
        """The answer to one command; events that arrive before it are kept."""
        self._last += 1
        message: J = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            shown = self._next()
            if shown.get("id") == self._last:
                assert "error" not in shown, f"{method}: {shown['error']}"
                found: J = shown["result"]
                return found

    def requested(self, since: int = 0) -> list[str]:
        """The addresses that the page asked for, since so many events."""
        return [event["params"]["request"]["url"] for event in self.events[since:]
                if event["method"] == "Network.requestWillBeSent"]  # fmt: skip

    def said(self) -> list[J]:
        """Errors, messages to the console, and what the browser itself logged."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in kinds]

    def load(self, where: Path | str) -> None:
        """Open a file or an address, and wait until it has loaded completely."""
        before = len(self.events)
        self.ask("Page.navigate", url=where if isinstance(where, str) else where.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[before:]):
            self._next()

    def look(self, width: int, *, dark: bool = False, media: str = "") -> None:
        """Set the width of the window. `media` is print, for example; empty means a screen."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression: str) -> Any:
        shown = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in shown, shown["exceptionDetails"]
        return shown["result"].get("value")

    def give(self, box: str, files: Sequence[Path]) -> None:
        """Put files, or a folder, into the input with that id, as a reader would choose them."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=f"#{box}")["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    def assert_whole(self, width: int, *, dark: bool) -> None:
        """Nothing is cut off or overlaps, and the colours are those of the scheme."""
        assert self.evaluate("document.documentElement.scrollWidth") <= width
        for misplaced in (_WIDER_THAN_THE_PAGE, _TEXTS_OUTSIDE, _TEXTS_THAT_OVERLAP):
            assert self.evaluate(misplaced) == []
        ground = self.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 23, 27)" if dark else "rgb(251, 250, 247)")

    def press_tab(self) -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def picture(self) -> bytes:
        shown = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=self._whole())
        return base64.b64decode(shown["data"])

    def pdf(self) -> bytes:
        shown = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(shown["data"])

    def _whole(self) -> J:
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def _next(self) -> J:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_SECONDS)
            assert ready, "chromium says nothing"
            data = os.read(self._read, 1 << 20)
            assert data, "chromium is gone"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        shown: J = json.loads(text)
        if "method" in shown and shown.get("sessionId", "") == self._session:
            self.events.append(shown)
        return shown


@contextmanager
def chromium() -> Iterator[Page]:
    """A fresh Chromium that resolves no host names. It reads commands from descriptor 3 and answers on 4."""
    to_read, to_write = _pipe()
    from_read, from_write = _pipe()
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        # bash moves the ends to the descriptors that Chromium expects; its own are all below FREE.
        command = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", "chromium", *FLAGS,
                   "--remote-debugging-pipe", f"--user-data-dir={profile}"]  # fmt: skip
        process = subprocess.Popen(command, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile})  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(to_write, from_read)
        finally:
            os.close(to_write)  # Chromium ends when its pipe is closed
            os.close(from_read)
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are FREE and above."""
    read, write = os.pipe()
    high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, FREE), fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, FREE)
    os.close(read)
    os.close(write)
    return high
