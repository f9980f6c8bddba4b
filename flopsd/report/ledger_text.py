"""The texts that `seal`, `merge` and `verify` print about a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.times import seal_time_doubts, short_utc
from flopsd.core.companions import kind_of
from flopsd.core.figures import figures_from
from flopsd.core.ledger.merged_completeness import MAX_LISTED
from flopsd.core.rounding import format_duration
from flopsd.core.values import utc_ns
from flopsd.report.answer import answer_to
from flopsd.report.isolation_text import isolation_text
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.ledger_rows import Row, by_count_rows, coverage_text, executed_rows, meaning_rows
from flopsd.report.numbers import NOTHING_MEASURED, interval
from flopsd.report.terminal import LABEL, counted, facts, named, one_line, shell_command, shown, stated, wrapped
from flopsd.report.verification_text import (
    added_up_again,
    anchor_texts,
    children_text,
    codes_text,
    part_texts,
    recomputed,
    replay_text,
    signed_by,
    stopped_text,
    stops_text,
    unsealed_text,
)
from flopsd.settings.words import say, say_all
from flopsd.system.clock import rfc3339

if TYPE_CHECKING:
    from flopsd.attestation.evidence.item import EvidenceResult
    from flopsd.attestation.foreign_files import ForeignFile
    from flopsd.attestation.merge.merge import Merged
    from flopsd.attestation.merge.verify_merged import ChildrenChecked, VerifiedMerge
    from flopsd.attestation.seal import Sealed
    from flopsd.attestation.verify import Verified

_NO_END = "the journal has no end: the figures are up to its last record"


def sealed_text(sealed: Sealed, copies: Iterable[object] = ()) -> str:
    """The paths of the ledger and its `copies`, its statements, and the command that verifies it."""
    predicate, entry = sealed.predicate, LedgerObject(sealed.predicate, "predicate")
    executed, findings = predicate["totals"]["executed"], predicate["findings"]
    rows = stated(
        [
            ("REPLAY", replay_text(entry)),
            *part_texts(entry),
            ("ROLLING", _NO_END if predicate["incarnations"][-1]["endReason"] is None else ""),
            *interval(figures_from(executed)).facts(NOTHING_MEASURED),
            *by_count_rows(executed["byEvidence"]),
            ("coverage", coverage_text(predicate)),
            ("answer", answer_to(findings).headline if findings else ""),
            ("journal", str(sealed.journal)),
            ("public key", str(sealed.public_key)),
            ("timestamp", sealed.timestamp),
            *(("copied to", str(copy)) for copy in copies),
        ]
    )
    replay = predicate["replay"] is not None
    command = verify_command(sealed.ledger, sealed.public_key, sealed.companions, replay=replay)
    head = f"sealed {sealed.ledger}" if sealed.is_new else f"{sealed.ledger} was already sealed and is unchanged"
    return shown([head, *_indented(rows), "verify it with:", f"  {command}"])


def merged_text(merged: Merged) -> str:
    """The merged ledger, its sums, what is missing, and the command that verifies it."""
    replay = merged.predicate["replay"] is not None
    command = verify_command(merged.ledger, merged.public_key, merged.companions, replay=replay)
    stopped = stops_text(merged.stops)
    head = [f"merged {merged.ledger}", *_foreign(merged.foreign), *_job(merged.predicate, stopped)]
    key = _indented([("public key", str(merged.public_key))])
    unknown = merged.predicate["completeness"]["complete"] is None and merged.predicate["lineage"] is None
    more = ["if you know how many nodes the job had, merge again with --nodes N"] if unknown else []
    return shown([*head, *key, *more, "verify it with:", f"  {command}"])


def verified_text(verified: Verified, now_ns: int | None = None) -> str:
    """What a verified ledger states, and what it does not. `now_ns`: the verifier's time in Unix nanoseconds."""
    predicate = verified.statement["predicate"]
    devices, starts = counted(len(predicate["devices"]), "device"), counted(len(predicate["incarnations"]), "start")
    checked = sum(start["codes"] == "checked" for start in predicate["incarnations"])
    run, node = named(predicate["run"]["id"]), named(predicate["node"]["name"])
    ran = format_duration(Fraction(predicate["wallSeconds"]))
    anchored = [] if verified.anchored is None else anchor_texts(verified.anchored)
    return shown(
        [
            recomputed(verified),
            *wrapped(signed_by(verified)),
            *_replay(predicate),
            *_foreign(verified.foreign),
            *_rolling(verified),
            *(text for one in verified.also for text in wrapped(f"ALSO: {one_line(one.text)}")),
            *_clock(predicate, now_ns),
            *wrapped(
                f"run {run} on {node}: {devices}, {starts} of the daemon, which ran {ran}; "
                f"codes of the journal {codes_text(checked, len(predicate['incarnations']))}"
            ),
            "executed FLOP:",
            *_indented([*executed_rows(predicate), *meaning_rows(predicate)]),
            *wrapped(isolation_text(LedgerObject(predicate, "predicate"))),
            *_attached(verified.evidence),
            *_indented(("anchors", text) for text in anchored),
            *_claim(predicate),
        ]
    )


def verified_merge_text(verified: VerifiedMerge, now_ns: int | None = None) -> str:
    """What a verified merged ledger states, and what it does not. `now_ns`: the verifier's time in Unix nanoseconds."""
    predicate = verified.statement["predicate"]
    return shown(
        [
            added_up_again(verified),
            *wrapped(signed_by(verified)),
            *_foreign(verified.foreign),
            *wrapped(children_text(verified)),
            *([] if verified.children is None else _children(verified.children)),
            *_clock(predicate, now_ns),
            *_job(predicate, stopped_text(LedgerObject(predicate, "predicate"))),
            *_claim(predicate),
        ]
    )


