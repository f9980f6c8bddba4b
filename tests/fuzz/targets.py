"""The fuzzing targets. A target takes bytes and raises only for a fault: an exception that its parser does not
document, or a broken law. It uses no network and writes no files but its own."""

import base64
import gzip
import io
import json
import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from flopsd.attestation.evidence import nvidia_spdm, rfc3161
from flopsd.attestation.evidence.check import timestamp_findings
from flopsd.attestation.evidence.ec2_identity import signed_content
from flopsd.attestation.evidence.trust import Trust, load_certificates
from flopsd.attestation.log_events import CHUNK
from flopsd.attestation.log_export import Anchor, SkippedLines, find_anchors
from flopsd.attestation.merge.read_child import recompute
from flopsd.attestation.signed_statement import SignedStatement, statement_in
from flopsd.core.declarations import NOTHING_DECLARED
from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.core.field_reader import MALFORMED
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from flopsd.core.meter import advance
from flopsd.core.model import Sweep
from flopsd.core.policy.bases import declarations_of
from flopsd.core.session_protocol import (
    Conversation,
    DeclaredSession,
    FactsDeclared,
    RefusedError,
    SessionOpened,
    WorkCounted,
)
from flopsd.core.tally import Tally
from flopsd.core.untrusted import parse_json
from flopsd.errors import EvidenceError, FlopsdError, JournalDamagedError, LedgerError, NotVerifiedError
from flopsd.journal.framing import GENESIS, JournalLine, frame, read_lines
from flopsd.journal.sealed_prefix import longest_prefix
from flopsd.report.contents.build import report_of
from flopsd.report.contents.verification import LedgerDocument, not_checked
from flopsd.report.html.document import report_html
from flopsd.report.report_text import report_text
from flopsd.settings.data_files import Tables, config_dir
from flopsd.sources.dcgm.exposition import parse_page
from flopsd.sources.dcgm.gpu import FollowedGpu
from flopsd.sources.validate import check_devices, check_sweep
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.http.request import RefusedRequest, Request, take_request
from tests.fuzz import seeds
from tests.make_vectors import files as vectors
from tests.support import story
from tests.support.authorities import IDENTITY
from tests.support.json_edits import edited_json
from tests.support.story import POLICY, VECTORS
from tests.support.strategies import table
from tests.support.tamper import chained


