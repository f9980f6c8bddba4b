"""`flopsd status --watch` in a real pseudo-terminal, completions and the manual page by real shells and the real
roff."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from flopsd.settings.schema import SETTINGS
from flopsd.sources.registry import known_sources
from flopsd.telemetry.http.server import WebServer
from tests.support.authorities import Answer, serving
from tests.support.process import FLOPSD, PATIENCE_SECONDS, environment, in_process
from tests.support.runs import Run

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    """A screen of some size, and the output of a program on it."""

    def __init__(self, *arguments: str, rows: int = 24, columns: int = 80, term: str = "xterm") -> None:
        self.outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.process = subprocess.Popen([*FLOPSD, *arguments], stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
                                        env=environment(None, TERM=term), preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip
        self.inner, self.text = inner, ""

    def wait_for(self, pattern: str, after: int = 0) -> int:
        """The end of the match in the output."""
        while not (found := re.compile(pattern, re.DOTALL).search(self.text, after)):
            assert len(self.text) < 200_000, f"{pattern!r} never came: {self.text[-3000:]!r}"
            ready, _, _ = select.select([self.outer], [], [], PATIENCE_SECONDS)
            assert ready, f"{pattern!r} never came: {self.text!r}"
            self.text += os.read(self.outer, 65536).decode()
        return found.end()

    def leave(self, key: bytes = b"\x03") -> int:
        os.write(self.outer, key)
        self.wait_for(re.escape(LEAVE))
        code = self.process.wait(PATIENCE_SECONDS)
        assert termios.tcgetattr(self.inner) == self.before
        os.close(self.inner)
        os.close(self.outer)
        return code


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "state")
    run.meter(3)
    return run


def lines_of(frame: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"\r\n|\x1b\[H", frame)]


def test_watch_follows_a_state_folder_and_restores_the_terminal(tmp_path: Path, run: Run) -> None:
    terminal = Terminal("status", "--watch", "0.2", "--state-dir", str(tmp_path / "state"))
    begin = terminal.wait_for(re.escape(ENTER))
    first = terminal.wait_for(r"1\.23x10\^15 FLOP.*?\x1b\[J", begin)
    run.meter(3)
    second = terminal.wait_for(r"2\.46x10\^15 FLOP.*?\x1b\[J", first)
    assert max(map(len, lines_of(terminal.text[:second]))) <= 80
    assert not re.findall(r"\x1b\[[0-9;]*m", terminal.text), "no colour"
    assert terminal.leave() == 0
    assert terminal.text.count(ENTER) == terminal.text.count(LEAVE) == 1
    assert terminal.text.endswith("\x1b[?25h" + LEAVE), (
        "the cursor is back, and nothing comes after the screen was left"
    )


def test_watch_follows_a_daemon_and_reports_its_end(run: Run) -> None:
    server = WebServer("127.0.0.1", [0], lambda: run.writer.snapshot)
    server.start()
    terminal = Terminal("status", "--watch", "0.2", "--url", server.url, rows=20, columns=20)
    terminal.wait_for(r"UTC, eve\.\.\.\x1b\[K.*1\.23x10\^15 FLOP\x1b\[K.*more lines\x1b\[K\x1b\[J")
    server.stop()
    terminal.wait_for(r"cannot read\x1b\[K.*http://127")
    assert terminal.leave() == 0


@pytest.mark.usefixtures("run")
def test_a_terminal_without_a_size_gets_the_usual_one(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    terminal = Terminal("status", "--watch", "0.2", "--state-dir", state, rows=0, columns=0)
    terminal.wait_for(r"1\.23x10\^15 FLOP")
    assert terminal.leave() == 0


@pytest.mark.usefixtures("run")
def test_watch_can_be_suspended_and_continued(tmp_path: Path) -> None:
    terminal = Terminal("status", "--watch", "0.2", "--state-dir", str(tmp_path / "state"))
    at = terminal.wait_for(re.escape(ENTER) + r".*x10\^15 FLOP")
    os.write(terminal.outer, b"\x1a")
    at = terminal.wait_for(re.escape(LEAVE), at)
    os.waitpid(terminal.process.pid, os.WUNTRACED)
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(re.escape(ENTER) + r".*x10\^15 FLOP", at)
    assert terminal.leave() == 0


@pytest.mark.usefixtures("run")
def test_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    command = [*FLOPSD, "status", "--watch", "0.2", "--state-dir", str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(None)) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(40)]
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert "\x1b" not in "".join(seen) + rest
    assert sum(line.startswith("measured") for line in seen) >= 2


def test_a_wait_at_a_terminal_shows_a_line_that_then_disappears() -> None:
    seen = threading.Event()

    def answer(_request: BaseHTTPRequestHandler, _body: bytes) -> Answer:
        seen.wait(PATIENCE_SECONDS)
        return 404, b"", {}

    with serving(answer) as url:
        terminal = Terminal("status", "--url", url)
        terminal.wait_for(r"^\r\x1b\[Kflopsd: reading the status, [0-9]+ s")
        seen.set()
        terminal.wait_for(r"s\r\x1b\[Kflopsd: cannot read http.*\n.*hint")
        assert terminal.process.wait(PATIENCE_SECONDS) == 1
        in_process("status", "--url", url, code=1)


def test_an_unreadable_status_is_an_error(tmp_path: Path) -> None:
    in_process("status", "--watch", "--state-dir", str(tmp_path), code=1, says="there is no journal")
    in_process("status", "--watch", "0", code=2)


KNOWN = (*SETTINGS, *known_sources().settings)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `flopsd completion` for each shell."""
    folder = tmp_path_factory.mktemp("completions")
    for shell in ("bash", "zsh", "fish"):
        done = in_process("completion", shell, code=0)
        (folder / shell).write_text(done.stdout)
    (folder / "flopsd.sock").touch()
    return folder


