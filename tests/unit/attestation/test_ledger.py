"""Sealing and verifying: what a good ledger says, and that no changed one is believed."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import ensure_key, load_public, load_signer
from flopsd.attestation.verify import verify_ledger
from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from flopsd.core.model import Active, Evidence, GapReason, Pipe, Precision, Reading, Sweep
from flopsd.daemon.source_tracker import Message
from flopsd.errors import JournalDamagedError, LedgerError, NotVerifiedError, SigningKeyError
from flopsd.journal.framing import GENESIS, frame
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.runs import H100, STRANGER, Run, sealed_run


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_run(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def copy(sealed: Sealed, tmp_path: Path) -> Sealed:
    """A copy to be spoilt."""
    for path in (sealed.ledger, sealed.journal, sealed.public_key):
        shutil.copy(path, tmp_path)
    ledger, journal, public_key = (tmp_path / p.name for p in (sealed.ledger, sealed.journal, sealed.public_key))
    return Sealed(ledger, journal, public_key, sealed.figures, False)


def verify(sealed: Sealed, **how: Any) -> dict[str, Any]:
    return dict(verify_ledger(sealed.ledger, [load_public(str(sealed.public_key))], **how).statement)


def payload(ledger: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(parse_envelope(ledger.read_bytes()).payload)
    return document


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
    run = Run(tmp_path / "state")
    run.meter(3)
    run.finish()
    assert run.seal(tmp_path / "a.json").ledger.read_bytes() == run.seal(tmp_path / "b.json").ledger.read_bytes()


def _edit(field: Callable[[dict[str, Any]], None]) -> Callable[[Sealed], None]:
    def spoil(sealed: Sealed) -> None:
        document = payload(sealed.ledger)
        field(document)
        envelope = parse_envelope(sealed.ledger.read_bytes())
        sealed.ledger.write_bytes(encode_envelope(encode(document), PAYLOAD_TYPE, list(envelope.signatures)))

    return spoil


def _lines(change: Callable[[list[bytes]], object]) -> Callable[[Sealed], None]:
    def spoil(sealed: Sealed) -> None:
        lines = sealed.journal.read_bytes().splitlines(keepends=True)
        change(lines)
        sealed.journal.write_bytes(b"".join(lines))

    return spoil


def _swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def _torn(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-20]


def _flip(lines: list[bytes]) -> None:
    lines[3] = lines[3][:100] + bytes([lines[3][100] ^ 1]) + lines[3][101:]


def _envelope(change: Callable[[dict[str, Any]], object]) -> Callable[[Sealed], None]:
    def spoil(sealed: Sealed) -> None:
        document = json.loads(sealed.ledger.read_bytes())
        changed = change(document)
        sealed.ledger.write_text(changed if isinstance(changed, str) else json.dumps(document))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_lines(_torn), "no newline at its end"),
        (_lines(_flip), "journal line 4"),
        (_lines(_swap), "journal line 3: its hash does not continue the chain"),
        (_lines(lambda lines: lines.pop()), "is truncated: it has 11 records, 12 were sealed"),
        (_lines(lambda lines: lines.pop(5)), "journal line 6: its hash does not continue"),
        (_lines(lambda lines: lines.append(lines[-1])), "journal line 13: its hash"),
        (_lines(lambda lines: lines.clear()), "is truncated: it has 0 records"),
        (lambda s: s.journal.unlink(), "does not exist: no total can be recomputed"),
        (_edit(lambda d: d["predicate"]["totals"]["executed"].update(measured="1")), "was changed after it was signed"),
        (_envelope(lambda d: d.update(signatures=[])), "is not signed"),
        (_envelope(lambda d: d.pop("signatures")), "is not signed"),
        (_envelope(lambda d: d.update(payloadType="text/plain")), "was changed after it was signed"),
        (_envelope(lambda d: json.dumps(d)[:-1] + ', "payload": "e30="}'), "contains the key 'payload' twice"),
        (_envelope(lambda d: json.dumps(d)[:-1] + ', "x": NaN}'), "'NaN'"),
        (_envelope(lambda d: json.dumps(d)[:-1] + ', "x": 1.5}'), "'1.5'"),
        (_envelope(lambda d: json.dumps(d)[:-1] + ', "x": "\\ud800"}'), "not valid UTF-8"),
        (_envelope(lambda _: "[" * 100_000), "nested too deeply|is not JSON"),
        (lambda s: s.ledger.write_bytes(b"\xff\xfe"), "not valid UTF-8"),
        (lambda s: s.ledger.write_bytes(b""), "is not JSON"),
        (lambda s: s.ledger.unlink(), "cannot read the ledger"),
    ],
)  # fmt: skip
def test_what_was_changed_is_not_believed(copy: Sealed, spoil: Callable[[Sealed], None], reason: str) -> None:
    verify(copy)
    spoil(copy)
    with pytest.raises(NotVerifiedError, match=reason):
        verify(copy)


def test_a_wrong_key_is_refused(copy: Sealed, tmp_path: Path) -> None:
    uri, _ = ensure_key(None, tmp_path)
    key = load_signer(uri)
    (tmp_path / "other.pub").write_bytes(key.public_pem)
    with pytest.raises(NotVerifiedError, match="signed by a different key"):
        verify_ledger(copy.ledger, [load_public(str(tmp_path / "other.pub"))])


def test_one_key_given_twice_is_one_key(copy: Sealed) -> None:
    key = load_public(str(copy.public_key))
    with pytest.raises(NotVerifiedError, match="signed by 1 of the given keys .* 2 signatures are required"):
        verify_ledger(copy.ledger, [key, key], threshold=2)


def test_a_lie_with_the_right_key_is_found_by_recomputing(copy: Sealed, sealed: Sealed) -> None:
    """The key's holder edits the total and signs anew: the journal says otherwise."""
    key = load_signer(str(sealed.ledger.parent.parent / "state" / "flopsd-key.pem"))
    for where, lie in (("low", "1"), ("measured", "12"), ("high", None)):
        document = payload(sealed.ledger)
        document["predicate"]["totals"]["executed"][where] = lie
        copy.ledger.write_bytes(sign(encode(document), key))
        with pytest.raises(
            NotVerifiedError, match=rf"statement.predicate.totals.executed.{where} is .*, recomputed is"
        ):
            verify(copy)
    document = payload(sealed.ledger)
    document["predicate"]["extra"] = 1
    copy.ledger.write_bytes(sign(encode(document), key))
    with pytest.raises(NotVerifiedError, match="extra is unknown"):
        verify(copy)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda r: r["devices"][0]["sm_cycles"]["activity"].update(tensor_hmma=1), "fell since the record before"),
        (lambda r: r["devices"][0]["observed_ns"].update(activity=r["devices"][0]["observed_ns"]["activity"] + 1), "does not add up"),
        (lambda r: r["gaps"].append([0, 1, 2, "overlap"]), "the listed gaps do not add up"),
        (lambda r: r["devices"][0]["sm_cycles"]["activity"].update(tensor_hmma=10**18), "active for .* cycles, of .* possible"),
        (lambda r: r["devices"][0].update(to_ns="x"), "is not a count"),
        (lambda r: r.update(kind="rumour"), "unknown kind"),
        (lambda r: r.update(ns=5), "time runs backwards, by \\d+ ns since the record before"),
        (lambda r: r.update(ns=r["devices"][0]["to_ns"] - 10**9 - 1), "beyond the time of its record"),
    ],
)  # fmt: skip
def test_a_journal_that_no_daemon_writes_cannot_be_sealed(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], reason: str
) -> None:
    """Whoever can write the whole chain anew still cannot break its laws."""
    run = Run(tmp_path / "state")
    run.meter(12)
    run.finish()
    head, lines = GENESIS, list[bytes]()
    for raw in run.state.journal.read_bytes().splitlines():
        record = json.loads(raw)["r"]
        if record["kind"] == "checkpoint" and any(b'"checkpoint"' in line for line in lines):
            edit(record)
        line, head = frame(head, record)
        lines.append(line)
    run.state.journal.write_bytes(b"".join(lines))
    with pytest.raises(Exception, match=reason):
        run.seal(tmp_path / "ledger.json")


