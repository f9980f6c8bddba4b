"""A ledger seals a prefix of its journal: any longer version of the journal fits it, and adds nothing."""

import io
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.attestation.ledger_files import journal_beside, public_key_beside
from flopsd.attestation.seal import Sealed
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.verify import verify_ledger
from flopsd.core.ledger.statement import encode
from flopsd.errors import JournalDamagedError, NotVerifiedError
from flopsd.journal.framing import JournalLine
from flopsd.journal.sealed_prefix import longest_prefix
from flopsd.report.ledger_text import verified_text
from tests.second_implementation.arithmetic import payload_of
from tests.support.runs import Run, verified


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Sealed]:
    """One run, sealed after each of five checkpoints while it continued, with a kill in the middle."""
    folder = tmp_path_factory.mktemp("states")
    run = Run(folder / "state")
    sealed = []
    for number in range(5):
        run.meter(11)
        sealed.append(run.seal(folder / f"{number}.json"))
        if number == 2:
            run.restart()
    run.kill()
    return sealed


def test_each_ledger_fits_each_longer_journal_and_no_shorter_one(states: list[Sealed]) -> None:
    fitting = 0
    for i, older in enumerate(states):
        alone = verified(older)
        assert alone.unsealed_records == 0
        for j, other in enumerate(states):
            if j < i:
                with pytest.raises(NotVerifiedError, match="is truncated"):
                    verified(older, journal=other.journal)
                continue
            found = verified(older, journal=other.journal)
            assert found.statement == alone.statement
            records = len(other.journal.read_bytes().splitlines())
            assert found.records + found.unsealed_records == records
            assert (found.unsealed_records > 0) == (j > i)
            fitting += 1
    assert fitting == 15


def test_the_text_names_the_unsealed_records(states: list[Sealed]) -> None:
    found = verified(states[1], journal=states[4].journal)
    text = verified_text(found)
    assert "ROLLING: sealed while the run went on" in text
    assert f"{found.unsealed_records} more record" in text
    last = found.statement["predicate"]["method"]["journal"]["lastRecordAt"]
    assert f"up to {last} only" in text
    assert states[1].predicate["incarnations"][-1]["endReason"] is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data + b"x", "no newline at its end"),
        (lambda data: data + data.splitlines(keepends=True)[-1], "its hash does not continue the chain"),
        (lambda data: data + b"not a record\n", "not a framed record"),
        (lambda data: b"\n" + data, "journal line 1: not a framed record"),
    ],
)
def test_a_journal_with_an_invalid_continuation_is_refused(
    states: list[Sealed], tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    spoilt = tmp_path / "spoilt.jsonl"
    spoilt.write_bytes(spoil(states[3].journal.read_bytes()))
    for ledger in (states[1], states[3]):
        with pytest.raises(NotVerifiedError, match=reason):
            verified(ledger, journal=spoilt)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ("0", "is truncated: it has 0 records"),
        ("-1", "does not name its journal"),
        ("many", "does not name its journal"),
        ("100", "is truncated"),
        ("99999999999", "the size of the journal differs from the statement"),
        (" 12", "is not a count"),
    ],
)
def test_a_signed_lie_about_the_size_is_found(states: list[Sealed], tmp_path: Path, size: str, reason: str) -> None:
    key = load_signer(str(states[0].ledger.parent / "state" / "flopsd-key.pem"))
    document = payload_of(states[1].ledger)
    document["predicate"]["method"]["journal"]["bytes"] = size
    ledger = tmp_path / "ledger.json"
    ledger.write_bytes(sign(encode(document), key))
    shutil.copy(states[1].journal, journal_beside(ledger))
    shutil.copy(states[1].public_key, public_key_beside(ledger))
    with pytest.raises(NotVerifiedError, match=reason):
        verify_ledger(open_ledger(ledger, [load_public(str(states[1].public_key))]))


@given(cut=st.integers(0, 10**6))
def test_the_whole_records_of_any_copy_of_a_growing_journal_are_a_prefix(states: list[Sealed], cut: int) -> None:
    data = states[4].journal.read_bytes()
    part = data[: cut % (len(data) + 1)]
    lines: list[JournalLine] = []
    found, whole = longest_prefix(io.BytesIO(part), lines.append), part[: part.rfind(b"\n") + 1]
    assert b"".join(line.framed() for line in lines) == whole
    assert found.left_out_bytes == len(part) - len(whole)
    assert bool(found.reason) == bool(found.left_out_bytes)
    assert (found.facts.records, found.facts.size_bytes) == (len(lines), len(whole))
    assert found.facts.sha256 == sha256(whole).hexdigest()


@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_an_altered_record_is_never_in_a_prefix(states: list[Sealed], at: int, flip: int) -> None:
    data = bytearray(states[4].journal.read_bytes())
    at %= len(data)
    begin = data.rfind(b"\n", 0, at) + 1
    data[at] ^= flip
    try:
        found = longest_prefix(io.BytesIO(data), lambda _: None)
    except JournalDamagedError:
        return  # records follow the damage: altered, not torn
    assert found.facts.size_bytes <= begin


def test_records_after_an_altered_one_are_not_left_out(states: list[Sealed]) -> None:
    data = bytearray(states[4].journal.read_bytes())
    data[100] ^= 1
    with pytest.raises(JournalDamagedError, match="journal line 1: "):
        longest_prefix(io.BytesIO(data), lambda _: None)
