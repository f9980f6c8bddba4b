"""Content and names of files reach a terminal as text, never as control sequences."""

import base64
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.signing.pem import make_pem
from flopsd.cli.main import _log_to_stderr, main
from flopsd.report.terminal import shell_command, shown
from tests.make_vectors.files import FIRST, signed
from tests.support.jobs import Nodes, plain
from tests.support.process import Done, in_process
from tests.support.story import VECTORS

EVIL = "x\x1b[1A\x1b[2K\r\x9b2J\u202e\nflopsd: VERIFIED\x07"
JOB_OPTIONS = ("--nodes", "1")


def is_harmless(done: Done) -> bool:
    text = (done.stdout + done.stderr).replace("\xa0", " ").replace("\u202f", " ")  # the page itself contains these
    lines = text.split("\n")
    return all(line.isprintable() for line in lines) and not any(line.startswith("flopsd: VERIFIED") for line in lines)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


@pytest.fixture
def _logger() -> Iterator[None]:
    logger = logging.getLogger("flopsd")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.usefixtures("_logger")
@pytest.mark.parametrize("shape", ["text", "html"])
def test_a_locale_without_utf_8_changes_no_page_and_ends_no_report(
    nodes: Nodes, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LANG=en_US is Latin-1 on some clusters: each page, and each report of a name outside it, used to end in a
    traceback."""
    ledger = nodes.ledger(plain("\N{HEBREW LETTER ALEF}"), "node")
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="latin-1"))
    with pytest.raises(SystemExit) as left:
        main(["report", str(ledger), "--format", shape])
    sys.stdout.flush()
    assert left.value.code == 0
    shown = b"\\u05d0" if shape == "text" else "\N{HEBREW LETTER ALEF}".encode()
    assert shown in out.getvalue()


def test_names_in_a_ledger_are_printed_as_text(nodes: Nodes) -> None:
    """The job's environment names the run and the node."""
    ledger = nodes.ledger(plain(EVIL), "node", run_id=EVIL)
    key, job = str(nodes.public), str(nodes.folder / "job.json")
    second = make_pem(nodes.folder / "second.pem")
    for arguments in (
        ("verify", str(ledger), "--key", key),
        ("report", str(ledger), "--key", key),
        ("report", str(ledger), "--format", "form"),
        ("report", str(ledger), "--format", "html"),
        ("status", "--state-dir", str(nodes.folder / "state" / "node")),
        ("seal", "--journal", str(ledger.with_name("ledger.journal.jsonl")), "--key", nodes.key),
        ("countersign", str(ledger), "--key", str(second.path), "--trust", key),
        ("merge", str(ledger), "--trust", key, "--key", nodes.key, "--ledger", job, *JOB_OPTIONS),
        ("verify", job, "--key", key, "--children", str(ledger)),
        ("report", job, "--key", key),
    ):
        done = in_process(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert is_harmless(done), arguments


# Values that a reader parses as a figure, a digest or a time, and words that it refuses when unknown.
_NOT_WORDS = re.compile(r"-?[0-9][0-9./]*|[0-9a-f]{32,}|\d{4}-\d\d-\d\dT.*|node|job|lineage|below|above|indeterminate|")


def evil(value: Any) -> Any:
    """A part of a statement with `EVIL` and markup in every word, name of a breakdown and parameter of a code."""
    if isinstance(value, dict):
        changed = {name: evil(one) for name, one in value.items()}
        figures = [one for name, one in changed.items() if name in ("undeclared", "gap", "code")]
        return changed | {f"{EVIL}<b>": one for one in figures}
    if isinstance(value, list):
        return [evil(one) for one in value]
    return f"{value}{EVIL}<img src=x>" if isinstance(value, str) and not _NOT_WORDS.fullmatch(value) else value


@pytest.mark.parametrize("vector", ["valid/declared-phases", "valid/finding-straddling", "merged/job-with-a-hole", "merged/lineage"])  # fmt: skip
def test_hostile_text_in_a_ledger_is_printed_as_text(vector: str, tmp_path: Path) -> None:
    """The ledger is read without a key; with a key it is refused, whoever signed it."""
    envelope = json.loads((VECTORS / vector / "ledger.json").read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    ledger, key = tmp_path / "ledger.json", tmp_path / "ledger.pub"
    ledger.write_bytes(signed(json.dumps(statement | {"predicate": evil(statement["predicate"])}).encode()))
    key.write_bytes(FIRST.public_pem)
    for form in ("text", "html", "form"):
        done = in_process("report", str(ledger), "--format", form)
        assert (done.returncode, is_harmless(done)) == (0, True), (form, done.stderr)
        assert "\\x1b[1A\\x1b[2K" in done.stdout
        assert form != "html" or ("<img" not in done.stdout and "&lt;img src=x&gt;" in done.stdout)
    for arguments in (("verify",), ("verify", "--json"), ("report",)):
        done = in_process(*arguments, str(ledger), "--key", str(key))
        assert (done.returncode, is_harmless(done)) == (3, True), (arguments, done.stdout, done.stderr)


def test_file_names_are_printed_as_text_in_verdicts_and_errors(nodes: Nodes) -> None:
    ledger = nodes.ledger(plain("node"))
    folder = nodes.folder / EVIL
    folder.mkdir()
    named, key = folder / f"{EVIL}.json", folder / f"{EVIL}.pub"
    for source, target in ((ledger, named), (ledger.with_name("ledger.journal.jsonl"), folder / f"{EVIL}.journal.jsonl"),
                           (nodes.public, key)):  # fmt: skip
        shutil.copy(source, target)
    again = ""
    for arguments, code in (
        (("verify", str(named), "--key", str(key)), 0),
        (("verify", str(named), "--key", str(key), "--explain"), 0),
        (("report", str(named), "--key", str(key)), 0),
        (("report", str(named)), 0),
        (("key", "show", str(key)), 0),
        (("key", "new", str(folder / "new.pem")), 0),
        (("export", str(named), "--key", str(folder / "none")), 1),
        (("countersign", str(named), "--key", str(folder / "new.pem"), "--trust", str(key)), 0),
        (("merge", str(named), "--trust", str(key), "--key", nodes.key, "--ledger", str(folder / "j.json"), *JOB_OPTIONS), 0),
        (("merge", str(named), "--trust", str(key), "--key", nodes.key, "--ledger", str(named)), 1),
        (("verify", str(folder / "none.json"), "--key", str(key)), 3),
        (("verify", str(named), "--key", str(folder)), 1),
        (("report", str(key)), 3),
        (("seal", "--journal", str(key), "--ledger", str(folder / "l.json")), 1),
        (("estimate", str(named), "--tokens", "1"), 1),
        (("config", "check", str(named)), 2),
        (("status", "--state-dir", str(folder)), 1),
    ):  # fmt: skip
        done = in_process(*arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert is_harmless(done), (arguments, done.stdout, done.stderr)
        again = done.stdout if arguments[:2] == ("merge", str(named)) and code == 0 else again
    command = again.rstrip().splitlines()[-1].replace("flopsd verify", "printf '%s|'", 1)
    words = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode()
    assert words == f"{folder / 'j.json'}|--key|{folder / 'j.pub'}|"


def test_names_of_archive_members_are_printed_as_text(nodes: Nodes) -> None:
    archive, out = nodes.folder / "children.tar.gz", io.BytesIO(b"{}")
    with tarfile.open(archive, "w:gz") as tar:
        for name, kind in ((f"{EVIL}/a.json", tarfile.REGTYPE), (f"{EVIL}/b.json", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.size, member.type = 2 if kind == tarfile.REGTYPE else 0, kind
            out.seek(0)
            tar.addfile(member, out)
    job = str(nodes.folder / "job.json")
    done = in_process("merge", str(archive), "--trust", str(nodes.public), "--key", nodes.key, "--ledger", job)
    assert done.returncode in (1, 3)
    assert "\\x1b[1A" in done.stderr
    assert is_harmless(done), done.stderr


@pytest.mark.usefixtures("_logger")
def test_log_messages_are_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    _log_to_stderr("seal")
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.getLogger("flopsd").exception("of %s", EVIL)
    lines = capsys.readouterr().err.split("\n")
    assert lines[0].startswith("flopsd: ERROR: of x\\x1b[1A\\x1b[2K\\x0d\\x9b2J\\x202e\\x0aflopsd: VERIFIED\\x07")
    assert lines[1].startswith("Traceback")
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("word", ["a b", "it's", EVIL, "\\0101", "-n", "%s", '$(id)\n`id`"\\', "\udcff.json", "é"])
def test_a_printed_shell_command_keeps_its_words(word: str) -> None:
    command = shell_command(["printf", "%s|", word])
    assert command.isprintable()
    assert shown([command]) == f"{command}\n"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout == os.fsencode(word) + b"|"
