"""Sealing and verifying: the content of a good ledger, and that no altered one is accepted."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from flopsd.attestation.seal import Sealed
from flopsd.attestation.signed_statement import read_ledger
from flopsd.attestation.signing.keys import default_key
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.signing.sigstore_bundle import sigstore_bundle
from flopsd.core.envelope import parse_envelope
from flopsd.core.model import GapReason
from flopsd.errors import JournalDamagedError, LedgerError, NotVerifiedError
from flopsd.report.contents.coverage import MAX_GAPS, coverage_of
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.ledger_text import sealed_text
from flopsd.settings.data_files import config_dir, load_peaks
from tests.support.process import in_process
from tests.support.runs import H100, Run, copied, finished, sealed_run, verified
from tests.support.story import chain


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_run(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def copy(sealed: Sealed, tmp_path: Path) -> Sealed:
    return copied(sealed, tmp_path)


def verify(sealed: Sealed, **how: Any) -> dict[str, Any]:
    return dict(verified(sealed, **how).statement)


def test_a_sealed_ledger_verifies_and_states_the_metered_work(sealed: Sealed) -> None:
    predicate = verify(sealed)["predicate"]
    cycles = 1500 * 132 * 10**6 * 20  # 12 + 3 + 5 seconds were measured
    measured = cycles // 2 * 4096 + cycles // 10 * 256
    executed = predicate["totals"]["executed"]
    assert executed["measured"] == str(measured)
    assert executed["low"] == str(cycles // 2 * 2048 * 91 // 100)
    assert int(executed["high"]) > measured
    assert executed["mayBeIntegerFlop"] == str(cycles // 10 * 256)  # the FP32 pipe
    assert predicate["totals"]["integerOperations"]["measured"] == str(cycles // 50 * 8192)
    assert sealed.predicate == predicate
    assert list(executed["byEvidence"]) == ["activity", "gap", "utilization"]
    assert executed["byEvidence"]["utilization"]["measured"] is None
    assert predicate["coverage"]["gapSecondsByReason"] == {
        "daemon_down": "8.000000000",
        "driver_timeout": "4.000000000",
    }
    assert predicate["coverage"]["observedSeconds"] == "40.000000000"
    assert predicate["coverage"]["spanSeconds"] == predicate["deviceSeconds"] == "52.000000000"
    gaps = sum(float(gap["seconds"]) for gap in predicate["coverage"]["gaps"])
    assert gaps == float(predicate["coverage"]["gapSeconds"]) == 12
    assert predicate["energyJoules"] == "25.000"  # 2 devices, 26 s less the first, at half a joule a second
    assert [i["endReason"] for i in predicate["incarnations"]] == [None, "sigterm"]
    guidelines = predicate["totals"]["guidelines"]  # nothing is declared: all of it may count, or none
    assert (guidelines["low"], guidelines["measured"], guidelines["high"]) == ("0", None, executed["high"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s: s.ledger.write_text('{"payload": "e30=", "payloadType": "x"}'), "is not signed"),
        (lambda s: s.ledger.write_text('{"a":' + "[" * 100_000), "nested too deeply|is not JSON"),
        (lambda s: s.ledger.unlink(), "cannot read the ledger"),
    ],
)  # fmt: skip
def test_an_altered_ledger_is_refused(copy: Sealed, spoil: Callable[[Sealed], object], reason: str) -> None:
    """The published vectors have a case for each other change."""
    verify(copy)
    spoil(copy)
    with pytest.raises(NotVerifiedError, match=reason):
        verify(copy)


def test_a_file_of_another_kind_is_refused_with_a_hint(copy: Sealed) -> None:
    """Files that somebody who received a folder by mail tries first."""
    packed = copy.ledger.with_name("mail.zip")
    with ZipFile(packed, "w") as archive:
        archive.write(copy.ledger, "ledger.json")
    saved_anew, in_windows = (copy.ledger.with_name(name) for name in ("saved.json", "windows.json"))
    saved_anew.write_text(copy.ledger.read_text(), encoding="utf-8-sig")
    in_windows.write_text(copy.ledger.read_text(), encoding="utf-16")
    bundle = copy.ledger.with_name("ledger.sigstore.json")
    bundle.write_bytes(sigstore_bundle(parse_envelope(copy.ledger.read_bytes()), load_public(str(copy.public_key))))
    for given, code, reason, hint in (
        (copy.ledger.parent, "", "Is a directory", "name one of the ledgers in it"),
        (
            copy.journal,
            "json_malformed",
            "is a journal, not a ledger",
            f"name the ledger next to it, {copy.ledger.name}",
        ),
        (packed, "json_not_utf8", "is a ZIP archive", "unpack it"),
        (saved_anew, "json_malformed", "begins with a byte order mark", "as it was sealed"),
        (in_windows, "json_not_utf8", "begins with a byte order mark", "as it was sealed"),
        (bundle, "envelope_malformed", "is a Sigstore bundle", "jq .dsseEnvelope"),
        (copy.public_key, "json_malformed", "is not a ledger", "name NAME.json"),
    ):
        with pytest.raises(NotVerifiedError, match=reason) as caught:
            read_ledger(given)
        assert hint in caught.value.hint
        assert caught.value.code == code


def test_a_ledger_may_be_named_like_a_journal(copy: Sealed) -> None:
    named = copy.ledger.rename(copy.ledger.with_name("odd.journal.jsonl"))
    assert read_ledger(named) == named.read_bytes()


def test_a_journal_with_converted_line_ends_is_refused_for_that_reason(copy: Sealed) -> None:
    copy.journal.write_bytes(copy.journal.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(NotVerifiedError, match="its line ends are CR LF: mail, git or an editor changed the file"):
        verify(copy)


@pytest.mark.parametrize("edit", [{"policies": [{}]}, {"policies": 7}, {"precision": None}])
def test_odd_members_in_a_journal_are_reported_and_cause_no_crash(tmp_path: Path, edit: dict[str, Any]) -> None:
    run = finished(tmp_path / "state", 2)
    begin, *others = (json.loads(line)["r"] for line in run.state.journal.read_bytes().splitlines())
    begin.update(edit)
    if begin["precision"] is None:
        del begin["precision"]
    run.state.journal.write_bytes(chain([begin, *others]))
    with pytest.raises(JournalDamagedError, match="journal line 1: "):
        run.seal(tmp_path / "ledger.json")


def test_a_peak_table_shipped_with_the_ledger_is_used_only_if_given_explicitly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custom = tmp_path / "mine.yaml"
    custom.write_text((config_dir() / "peaks.yaml").read_text() + "\n# ours\n")
    monkeypatch.setattr("tests.support.runs.table", lambda: load_peaks(str(custom)))
    sealed = finished(tmp_path / "state", 1).seal(tmp_path / "ledger.json", peaks_files=[str(custom)])
    sha256 = load_peaks(str(custom)).sha256
    beside = tmp_path / f"ledger.peaks-{sha256[:16]}.yaml"
    with pytest.raises(NotVerifiedError, match="not flopsd's own") as caught:
        verify(sealed)
    assert str(beside) in str(caught.value)
    assert sha256 in str(caught.value)
    assert f"--peaks {beside}" in caught.value.hint
    assert "REPLAY" not in sealed_text(sealed)
    replay = replace(sealed, predicate={**sealed.predicate, "replay": {"recording": "r.jsonl"}})
    assert "REPLAY      read from the recording r.jsonl: no hardware was metered" in sealed_text(replay)
    node = {**sealed.predicate["node"], "rank": 0, "jobNodes": []}
    alone = replace(sealed, predicate={**sealed.predicate, "node": node})
    assert "NODE        this is rank 0 of its job: its answer is of this node" in sealed_text(alone)
    command = shlex.split(sealed_text(sealed).splitlines()[-1])[1:]  # the command that sealing prints
    headline = f"PEAK TABLE: rated by a peak table that is not flopsd's own: {beside.name}, SHA-256 {sha256}"
    assert headline in " ".join(in_process(*command, code=0).stdout.split())
    stated = json.loads(in_process(*command, "--json", code=0).stdout)["foreignFiles"]
    assert stated == [{"kind": "peak table", "sha256": sha256, "id": None, "file": beside.name}]
    reported = in_process("report", *command[1:], code=0).stdout
    assert headline in " ".join(reported.split())
    merged = (
        "merge", *command[1:2], "--trust", *command[3:4], "--key", str(default_key(tmp_path / "state")), "--ledger", str(tmp_path / "job"),
        "--nodes", "1",
    )  # fmt: skip
    assert "not flopsd's own" in in_process(*merged, code=3).stderr
    assert headline in " ".join(in_process(*merged, *command[4:], code=0).stdout.split())
    check = ("verify", str(tmp_path / "job"), "--key", str(tmp_path / "job.pub"))
    assert f"job.peaks-{sha256[:16]}.yaml, SHA-256 {sha256}" in in_process(*check, code=3).stdout
    assert headline in " ".join(in_process(*check, *command[4:], code=0).stdout.split())
    beside.unlink()
    with pytest.raises(NotVerifiedError, match="no peak table with SHA-256"):
        verify(sealed)


def test_an_unwritable_place_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    run = finished(tmp_path / "state", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot write the ledger") as caught:
        run.seal(tmp_path / "file" / "ledger.json")
    assert "the journal is intact" in caught.value.hint


@pytest.mark.long
def test_a_long_list_of_gaps_is_capped_but_their_sum_is_not(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    for _ in range(1100):
        run.meter(1, GapReason.DRIVER_ERROR)
        run.meter(1)
    run.finish()
    statement = verify(run.seal(tmp_path / "ledger.json"))
    coverage = statement["predicate"]["coverage"]
    assert (len(coverage["gaps"]), coverage["gapsNotListed"]) == (1000, "100")
    assert coverage_of(LedgerObject(statement["predicate"], "")).gaps_left_out == 1100 - MAX_GAPS
    assert coverage["gapSeconds"] == "1100.000000000"
