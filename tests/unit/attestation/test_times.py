"""The times that a ledger states: rewritten or refused, and flagged where they cannot all be true."""

import hashlib
import json
from pathlib import Path

import pytest

from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import default_key, load_signer
from flopsd.attestation.times import TOLERANCE_NS, seal_time_doubts
from flopsd.core.envelope import parse_envelope
from flopsd.core.ledger.statement import encode
from flopsd.core.values import is_timestamp, utc_ns
from flopsd.errors import JournalDamagedError
from flopsd.report.ledger_text import verified_text
from flopsd.system.clock import NS_PER_S, rfc3339
from tests.make_vectors.files import parsed
from tests.support.jobs import Nodes, sagemaker
from tests.support.process import in_process
from tests.support.runs import Run, finished, verified
from tests.support.story import chain

ERASE = "2026-09-21T14:13:32Z\x1b[1A\x1b[2K"  # moves up a line and clears it: the line that says ROLLING
HOUR_NS = 3600 * NS_PER_S


def rolling(folder: Path) -> tuple[Sealed, str]:
    """A ledger sealed while the run was still running, and its key."""
    run = Run(folder / "state")
    run.meter(12)
    sealed = run.seal(folder / "ledger.json", live=True)
    run.kill()
    return sealed, str(default_key(run.state.path))


def forge(sealed: Sealed, key: str, time: str) -> None:
    """Give the last record another time, and sign the result: a holder of the key can."""
    records = [json.loads(line)["r"] for line in sealed.journal.read_bytes().splitlines()]
    records[-1]["utc"] = time
    journal = chain(records)
    statement = json.loads(parse_envelope(sealed.ledger.read_bytes()).payload)
    digest, predicate = hashlib.sha256(journal).hexdigest(), statement["predicate"]
    statement["subject"][0]["digest"]["sha256"] = digest
    facts = {
        "sha256": digest,
        "bytes": str(len(journal)),
        "headSha256": parsed(journal)[-1].head.hex(),
        "lastRecordAt": time,
    }
    predicate["method"]["journal"].update(facts)
    predicate["incarnations"][-1]["lastRecordAt"] = time
    sealed.journal.write_bytes(journal)
    sealed.ledger.write_bytes(sign(encode(statement), load_signer(key)))


