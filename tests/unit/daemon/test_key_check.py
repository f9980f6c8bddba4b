"""When the daemon has its key checked, what it logs about the check, and what waits for it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flopsd.daemon.ledgers.child import IDLE_SECONDS
from flopsd.daemon.ledgers.key_check import RECHECK_SECONDS, RETRY_SECONDS, KeyCheck, start_key_check
from flopsd.daemon.ledgers.rolling_seal import NOT_SIGNED, RollingSeals
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.snapshot import KeyState
from flopsd.testing import FakeClock
from tests.support.process import until_ended

SIGNS = {"usable": True, "is": "the key k", "keyId": "a5"}


def cannot(reason: str, problem: str) -> dict[str, Any]:
    return {"usable": False, "reason": reason, "problem": problem, "fix": "repair it"}


def run_out(check: KeyCheck) -> None:
    """Let a due child start, wait for its end without reaping it, then let the daemon see it."""
    check.each_tick()
    assert check.is_in_the_way
    until_ended(check.child.pid)
    check.each_tick()


def try_to_seal(rolling: RollingSeals) -> None:
    rolling.checkpointed()
    rolling.each_tick()
    until_ended(rolling.child.pid)
    rolling.each_tick()


def test_a_key_is_tried_until_it_signs_and_each_reason_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, answer = FakeClock(), tmp_path / "answer"
    command = ("sh", "-c", f"""cat {answer}; ! grep -q '"usable": false' {answer}""")  # it fails if the key cannot sign
    check = KeyCheck(command, RETRY_SECONDS, None, clock, due=True)
    caplog.set_level("INFO", "flopsd")
    says = "THE LEDGER WILL NOT BE SEALED unless this is fixed: "
    steps: list[tuple[Any, KeyState, str]] = [
        (
            cannot("not_found", "no k"),
            KeyState(False, "not_found", "no k; repair it"),
            f"{says}no k; repair it; metering",
        ),
        (cannot("not_found", "no k"), KeyState(False, "not_found", "no k; repair it"), ""),
        (
            cannot("no_answer", "none at 08:15"),
            KeyState(False, "no_answer", "none at 08:15; repair it"),
            f"{says}none at",
        ),
        (cannot("no_answer", "none at 08:20"), KeyState(False, "no_answer", "none at 08:20; repair it"), ""),
        (cannot("disabled", "k is off"), KeyState(False, "disabled", "k is off; repair it"), f"{says}k is off"),
        (cannot("of its own", "k"), KeyState(False, "other", "k; repair it"), f"{says}k; repair it"),
        (
            "no JSON",
            KeyState(False, "other", "the process that checks the key gave no result"),
            f"{says}the process that checks the key gave no",
        ),
        (SIGNS, KeyState(True), "the key signs: the key k, key id a5"),
    ]
    for said, state, logged in steps:
        answer.write_text(said if isinstance(said, str) else json.dumps(said))
        run_out(check)
        assert check.state == state
        assert check.is_in_the_way == (not state.usable)
        assert caplog.text.count("\n") == bool(logged)
        assert logged in caplog.text
        caplog.clear()
        clock.advance(round(RETRY_SECONDS * NS_PER_S))
    check.each_tick()
    assert not check.is_in_the_way, "rolling seals show from now on that it signs"

    check.not_signed("KMS is busy")  # a rolling seal that failed has the key checked at once
    run_out(check)
    assert caplog.messages == ["NO ROLLING SEAL: KMS is busy; the key can sign now, and the seal is tried again"]
    caplog.clear()
    check.not_signed("k is denied")
    answer.write_text(json.dumps(cannot("denied", "k is denied")))
    run_out(check)
    assert caplog.text.count("k is denied") == 1
    assert check.state.reason == "denied"
    answer.write_text(json.dumps({"usable": None}))
    clock.advance(round(RETRY_SECONDS * NS_PER_S))
    run_out(check)
    assert not check.is_in_the_way, "the first seal makes a key"
    check.sealed()
    assert check.state.usable


def test_a_key_that_the_first_seal_cannot_create_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    (tmp_path / "answer").write_text(json.dumps({"usable": None}))
    check = KeyCheck(("cat", str(tmp_path / "answer")), RETRY_SECONDS, None, clock, due=False)
    for _ in range(3):
        check.not_signed("no room for a key")
        run_out(check)
        assert (check.state, check.is_in_the_way) == (KeyState(False, "other", "no room for a key"), True)
        clock.advance(round(RETRY_SECONDS * NS_PER_S))
        run_out(check)
        assert not check.is_in_the_way, "only another seal shows whether there is room now"
    assert caplog.text.count("THE LEDGER WILL NOT BE SEALED unless this is fixed: no room for a key") == 1
    check.sealed()
    assert (check.state, caplog.messages[1:]) == (KeyState(usable=True), ["the key signs: a rolling seal was made"])


def test_warnings_of_the_key_check_process_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "answer").write_text(json.dumps(SIGNS))
    command = ("sh", "-c", f"echo 'flopsd: WARNING: the note is full' >&2; cat {tmp_path}/answer")
    check = KeyCheck(command, RETRY_SECONDS, None, FakeClock(), due=True)
    run_out(check)
    assert (check.state, caplog.messages) == (KeyState(usable=True), ["the note is full"])


def test_a_hanging_key_check_is_killed_and_one_that_cannot_start_is_a_fault() -> None:
    clock = FakeClock()
    check = KeyCheck(("sleep", "600"), RETRY_SECONDS, None, clock, due=True)
    check.each_tick()
    clock.advance(round((IDLE_SECONDS + 1) * NS_PER_S))
    check.each_tick()
    assert check.state == KeyState(
        False, "no_answer", "the process that checks the key did nothing for 120 s and was killed"
    )
    clock.advance(round(RETRY_SECONDS * NS_PER_S) - 1)
    check.each_tick()
    assert not check.child.is_busy
    clock.advance(1)
    check.each_tick()
    pid = check.child.pid
    assert pid is not None
    check.child.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    check = KeyCheck(("/no/such/program",), RETRY_SECONDS, None, clock, due=True)
    check.each_tick()
    check.each_tick()
    assert "cannot be started: No such file or directory" in check.state.problem


def test_a_rolling_seal_that_the_key_did_not_sign_starts_a_key_check(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    (tmp_path / "answer").write_text(json.dumps(cannot("no_token", "the token is gone")))
    check = KeyCheck(("cat", str(tmp_path / "answer")), RETRY_SECONDS, None, clock, due=False)
    command = ("sh", "-c", f"echo 'flopsd: the token is gone' >&2; exit {NOT_SIGNED}")
    rolling = RollingSeals(command, 10, 2, clock, overdue=True, head=lambda: "1:0", key=check)
    try_to_seal(rolling)
    run_out(check)
    assert rolling.state.seal_failures == 1
    assert check.state.reason == "no_token"
    assert caplog.text.count("the token is gone") == 1, "one message of one fault"


def test_a_rolling_seal_that_failed_otherwise_starts_no_key_check(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    check = KeyCheck(("false",), RETRY_SECONDS, None, clock, due=False)
    command = ("sh", "-c", "echo 'flopsd: no space left' >&2; exit 1")
    rolling = RollingSeals(command, 10, 2, clock, overdue=True, head=lambda: "1:0", key=check)
    try_to_seal(rolling)
    check.each_tick()
    assert not check.is_in_the_way
    assert "NO ROLLING SEAL: no space left; metering goes on" in caplog.text


def test_keys_are_checked_only_for_runs_that_need_it_and_at_their_interval(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flopsd")
    clock, (good, missing) = FakeClock(), (tmp_path / name for name in ("key.pem", "missing.pem"))
    good.write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "answer").write_text(json.dumps(SIGNS))
    command = ("cat", str(tmp_path / "answer"))

    def started(**settings: Any) -> KeyCheck | None:
        return start_key_check(Settings(state_dir=str(tmp_path), **settings), command, {}, clock)

    assert started(seal=False, key=str(good)) is None
    not_made = started()
    assert not_made is not None
    not_made.each_tick()
    assert not not_made.is_in_the_way
    known = started(key=str(missing))
    assert known is not None
    assert known.state.reason == "not_found", "before any process has run"
    assert f"unless this is fixed: cannot read the key {missing}" in caplog.text
    for every, again in ((900.0, False), (None, True)):
        check = started(key=str(good), seal_every_seconds=every)
        assert check is not None
        run_out(check)
        assert check.state.usable
        clock.advance(round(RECHECK_SECONDS * NS_PER_S) - 1)
        check.each_tick()
        assert not check.child.is_busy
        clock.advance(1)
        check.each_tick()
        assert check.is_in_the_way == again, "where no seal shows that the key still signs"
        if again:
            until_ended(check.child.pid)
            check.each_tick()
        assert caplog.text.count("the key signs: ") == 1, "that it still does is no news"
        caplog.clear()
        check.child.stop()
