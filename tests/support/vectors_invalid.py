"""The vectors that every implementation must refuse, each for one reason."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from flopsd.core.envelope import encode_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from flopsd.journal.framing import GENESIS, frame
from tests.support import vector_runs as runs
from tests.support.story import chain, tell
from tests.support.vectors import (
    FIRST,
    SECOND,
    Case,
    claimed,
    edited,
    lines_of,
    parsed,
    signed,
    statement_of,
)

ALTERED = "its hash does not continue the chain: altered, moved or left out"
DIFFERENT_KEY, CHANGED = "signed by a different key: ", "is invalid: the ledger was changed after it was signed"
EDIT = Callable[[dict[str, Any]], object]


def invalid() -> list[Case]:
    """All of them."""
    journal = tell(runs.small)
    said = statement_of(journal)
    return [*_signatures(journal, said), *_envelopes(journal, said), *_payloads(journal, said), *_journals(journal, said), *_laws()]  # fmt: skip


def _signatures(journal: bytes, said: dict[str, Any]) -> list[Case]:
    payload = encode(said)
    good = signed(payload)
    more = payload.replace(b'"measured": "', b'"measured": "9', 1)
    twice = encode_envelope(payload, PAYLOAD_TYPE, [FIRST.sign(payload)] * 2)
    return [
        Case("wrong-key", "Signed by another key than the one that is trusted.", good, journal, DIFFERENT_KEY, (SECOND,)),
        Case("edited-payload", "A digit was put before a figure; the signature is the old one.",
             encode_envelope(more, PAYLOAD_TYPE, [FIRST.sign(payload)]), journal, CHANGED),
        Case("changed-payload-type", "The type in the envelope is not the one that was signed.",
             encode_envelope(payload, "application/json", [FIRST.sign(payload)]), journal, CHANGED),
        Case("no-signature", "An empty list of signatures.", encode_envelope(payload, PAYLOAD_TYPE, []), journal,
             "the ledger is not signed: it has no signatures", schema=None),
        Case("one-of-two-signatures", "Two keys are asked for, one signed.", good, journal,
             "2 signatures are required", (FIRST, SECOND), 2),
        Case("one-key-twice", "Two keys are asked for, and one of them signed twice. Keys count, not signatures.", twice, journal,
             "2 signatures are required", (FIRST, SECOND), 2),
    ]  # fmt: skip


def _envelopes(journal: bytes, said: dict[str, Any]) -> list[Case]:
    good = signed(encode(said)).rstrip()
    wide = good[:-1].rstrip()

    def case(name: str, what: str, ledger: bytes, reason: str) -> Case:
        return Case(name, what, ledger, journal, reason, schema=None)

    return [
        case("duplicate-key-in-envelope", "The envelope names its payload twice: readers differ on which one counts.",
             wide + b', "payload": "e30="}', "the ledger contains the key 'payload' twice"),
        case("nan-in-envelope", "NaN is not JSON, though some readers take it.", wide + b', "x": NaN}',
             "the ledger contains the number 'NaN'"),
        case("float-in-envelope", "A number with a fraction.", wide + b', "x": 1.5}', "the ledger contains the number '1.5'"),
        case("lone-surrogate-in-envelope", "A surrogate without its half is no text.", wide + b', "x": "\\ud800"}',
             "the ledger is not valid UTF-8 text"),
        case("not-utf8-envelope", "A byte that UTF-8 does not have.", wide + b', "x": "\xff"}', "the ledger is not valid UTF-8 text"),
        case("not-base64", "A character outside both alphabets in the payload.", good.replace(b'"payload": "', b'"payload": "!', 1),
             "the payload is not base64"),
        case("text-behind-envelope", "Something stands behind the JSON text.", good + b"{}", "the ledger is not JSON"),
    ]  # fmt: skip


def _payloads(journal: bytes, said: dict[str, Any]) -> list[Case]:
    """All of these are well signed, by whoever holds the key."""
    payload = encode(said)
    assert payload.endswith(b"}\n")

    def raw(name: str, what: str, changed: bytes, reason: str, schema: bool | None = None) -> Case:
        assert changed != payload
        return Case(name, what + " Well signed.", signed(changed), journal, reason, schema=schema)

    def lie(name: str, what: str, edit: EDIT, reason: str, schema: bool = True) -> Case:
        return raw(name, what, edited(said, edit), reason, schema)

    executed: Callable[[dict[str, Any]], dict[str, Any]] = lambda d: d["predicate"]["totals"]["executed"]  # noqa: E731
    measured = said["predicate"]["totals"]["executed"]["measured"]
    recomputed = "the ledger does not match the journal: statement"
    return [
        raw("duplicate-key-in-payload", "The statement names its predicate type twice.",
            payload[:-2].rstrip() + b',"predicateType": "x"}\n', "the payload contains the key 'predicateType' twice"),
        raw("float-in-payload", "A figure as a number with a fraction.",
            payload.replace(b'"deviceSeconds": "6.000000000"', b'"deviceSeconds": 6.0'), "the payload contains the number '6.0'", False),
        raw("nan-in-payload", "A figure that is not a number.",
            payload.replace(b'"deviceSeconds": "6.000000000"', b'"deviceSeconds": NaN'), "the payload contains the number 'NaN'"),
        raw("huge-number-in-payload", "A number of 41 digits.", payload.replace(b'"smCount": 132', b'"smCount": 1' + b"0" * 40),
            "not a whole number of at most 40 digits", False),
        raw("lone-surrogate-in-payload", "A surrogate without its half.", payload.replace(b'"id": "vector"', b'"id": "\\udfff"'),
            "the payload is not valid UTF-8 text"),
        raw("not-utf8-payload", "A byte that UTF-8 does not have.", payload.replace(b'"id": "vector"', b'"id": "\xc0"'),
            "the payload is not valid UTF-8 text"),
        Case("wrong-payload-type", "The envelope holds something else than an in-toto statement, and says so. Well signed.",
             signed(payload, payload_type="application/json"), journal,
             "the payload has type 'application/json', not 'application/vnd.in-toto+json'"),
        lie("wrong-statement-type", "Statement v0.1.", lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
            "the payload is not an in-toto statement of type 'https://in-toto.io/Statement/v1'", False),
        lie("wrong-predicate-type", "A later version of the predicate, which must not be read as this one.",
            lambda d: d.update(predicateType="https://flopsd.dev/attestations/compute-ledger/v2"),
            "the predicate has type 'https://flopsd.dev/attestations/compute-ledger/v2'", False),
        lie("no-journal-named", "A statement without subject.", lambda d: d.update(subject=[]),
            "the statement does not name its journal", False),
        lie("totals-that-do-not-follow", "The key's holder made a total smaller than its rows.", lambda d: executed(d).update(measured="12"),
            f"{recomputed}.predicate.totals.executed.measured is '12', recomputed is '{measured}'"),
        lie("upper-bound-left-out", "An upper bound that is known is said to be unknown.", lambda d: executed(d).update(high=None),
            f"{recomputed}.predicate.totals.executed.high is None"),
        lie("trailing-newline-in-count", "A count with a newline behind it: in many languages `$` lets it pass.",
            lambda d: executed(d).update(measured=measured + "\n"), "is not a count", False),
        lie("count-as-number", "A count as a JSON number: many readers lose digits beyond 2^53.",
            lambda d: executed(d).update(measured=int(measured)), "is not a count", False),
        lie("gap-left-out", "A gap's reason was renamed to a harmless one.",
            lambda d: d["predicate"]["coverage"].update(gapSecondsByReason={"starting": "1.000000000"}),
            f"{recomputed}.predicate.coverage.gapSecondsByReason"),
        lie("member-that-no-daemon-writes", "A reader ignores what it does not know; who recomputes must refuse it.",
            lambda d: d["predicate"].update(certified=True), f"{recomputed}.predicate.certified is unknown"),
    ]  # fmt: skip


def _journals(journal: bytes, said: dict[str, Any]) -> list[Case]:
    """The ledger is good; the journal that lies beside it is not the one that it is over."""
    good, lines = signed(encode(said)), lines_of(journal)
    head = parsed(journal)[-1].head
    extension, _ = frame(head, {"kind": "end", "incarnation": 1})
    digit = [*lines[:3], lines[3].replace(b'"tensor_hmma":', b'"tensor_hmma":1', 1), *lines[4:]]
    records = [dict(line.record()) for line in parsed(journal)]
    records[3] = {**records[3], "utc": "2026-09-21T14:13:26.000000Z"}

    def case(name: str, what: str, journal: bytes | None, reason: str) -> Case:
        return Case(name, what, good, journal, reason)

    other = tell(runs.smaller)
    assert len(lines_of(other)) == len(lines)
    replayed = tell(runs.replayed)
    return [
        case("edited-journal", "A digit was put before a count in the fourth record.", b"".join(digit), f"journal line 4: {ALTERED}"),
        case("edited-journal-chained-anew", "The fourth record was edited and the chain made anew behind it.", chain(records),
             "is not the sealed journal"),
        case("cut-journal", "The last record is gone.", b"".join(lines[:-1]), "is truncated: it has 5 records, 6 were sealed"),
        case("torn-journal", "The last line lost its end.", journal[:-20], "journal line 6: no newline at its end"),
        case("empty-journal", "Nothing is left.", b"", "is truncated: it has 0 records, 6 were sealed"),
        case("torn-behind-the-sealed-part", "What lies behind the sealed part is no whole record.", journal + extension[:-9],
             "no newline at its end"),
        case("reordered-journal", "Two records changed places.", b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]),
             f"journal line 4: {ALTERED}"),
        case("record-left-out", "A record in the middle is gone.", b"".join([*lines[:3], *lines[4:]]), f"journal line 4: {ALTERED}"),
        case("another-journal", "The journal of another run, whole and with as many records.", other, "is not the sealed journal"),
        case("upper-case-hash", "A hash in upper case: a line is what a daemon writes, byte for byte.",
             b"".join([lines[0][:6] + lines[0][6:70].upper() + lines[0][70:], *lines[1:]]), "journal line 1: not a framed record"),
        case("no-journal", "The journal is not there.", None, "does not exist: no total can be recomputed"),
        Case("replay-as-evidence", "A replay of a recording, and nobody allowed one: no hardware was metered.",
             signed(encode(statement_of(replayed))), replayed, "this ledger is a replay of the recording 'vector.jsonl'"),
    ]  # fmt: skip


def _laws() -> list[Case]:
    """Journals that no daemon writes, well chained, well sealed by whoever holds the key."""
    records = [dict(line.record()) for line in parsed(tell(runs.activity))]
    story = statement_of(chain(records))

    def law(name: str, what: str, edit: Callable[[list[dict[str, Any]]], object], reason: str) -> Case:
        changed = copy.deepcopy(records)
        edit(changed)
        journal = chain(changed)
        return Case(
            name, what + " Well chained and well signed.", signed(encode(claimed(journal, story))), journal, reason
        )

    def device(found: list[dict[str, Any]], at: int = 5) -> dict[str, Any]:
        entry: dict[str, Any] = found[at]["devices"][0]
        return entry

    bodies = [line.body for line in parsed(chain(records))]
    twofold = _chained([bodies[0].replace(b"{", b'{"boot_id":"x",', 1), *bodies[1:]])
    return [
        law("impossible-cycles", "More cycles of a pipe than the device has in the time.",
            lambda r: device(r, 11)["sm_cycles"]["activity"].update(tensor_hmma=10**16), "tensor_hmma was active for 10000000000000000 cycles, of"),
        law("impossible-count", "More FLOP are counted than the device can do in the time.",
            lambda r: device(r, 11).update(counted_flop=10**19), "10000000000000000000 FLOP were counted, of"),
        law("energy-of-too-much-time", "Energy is counted of more time than there was.",
            lambda r: device(r, 11).update(energy_ns=10**18), "energy was counted for more time than there was"),
        law("totals-that-fall", "A total is lower than in the record before.",
            lambda r: device(r)["sm_cycles"]["activity"].update(tensor_hmma=1), "fell since the record before"),
        law("time-that-does-not-add-up", "Observed and gap time together are not the span.",
            lambda r: device(r)["observed_ns"].update(activity=device(r)["observed_ns"]["activity"] + 1),
            "does not add up: observed + gap is not its span"),
        law("gaps-that-do-not-add-up", "A listed gap that no total holds.", lambda r: r[5]["gaps"].append([0, 1, 2, "overlap"]),
            "the listed gaps do not add up to the gap totals"),
        law("count-that-is-none", "A count below zero.", lambda r: device(r).update(busy_sm_cycles=-1), "-1 is not a count"),
        law("counted-before-the-first-reading", "A device record that counts something.",
            lambda r: next(one for one in r if one["kind"] == "device")["observed_ns"].update(activity=10**9),
            "a device has counts before its first reading"),
        law("time-that-has-not-come", "A device is accounted for until long after the record was written.",
            lambda r: r[5].update(ns=device(r)["to_ns"] - 10**9 - 1), "beyond the time of its record"),
        law("time-that-runs-backwards", "An end before its beginning.", lambda r: r[-1].update(ns=1), "time runs backwards, by "),
        law("unknown-record", "A record of a kind that this format does not have.", lambda r: r[1].update(kind="rumour"),
            "unknown kind of record 'rumour'"),
        law("unknown-journal-format", "A later format, which must not be read as this one.", lambda r: r[0].update(format="flopsd-journal/2"),
            "format 'flopsd-journal/2'; this flopsd reads 'flopsd-journal/1'"),
        law("unknown-gap-reason", "The reasons are a closed set.", lambda r: r[5]["gaps"][0].__setitem__(3, "holiday"),
            "'holiday' is not a valid GapReason"),
        law("device-counted-twice", "Two incarnations claim one device at the same time.", _overlap, "is counted twice at the same time"),
        law("record-behind-the-end", "An incarnation goes on behind its end.", lambda r: r.append(r[5]), "a 'checkpoint' record after the incarnation's end"),
        Case("duplicate-key-in-journal", "A record names a member twice. Well chained and well signed.",
             signed(encode(claimed(twofold, story))), twofold, "journal line 1 contains the key 'boot_id' twice"),
    ]  # fmt: skip


def _chained(bodies: list[bytes]) -> bytes:
    """Any bytes as a journal with an unbroken chain."""
    lines, head = [], GENESIS
    for body in bodies:
        head = hashlib.sha256(head + body).digest()
        lines.append(b'{"h":"%s","r":%s}\n' % (head.hex().encode(), body))
    return b"".join(lines)


def _overlap(records: list[dict[str, Any]]) -> None:
    """The second incarnation's devices begin a second earlier, while the first still watched them."""
    begin = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    for record in records[begin:]:
        if record["kind"] == "device":
            record["to_ns"] -= 10**9
        for at, entry in enumerate(record.get("devices", ())):
            entry["gap_ns"]["daemon_down"] += 10**9
            gap = next(g for g in record["gaps"] if g[0] == at and g[3] == "daemon_down")
            gap[1] -= 10**9