@pytest.mark.parametrize("time", [ERASE, "2026-09-31T14:13:32Z", "now", ""])
def test_an_invalid_time_is_refused_and_never_printed_raw(tmp_path: Path, time: str) -> None:
    sealed, key = rolling(tmp_path)
    forge(sealed, key, time)
    ledger, public = str(sealed.ledger), str(sealed.public_key)
    for arguments, code in (
        (("verify", ledger, "--key", public), 3),
        (("report", ledger, "--key", public), 3),
        (("report", ledger), 1),
        (("countersign", ledger, "--key", key, "--trust", public), 3),
        (("merge", ledger, "--key", key, "--trust", public, "--ledger", str(tmp_path / "job.json")), 3),
    ):
        done = in_process(*arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "\x1b" not in done.stdout + done.stderr
    with pytest.raises(JournalDamagedError, match="contains records that no daemon writes"):
        seal_journal(sealed.journal, key, tmp_path / "again.json", Run(tmp_path / "other").clock, live=True)


def test_a_time_is_reformatted_before_printing(tmp_path: Path) -> None:
    """Leading zeros of a fraction are kept; digits beyond microseconds are dropped."""
    sealed, key = rolling(tmp_path)
    forge(sealed, key, "2026-09-21T14:13:32.000001999Z")
    again = seal_journal(sealed.journal, key, tmp_path / "again.json", Run(tmp_path / "other").clock, live=True)
    stated = in_process("verify", str(again.ledger), "--key", str(again.public_key), code=0).stdout
    assert "up to 2026-09-21T14:13:32.000001Z only" in " ".join(stated.split())
    assert "ROLLING" in in_process("report", str(again.ledger), code=0).stdout


@pytest.mark.parametrize(
    ("hours", "said"), [(-1, "before"), (-24, "before"), (0, ""), (24, ""), (24 * 365 * 20, "here it is")]
)
def test_a_seal_with_an_impossible_time_is_flagged(tmp_path: Path, hours: int, said: str) -> None:
    run = finished(tmp_path / "state", 12)
    now_ns = run.clock.wall_ns() + 48 * HOUR_NS
    run.clock.step_wall(hours * HOUR_NS)
    sealed = run.seal(tmp_path / "ledger.json")
    doubts = seal_time_doubts(verified(sealed).statement["predicate"], now_ns)
    expected = "and the first record of" if said == "before" else said
    assert [expected in doubt for doubt in doubts] == [True] * bool(said)
    text = verified_text(verified(sealed), now_ns)
    assert ("CLOCK: the seal is of" in text) is bool(said)
    assert ("CLOCK" in in_process("report", str(sealed.ledger), code=0).stdout) is bool(said)
    flags = json.loads(in_process("report", str(sealed.ledger), "--json", code=0).stdout)["flags"]
    assert ("CLOCK" in flags) is bool(said)
    stated = json.loads(
        in_process("verify", str(sealed.ledger), "--key", str(sealed.public_key), "--json", code=0).stdout
    )
    assert len(stated["sealTimeDoubts"]) == bool(said)


def test_a_seal_dated_between_the_first_and_last_record_is_flagged(tmp_path: Path) -> None:
    run = finished(tmp_path / "state", 200)
    run.clock.step_wall(-100 * NS_PER_S)
    (doubt,) = seal_time_doubts(verified(run.seal(tmp_path / "ledger.json")).statement["predicate"])
    assert "and the last record of" in doubt


@pytest.mark.parametrize(("apart_ns", "doubts"), [(TOLERANCE_NS, 0), (TOLERANCE_NS + 1, 1)])
def test_clocks_may_differ_by_the_tolerance(apart_ns: int, doubts: int) -> None:
    first = "2026-09-21T14:13:20Z"
    earlier_ns = utc_ns(first) - apart_ns

    def doubted(sealed_at: str, now_ns: int | None = None) -> int:
        predicate = {"kind": "job", "startedAt": first, "lastRecordAt": first, "method": {"sealedAt": sealed_at}}
        return len(seal_time_doubts(predicate, now_ns))

    assert (doubted(first, earlier_ns), doubted(rfc3339(earlier_ns))) == (doubts, doubts)


def test_a_merged_ledger_with_an_impossible_time_is_flagged(nodes: Nodes) -> None:
    one, two = nodes.ledger(sagemaker(0), later=7200), nodes.ledger(sagemaker(1), later=7200)
    merged = nodes.merge(one, two).ledger
    stated = in_process("verify", str(merged), "--key", str(nodes.public), code=0).stdout
    assert "CLOCK: the seal is of 2026-09-21T14:13:20Z, and the first record of" in stated
    forged = json.loads(parse_envelope(merged.read_bytes()).payload)
    forged["predicate"]["children"][0]["lastRecordAt"] = ERASE
    merged.write_bytes(sign(encode(forged), load_signer(nodes.key)))
    done = in_process("verify", str(merged), "--key", str(nodes.public), code=3)
    assert "is not a time in UTC" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_days_missing_from_the_calendar_are_no_times() -> None:
    assert is_timestamp("2024-02-29T23:59:59Z")
    assert is_timestamp(rfc3339(-1))
    days = ("2023-02-29", "2100-02-29", "2026-04-31", "2026-13-01", "2026-00-01", "2026-01-00", "0000-01-01")
    times = ("24:00:00", "23:60:00", "23:59:60")
    assert not any(map(is_timestamp, [*(f"{day}T00:00:00Z" for day in days), *(f"2026-01-01T{at}Z" for at in times)]))