def said(*command: str, cwd: Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout.splitlines()


def by_bash(scripts: Path, *words: str) -> list[str]:
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source ./bash; f=$(complete -p flopsd | sed 's/.*-F \\([^ ]*\\).*/\\1/'); COMP_WORDS=({line}); "
        f"COMP_CWORD={len(words) - 1}; $f; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    return said("bash", "--norc", "-c", script, cwd=scripts)


def by_fish(scripts: Path, *words: str) -> list[str]:
    found = said("fish", "--no-config", "-c", f"source ./fish; complete -C '{' '.join(words)}'", cwd=scripts)
    return [line.split("\t")[0] for line in found]


@pytest.mark.tool("bash", "fish")
@pytest.mark.parametrize("complete", [by_bash, by_fish])
def test_verbs_flags_and_files_complete(scripts: Path, complete: object) -> None:
    assert callable(complete)
    assert complete(scripts, "flopsd", "ver") == ["verify"]
    assert complete(scripts, "flopsd", "config", "ch") == ["check"]
    assert sorted(complete(scripts, "flopsd", "run", "--checkpoint")) == ["--checkpoint", "--checkpoint-output"]
    assert complete(scripts, "flopsd", "config", "check", "flop") == ["flopsd.sock"]
    flags = complete(scripts, "flopsd", "run", "--")
    assert not [s.flag for s in KNOWN if s.key != "seal" and s.flag not in flags]
    assert "--lifeline" not in flags


@pytest.mark.tool("zsh")
def test_zsh_accepts_its_completion_script(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "_flopsd").write_text((scripts / "zsh").read_text())
    script = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; autoload +X _flopsd; print $_comps[flopsd]"
    assert said("zsh", "-f", "-c", script, cwd=tmp_path) == ["_flopsd"]
    assert said("zsh", "-n", str(tmp_path / "_flopsd"), cwd=tmp_path) == []


@pytest.mark.tool("man", "groff")
def test_the_manual_page_is_valid_and_names_every_verb_and_setting(tmp_path: Path) -> None:
    page = tmp_path / "flopsd.1"
    page.write_text(in_process("man").stdout)
    lint = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)], capture_output=True, text=True, check=True
    )
    assert lint.stderr == ""
    env = environment(None, MANWIDTH="100", LC_ALL="C.UTF-8", MAN_KEEP_FORMATTING="")
    done = subprocess.run(["man", "-l", str(page)], capture_output=True, text=True, check=True, env=env)
    text = " ".join(done.stdout.split())
    assert "flopsd - measures the compute of AI training" in text
    for verb in (
        "run", "exec", "seal", "verify", "report", "merge", "countersign", "export", "status", "doctor",
        "config show",
    ):  # fmt: skip
        assert f"COMMAND 'flopsd {verb}'" in text, verb
    for setting in KNOWN:
        assert setting.variable in page.read_text(), "in the text it may be hyphenated"


@pytest.mark.tool("systemd-analyze", "man")
def test_the_unit_is_clean_and_its_manual_page_exists(tmp_path: Path) -> None:
    pages = tmp_path / "man1"
    pages.mkdir()
    (pages / "flopsd.1").write_text(in_process("man").stdout)
    unit = Path(__file__).parents[2] / "systemd" / "flopsd.service"
    env = environment(None, MANPATH=str(tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
