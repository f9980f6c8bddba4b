"""A PIN that a token refused is sent to it only once, whoever seals: counted by OpenSC's spy between flopsd and
SoftHSM."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_hsm import PIN, Tokens, module_path
from tests.support.process import environment, flopsd, free_port, get, predicate, started, wait_until
from tests.support.scenario import Scenario, Segment, h100
from tests.support.tools import missing

pytestmark = [pytest.mark.tool("softhsm2-util"), pytest.mark.tool("pkcs11-tool")]
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib")


class Spied:
    """Two tokens with a key each, and the log of every call of their module."""

    def __init__(self, folder: Path) -> None:
        tokens = Tokens.new(folder / "softhsm")
        for token in ("one", "two"):
            tokens.initialise(token)
            tokens.new_key(token, "ledger", "01")
        spies = (Path(folder, "pkcs11-spy.so") for folder in _LIBRARIES)
        self.module = next((path for path in spies if path.is_file()), None) or missing("there is no pkcs11-spy.so")
        self.log = folder / "calls"
        self.log.touch()
        self.variables = {**tokens.environment, "PKCS11SPY": module_path(), "PKCS11SPY_OUTPUT": str(self.log)}

    def key(self, token: str, query: str = "") -> str:
        return f"pkcs11:token={token};object=ledger?module-path={self.module}{query}"

    def calls(self, function: str) -> int:
        return len(re.findall(rf": {function}$", self.log.read_text(), re.MULTILINE))


@pytest.fixture
def spied(tmp_path: Path) -> Spied:
    return Spied(tmp_path)


def test_a_pin_and_a_token_that_change_during_a_run(spied: Spied, standin: Path, tmp_path: Path) -> None:
    """A wrong PIN, the right one, no token, the token again with another wrong PIN: one message for each, and one
    login for each wrong PIN, whoever checks or seals."""
    scenario = Scenario((h100((Segment(1000, hmma=0.5, util=100, watts=500),)),)).write(tmp_path / "scenario.txt")
    env, pin, port = environment(standin, scenario, **spied.variables), tmp_path / "pin", free_port()
    state, ledger, tokens = tmp_path / "state", tmp_path / "ledger.json", tmp_path / "softhsm" / "tokens"
    key = spied.key("one", f"&pin-source=file:{pin}")
    where = ("--state-dir", str(state), "--ledger", str(ledger), "--key", key)
    note, away = state / "refused-pin.json", tmp_path / "away"

    def reason() -> str:
        return str(json.loads(get(f"http://127.0.0.1:{port}/api/status")[1])["signingKey"]["reason"])

    def refusals() -> int:
        return spied.log.read_text().count("CKR_PIN_INCORRECT")

    pin.write_text("0000\n")
    listen = ("--listen", f"127.0.0.1:{port}", "--interval", "0.2", "--seal-every", "1")
    with started("exec", *where, *listen, "--", "sleep", "600", env=env) as program:
        program.wait_for("unless this is fixed: the PIN is wrong for the P-256 key 'ledger' on token 'one'")
        assert reason() == "pin_refused"
        wait_until(lambda: spied.calls("C_Initialize") >= 2, "a second check of the key")
        assert (spied.calls("C_Login"), note.stat().st_mode & 0o777) == (1, 0o600)
        pin.write_text(PIN + "\n")
        program.wait_for("the key signs: the P-256 key 'ledger' on token 'one'")
        assert not note.exists()
        wait_until(ledger.exists, "a rolling seal")
        tokens.rename(away)
        tokens.mkdir()
        program.wait_for("unless this is fixed: no tokens of .*: no token; plug it in")
        assert reason() == "no_token"
        pin.write_text("1111\n")
        tokens.rmdir()
        away.rename(tokens)
        wait_until(lambda: reason() == "pin_refused", "another refusal")
        program.process.send_signal(signal.SIGTERM)
        program.finish()
    said = re.findall(r"SEALED unless this is fixed: (\w+ \w+)|the key (signs):|NOT SEALED: (the PIN)", program.text)
    assert ["".join(words) for words in said] == ["the PIN", "signs", "no tokens", "the PIN", "the PIN"], program.text
    assert "NO ROLLING SEAL" not in program.text
    assert f"flopsd does not send the token this PIN of file:{pin} again" in program.text
    assert f"remove {note}" in program.text
    doctor = " ".join(flopsd("doctor", *where, env=env).stdout.split())
    assert "fail signing key: the PIN is wrong for the P-256 key 'ledger' on token 'one'" in doctor
    assert refusals() == 2
    pin.write_text(PIN + "\n")
    flopsd("seal", *where, env=env, code=0)
    assert predicate(ledger)["incarnations"]
    assert not note.exists()


def test_another_pin_or_token_and_a_removed_note_are_tried(spied: Spied, tmp_path: Path) -> None:
    note = tmp_path / "refused-pin.json"
    one, two = spied.key("one"), spied.key("two")
    steps: list[tuple[str, str, str, int, str]] = [  # the change of the note, key, PIN, logins, error
        ("a folder", one, "zulu", 1, "wrong"),  # in its place, so that it cannot be written
        ("", one, "zulu", 0, "wrong"),
        ("no folder", one, PIN, 1, ""),
        ("", one, "zulu", 1, "wrong"),
        ("", one, "zulu", 0, "wrong"),
        ("", one, "yankee", 1, "wrong"),
        ("", two, "yankee", 1, "wrong"),
        ("", two, "yankee", 0, "wrong"),
        ("locked", two, "yankee", 0, "locked"),
        ("removed", two, "yankee", 1, "wrong"),
        ("damaged", two, "yankee", 1, "wrong"),
        ("", two, PIN, 1, ""),
        ("", two, "yankee", 1, "wrong"),
    ]
    results = [json.loads(line) for line in _loaded(spied, note, steps).splitlines()]
    expected = [
        {"logins": logins, "says": f"the PIN is {why} for the P-256 key" if why else "", "noted": bool(why) and at > 1}
        for at, (_, _, _, logins, why) in enumerate(steps)
    ]
    assert results == expected
    assert "yankee" not in note.read_text()


def _loaded(spied: Spied, note: Path, steps: list[tuple[str, str, str, int, str]]) -> str:
    """Load the keys in order in a separate process: a process keeps its first module for good."""
    code = """
import json, os, sys
from pathlib import Path
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.errors import SigningKeyError
note, log, steps = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
memory = os.memfd_create("memory")
for prepared, key, pin, *_ in steps:
    if prepared == "removed":
        note.unlink()
    elif prepared == "locked":
        note.write_text(json.dumps({**json.loads(note.read_text()), "reason": "locked"}))
    elif prepared == "a folder":
        note.mkdir()
    elif prepared == "no folder":
        note.rmdir()
    elif prepared == "damaged":
        note.write_text('{"reason": "wrong", "salt": 1}')
    before, says = log.read_text().count(": C_Login\\n"), ""
    try:
        load_signer(key, {"FLOPSD_PKCS11_PIN": pin}, refused_pin=RefusedPin(note, memory))
    except SigningKeyError as fault:
        says = str(fault).partition(" 'ledger'")[0]
    logins = log.read_text().count(": C_Login\\n") - before
    print(json.dumps({"logins": logins, "says": says, "noted": note.is_file()}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(note), str(spied.log), json.dumps(steps)],
        env={**environment(None), **spied.variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the next daemon, not this one, will send the refused PIN to the token again") == 1
    return done.stdout
