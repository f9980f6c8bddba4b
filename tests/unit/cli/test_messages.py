"""Messages for mistyped words and a missing key, and the effect of -q and -v."""

import errno
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.os_calls import replace_call
from tests.support.paths import VECTORS
from tests.support.process import FLOPSD, UNPRIVILEGED, environment, in_process

NODE = VECTORS / "valid" / "declared-by-settings"


@pytest.mark.parametrize(
    ("words", "usage", "says"),
    [
        ("verfy l.json", "flopsd [-h]", "flopsd: error: there is no `flopsd verfy`; did you mean verify?"),
        ("xyzzy", "flopsd [-h]", "flopsd: error: there is no `flopsd xyzzy`\n"),
        ("key nwe k", "flopsd key", "flopsd key: error: there is no `flopsd key nwe`; did you mean new?"),
        ("key new --typ3 k", "flopsd key new", "there is no option --typ3; did you mean --type?"),
        ("verify l.json --ky=k", "flopsd verify", "there is no option --ky; did you mean --key?"),
        ("verify l.json --wach", "flopsd verify", "there is no option --wach\n"),
        ("verify l.json --key k more", "flopsd verify", "unexpected argument: more"),
        ("merge l.json --trsut k", "flopsd merge", "there is no option --trsut; did you mean --trust?"),
        ("merge l --trust k --key k --ledger j --lineage m", "", "--kind lineage and --lineage NAME must be given together"),
        ("merge l --trust k --key k --ledger j --kind lineage --lineage m --nodes 2", "", "--nodes applies to --kind job only"),
        ("report l.json --format htlm", "flopsd report", "'htlm' is not one of text, html, form; did you mean html?"),
        ("exec --intervl 2 -- job --lr 3", "flopsd exec", "there is no option --intervl; did you mean --interval?"),
        ("doctor --run-id r", "flopsd doctor [options]", "there is no option --run-id\n"),
        ("run --lifelime 2", "flopsd run [options]", "there is no option --lifelime\n"),
        ("run --b\x1b[2J", "flopsd run [options]", "there is no option --b\\x1b[2J\n"),
        ("run --phase trian", "", "'trian': expected one of train, evaluate, generate, other, or undeclared; did you mean train?"),
        ("run --method LoRA", "", "or undeclared; did you mean lora?"),
        ("key new ", "flopsd key new", "flopsd key new: error: an argument is empty; is a variable of the shell unset?"),
        ("verify l.json --key ", "flopsd verify", "--key has an empty value; is a variable of the shell unset?"),
        ("verify l.json --threshold x", "flopsd verify", "--threshold: must be a whole number from 1 to 999999999"),
        ("estimate c --sequence-length 2e3", "flopsd estimate", "must be a whole number from 1 to 999999999, in digits"),
        (
            "estimate --parameters 1e18 --tokens 1e18 --epochs 9000 --sequence-length 9 --method full", "",
            "flopsd: that is more than 1e39 FLOP",
        ),
        ("verify -q -v l.json", "flopsd verify", "-v/--verbose: not allowed with argument -q/--quiet"),
    ],
)  # fmt: skip
def test_a_mistyped_word_gets_a_suggestion(words: str, usage: str, says: str) -> None:
    done = in_process(*words.split(" "), code=2, says=says)
    assert done.stdout == ""
    assert done.stderr.startswith(f"usage: {usage}") if usage else "usage" not in done.stderr


def test_device_time_that_is_not_this_jobs_is_named_beside_the_coverage() -> None:
    vector, tables = VECTORS / "valid" / "accounted-elsewhere", ["--peaks", str(VECTORS / "peaks.yaml")]
    done = in_process("verify", str(vector / "ledger.json"), "--key", str(vector / "ledger.pub"), *tables, code=0)
    assert "coverage 100 % of 4 s of device time (4 s more is not counted: another" in " ".join(done.stdout.split())


def test_the_options_of_sources_are_listed_under_the_titles_of_these() -> None:
    text = in_process("run", "--help", code=0).stdout
    assert "\nsources:\n  nvml: NVIDIA GPUs, through the driver's NVML\n" in text


def test_without_a_verb_all_verbs_are_listed() -> None:
    done = in_process(code=2, says="run a command, meter it, seal, and return its exit code")
    assert (done.stdout, done.stderr) == ("", in_process("--help", code=0).stdout)


