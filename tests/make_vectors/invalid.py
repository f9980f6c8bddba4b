"""The vectors that every implementation must refuse, each for the one reason that its `expected.json` states."""

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from flopsd.core.companions import PEAKS as TABLE
from flopsd.core.companions import companion_name
from flopsd.core.envelope import encode_envelope
from flopsd.core.ledger.statement import PAYLOAD_TYPE, PREDICATE_TYPE, encode
from flopsd.journal.framing import GENESIS, frame
from tests.make_vectors import runs
from tests.make_vectors.files import (
    FIRST,
    SECOND,
    Files,
    case,
    claimed,
    edited,
    lines_of,
    listing,
    parsed,
    signed,
    statement_of,
)
from tests.support.columns import by_device, in_columns
from tests.support.story import PEAKS, chain, table, tell

J = dict[str, Any]


def invalid() -> Files:
    journal, replayed = tell(runs.small), tell(runs.replayed)
    said = statement_of(journal)
    payload = encode(said)
    good = signed(payload)
    cases: list[tuple[Any, ...]] = [
        ("no-journal", good, None),
        ("wrong-key", good, journal, SECOND),
        ("one-of-two-signatures", good, journal, FIRST, SECOND),
        ("one-key-twice", signed(payload, FIRST, FIRST), journal, FIRST, SECOND),
        ("replay-as-evidence", signed(encode(statement_of(replayed))), replayed),
        *((name, ledger, journal) for name, ledger in _envelopes(payload).items()),
        *((name, signed(changed), journal) for name, changed in _payloads(said).items()),
        *((name, good, beside) for name, beside in _journals(journal).items()),
        ("high-lowered-by-a-claim", *_believed()),
        *_laws(),
        *_codes(),
    ]
    files: Files = {}
    for name, *made in cases:
        files |= case(f"invalid/{name}", *made)
    foreign, beside = "invalid/foreign-table-beside", f"ledger.{companion_name(TABLE, table().sha256)}"
    files |= {**case(foreign, good, journal), f"{foreign}/{beside}": PEAKS.read_bytes()}
    other = _journals(journal)["edited-journal-chained-anew"]
    files |= case("invalid/fork", good, journal)
    files |= {"invalid/fork/other.json": signed(encode(statement_of(other))), "invalid/fork/other.journal.jsonl": other}
    strange = listing(journal, head_sha256="ab" * 32)
    return {**files, **case("invalid/seal-of-another-journal", signed(encode(statement_of(strange))), strange)}


def _believed() -> tuple[bytes, bytes]:
    """The upper bound of what counts is the one that holds if the process tells the truth."""
    journal = tell(runs.lying)
    said = statement_of(journal)
    counted = said["predicate"]["totals"]["guidelines"]
    return signed(
        edited(said, lambda d: d["predicate"]["totals"]["guidelines"].update(high=counted["asClaimed"]["high"]))
    ), journal


def _envelopes(payload: bytes) -> dict[str, bytes]:
    """Envelopes over the good journal, most of them with text that JSON or base64 does not allow."""
    good, signature = signed(payload).rstrip(), FIRST.sign(payload)
    wide = good[:-1].rstrip()
    more = payload.replace(b'"measured": "', b'"measured": "9', 1)
    return {
        "edited-payload": encode_envelope(more, PAYLOAD_TYPE, [signature]),
        "changed-payload-type": encode_envelope(payload, "application/json", [signature]),
        "no-signature": encode_envelope(payload, PAYLOAD_TYPE, []),
        "wrong-payload-type": signed(payload, payload_type="application/json"),
        "duplicate-key-in-envelope": wide + b', "payload": "e30="}',
        "nan-in-envelope": wide + b', "x": NaN}',
        "float-in-envelope": wide + b', "x": 1.5}',
        "lone-surrogate-in-envelope": wide + b', "x": "\\ud800"}',
        "not-utf8-envelope": wide + b', "x": "\xff"}',
        "not-base64": good.replace(b'"payload": "', b'"payload": "!', 1),
        "text-behind-envelope": good + b"{}",
    }