@dataclass(frozen=True)
class Target:
    """`mutate` edits the structure of an input, besides the fuzzer's edits of its bytes."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    mutate: Callable[[random.Random, bytes], bytes] | None = None


def journal(data: bytes) -> None:
    """A file of lines: those before the first fault are framed as they were, and state where they end."""
    lines: list[JournalLine] = []
    with suppress(JournalDamagedError):
        lines.extend(read_lines(io.BytesIO(data)))  # lines before the fault stay in the list
    framed = b"".join(line.framed() for line in lines)
    assert data.startswith(framed)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    with suppress(JournalDamagedError):
        prefix = longest_prefix(io.BytesIO(data), lambda _: None)
        assert (prefix.facts.size_bytes, prefix.left_out_bytes) == (len(framed), len(data) - len(framed))
        assert prefix.facts.sha256 == sha256(framed).hexdigest()


def records(data: bytes) -> None:
    """Bodies of records, one a line, chained as by the daemon: the result of reading them can be sealed, or is
    refused."""
    whole = b""
    with suppress(JournalDamagedError):
        for line in read_lines(io.BytesIO(chained(data.split(b"\n"))[0])):
            record = line.record()
            (same,) = read_lines(io.BytesIO(frame(GENESIS, record)[0]))
            assert same.record() == record
            whole += line.framed()
    try:
        statement = vectors.statement_of(whole)
    except (FlopsdError, *MALFORMED):
        return
    totals = statement["predicate"]["totals"]
    for figures in (totals["executed"], totals["integerOperations"], totals["guidelines"]):
        known = {name: int(figures[name]) for name in ("low", "measured", "high") if figures[name] is not None}
        assert min(known.values()) >= 0, figures
        assert max(known.values()) == known.get("high", max(known.values())), figures
        # A count of operators that omits work gives a `low`, and no measured figure.
        leaves_out = b'not_counted"' in data
        assert leaves_out or known["low"] <= known.get("measured", known["low"]), figures
    assert parse_json(encode(statement), "the payload") == json.loads(json.dumps(statement))


def envelope(data: bytes) -> None:
    """Reading the encoding of a parsed envelope gives the same envelope."""
    try:
        found = parse_envelope(data)
    except NotVerifiedError:
        return
    again = parse_envelope(encode_envelope(found.payload, found.payload_type, list(found.signatures)))
    assert again == replace(found, extensions=({},) * len(found.signatures))
    with suppress(NotVerifiedError):
        for index in range(len(found.signatures)):
            found.timestamps(index)
    with suppress(NotVerifiedError):
        statement_in(found)


def merged(data: bytes) -> None:
    """The payload of a merged ledger: its sums follow from its entries, or it is refused."""
    with suppress(NotVerifiedError):
        statement = statement_in(Envelope(data, PAYLOAD_TYPE, ()))
        opened = SignedStatement(Path("ledger.json"), statement, (), "0" * 64, Envelope(data, PAYLOAD_TYPE, ()))
        recompute(opened, _tables(), allow_replay=True)
        executed = statement["predicate"]["totals"]["executed"]
        known = [int(executed[name]) for name in ("low", "measured", "high") if executed[name] is not None]
        assert known == sorted(known), executed


@cache
def _tables() -> Tables:
    return Tables(peaks_files=[str(story.PEAKS)], policy_files=[str(POLICY)])


def report(data: bytes) -> None:
    """Any payload gives a report that moves no cursor, or LedgerError."""
    envelope = Envelope(data, PAYLOAD_TYPE, (("key", b""),))
    try:
        statement = statement_in(envelope)
    except NotVerifiedError:
        return
    document = LedgerDocument(Path("ledger.json"), "ledger.journal.jsonl", statement, envelope)
    try:
        made = report_of(document, not_checked(document), "2026-11-25 00:00 UTC", now_ns=10**18)
        shown = report_text(made)
        page = report_html(made)
    except LedgerError:
        return
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "\x1b" not in page


def log(data: bytes) -> None:
    """The checkpoint lines of a log are the same when it is compressed, and wherever the pieces end in which it is
    read."""
    found = _anchors(data)
    if found is None:
        return
    if data[:2] != b"\x1f\x8b":
        assert _anchors(gzip.compress(data, 1)) == found
    if found and data[:1].isalnum() and b"\n" in data:  # plain text: place the boundary of two pieces in its middle
        padded = b"x" * (CHUNK - len(data) // 2) + b"\n" + data
        moved = _anchors(padded)
        assert moved is not None
        assert [replace(a, where="") for a in moved] == [replace(a, where="") for a in found]


def _anchors(data: bytes) -> list[Anchor] | None:
    fd = _scratch()
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    try:
        return list(find_anchors(Path(f"/proc/self/fd/{fd}"), seeds.RUN, seeds.NODE, SkippedLines()))
    except NotVerifiedError:
        return None


@cache
def _scratch() -> int:
    return os.memfd_create("log")


def identity(data: bytes) -> None:
    """A PKCS7 message in DER or as text: its content is never anything but AWS's own document."""
    document, (pinned,) = (IDENTITY / "document.json").read_bytes(), _certificates(IDENTITY / "pinned_cert.pem")
    for text in (base64.b64encode(data).decode(), data.decode("latin-1")):
        with suppress(EvidenceError):
            assert signed_content(text, pinned) == document


@cache
def _certificates(path: Path) -> tuple[Any, ...]:
    return load_certificates(path)


def timestamp(data: bytes) -> None:
    """A TimeStampResp is valid at the time of one of the genuine tokens, or not at all."""
    chains = tuple(_certificates(VECTORS / "rfc3161" / name / "ts_chain.pem") for name in ("test_tsa", "sigstage"))
    (found,) = timestamp_findings([(b"hello", data)], Trust(tsa_chains=chains), "2026-01-01T00:00:00.000000Z")
    assert found.text.isprintable()
    for chain in chains:
        with suppress(EvidenceError):
            moment, _ = rfc3161.verify(data, b"hello", chain)
            assert moment in genuine_times()
    with suppress(EvidenceError):
        rfc3161.time_of_token(data)


@cache
def genuine_times() -> set[str]:
    return {rfc3161.time_of_token(token) for token in seeds.tokens()}


