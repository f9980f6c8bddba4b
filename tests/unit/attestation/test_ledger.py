"""Sealing and verifying: what a good ledger says, and that no changed one is believed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.keys import ensure_key, load_public
from flopsd.attestation.verify import verify_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.core.model import Active, Evidence, GapReason, Pipe, Precision, Reading, Sweep
from flopsd.daemon.source_tracker import Message
from flopsd.errors import JournalDamagedError, LedgerError, NotVerifiedError
from flopsd.journal.framing import GENESIS, frame
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.independent import payload_of
from tests.support.runs import H100, STRANGER, Run, copied, finished, sealed_run


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_run(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def copy(sealed: Sealed, tmp_path: Path) -> Sealed:
    return copied(sealed, tmp_path)


def verify(sealed: Sealed, **how: Any) -> dict[str, Any]:
    return dict(verify_ledger(sealed.ledger, [load_public(str(sealed.public_key))], **how).statement)


def test_a_sealed_ledger_verifies_and_says_what_was_metered(sealed: Sealed) -> None:
    predicate = verify(sealed)["predicate"]
    cycles = 1500 * 132 * 10**6 * 20  # 12 + 3 + 5 seconds were measured
    measured = cycles // 2 * 4096 + cycles // 50 * 8192 + cycles // 10 * 256
    executed = predicate["totals"]["executed"]
    assert executed["measured"] == str(measured)
    assert executed["low"] == str(cycles // 2 * 2048 * 95 // 100)
    assert int(executed["high"]) > measured
    assert (sealed.figures.measured_flop, sealed.figures.low_flop) == (measured, int(executed["low"]))
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
    assert [i["endReason"] for i in predicate["incarnations"]] == [None, "test"]
    guidelines = predicate["totals"]["guidelines"]  # nothing is declared: all of it may count, and none of it
    assert (guidelines["low"], guidelines["measured"], guidelines["high"]) == ("0", None, executed["high"])


def test_the_payload_is_readable_and_holds_no_float(sealed: Sealed) -> None:
    raw = parse_envelope(sealed.ledger.read_bytes()).payload
    assert b"\n  " in raw
    json.loads(raw, parse_float=lambda text: pytest.fail(f"float {text}"))
    assert sealed.journal.name == "ledger.journal.jsonl"
    assert sealed.public_key.name == "ledger.pub"


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    run = finished(tmp_path / "state", 3)
    assert run.seal(tmp_path / "a.json").ledger.read_bytes() == run.seal(tmp_path / "b.json").ledger.read_bytes()


def _lines(change: Callable[[list[bytes]], object]) -> Callable[[Sealed], None]:
    def spoil(sealed: Sealed) -> None:
        lines = sealed.journal.read_bytes().splitlines(keepends=True)
        change(lines)
        sealed.journal.write_bytes(b"".join(lines))

    return spoil


def _envelope(change: Callable[[dict[str, Any]], object]) -> Callable[[Sealed], None]:
    def spoil(sealed: Sealed) -> None:
        document = json.loads(sealed.ledger.read_bytes())
        changed = change(document)
        sealed.ledger.write_text(changed if isinstance(changed, str) else json.dumps(document))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_lines(lambda lines: lines.append(lines[-1])), "journal line 13: its hash"),
        (_envelope(lambda d: d.pop("signatures")), "is not signed"),
        (_envelope(lambda _: "[" * 100_000), "nested too deeply|is not JSON"),
        (lambda s: s.ledger.unlink(), "cannot read the ledger"),
    ],
)  # fmt: skip
def test_what_was_changed_is_not_believed(copy: Sealed, spoil: Callable[[Sealed], None], reason: str) -> None:
    """Beside the published vectors, which have a case for each other change."""
    verify(copy)
    spoil(copy)
    with pytest.raises(NotVerifiedError, match=reason):
        verify(copy)


@pytest.mark.parametrize("edit", [{"policies": [{}]}, {"policies": 7}, {"recovered": "x", "precision": None}])
def test_odd_members_in_a_journal_are_told_and_are_no_crash(tmp_path: Path, edit: dict[str, Any]) -> None:
    run = finished(tmp_path / "state", 2)
    head, lines = GENESIS, list[bytes]()
    for raw in run.state.journal.read_bytes().splitlines():
        record = json.loads(raw)["r"]
        if record["kind"] == "begin":
            record.update(edit)
            if record["precision"] is None:
                del record["precision"]
        line, head = frame(head, record)
        lines.append(line)
    run.state.journal.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamagedError, match="contains records that no daemon writes: "):
        run.seal(tmp_path / "ledger.json")


def test_a_reading_of_a_time_that_has_not_come_is_a_gap_and_spoils_no_journal(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    run.meter(2)
    run.clock.advance(NS_PER_S)
    now_ns = run.clock.boottime_ns()
    work = Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 1})
    ahead = Reading(H100.uid, run.since_ns, now_ns + 3600 * NS_PER_S, work)
    run.writer.take(Message("sim", now_ns, run.devices, Sweep((ahead,))))
    run.since_ns = now_ns
    run.meter(2)
    run.finish()
    told = payload_of(run.seal(tmp_path / "ledger.json").ledger)["predicate"]["coverage"]
    assert (told["gapSecondsByReason"], told["observedSeconds"]) == ({"out_of_range": "1.000000000"}, "4.000000000")


def test_a_replay_is_no_evidence(tmp_path: Path) -> None:
    sealed = sealed_run(tmp_path, replay=True)
    with pytest.raises(NotVerifiedError, match="replay of the recording 'r.jsonl': no hardware was metered") as caught:
        verify(sealed)
    assert "--allow-replay" in caught.value.hint
    assert verify(sealed, allow_replay=True)["predicate"]["replay"]["recording"] == "r.jsonl"


def test_of_a_stranger_nothing_is_said_and_no_upper_bound_given(tmp_path: Path) -> None:
    sealed = sealed_run(tmp_path, devices=(H100, STRANGER))
    predicate = verify(sealed)["predicate"]
    assert predicate["totals"]["executed"]["high"] is None
    assert predicate["totals"]["executed"]["measured"] is not None
    stranger = predicate["devices"][1]
    assert (stranger["peakRow"], stranger["executed"]) == (None, {"low": "0", "measured": None, "high": None})
    assert [w["evidence"] for w in stranger["work"]] == ["gap"]
    assert "unknown_device" in predicate["coverage"]["gapSecondsByReason"]
    # Its energy is unknown, not zero: the sum says how much device time it leaves out.
    assert (stranger["energyJoules"], stranger["energyUncountedSeconds"]) == (None, "26.000000000")
    assert (predicate["energyJoules"], predicate["energyUncountedSeconds"]) == (
        "12.500",
        "27.000000000",
    )  # and the first second


def test_without_any_device_nothing_is_known(tmp_path: Path) -> None:
    run = finished(tmp_path / "state", 3, devices=())
    executed = verify(run.seal(tmp_path / "ledger.json"))["predicate"]["totals"]["executed"]
    assert (executed["low"], executed["measured"], executed["high"]) == ("0", None, None)


def test_a_declared_format_narrows_the_interval(tmp_path: Path) -> None:
    open_ended = sealed_run(tmp_path / "a").figures
    declared = sealed_run(tmp_path / "b", precision=Precision((("bf16", 1_000_000),), "config"))
    assert declared.figures.measured_flop == open_ended.measured_flop
    assert declared.figures.low_flop > open_ended.low_flop
    assert declared.figures.high_flop is not None
    assert open_ended.high_flop is not None
    assert declared.figures.high_flop < open_ended.high_flop
    rows = verify(declared)["predicate"]["devices"][0]["work"]
    assert [(r["precision"], r["precisionDeclaredBy"]) for r in rows if r["pipe"] == "tensor_hmma"] == [
        ("bf16", "config")
    ]
    assert [(r["precision"], r["precisionDeclaredBy"]) for r in rows if r["pipe"] == "fp32"] == [("fp32", None)]


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_both_kinds_of_key_sign_and_verify(tmp_path: Path, kind: str) -> None:
    private = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1())
    file = tmp_path / "key.pem"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    run = finished(tmp_path / "state", 2)
    sealed = run.seal(tmp_path / "ledger.json", f"file:{file}")
    verify(sealed)
    assert not (tmp_path / "state" / "flopsd-key.pem").exists()
    keyid = json.loads(sealed.ledger.read_bytes())["signatures"][0]["keyid"]
    assert len(keyid) == 64


def test_a_custom_peak_table_goes_along(tmp_path: Path) -> None:
    from flopsd.core.ledger.history import read_history
    from flopsd.daemon.writer import Writer, WriterSettings
    from flopsd.journal.journal import Journal
    from flopsd.journal.state_dir import StateDir
    from flopsd.settings.data_files import config_dir, load_peaks
    from tests.support.runs import CONTEXT

    custom = tmp_path / "mine.yaml"
    custom.write_text((config_dir() / "peaks.yaml").read_text() + "\n# ours\n")
    state = StateDir(tmp_path / "state")
    state.acquire()
    journal = Journal(state)
    journal.recover("aside")
    writer = Writer(
        journal, load_peaks(str(custom)), WriterSettings(10**9, 10**10, "0" * 64, None, ()), CONTEXT, FakeClock(), print
    )
    writer.begin("run", read_history(journal.read()), None)
    writer.close("test")
    uri, _ = ensure_key(None, state.path)
    sealed = seal_journal(state.journal, uri, tmp_path / "ledger.json", FakeClock(), str(custom))
    custom.unlink()
    verify(sealed)
    (tmp_path / "ledger.peaks.yaml").unlink()
    with pytest.raises(NotVerifiedError, match="no peak table with SHA-256"):
        verify(sealed)


def test_an_unwritable_place_is_told_and_loses_nothing(tmp_path: Path) -> None:
    run = finished(tmp_path / "state", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot write the ledger") as caught:
        run.seal(tmp_path / "file" / "ledger.json")
    assert "the journal is intact" in caught.value.hint


def test_the_dsse_specifications_own_encoding() -> None:
    """PAE of protocol.md v1.0.2's example."""
    from flopsd.attestation.signing.dsse import pae
    from flopsd.core.envelope import Envelope

    assert pae(Envelope(b"hello world", "http://example.com/HelloWorld", ())) == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    url_safe = base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()
    envelope = parse_envelope(
        json.dumps({"payload": url_safe, "payloadType": "t", "signatures": [{"sig": "AA=="}]}).encode()
    )
    assert (envelope.payload, envelope.signatures) == (b"\xfb\xff\xfe", (("", b"\0"),))


def test_a_long_list_of_gaps_is_capped_but_their_sum_is_not(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,))
    for _ in range(1100):
        run.meter(1, GapReason.DRIVER_ERROR)
        run.meter(1)
    run.finish()
    coverage = verify(run.seal(tmp_path / "ledger.json"))["predicate"]["coverage"]
    assert (len(coverage["gaps"]), coverage["gapsNotListed"]) == (1000, "100")
    assert coverage["gapSeconds"] == "1100.000000000"
