"""The codes of journal lines: taking over a daemon does not allow changing what it wrote before."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.attestation.seal import Sealed
from flopsd.daemon.recovery.code_secrets import CodeSecrets, read_secret
from flopsd.errors import JournalDamagedError
from flopsd.journal.codes import CodeChecker, CodeKey, code, next_key
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.reading import read_journal
from tests.support.os_calls import failing
from tests.support.runs import H100, Run, verified

SECRET = bytes(range(32))
LINES = 12


class Keys:
    """The keys of an attacker who takes over the daemon at line `since` of a journal of `LINES` lines."""

    def __init__(self, since: int) -> None:
        held = CodeKey(SECRET, 1)
        for _ in range(since):
            held.advance()
        self._since, self._keys = since, [held._key]
        for _ in range(LINES):
            self._keys.append(next_key(self._keys[-1]))

    def at(self, index: int) -> bytes:
        """The key of a line; for a line before the takeover, the nearest key that the attacker can derive."""
        return self._keys[max(0, index - self._since)]


def honest() -> list[dict[str, Any]]:
    digest = CodeKey(SECRET, 1).secret_sha256
    begin = {"kind": "begin", "incarnation": 1, "code_secret_sha256": digest}
    return [begin, *({"kind": "checkpoint", "incarnation": 1, "n": n} for n in range(1, LINES))]


def written(records: list[dict[str, Any]], keys: Keys, old: list[bytes]) -> bytes:
    """A journal of `records` with the best codes available: the old code where line and chain are unchanged."""
    lines, head = [], GENESIS
    for index, record in enumerate(records):
        known = honest()[: index + 1] == records[: index + 1]
        best = partial(code, keys.at(index))
        line, head = frame(head, record, (lambda _, made=old[index]: made) if known else best)  # type: ignore[misc]
        lines.append(line)
    return b"".join(lines)


def checked(journal: Path) -> int:
    return len(list(CodeChecker([SECRET]).records(read_journal(journal))))


EDITS: dict[str, Callable[[list[dict[str, Any]], int], list[dict[str, Any]]]] = {
    "altered": lambda r, at: [*r[:at], {**r[at], "n": 99}, *r[at + 1 :]],
    "removed": lambda r, at: r[:at] + r[at + 1 :],
    "put in": lambda r, at: [*r[:at], {**r[at], "n": 99}, *r[at:]],
    "reordered": lambda r, at: [*r[:at], *reversed(r[at : at + 2]), *r[at + 2 :]],
    "cut and gone on with": lambda r, at: [*r[:at], {**r[at], "n": 99}],
    "replayed": lambda r, at: [*r[:at], r[at - 1], *r[at:]],
}


@given(st.integers(1, LINES - 2), st.integers(2, LINES - 2), st.sampled_from(sorted(EDITS)))
def test_the_key_of_a_line_allows_changes_of_that_and_later_lines_only(
    tmp_path_factory: pytest.TempPathFactory, since: int, at: int, edit: str
) -> None:
    key, old, head = CodeKey(SECRET, 1), list[bytes](), GENESIS
    for record in honest():
        _, head = frame(head, record)
        old.append(key.code(head))
        key.advance()
    journal = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal.write_bytes(written(EDITS[edit](honest(), at), Keys(since), old))
    if at >= since:
        assert checked(journal) > at
        return
    with pytest.raises(JournalDamagedError, match=rf"journal line {at + 1} has a wrong code"):
        checked(journal)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Killed between two checkpoints, and started again."""
    run = Run(tmp_path / "state", devices=(H100,), secret=SECRET)
    run.meter(14)
    run.restart()
    run.meter(12)
    run.finish()
    return run


def test_every_line_has_a_code_except_that_of_the_pending_file(run: Run) -> None:
    lines = list(read_journal(run.state.journal))
    begins = [line.number for line in lines if line.record()["kind"] == "begin"]
    assert [line.number for line in lines if not line.code] == [begins[1] - 1]
    assert b'"m"' not in run.state.pending.read_bytes()


def other_digit(line: bytes) -> bytes:
    at = line.index(b'"m":"') + 5
    return line[:at] + (b"1" if line[at : at + 1] == b"0" else b"0") + line[at + 1 :]


def test_resealing_takes_the_secret_from_the_existing_ledger(run: Run, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    run.seal(ledger)
    run.secret = None
    (run.state.path / "flopsd-key.pem").unlink()
    assert [start["codes"] for start in incarnations(run.seal(ledger))] == ["checked", "checked"]
    assert [start["codes"] for start in incarnations(run.seal(tmp_path / "other.json"))] == ["not_checkable"] * 2


def incarnations(sealed: Sealed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = verified(sealed).statement["predicate"]["incarnations"]
    return found


ATTACKS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a digit of a code": lambda lines: [*lines[:2], other_digit(lines[2]), *lines[3:]],
    "a code removed": lambda lines: [*lines[:2], lines[2].replace(b'"m":"%s",' % lines[2][77:109], b""), *lines[3:]],
    "the code of another line": lambda lines: [lines[0].replace(lines[0][77:109], lines[1][77:109]), *lines[1:]],
}


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_a_journal_with_wrong_codes_is_not_sealed_again(run: Run, tmp_path: Path, attack: str) -> None:
    """The chain does not cover the codes, so only the codes reveal it."""
    lines = run.state.journal.read_bytes().splitlines(keepends=True)
    run.state.journal.write_bytes(b"".join(ATTACKS[attack](lines)))
    assert len(list(read_journal(run.state.journal))) == len(lines)
    with pytest.raises(JournalDamagedError, match=r"journal line \d has (a wrong|no) code"):
        run.seal(tmp_path / "ledger.json")
    assert not (tmp_path / "ledger.json").exists()


def test_lines_of_one_daemon_start_cannot_pass_as_those_of_another(run: Run, tmp_path: Path) -> None:
    """The key of each start follows from its number, so a start that was taken over cannot forge a later one."""
    records = [dict(line.record()) for line in read_journal(run.state.journal)]
    moved = [{**record, "incarnation": 1} for record in records if record["incarnation"] == 2]
    for start in (1, 2):
        journal, head, key = b"", GENESIS, CodeKey(SECRET, start)
        for record in moved:
            line, head = frame(head, record, key.code)
            key.advance()
            journal += line
        (tmp_path / "moved").write_bytes(journal)
        if start == 1:
            assert checked(tmp_path / "moved") == len(moved)
    with pytest.raises(JournalDamagedError, match="journal line 1 has a wrong code"):
        checked(tmp_path / "moved")


def test_a_line_that_the_disk_refused_leaves_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "state", devices=(H100,), secret=SECRET)
    run.meter(14)
    run.kill()

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(errno.EIO))
        run.start()  # pending records are still owed
        assert not run.writer.checkpoint()
    run.meter(12)
    run.finish()
    assert checked(run.state.journal) == len(run.state.journal.read_bytes().splitlines())


def test_the_launchers_secret_is_overwritten_after_use_and_an_own_one_kept() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, SECRET + b"stopping\n")
    given = read_secret(read_end)
    assert given is not None
    assert bytes(given) == SECRET
    assert os.read(read_end, 99) == b"stopping\n"
    secrets = CodeSecrets(given)
    assert secrets.not_used == [SECRET]
    assert secrets.key(3).secret_sha256 == CodeKey(SECRET, 3).secret_sha256
    assert (given, secrets.not_used, secrets.kept) == (bytearray(32), [], [])
    assert secrets.key(1).secret_sha256 == CodeKey(secrets.kept[0], 1).secret_sha256
    os.close(write_end)
    assert read_secret(read_end) is None
    os.close(read_end)