@pytest.mark.parametrize(
    ("kind", "edit", "reason"),
    [
        ("device", lambda r: r["observed_ns"].update(activity=10**9), "has counts before its first reading"),
        ("device", lambda r: r.update(sm_cycles={"activity": {"tensor": 1}}), "has counts before its first reading"),
        ("device", lambda r: r.update(energy_mj=1), "has counts before its first reading"),
        ("device", lambda r: r.update(to_ns=r["to_ns"] - 1), "tracked from before the first incarnation began"),
        ("end", lambda r: r.update(ns=5), "time runs backwards"),
        ("begin", lambda r: r["context"]["run"].pop("jobName"), "the context does not have its members"),
        ("begin", lambda r: r["context"]["node"].update(jobNodes=[["x"]]), "is not text"),
        ("begin", lambda r: r["context"]["node"].update(jobNodes="x"), "the nodes of a job are a list"),
        ("begin", lambda r: r["context"]["node"].update(rank=-1), "is not a count"),
    ],
)
def test_a_journal_of_impossible_times_or_another_context_cannot_be_sealed(
    tmp_path: Path, kind: str, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    run = Run(tmp_path / "state")
    run.meter(2)
    run.finish()
    head, lines = GENESIS, list[bytes]()
    for raw in run.state.journal.read_bytes().splitlines():
        record = json.loads(raw)["r"]
        if record["kind"] == kind:
            edit(record)
        line, head = frame(head, record)
        lines.append(line)
    run.state.journal.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamagedError, match=reason):
        run.seal(tmp_path / "ledger.json")


