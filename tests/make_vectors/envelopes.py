"""Vectors of the envelope, of strict JSON, and of the start of a verification."""

import base64
import copy
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurve, derive_private_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flopsd.core.envelope import encode64
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from tests.make_vectors import runs
from tests.make_vectors.files import FIRST, P256, SECOND, Files, parsed, signed, statement_of, vector
from tests.support.story import chain, tell

J = dict[str, Any]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
# Ed25519 points of small order, by order and encoding.
SMALL_ORDER = {
    "": "01" + "00" * 31, "-with-a-sign": "01" + "00" * 30 + "80", "-2": "ec" + "ff" * 30 + "7f", "-4": "00" * 32,
    "-8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "-8-of-another-y": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "-4-not-reduced": "ed" + "ff" * 30 + "7f", "-1-not-reduced": "ee" + "ff" * 30 + "7f",
}  # fmt: skip
STRANGE = "not applicable"


def envelope(signed_payload: bytes, **changes: Any) -> J:
    _, signature = FIRST.sign(signed_payload)
    document = {
        "payload": encode64(signed_payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": encode64(signature)}],
    }
    return {**document, **changes}


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def dump(document: J) -> bytes:
    return json.dumps(document).encode() + b"\n"


def envelopes() -> Files:
    journal = tell(runs.small)
    said = statement_of(journal)
    payload = encode(said)
    good = dump(envelope(payload))
    text, (_, raw) = encode64(payload), FIRST.sign(payload)
    sig, last = encode64(raw), encode64(raw).rstrip("=")[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    loose = sig.rstrip("=")[:-1] + alphabet[alphabet.index(last) + 1] + "=="
    wide = good.rstrip()[:-1]
    many = [{"sig": sig}] * 65
    made: list[tuple[str, str, str | None, str | None, bytes, str]] = [
        ("depth-100", "An unknown member with 100 objects and lists in each other, the envelope among them.", None, None, wide + b', "x": ' + nested(99) + b"}", "accepts"),
        ("depth-101", "An unknown member with 101 objects and lists in each other.", "json_too_deep", "JSON-7", wide + b', "x": ' + nested(100) + b"}", STRANGE),
        ("brackets-in-a-text", "A text with 200 brackets in it, which are not levels.", None, None, wide + b', "x": "' + b"[" * 200 + b'\\""}', "accepts"),
        ("minus-zero", "An unknown member that is -0.", None, None, wide + b', "x": -0}', "accepts"),
        ("number-of-40", "An unknown member that is a number of 40 characters.", None, None, wide + b', "x": -' + b"9" * 39 + b"}", "accepts"),
        ("number-of-41", "An unknown member that is a number of 41 characters, its sign among them.", "json_number", "JSON-4", wide + b', "x": -' + b"9" * 40 + b"}", STRANGE),
        ("number-with-an-exponent", "An unknown member that is 1e3.", "json_number", "JSON-4", wide + b', "x": 1e3}', STRANGE),
        ("infinity", "An unknown member that is Infinity.", "json_number", "JSON-4", wide + b', "x": Infinity}', STRANGE),
        ("number-with-a-leading-zero", "An unknown member that is 01.", "json_malformed", "JSON-2", wide + b', "x": 01}', STRANGE),
        ("byte-order-mark", "A byte order mark before the envelope.", "json_malformed", "JSON-2", b"\xef\xbb\xbf" + good, STRANGE),
        ("control-character", "A text with a line break in it.", "json_malformed", "JSON-2", wide + b', "x": "\n"}', STRANGE),
        ("name-twice-by-an-escape", "A member named twice, once with an escape.", "json_duplicate_member", "JSON-3", wide + b', "payloa\\u0064": "e30="}', STRANGE),
        ("surrogate-in-a-name", "A member whose name is half a character.", "json_surrogate", "JSON-5", wide + b', "\\ud83d": 1}', STRANGE),
        ("surrogates-that-are-a-pair", "A text with a character as two escapes.", None, None, wide + b', "x": "\\ud83d\\ude00"}', "accepts"),
        ("overlong-utf8", "A text with an overlong form.", "json_not_utf8", "JSON-1", wide + b', "x": "\xc0\xaf"}', STRANGE),
        ("surrogate-in-utf8", "A text with a surrogate as UTF-8 has none.", "json_not_utf8", "JSON-1", wide + b', "x": "\xed\xa0\x80"}', STRANGE),
        ("white-space-around", "White space before and after the envelope.", None, None, b" \t\r\n" + good + b"\r\n", "accepts"),
        ("envelope-in-a-list", "The envelope is in a list.", "envelope_malformed", "ENV-1", b"[" + good.strip() + b"]", STRANGE),
        ("payload-as-a-number", "`payload` is a number.", "envelope_malformed", "ENV-1", dump(envelope(payload, payload=7)), STRANGE),
        ("no-payload-type", "There is no `payloadType`.", "envelope_malformed", "ENV-1", dump({n: v for n, v in envelope(payload).items() if n != "payloadType"}), STRANGE),
        ("signature-without-sig", "A signature has no `sig`.", "envelope_malformed", "ENV-1", dump(envelope(payload, signatures=[{"sig": sig}, {"keyid": "x"}])), STRANGE),
        ("signatures-in-an-object", "`signatures` is an object.", "no_signature", "ENV-7", dump(envelope(payload, signatures={"sig": sig})), STRANGE),
        ("signatures-64", "64 signatures, of which one is good.", None, None, dump(envelope(payload, signatures=[{"sig": "AAAA"}] * 63 + [{"sig": sig}])), "accepts"),
        ("signatures-65", "65 signatures.", "too_many_signatures", "ENV-8", dump(envelope(payload, signatures=many)), STRANGE),
        ("base64-without-padding", "Base64 without padding.", None, None, dump(envelope(payload, payload=text.rstrip("="), signatures=[{"sig": sig.rstrip("=")}])), "accepts"),
        ("base64-of-both-alphabets", "Base64 in both alphabets.", None, None, dump(envelope(payload, signatures=[{"sig": base64.urlsafe_b64encode(raw).decode()[:40] + sig[40:]}])), "accepts"),
        ("base64-with-half-its-padding", "Base64 of which one of two padding characters is left.", "base64", "ENV-4", dump(envelope(payload, signatures=[{"sig": sig[:-1]}])), STRANGE),
        ("base64-with-more-padding", "Base64 with four padding characters more than it needs.", "base64", "ENV-4", dump(envelope(payload, signatures=[{"sig": sig + "===="}])), STRANGE),
        ("base64-with-loose-bits", "Base64 with a bit behind the last byte.", "base64", "ENV-4", dump(envelope(payload, signatures=[{"sig": loose}])), STRANGE),
        ("base64-in-lines", "Base64 with a line break.", "base64", "ENV-4", dump(envelope(payload, payload=text[:76] + "\n" + text[76:])), STRANGE),
        ("base64-of-one-character", "Base64 with one character more than whole bytes have.", "base64", "ENV-4", dump(envelope(payload, signatures=[{"sig": sig}, {"sig": "AAAAA"}])), STRANGE),
        ("base64-with-a-control-character", "Base64 with the first character beyond ASCII.", "base64", "ENV-4", dump(envelope(payload, signatures=[{"sig": sig[:-3] + "\u0080=="}])), STRANGE),
        ("base64-of-no-ascii", "Base64 with a character beyond ASCII.", "base64", "ENV-4", dump(envelope(payload, signatures=[{"sig": sig[:-3] + "\u00e4=="}])), STRANGE),
    ]  # fmt: skip
    files: Files = {}
    for name, what, code, clause, ledger, schema in made:
        kind = "valid" if code is None else "invalid"
        name = f"{kind}/envelope-{name}"
        path = None if code is None else "envelope"
        files |= vector(name, what, ledger, journal, code, clause, path, schema=schema)
    return {**files, **_keys(payload, journal), **_payloads(said, journal), **_statements(said, journal)}


def _keys(payload: bytes, journal: bytes) -> Files:
    files: Files = {}
    _, signature = P256.sign(payload)
    r, s = decode_dss_signature(signature)
    for name, what, changed, is_good in (
        ("p256-high-s", "An ECDSA signature whose s is in the upper half.", encode_dss_signature(r, ORDER - s), True),
        ("p256-not-reduced", "An ECDSA signature whose s is more than the order of the group.", encode_dss_signature(r, s + ORDER), False),
        ("p256-raw", "An ECDSA signature as r and s, 32 bytes each, which is not DER.", r.to_bytes(32, "big") + s.to_bytes(32, "big"), False),
        ("p256-with-more-behind", "An ECDSA signature with a byte behind it.", signature + b"\0", False),
    ):  # fmt: skip
        full = f"{'valid' if is_good else 'invalid'}/key-{name}"
        code, clause, path = (None, None, None) if is_good else ("too_few_signatures", "ENV-2", "envelope")
        bent = dump(envelope(payload, signatures=[{"sig": encode64(changed)}]))
        files |= vector(full, what, bent, journal, code, clause, path, keys=(P256,))
    _, mine = FIRST.sign(payload)
    hints = [{"keyid": SECOND.keyid, "sig": encode64(mine)}]
    hinted, what = dump(envelope(payload, signatures=hints)), "The keyid is that of another key: it is a hint."
    files |= vector("valid/key-of-another-hint", what, hinted, journal)
    what = "One of the trusted keys is of small order: anybody can sign with it."
    small = [
        (f"key-of-small-order{order}", what, bytes.fromhex("302a300506032b6570032100" + point))
        for order, point in SMALL_ORDER.items()
    ]
    for name, what, der in [*_other_keys(), *small]:
        full, ledger, more = f"invalid/{name}", dump(envelope(payload)), ("--key", "key2.pub")
        files |= vector(full, what, ledger, journal, "key_not_allowed", "ENV-2", more=more)
        files[f"{full}/key2.pub"] = _pem(der)
    return files


def _other_keys() -> list[tuple[str, str, bytes]]:
    def encoded(curve: EllipticCurve) -> bytes:
        public = derive_private_key(1, curve).public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    p256 = encoded(SECP256R1())
    return [
        ("key-of-another-curve", "One of the trusted keys is on P-384.", encoded(SECP384R1())),
        ("key-off-its-curve", "One of the trusted keys is no point on P-256.", p256[:-1] + bytes([p256[-1] ^ 1])),
    ]


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def _payloads(said: J, journal: bytes) -> Files:
    """The signed payload is not strict JSON, or no usable statement."""

    def changed(*path: str | int, value: Any) -> bytes:
        document = copy.deepcopy(said)
        part: Any = document
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value
        return encode(document)

    method = ("predicate", "method")
    digest = said["subject"][0]["digest"]["sha256"]
    bad, at = "statement_malformed", "PARSE-7"
    made = [
        ("in-a-list", "The statement is in a list.", "statement_type", "PARSE-4", b"[" + encode(said) + b"]"),
        ("predicate-in-a-list", "The predicate is a list.", bad, at, changed("predicate", value=[])),
        ("kind-of-another", "The kind is another one.", bad, "NODE-2", changed("predicate", "kind", value="cluster")),
        ("upper-case-digest", "The digest of the subject has upper-case letters.", bad, "PARSE-8", changed("subject", 0, "digest", "sha256", value=digest.upper())),
        ("other-digest", "The subject and `method.journal` have different digests.", bad, at, changed(*method, "journal", "sha256", value="0" * 64)),
        ("head-that-is-none", "`headSha256` is not a SHA-256.", bad, "PARSE-8", changed(*method, "journal", "headSha256", value="ab")),
        ("records-as-a-number", "`records` is a number.", bad, "TERM-5", changed(*method, "journal", "records", value=6)),
        ("records-with-a-zero", "`records` has a leading zero.", bad, "TERM-5", changed(*method, "journal", "records", value="06")),
        ("bytes-with-a-plus", "`bytes` has a sign.", bad, "TERM-5", changed(*method, "journal", "bytes", value="+1")),
        ("count-of-41-digits", "`high` has 41 digits.", bad, "TERM-5", changed("predicate", "totals", "executed", "high", value="1" * 41)),
        ("count-in-other-digits", "`low` has digits of another script.", bad, "TERM-5", changed("predicate", "totals", "executed", "low", value="\u0661")),
        ("low-that-is-null", "`low` is null.", bad, at, changed("predicate", "totals", "executed", "low", value=None)),
        ("executed-that-is-null", "`executed` is null.", bad, at, changed("predicate", "totals", "executed", value=None)),
        ("journal-that-is-null", "`journal` is null.", bad, at, changed(*method, "journal", value=None)),
        ("sealed-at-no-time", "`sealedAt` is of a 13th month.", bad, at, changed(*method, "sealedAt", value="2026-13-21T15:00:00Z")),
        ("sealed-at-a-local-time", "`sealedAt` has no `Z`.", bad, at, changed(*method, "sealedAt", value="2026-09-21T15:00:00+00:00")),
        ("sealed-at-second-60", "`sealedAt` has a leap second.", bad, at, changed(*method, "sealedAt", value="2026-09-21T14:59:60Z")),
        ("secrets-in-a-text", "`codeSecrets` is a text.", bad, at, changed(*method, "codeSecrets", value="")),
        ("secret-that-is-none", "A disclosed secret is too short.", bad, at, changed(*method, "codeSecrets", value=["ab"])),
        ("version-that-is-null", "`flopsdVersion` is null.", "statement_differs", "NODE-50", changed(*method, "flopsdVersion", value=None)),
        ("more-bytes", "`bytes` is one more than the records have.", "journal_facts", "VERIFY-4", changed(*method, "journal", "bytes", value=str(len(journal) + 1))),
        ("fewer-records", "`records` is one less than there are.", "journal_facts", "VERIFY-4", changed(*method, "journal", "records", value="5")),
        ("evidence-in-an-object", "`evidence` is an object.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value={})),
        ("evidence-of-no-state", "An item of evidence is neither present nor absent.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(state="lost")])),
        ("evidence-present-without-data", "An item of evidence is present and has no data.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(data=None)])),
        ("evidence-absent-without-a-reason", "An item of evidence is absent for no reason.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(state="absent", data=None)])),
        ("evidence-absent-for-a-sentence", "The reason of an item of evidence is a text.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(state="absent", data=None, reason="nobody answered")])),
        ("evidence-absent-for-no-code", "The reason of an item of evidence has no code.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(state="absent", data=None, reason={"said": "x"})])),
        ("evidence-of-another-member", "An item of evidence has one member too many.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(x=1)])),
        ("evidence-at-no-time", "An item of evidence was collected at no time.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(collectedAt="noon")])),
        ("evidence-twice", "Two items of evidence have one type.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(), _item()])),
        ("evidence-of-65-items", "There are 65 items of evidence.", "evidence_malformed", "NODE-59", changed("predicate", "evidence", value=[_item(type=str(n)) for n in range(65)])),
    ]  # fmt: skip
    files: Files = {}
    for name, what, code, clause, payload in made:
        files |= vector(f"invalid/payload-{name}", what, signed(payload), journal, code, clause, schema=None)
    later = _item(type="b", state="absent", data=None, reason={"code": "of_a_later_version", "more": "x"})
    many = [_item(type=str(n)) for n in range(64)]
    for name, what, payload in (
        ("evidence-of-64-items", "There are 64 items of evidence, of types that nobody knows.", changed("predicate", "evidence", value=many)),
        ("evidence-unknown", "Items of evidence of types that nobody knows.", changed("predicate", "evidence", value=[_item(), later])),
        ("sealed-in-january", "Sealed on the last of January, which is before its last record.", changed(*method, "sealedAt", value="2026-01-31T23:59:59Z")),
    ):  # fmt: skip
        files |= vector(f"valid/payload-{name}", what, signed(payload), journal)
    return files


def _item(**changes: Any) -> J:
    item: J = {"type": "a", "collectedAt": "2026-09-21T15:00:00Z", "state": "present", "reason": None, "data": {}}  # fmt: skip
    return {**item, **changes}


# A member of the statement, its false value, and its clause: an implementation that does not recompute it accepts the
# ledger.
BENT: list[tuple[str, str, str]] = [
    ("replay", '{"recording": "x", "sha256": "y", "origin": "z"}', "NODE-3"), ("segment", '{"number": 1, "continues": null, "isContinued": true}', "NODE-4"),
    ("run.id", '"another"', "NODE-5"), ("run.platform", '"aws"', "NODE-5"), ("node.name", '"node-9"', "NODE-6"), ("node.rank", "7", "NODE-6"),
    ("attempts", '["0", "1"]', "NODE-7"), ("incarnations[0].number", "2", "NODE-24"), ("incarnations[0].bootId", '"x"', "NODE-25"),
    ("incarnations[0].lastRecordAt", '"2026-09-21T14:13:27.000000Z"', "NODE-26"), ("incarnations[0].endReason", "null", "NODE-27"),
    ("incarnations[0].checkpoints", '"3"', "NODE-28"), ("incarnations[0].sources", "{}", "NODE-30"), ("incarnations[0].recovered", '{"reason": "x"}', "NODE-31"),
    ("devices[0].index", "1", "NODE-9"), ("devices[0].model", '"NVIDIA H200"', "NODE-32"), ("devices[0].pciDeviceId", '"0x2331"', "NODE-33"),
    ("devices[0].peakRow", '"h200-sxm"', "NODE-34"), ("devices[0].smCountExpected", "133", "NODE-34"), ("devices[0].evidence", '"cycles"', "NODE-35"),
    ("devices[0].sharedWith", '"everyone"', "NODE-36"), ("devices[0].executed.measured", '"1"', "NODE-37"), ("devices[0].energyJoules", '"3.501"', "NODE-38"),
    ("devices[0].observedSeconds", '"7.000000000"', "NODE-39"), ("devices[0].counters", "{}", "NODE-40"), ("devices[0].work[0].seconds", '"1.000000000"', "NODE-41"),
    ("devices[0].work[0].precisionDeclaredBy", '"config"', "NODE-42"), ("totals.executed.byEvidence", "{}", "NODE-43"), ("totals.executed.marginPpm", '{"activity": 1}', "NODE-43"),
    ("totals.executed.mayBeIntegerFlop", '"0"', "NODE-43"), ("totals.executed.clockUncertaintyFlop", '"1"', "NODE-43"), ("totals.executed.byPhase", "{}", "NODE-43"),
    ("totals.integerOperations.measured", '"0"', "NODE-12"), ("totals.guidelines.low", '"1"', "NODE-13"), ("energyJoules", '"3.499"', "NODE-15"),
    ("energyUncountedSeconds", '"0.000000000"', "NODE-16"), ("deviceSeconds", '"6.000000001"', "NODE-17"), ("wallSeconds", '"6.000000001"', "NODE-18"),
    ("coverage.observedSeconds", '"5.000000000"', "NODE-44"), ("coverage.coveragePpm", '"999999"', "NODE-45"), ("coverage.gapsNotListed", '"1"', "NODE-48"),
    ("isolation.daemonUsers", '["1"]', "ISO-2"), ("isolation.jobUsers", '["1"]', "ISO-3"), ("isolation.jobContainer", "true", "ISO-4"),
    ("isolation.filesPrivate", "false", "ISO-5"), ("isolation.reasons", "[]", "ISO-6"), ("isolation.jobCouldReadKey", "false", "ISO-9"),
    ("isolation.key", '{"kind": "pkcs11", "ownerUser": "0", "mode": "0600"}', "ISO-8"),
    ("declared.phase", '"evaluate"', "DECL-2"), ("method.peakTableSha256", '"0"', "NODE-51"), ("method.configSha256", "[]", "NODE-52"),
    ("method.margins.activity.ppm", "1", "NODE-53"), ("method.policies", '[{"id": "x", "sha256": "y"}]', "NODE-54"), ("method.earlierSeals.count", '"1"', "NODE-57"),
    ("method.journal.lastRecordAt", '"2026-09-21T14:13:27.000000Z"', "NODE-58"), ("claim.limits", '""', "NODE-23"), ("totals.executed.method", '"guesswork"', "NODE-11"),
    ("totals.architectureAbsentReasons", "[]", "NODE-14"), ("method.assumptions", "[]", "NODE-55"),
]  # fmt: skip


def _statements(said: J, journal: bytes) -> Files:
    files: Files = {}
    for member, value, clause in BENT:
        document = copy.deepcopy(said)
        steps: list[Any] = []
        for step in member.split("."):
            name, _, index = step.partition("[")
            steps += [name, *([int(index[:-1])] if index else [])]
        part: Any = document["predicate"]
        for step in steps[:-1]:
            part = part[step]
        assert part[steps[-1]] != json.loads(value), member
        part[steps[-1]] = json.loads(value)
        name = "invalid/bent-" + "-".join(str(step).lower() for step in steps if not isinstance(step, int))
        if f"{name}/ledger.json" in files:
            name += "-too"
        payload = encode(document)
        what = f"`{member}` is not what follows from the journal."
        path = f"statement.predicate.{member}"
        files |= vector(name, what, signed(payload), journal, "statement_differs", clause, path, schema=None)
    document = {**said, "predicate": {**said["predicate"], "incarnations": {}}}
    name, what = "invalid/incarnations-in-an-object", "`incarnations` is an object, which has no times."
    return files | vector(name, what, signed(encode(document)), journal, "time_malformed", "NODE-50", None, schema=None)


def gaps_vectors() -> Files:
    """Gaps that are lengthened over 63 intervals but not over 64, and more of them than are listed."""
    files: Files = {}
    for name, what, count, devices in (
        ("gaps-of-63", "An interval is lengthened over 62 others in between.", 63, 63),
        ("gaps-of-64", "An interval is not lengthened over 63 others in between.", 64, 64),
        ("gaps-of-1003", "More gaps than a ledger lists: the longest are there, of equal ones the earlier.", 1003, 1),
    ):
        journal = chain(_many_gaps([dict(line.record()) for line in parsed(tell(runs.small))], count, devices))
        files |= vector(f"valid/{name}", what, statement_of(journal), journal)
    return files


def _many_gaps(records: list[J], count: int, devices: int) -> list[J]:
    """Two checkpoints of `devices` devices with a gap each, the second with the first device only; or gaps of one."""
    begin, source, device, first = copy.deepcopy(records[:4])
    at = device["to_ns"]
    if devices > 1:
        all_devices = [
            {**device, "number": n, "index": n, "uuid": f"GPU-{n:08x}-0000-4000-8000-000000000000"}
            for n in range(devices)
        ]
        rows = {"to_ns": [at + 10**9] * devices, "gap_ns": {"stale": [10**9] * devices}}
        one = {**first, "ns": at + 10**9, "devices": list(range(devices)), "tallies": rows,
               "gaps": [[n, at, at + 10**9, "stale"] for n in range(devices)]}  # fmt: skip
        two = {**first, "ns": at + 2 * 10**9, "devices": [0], "tallies": {"to_ns": [at + 2 * 10**9], "gap_ns": {"stale": [2 * 10**9]}},
               "gaps": [[0, at + 10**9, at + 2 * 10**9, "stale"]]}  # fmt: skip
        end = {**records[5], "ns": at + 2 * 10**9, "reason": "rotated"}  # an account may stop before it
        return [begin, source, *all_devices, one, two, end]
    step = 10**6
    gaps = [[0, at + 2 * n * step, at + (2 * n + 1) * step + (n % 7 == 0), "stale"] for n in range(count)]
    span, gap_ns = 2 * count * step, sum(end - begin_ns for _, begin_ns, end, _ in gaps)
    rows = {"to_ns": [at + span], "gap_ns": {"stale": [gap_ns]}, "observed_ns": {"activity": [span - gap_ns]}}
    one = {**first, "ns": at + span, "tallies": rows, "gaps": gaps}
    return [begin, source, device, one, {**records[5], "ns": at + span}]