def _payloads(said: J) -> dict[str, bytes]:
    """All of these have valid signatures by the holder of the key."""
    payload = encode(said)
    assert payload.endswith(b"}\n")
    executed: Callable[[J], J] = lambda d: d["predicate"]["totals"]["executed"]  # noqa: E731
    measured = executed(said)["measured"]
    seconds = b'"deviceSeconds": "6.000000000"'
    lies: dict[str, Callable[[J], object]] = {
        "wrong-statement-type": lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        "wrong-predicate-type": lambda d: d.update(predicateType=PREDICATE_TYPE.replace("v1", "v2")),
        "no-journal-named": lambda d: d.update(subject=[]),
        "totals-that-do-not-follow": lambda d: executed(d).update(measured="12"),
        "upper-bound-left-out": lambda d: executed(d).update(high=None),
        "trailing-newline-in-count": lambda d: executed(d).update(measured=measured + "\n"),
        "count-as-number": lambda d: executed(d).update(measured=int(measured)),
        "gap-left-out": lambda d: d["predicate"]["coverage"].update(gapSecondsByReason={"starting": "1.000000000"}),
        "job-said-to-be-shut-out": lambda d: d["predicate"]["isolation"].update(jobCouldWriteJournal=False, reasons=[]),
        "member-that-no-daemon-writes": lambda d: d["predicate"].update(certified=True),
    }
    made = {
        "duplicate-key-in-payload": payload[:-2].rstrip() + b',"predicateType": "x"}\n',
        "float-in-payload": payload.replace(seconds, b'"deviceSeconds": 6.0'),
        "nan-in-payload": payload.replace(seconds, b'"deviceSeconds": NaN'),
        "huge-number-in-payload": payload.replace(b'"smCount": 132', b'"smCount": 1' + b"0" * 40),
        "lone-surrogate-in-payload": payload.replace(b'"id": "vector"', b'"id": "\\udfff"'),
        "not-utf8-payload": payload.replace(b'"id": "vector"', b'"id": "\xc0"'),
        **{name: edited(said, edit) for name, edit in lies.items()},
    }
    assert payload not in made.values()
    return made


def _journals(journal: bytes) -> dict[str, bytes]:
    """The ledger is good; the journal beside it is not the one that it covers."""
    lines = lines_of(journal)
    extension, _ = frame(parsed(journal)[-1].head, {"kind": "end", "incarnation": 1})
    digit = lines[3].replace(b'"tensor_hmma":[', b'"tensor_hmma":[1', 1)
    records = [dict(line.record()) for line in parsed(journal)]
    records[3] = {**records[3], "utc": "2026-09-21T14:13:26.000000Z"}
    other = tell(runs.smaller)
    assert len(lines_of(other)) == len(lines)
    return {
        "edited-journal": b"".join([*lines[:3], digit, *lines[4:]]),
        "edited-journal-chained-anew": chain(records),
        "cut-journal": b"".join(lines[:-1]),
        "torn-journal": journal[:-20],
        "empty-journal": b"",
        "torn-behind-the-sealed-part": journal + extension[:-9],
        "reordered-journal": b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]),
        "record-left-out": b"".join([*lines[:3], *lines[4:]]),
        "another-journal": other,
        "upper-case-hash": b"".join([lines[0][:6] + lines[0][6:70].upper() + lines[0][70:], *lines[1:]]),
    }