def test_a_missing_key_is_answered_with_the_one_next_to_the_ledger(tmp_path: Path) -> None:
    ledger, beside = tmp_path / "a b.json", tmp_path / "a b.pub"
    shutil.copy(NODE / "ledger.json", ledger)
    lines = in_process("verify", "--json", str(ledger), code=2).stderr.splitlines()
    assert lines[0] == "flopsd: verify: --key is missing: a ledger is verified with its signer's public key"
    assert "by another way than the ledger" in lines[1]
    shutil.copy(NODE / "ledger.pub", beside)
    keyid = in_process("key", "show", str(beside)).stdout.split("key id")[1].split()[0]
    lines = in_process("verify", "--json", str(ledger), code=2).stderr.splitlines()
    assert lines[1] == f"flopsd: next to the ledger there is {beside}, ed25519, key id {keyid}"
    assert "shows only that no one but its holder changed the ledger since it was sealed" in lines[2]
    assert lines[3].endswith(f": flopsd verify --key '{beside}' --json '{ledger}'")


def test_quiet_prints_only_errors_and_requested_output(tmp_path: Path) -> None:
    verify = ["verify", str(NODE / "ledger.json"), "--key", str(NODE / "ledger.pub")]
    tables = ["--peaks", str(VECTORS / "peaks.yaml"), "--policy", str(VECTORS / "policy.yaml")]
    for words in ([*verify, *tables, "-q"], ["-q", *verify, *tables], ["key", "new", "-q", str(tmp_path / "k")]):
        done = in_process(*words, code=0)
        assert (done.stdout, done.stderr) == ("", ""), words
    assert in_process(*verify, "-q", code=3).stdout.startswith("NOT VERIFIED: ")
    assert in_process(*verify, *tables, "-q", "--json", code=0).stdout.startswith('{"verified": true')


def test_verbose_logs_steps_and_where_an_error_was_raised(tmp_path: Path) -> None:
    done = in_process("verify", str(NODE / "ledger.json"), "--key", str(tmp_path / "none"), "-v", code=1)
    assert done.stderr.startswith("flopsd: DEBUG: flopsd ")
    assert "flopsd.errors.SigningKeyError: cannot read" in done.stderr
    assert "Traceback" not in in_process("verify", "l.json", "--key", str(tmp_path / "none"), code=1).stderr