def verify_command(ledger: Path, public_key: Path, companions: Iterable[Path], *, replay: bool) -> str:
    """The shell command that verifies a ledger just written."""
    before = f"{ledger.stem}."
    more = [word for file in companions for word in (f"--{kind_of(file.name.removeprefix(before))}", str(file))]
    more += ["--allow-replay"] if replay else []
    return shell_command(["flopsd", "verify", str(ledger), "--key", str(public_key), *more])


def _indented(rows: Iterable[Row]) -> list[str]:
    return list(facts(((f"  {name}", value) for name, value in rows), LABEL + 2))


def _foreign(files: Iterable[ForeignFile]) -> list[str]:
    """Name the tables and policies of others that the figures and findings follow from."""
    return [text for one in files for text in wrapped(f"{one.flag}: {one_line(one.text)}")]


def _claim(predicate: Mapping[str, Any]) -> list[str]:
    claim = predicate["claim"]
    return [
        *wrapped(f"The signature states: {say('claim.states', claim['states'])}"),
        *wrapped(f"Limits: {say_all('claim.limits', claim['limits'], ' ')}"),
    ]


def _replay(predicate: Mapping[str, Any]) -> list[str]:
    words = replay_text(LedgerObject(predicate, "predicate"))
    return wrapped(f"REPLAY: {words}.") if words else []


def _rolling(verified: Verified) -> list[str]:
    """Warnings for a ledger that covers only part of its run or job, was sealed before the end, or whose journal
    continues."""
    predicate = verified.statement["predicate"]
    texts = part_texts(LedgerObject(predicate, "predicate"), verified.history)
    lines = [one for word, text in texts for one in wrapped(f"{word}: {text}.")]
    if predicate["incarnations"][-1]["endReason"] is None:
        last = rfc3339(utc_ns(predicate["method"]["journal"]["lastRecordAt"]))
        lines += wrapped(
            "ROLLING: sealed while the run went on, or after it was killed. It covers the time up to "
            f"{last} only; later work is not in it."
        )
    if verified.unsealed_records:
        lines += wrapped(unsealed_text(verified.unsealed_records))
    return lines


def _clock(predicate: Mapping[str, Any], now_ns: int | None) -> list[str]:
    return [line for doubt in seal_time_doubts(predicate, now_ns) for line in wrapped(f"CLOCK: {doubt}.")]


def _attached(found: Sequence[EvidenceResult]) -> list[str]:
    """Each piece of attached evidence: the result of its check, what it proves and what it does not."""
    lines = ["attached evidence:"] if found else []
    for one in found:
        lines += wrapped(f"{one_line(one.type)}: {one.verdict.value}: {one_line(one.text)}", "    ", "  ")
        if one.verdict.value != "absent":
            proves = "proves" if one.verdict.value == "checked" else "claims"
            lines += wrapped(f"{proves}: {one_line(one.proves)}", "      ", "    ")
            lines += wrapped(f"limits: {one_line(one.limits)}", "      ", "    ")
    return lines


def _job(predicate: Mapping[str, Any], stopped: str) -> list[str]:
    completeness = predicate["completeness"]
    word = {True: "COMPLETE", False: "INCOMPLETE", None: "COMPLETENESS UNKNOWN"}[completeness["complete"]]
    holes = [say("completeness.missing", one) for one in completeness["missing"]]
    return [
        *_replay(predicate),
        *wrapped(_subject(predicate)),
        *wrapped(f"{word}: {say('completeness.summary', completeness['summary'])}{_declared_nodes(predicate)}"),
        *_indented([("missing", words) for words in _some(holes)]),
        *(wrapped(f"STOPPED: {stopped}.") if stopped else []),
        "executed FLOP:",
        *_indented([*executed_rows(predicate), *meaning_rows(predicate)]),
    ]


def _declared_nodes(predicate: Mapping[str, Any]) -> str:
    """Who stated the number of a job's nodes, if its ledgers do not."""
    if predicate["lineage"] is not None and predicate["completeness"]["complete"] is True:
        return " How many nodes a job had is stated in its own ledger, by its nodes or by whoever merged them."
    count = predicate["completeness"]["declaredNodes"]
    if count is None or predicate["jobNodes"]:
        return ""
    return f" That the job had {counted(int(count), 'node')} was declared at the merge: no ledger states it."


def _subject(predicate: Mapping[str, Any]) -> str:
    ledgers = counted(int(predicate["ledgerCount"]), "ledger")
    begin, last = (short_utc(utc_ns(predicate[name])) for name in ("startedAt", "lastRecordAt"))
    ledgers += f", {begin} to {last}"
    if predicate["lineage"] is not None:
        runs = counted(len(predicate["lineage"]["runs"]), "job")
        return f"lineage {named(predicate['lineage']['name'])}: {runs}, {ledgers}"
    nodes = counted(int(predicate["completeness"]["nodes"]), "node")
    attempts = counted(len(predicate["attempts"]), "attempt id")
    return f"job {named(predicate['run']['id'])}: {nodes}, {attempts}, {ledgers}"


def _children(checked: ChildrenChecked) -> list[str]:
    rows = [("not given", text) for text in _some(checked.missing)]
    return _indented([*rows, *(("no part", one_line(text)) for text in checked.others[:MAX_LISTED])])


def _some(texts: Sequence[str]) -> list[str]:
    more = len(texts) - MAX_LISTED
    return [*map(one_line, texts[:MAX_LISTED]), *([f"and {more} more"] if more > 0 else [])]