def _laws() -> list[tuple[str, bytes, bytes]]:
    """Journals that no daemon writes, with a valid chain and a valid seal by the holder of the key."""
    records = by_device([dict(line.record()) for line in parsed(tell(runs.activity))])
    story = statement_of(chain(in_columns(records)))

    def device(found: list[J], at: int = 5) -> J:
        entry: J = found[at]["devices"][0]
        return entry

    def begun(found: list[J]) -> J:
        return next(one for one in found if one["kind"] == "device")

    laws: dict[str, Callable[[list[J]], object]] = {
        "impossible-cycles": lambda r: device(r, 11)["sm_cycles"]["activity"].update(tensor_hmma=10**16),
        "impossible-count": lambda r: device(r, 11).update(counted_flop=10**19),
        "energy-of-too-much-time": lambda r: device(r, 11).update(energy_ns=10**18),
        "totals-that-fall": lambda r: device(r)["sm_cycles"]["activity"].update(tensor_hmma=1),
        "time-that-does-not-add-up": lambda r: device(r)["observed_ns"].update(
            activity=device(r)["observed_ns"]["activity"] + 1
        ),
        "gaps-that-do-not-add-up": lambda r: r[5]["gaps"].append([0, 1, 2, "overlap"]),
        "count-that-is-none": lambda r: device(r).update(busy_sm_cycles=-1),
        "counted-before-the-first-reading": lambda r: begun(r).update(observed_ns={"activity": 10**9}),
        "time-that-has-not-come": lambda r: r[5].update(ns=device(r)["to_ns"] - 10**9 - 1),
        "time-that-runs-backwards": lambda r: r[-1].update(ns=1),
        "isolation-left-out": lambda r: r[0].pop("isolation"),
        "unknown-record": lambda r: r[1].update(kind="rumour"),
        "unknown-journal-format": lambda r: r[0].update(format="flopsd-journal/2"),
        "unknown-gap-reason": lambda r: r[5]["gaps"][0].__setitem__(3, "holiday"),
        "device-counted-twice": _overlap,
        "record-behind-the-end": lambda r: r.append(r[5]),
    }
    bodies = [line.body for line in parsed(chain(in_columns(records)))]
    journals = {"duplicate-key-in-journal": _chained([bodies[0].replace(b"{", b'{"boot_id":"x",', 1), *bodies[1:]])}
    for name, edit in laws.items():
        changed = copy.deepcopy(records)
        edit(changed)
        journals[name] = chain(in_columns(changed))
    return [(name, signed(encode(claimed(journal, story))), journal) for name, journal in journals.items()]


def _codes() -> list[tuple[str, bytes, bytes]]:
    """Journals whose codes are not those of one daemon after the other, with a valid chain and seal."""
    lines = parsed(tell(runs.coded, runs.SECRETS))
    records = [dict(line.record()) for line in lines]
    recovered = next(at for at, line in enumerate(lines) if not line.code)
    nobody = [
        {**record, "code_secret_sha256": None} if "code_secret_sha256" in record else record for record in records
    ]
    wrong = bytearray(chain(records, runs.SECRETS, {recovered}))
    wrong[wrong.index(b'"m":"', 2000) + 5] ^= 1
    first, second = runs.SECRETS.values()
    journals = {
        "wrong-code": bytes(wrong),
        "missing-code": chain(records, runs.SECRETS, {2, recovered}),
        "hole-in-codes": chain(records[:1] + records[2:], runs.SECRETS, {recovered - 1}, {1}),
        "line-behind-one-without-a-code": chain(
            [*records[: recovered + 1], records[recovered]], runs.SECRETS, {recovered}
        ),
        "code-of-no-secret": chain(nobody, runs.SECRETS, {recovered}),
        "swapped-secrets": chain(records, {1: second, 2: first}, {recovered}),
    }
    made = [(name, signed(encode(statement_of(data, first, second))), data) for name, data in journals.items()]
    good = chain(records, runs.SECRETS, {recovered})
    said = statement_of(good, first)
    lies: dict[str, Callable[[J], object]] = {
        "wrong-secret": lambda d: d["predicate"]["method"].update(codeSecrets=[first.hex(), "0" * 64]),
        "codes-said-to-be-checked": lambda d: d["predicate"]["incarnations"][1].update(codes="checked"),
    }
    return [*made, *((name, signed(edited(said, edit)), good) for name, edit in lies.items())]


def _chained(bodies: list[bytes]) -> bytes:
    """Any bytes as a journal with an unbroken chain."""
    lines, head = [], GENESIS
    for body in bodies:
        head = hashlib.sha256(head + body).digest()
        lines.append(b'{"h":"%s","r":%s}\n' % (head.hex().encode(), body))
    return b"".join(lines)


def _overlap(records: list[J]) -> None:
    """The second daemon start's devices begin a second earlier, while the first start still observed them."""
    begin = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    for record in records[begin:]:
        if record["kind"] == "device":
            record["to_ns"] -= 10**9
        for at, entry in enumerate(record.get("devices", ())):
            entry["gap_ns"]["daemon_down"] += 10**9
            gap = next(g for g in record["gaps"] if g[0] == at and g[3] == "daemon_down")
            gap[1] -= 10**9
