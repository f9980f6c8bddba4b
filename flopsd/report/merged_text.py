"""Texts for people about merged ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.attestation.merge.merge import Merged
from flopsd.attestation.merge.verify_merged import ChildrenChecked, VerifiedMerge
from flopsd.core.ledger.completeness import MAX_TOLD
from flopsd.core.model import Figures
from flopsd.report.ledger_text import (
    counted,
    coverage_share,
    figures_text,
    meaning_lines,
    one_line,
    verify_command,
)


def merged_text(merged: Merged) -> str:
    """What was merged, what it comes to, what is missing, and how to verify it."""
    replay = merged.predicate["replay"] is not None
    return "\n".join(
        [
            f"merged {merged.ledger}",
            *_figures(merged.predicate),
            f"  public key {merged.public_key}",
            "verify it with:",
            f"  {verify_command(merged.ledger, merged.public_key, merged.policies, replay=replay)}",
            "",
        ]
    )


def verified_merge_text(verified: VerifiedMerge) -> str:
    """What a verified merged ledger says, and what it does not."""
    predicate = verified.statement["predicate"]
    return "\n".join(
        [
            f"VERIFIED: signed by {', '.join(k[:16] + '…' for k in verified.keyids)}, "
            f"all totals added up again from the entries of {counted(int(predicate['ledgerCount']), 'ledger')}",
            *_children(verified.children, predicate),
            *_figures(predicate),
            f"It says: {predicate['claim']['text']}",
            f"It does not say: {predicate['claim']['limits']}",
            "",
        ]
    )


def _figures(predicate: Mapping[str, Any]) -> list[str]:
    executed, coverage = predicate["totals"]["executed"], predicate["coverage"]
    figures = Figures(*(None if executed[k] is None else int(executed[k]) for k in ("low", "measured", "high")))  # type: ignore[arg-type]
    share = "unknown" if coverage["coveragePpm"] is None else coverage_share(int(coverage["coveragePpm"]))
    energy = "unknown" if predicate["energyJoules"] is None else f"{predicate['energyJoules']} J"
    if predicate["energyJoules"] is not None and float(predicate["energyUncountedSeconds"]):
        energy += f" counted; not counted in {predicate['energyUncountedSeconds']} device seconds"
    replay = predicate["replay"]
    return [
        *([f"REPLAY: {replay['children']} children are of recordings. This is no evidence."] if replay else []),
        _what(predicate),
        *_completeness(predicate["completeness"]),
        "executed FLOP:",
        figures_text(figures).rstrip("\n"),
        f"  evidence   {one_line(', '.join(executed['byEvidence'])) or 'none'}",
        f"  coverage   {share} of {coverage['spanSeconds']} device seconds",
        f"  energy     {energy}",
        *meaning_lines(predicate),
    ]


def _what(predicate: Mapping[str, Any]) -> str:
    ledgers = counted(int(predicate["ledgerCount"]), "ledger")
    ledgers += one_line(f", {predicate['startedAt']} to {predicate['lastRecordAt']}")
    if predicate["lineage"] is not None:
        runs = counted(len(predicate["lineage"]["runs"]), "job")
        return f"lineage {one_line(predicate['lineage']['name'])}: {runs}, {ledgers}"
    nodes = counted(int(predicate["completeness"]["nodes"]), "node")
    attempts = counted(len(predicate["attempts"]), "attempt id")
    return f"job {one_line(predicate['run']['id'])}: {nodes}, {attempts}, {ledgers}"


def _completeness(told: Mapping[str, Any]) -> list[str]:
    word = {True: "COMPLETE", False: "INCOMPLETE", None: "COMPLETENESS UNKNOWN"}[told["complete"]]
    more = len(told["missing"]) - MAX_TOLD
    return [
        f"{word}: {told['summary']}",
        *(f"  missing    {one_line(words)}" for words in told["missing"][:MAX_TOLD]),
        *([f"  missing    and {more} more"] if more > 0 else []),
    ]


def _children(seen: ChildrenChecked | None, predicate: Mapping[str, Any]) -> list[str]:
    if seen is None:
        return ["children   not looked at: name where they lie with --children"]
    lines = [
        f"children   {seen.given} of {predicate['ledgerCount']} given and unchanged, "
        f"{seen.recomputed} of them recomputed"
    ]
    lines += [f"  not given  {one_line(name)}" for name in seen.missing[:MAX_TOLD]]
    if len(seen.missing) > MAX_TOLD:
        lines.append(f"  not given  and {len(seen.missing) - MAX_TOLD} more")
    lines += [f"  no part    {one_line(label)}" for label in seen.others[:MAX_TOLD]]
    return lines
