"""Completions and the manual page, by the real shells and the real roff."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flopsd.settings.schema import SETTINGS
from flopsd.sources.registry import known_sources
from tests.support.process import environment, flopsd

KNOWN = (*SETTINGS, *known_sources().settings)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `flopsd completion` prints, for each shell."""
    folder = tmp_path_factory.mktemp("completions")
    for shell in ("bash", "zsh", "fish"):
        done = flopsd("completion", shell)
        assert done.returncode == 0, done.stderr
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
def test_zsh_takes_its_script(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "_flopsd").write_text((scripts / "zsh").read_text())
    script = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; autoload +X _flopsd; print $_comps[flopsd]"
    assert said("zsh", "-f", "-c", script, cwd=tmp_path) == ["_flopsd"]
    assert said("zsh", "-n", str(tmp_path / "_flopsd"), cwd=tmp_path) == []


@pytest.mark.tool("man", "groff")
def test_the_manual_page_is_read_and_names_every_verb_and_setting(tmp_path: Path) -> None:
    page = tmp_path / "flopsd.1"
    page.write_text(flopsd("man").stdout)
    lint = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)], capture_output=True, text=True, check=True
    )
    assert lint.stderr == ""
    env = environment(None, MANWIDTH="100", LC_ALL="C.UTF-8", MAN_KEEP_FORMATTING="")
    done = subprocess.run(["man", "-l", str(page)], capture_output=True, text=True, check=True, env=env)
    text = " ".join(done.stdout.split())
    assert "flopsd - the electricity meter of AI training" in text
    for verb in (
        "run",
        "exec",
        "seal",
        "verify",
        "report",
        "merge",
        "countersign",
        "export",
        "status",
        "doctor",
        "config show",
    ):
        assert f"COMMAND 'flopsd {verb}'" in text, verb
    for setting in KNOWN:
        assert setting.variable in page.read_text(), "in the text it may be hyphenated"


@pytest.mark.tool("systemd-analyze", "man")
def test_the_unit_is_clean_and_its_manual_page_is_there(tmp_path: Path) -> None:
    pages = tmp_path / "man1"
    pages.mkdir()
    (pages / "flopsd.1").write_text(flopsd("man").stdout)
    unit = Path(__file__).parents[2] / "systemd" / "flopsd.service"
    env = environment(None, MANPATH=str(tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