def gpu_report(data: bytes) -> None:
    """NVIDIA's certificate chain and report, separated by a blank line: only the genuine report has a valid
    signature."""
    chain, _, report = data.partition(b"\n\n")
    (root,) = _certificates(config_dir() / "certificates" / "nvidia" / "verifier_device_root.pem")
    with suppress(EvidenceError):
        nvidia_spdm.verify_report(chain, report, report[4:36], root)
        assert report == seeds.gpu_report()


def dcgm(data: bytes) -> None:
    """Pages of an exporter, separated by form feeds and 30 s apart: the daemon accepts the readings, and time adds
    up."""
    now_ns = 10**12
    followed: dict[str, tuple[FollowedGpu, Tally]] = {}
    for text in data.decode("utf-8", "replace").split("\f")[:6]:
        now_ns += 30 * NS_PER_S
        for at, (uid, page) in enumerate(parse_page(text).items()):
            if uid not in followed:
                followed[uid] = FollowedGpu(page, at, now_ns, 30 * NS_PER_S, table(), None), Tally(now_ns, now_ns)
            one, tally = followed[uid]
            readings = one.follow(page, now_ns, None)
            check_sweep(Sweep(tuple(readings), {uid: one.gauges()}), now_ns)
            check_devices((one.device,))
            for reading in readings:
                assert tally.watermark_ns == reading.begin_ns < reading.end_ns <= now_ns
                tally = advance(tally, reading, one.limits)
            assert tally.total_observed_ns + tally.total_gap_ns == tally.span_ns
            followed[uid] = one, tally


def client(data: bytes) -> None:
    """Lines of a training process: its declarations can be journalled, and its model is counted or reported as
    uncounted."""
    talk, session = Conversation(1, 2), DeclaredSession("", 1, 2, "")
    for line in data.split(b"\n"):
        try:
            event = talk.receive(line)
        except RefusedError as fault:
            assert len(str(fault)) <= 400
            if fault.last:
                break
            continue
        if isinstance(event, SessionOpened):
            session.id, session.client = event.session, event.client
        elif isinstance(event, FactsDeclared):
            session.facts |= event.facts
        elif isinstance(event, WorkCounted):
            for phase, counters in event.work.items():
                session.work.setdefault(phase, {}).update(counters)
    declared = {"facts": session.facts, "work": session.work}
    (framed,) = read_lines(io.BytesIO(frame(GENESIS, declared)[0]))
    assert framed.record() == declared
    if (found := declarations_of(NOTHING_DECLARED, [session]).architecture) is not None:
        counted = found.counted.required
        if counted.computed is not None and counted.high is not None:
            assert 0 <= counted.low <= counted.computed <= counted.high


def http(data: bytes) -> None:
    """Requests of one connection are parsed alike whether they arrive whole or a byte at a time. The exception is a
    head that is too long, where the part received so far decides."""
    whole, piecewise = _requests(data, len(data) or 1), _requests(data, 1 if len(data) < 300 else 97)
    assert whole == piecewise
    for request in whole[0]:
        assert request.method in ("GET", "HEAD")
        assert request.path.startswith("/")


def _requests(data: bytes, step: int) -> tuple[list[Request], bool]:
    buffer, found = bytearray(), []
    for begin in range(0, len(data), step):
        buffer += data[begin : begin + step]
        try:
            while (request := take_request(buffer)) is not None:
                found.append(request)
        except RefusedRequest as refused:
            assert 400 <= refused.status < 600
            return found, True
    return found, False


TARGETS: dict[str, Target] = {
    "journal": Target(journal, lambda: seeds.files("*valid/*/ledger.journal.jsonl")),
    "records": Target(records, seeds.bodies, edited_json),
    "envelope": Target(envelope, lambda: seeds.files("*valid/*/ledger.json", "dsse/*.json"), edited_json),
    "merged": Target(merged, lambda: seeds.payloads("merged/*/ledger.json"), edited_json),
    "report": Target(report, lambda: seeds.payloads("valid/*/ledger.json", "merged/*/ledger.json"), edited_json),
    "log": Target(log, seeds.logs),
    "identity": Target(identity, seeds.identities),
    "timestamp": Target(timestamp, seeds.tokens),
    "gpu-report": Target(gpu_report, seeds.gpu_reports),
    "dcgm": Target(dcgm, seeds.pages),
    "client": Target(client, seeds.conversations, edited_json),
    "http": Target(http, seeds.requests),
}
