"""Headless Firefox, driven by its own protocol, Marionette: no driver program, no client library."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PATIENCE_SECONDS = 60
# A free port, no calls home, and no first-run page.
_PREFERENCES = {
    "marionette.port": 0, "app.update.disabledForTesting": True, "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0, "datareporting.policy.dataSubmissionEnabled": False, "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1", "network.proxy.http_port": 9, "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9, "toolkit.telemetry.enabled": False, "network.captive-portal-service.enabled": False,
}  # fmt: skip


class FirefoxPage:
    """One page."""

    def __init__(self, connection: socket.socket, scratch: Path) -> None:
        self._connection, self._scratch, self._buffer, self._last = connection, scratch, b"", 0
        self._receive()  # the greeting
        self.ask(
            "WebDriver:NewSession", capabilities={"alwaysMatch": {"timeouts": {"script": 1000 * PATIENCE_SECONDS}}}
        )

    def ask(self, command: str, **parameters: Any) -> Any:
        self._last += 1
        message = json.dumps([0, self._last, command, parameters]).encode()
        self._connection.sendall(b"%d:%s" % (len(message), message))
        _, number, error, result = self._receive()
        assert number == self._last
        assert error is None, f"{command}: {error}"
        return result

    def load(self, where: Path) -> None:
        self.ask("WebDriver:Navigate", url=where.as_uri())

    def evaluate(self, expression: str) -> Any:
        """Evaluate beside the page's own scripts; a promise is awaited."""
        script = f"const done = arguments[arguments.length - 1]; Promise.resolve(({expression})).then(done)"
        return self.ask("WebDriver:ExecuteAsyncScript", script=script, args=[])["value"]

    def give(self, box: str, files: Sequence[Path]) -> None:
        """Put files into the input with that id, as a reader would choose them. Marionette cannot choose a folder:
        the files of a folder go into the ledgers, each under a name that includes its folders."""
        if [path for path in files if path.is_dir()]:
            box, files = "ledgers", [self._flat(path, folder) for folder in files for path in folder.rglob("*.json*")]
        found = self.ask("WebDriver:FindElement", using="css selector", value=f"#{box}")
        self.ask("WebDriver:ElementSendKeys", id=next(iter(found["value"].values())), text="\n".join(map(str, files)))

    def _flat(self, path: Path, folder: Path) -> Path:
        copy = self._scratch / "-".join(path.relative_to(folder.parent).parts)
        copy.write_bytes(path.read_bytes())
        return copy

    def _receive(self) -> Any:
        while b":" not in self._buffer:
            self._more()
        size, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(size):
            self._more()
        text, self._buffer = self._buffer[: int(size)], self._buffer[int(size) :]
        return json.loads(text)

    def _more(self) -> None:
        data = self._connection.recv(1 << 20)
        assert data, "firefox is gone"
        self._buffer += data


@contextmanager
def firefox() -> Iterator[FirefoxPage]:
    """A fresh Firefox that reaches no host: its proxy is a port on which nothing listens."""
    with TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as profile:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _PREFERENCES.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        command = ["firefox-esr", "--headless", "--no-remote", "--marionette", "--profile", profile]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile}
        )
        try:
            with socket.create_connection(("127.0.0.1", _port(Path(profile), process)), PATIENCE_SECONDS) as connection:
                yield FirefoxPage(connection, Path(profile))
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that Firefox chose, once it has written it down."""
    file, until = profile / "MarionetteActivePort", time.monotonic() + PATIENCE_SECONDS
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None, f"firefox ended with {process.returncode}"
        assert time.monotonic() < until, "firefox opens no port"
        time.sleep(0.02)
    return int(file.read_text())
