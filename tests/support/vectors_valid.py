"""The vectors that every implementation must accept, figure for figure."""

from __future__ import annotations

import base64
import json

from flopsd.core.ledger.statement import encode
from flopsd.journal.framing import frame
from tests.support import vector_runs as runs
from tests.support.story import tell
from tests.support.vectors import FIRST, P256, SECOND, Case, parsed, signed, statement_of


def _case(name: str, what: str, journal: bytes, *, allow_replay: bool = False) -> Case:
    return Case(name, what, signed(encode(statement_of(journal))), journal, allow_replay=allow_replay)


def valid() -> list[Case]:
    """All of them."""
    small = tell(runs.small)
    payload = encode(statement_of(small))
    return [
        _case(
            "activity-and-gaps",
            "An H100 with activity percentages and an A100 that is only bounded; a driver that timed out for two seconds, "
            "a kill, four seconds without a daemon, a second incarnation. The margin makes both roundings show.",
            tell(runs.activity),
        ),
        _case(
            "cycles-recovered",
            "Running cycle counters. The daemon was dead for five seconds and the counters tell their work afterwards "
            "(`recoveredSeconds`); a pipe was unread; the format was declared.",
            tell(runs.cycles),
        ),
        _case(
            "declared-mix",
            "A declared mix of formats, with shares that do not divide; another declaration for one device; a clock in "
            "doubt (`clockUncertaintyFlop`); pipes that were not read; a part whose rates are disputed; a part that lacks "
            "the declared format, and rates of four pipes.",
            tell(runs.declared),
        ),
        _case(
            "declared-phases",
            "A fine-tune of a declared base model. Two training processes name phases, formats, their model and tokens; one "
            "is late, so a second is nobody's; the daemon is killed once and the processes' counters go on. Three bases, "
            "their reconciliation and the findings of `policy.yaml` follow.",
            tell(runs.phases),
        ),
        _case(
            "declared-by-settings",
            "No process says anything; the settings declare the whole job to be training with full activation "
            "checkpointing, and that the base model's compute can be neither known nor estimated.",
            tell(runs.settings),
        ),
        _case("neuron-count", "A Trainium chip: the vendor's software counts, the ceiling is the whole chip's.", tell(runs.neuron)),
        _case(
            "unknown-device",
            "A GPU that the peak table does not know: its time is a gap without a ceiling, so no total has an upper bound.",
            tell(runs.stranger),
        ),
        _case("no-device", "No accelerator was found. `low` is 0; `measured` and `high` are not known, not 0.", tell(runs.nothing)),
        _case(
            "replay",
            "A replay of a recording. Its arithmetic holds, and it is no evidence: without the reader's explicit "
            "allowance it must be refused (see invalid/replay-as-evidence).",
            tell(runs.replayed),
            allow_replay=True,
        ),
        _case(
            "rebooted",
            "Killed, and the machine booted anew. The gap begins below zero on the new boot's clock; how long it was "
            "only the wall clock tells.",
            tell(runs.rebooted),
        ),
        _case(
            "accounted-elsewhere",
            "Time in which the device was another job's, and time that its MIG slices account for: a gap of ceiling 0 "
            "that costs no coverage.",
            tell(runs.elsewhere),
        ),
        _case(
            "named-late",
            "What two devices are is learned late: one is rated anew, for all of its incarnation; one was listed under the "
            "name of its place, whose time is accounted elsewhere from then on.",
            tell(runs.named_late),
        ),
        _case(
            "recovered-tail",
            "A power cut tore the journal's last line; the next incarnation says what it cut off. The device's evidence "
            "became better meanwhile.",
            tell(runs.torn),
        ),
        Case("p256", "Signed with ECDSA on P-256 over SHA-256, DER-encoded.", signed(payload, P256), small, keys=(P256,)),
        Case(
            "two-signatures",
            "Two keys signed, two are asked for.",
            signed(payload, FIRST, P256),
            small,
            keys=(FIRST, P256),
            threshold=2,
        ),
        Case(
            "journal-goes-on",
            "A record was put behind the sealed ones, well chained: sealed while the run went on. Nothing is said of it.",
            signed(payload),
            small + frame(parsed(small)[-1].head, {"kind": "end", "incarnation": 1})[0],
        ),
        Case(
            "liberal-envelope",
            "What DSSE lets an envelope be: base64 in the URL-safe alphabet, signatures without keyid or with a foreign "
            "one, members that nobody knows, a signature by a key that is not asked for.",
            _liberal(payload),
            small,
        ),
    ]  # fmt: skip


def _liberal(payload: bytes) -> bytes:
    (_, first), (_, second) = FIRST.sign(payload), SECOND.sign(payload)
    document = {
        "comment": "members that nobody knows are ignored",
        "signatures": [
            {"keyid": "mine", "sig": base64.urlsafe_b64encode(second).decode()},
            {"sig": base64.urlsafe_b64encode(first).decode(), "extension": {"kind": "unknown"}},
        ],
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.urlsafe_b64encode(payload).decode(),
    }
    return json.dumps(document).encode()