@pytest.mark.parametrize("edit", [{"policies": [{}]}, {"policies": 7}, {"recovered": "x", "precision": None}])
def test_odd_members_in_a_journal_are_told_and_are_no_crash(tmp_path: Path, edit: dict[str, Any]) -> None:
    run = Run(tmp_path / "state")
    run.meter(2)
    run.finish()
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
    told = payload(run.seal(tmp_path / "ledger.json").ledger)["predicate"]["coverage"]
    assert (told["gapSecondsByReason"], told["observedSeconds"]) == ({"out_of_range": "1.000000000"}, "4.000000000")


def test_a_thousand_random_bytes_never_pass_with_another_payload(copy: Sealed) -> None:
    good, rng = copy.ledger.read_bytes(), random.Random(1)
    honest = parse_envelope(good).payload
    key = [load_public(str(copy.public_key))]
    accepted = 0
    for _ in range(1000):
        spoilt = bytearray(good)
        spoilt[rng.randrange(len(spoilt))] ^= rng.randrange(1, 256)
        copy.ledger.write_bytes(bytes(spoilt))
        try:
            verify_ledger(copy.ledger, key)
        except NotVerifiedError:
            continue
        accepted += 1
        assert parse_envelope(bytes(spoilt)).payload == honest
    print(f"1000 mutations, {accepted} accepted, all with the sealed payload")
    assert accepted < 100  # only what lies outside payload and signature, the keyid hint


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
    run = Run(tmp_path / "state", devices=())
    run.meter(3)
    run.finish()
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


def test_nothing_is_sealed_with_a_key_that_others_cannot_verify(tmp_path: Path) -> None:
    pem = generate_private_key(SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "p384.pem").write_bytes(pem)
    with pytest.raises(SigningKeyError, match="neither an Ed25519 nor a P-256 key"):
        load_signer(str(tmp_path / "p384.pem"))
    with pytest.raises(SigningKeyError, match="cannot read the key"):
        load_signer(str(tmp_path / "missing.pem"))
    (tmp_path / "text.pem").write_text("no key")
    with pytest.raises(SigningKeyError, match="is not a PEM private key of a supported kind"):
        load_signer(f"file:{tmp_path / 'text.pem'}")
    with pytest.raises(SigningKeyError, match="unknown kind of key 'gcpkms'"):
        load_signer("gcpkms:projects/x")
    with pytest.raises(SigningKeyError, match="contains a private key, and a verifier needs the public one"):
        load_public(str(tmp_path / "p384.pem"))


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_both_kinds_of_key_sign_and_verify(tmp_path: Path, kind: str) -> None:
    private = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1())
    file = tmp_path / "key.pem"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    run = Run(tmp_path / "state")
    run.meter(2)
    run.finish()
    sealed = run.seal(tmp_path / "ledger.json", f"file:{file}")
    verify(sealed)
    assert not (tmp_path / "state" / "flopsd-key.pem").exists()
    keyid = json.loads(sealed.ledger.read_bytes())["signatures"][0]["keyid"]
    assert len(keyid) == 64


def test_a_key_is_made_once_private_to_its_owner(tmp_path: Path) -> None:
    uri, made = ensure_key(None, tmp_path)
    assert made
    assert Path(uri).stat().st_mode & 0o777 == 0o600
    assert ensure_key(None, tmp_path) == (uri, False)


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
    run = Run(tmp_path / "state")
    run.meter(1)
    run.finish()
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