def test_incomplete_output_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, a network file system may report only at the close that it is full."""
    in_process("config", "show", code=0)
    monkeypatch.setattr("flopsd.cli.main.last_flush", lambda _: False)
    in_process("config", "show", code=1)
    in_process("config", "check", code=2)


def test_a_full_disk_is_named_although_the_next_write_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("flopsd.settings.effective.as_yaml", fails)
    done = in_process("config", "show", code=1)
    assert done.stderr == "flopsd: cannot write to standard output: No space left on device\n"


def test_a_deleted_current_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = in_process("exec", "--state-dir", "state", "--", "true", code=1)
    assert done.stderr.startswith("flopsd: the current folder was deleted")
    assert "give absolute paths" in done.stderr


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.EIO, "check that disk"), (errno.EDQUOT, "free space on that disk"), (errno.EACCES, "has no access there")],
)
@pytest.mark.parametrize("words", [("seal",), ("status",), ("copy",), ("key", "new", "DIR/new.pem")])
def test_an_unreadable_disk_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, remedy: str
) -> None:
    real = os.stat

    def fails(path: Any, **named: Any) -> os.stat_result:
        if isinstance(path, Path) and tmp_path in (path, *path.parents):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, **named)

    replace_call(monkeypatch, "stat", fails)
    where = ("--state-dir", str(tmp_path)) if words[0] != "key" else ()
    done = in_process(*(word.replace("DIR", str(tmp_path)) for word in words), *where, code=1)
    named, hint = done.stderr.splitlines()
    assert str(tmp_path) in named
    assert os.strerror(code) in named
    assert remedy in hint


@pytest.mark.parametrize("verb", ["report", "export"])
@pytest.mark.parametrize("name", ["ledger.json", "ledger.journal.jsonl", "ledger.pub", "link"])
def test_an_input_file_is_not_overwritten_by_the_output(tmp_path: Path, verb: str, name: str) -> None:
    for file in ("ledger.json", "ledger.journal.jsonl", "ledger.pub"):
        shutil.copy(NODE / file, tmp_path)
    (tmp_path / "link").symlink_to("ledger.json")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    key, ledger = ["--key", str(tmp_path / "ledger.pub")], str(tmp_path / "ledger.json")
    done = in_process(verb, ledger, *key, "-o", str(tmp_path / name), code=1)
    assert f"{name} is an input of this command" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("given", [True, False])
def test_no_key_or_file_of_the_ledger_is_replaced_by_a_report(tmp_path: Path, given: bool) -> None:
    """Whether or not the command reads the file."""
    for file in ("ledger.json", "ledger.journal.jsonl", "ledger.pub"):
        shutil.copy(NODE / file, tmp_path)
    companion = tmp_path / f"ledger.peaks-{hashlib.sha256(b'table').hexdigest()[:16]}.yaml"
    companion.write_bytes(b"table")
    in_process("key", "new", str(tmp_path / "mine.pem"), code=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    key = ["--key", str(tmp_path / "ledger.pub")] if given else []
    for name in before:
        done = in_process("report", str(tmp_path / "ledger.json"), *key, "-o", str(tmp_path / name), code=1)
        assert f"{name} is a" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    other, report = shutil.copytree(NODE, tmp_path / "other"), ("report", str(tmp_path / "ledger.json"), "-o")
    for name in ("ledger.json", "ledger.journal.jsonl"):
        in_process(*report, str(other / name), code=1, says=f"{name} is a ledger, a journal or a key")
    (own := tmp_path / "own.yaml").touch()
    in_process(*report, str(own), "--policy", str(own), code=1, says="own.yaml is an input of this command")
    in_process(*report, str(own), code=0)


def test_output_to_a_pipe_or_link_follows_it_and_replaces_neither(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "to").write_text("an older report")
    for name, target in (("stdout", f"/dev/fd/{writer}"), ("link", "to")):
        (tmp_path / name).symlink_to(target)
        in_process("export", str(NODE / "ledger.json"), "-o", str(tmp_path / name), code=0)
        assert (tmp_path / name).is_symlink()
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == (tmp_path / "to").read_bytes() != b"an older report"


@pytest.mark.tool(*UNPRIVILEGED[:1])
@pytest.mark.parametrize(
    ("words", "code"),
    [("status --state-dir {}", 1), ("seal --state-dir {}", 1), ("key new {}/k", 1), ("estimate {}/c --tokens 1", 1),
     ("verify {ledger} --key {key} --journal {}/j", 3), ("report {ledger} -o {}/r", 1), ("doctor --state-dir {}", 4)],
)  # fmt: skip
def test_a_folder_this_user_may_not_read_is_named(tmp_path: Path, words: str, code: int) -> None:
    """It used to end in a traceback, for instance `flopsd status` with the state folder of root's daemon."""
    (closed := tmp_path / "closed").mkdir()
    given = words.format(closed, ledger=NODE / "ledger.json", key=NODE / "ledger.pub").split()
    closed.chmod(0)
    command = [*UNPRIVILEGED, *FLOPSD, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(None))
    closed.chmod(0o700)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert re.search(rf"{closed}\S*: Permission denied", " ".join(said.split())), said
    assert "Traceback" not in said


def test_a_new_key_is_always_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for elsewhere in ("pkcs11:token=ours;object=ledger", "awskms:alias/ledger"):
        in_process("key", "new", elsewhere, code=1, says="names no file, and `flopsd key new` makes files alone")
    assert list(tmp_path.iterdir()) == []
    in_process("key", "new", "file:mine.pem", code=0)
    in_process("key", "check", "file:mine.pem", code=0)


def test_a_journal_is_not_copied_as_a_ledger(tmp_path: Path) -> None:
    shutil.copy(NODE / "ledger.journal.jsonl", tmp_path)
    words = ("copy", str(tmp_path / "ledger.journal.jsonl"), "--to", str(tmp_path / "to.json"))
    in_process(
        *words, "--state-dir", str(tmp_path), code=3, says=("is a journal, not a ledger", "name the ledger next to")
    )


def test_an_option_with_two_values_is_named() -> None:
    size = ("estimate", "--parameters", "1e9", "--sequence-length", "512", "--method", "full", "--method", "lora")
    said = in_process(*size, "--tokens", "1e9", "--tokens", "1e6", code=0).stderr
    assert said == "flopsd estimate: --tokens is given twice, with different values: the last one counts\n"
    for others in (("--tokens", "1e9"), ("--tokens", "1e6", "-q")):
        assert in_process(*size, "--tokens", "1e9", *others, code=0).stderr == ""
