"""Texts for people about figures, ledgers and runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.attestation.evidence.item import EvidenceResult, EvidenceState
from flopsd.core.flop import format_flop
from flopsd.core.model import Figures
from flopsd.core.rounding import Towards, divided

if TYPE_CHECKING:
    from flopsd.attestation.anchors import AnchorComparison
    from flopsd.attestation.log_export import Anchor
    from flopsd.attestation.seal import Sealed
    from flopsd.attestation.verify import Verified


def figures_text(figures: Figures) -> str:
    """Three figures, never one."""
    measured = "nothing was measured" if figures.measured_flop is None else format_flop(figures.measured_flop)
    high = "no upper bound is known" if figures.high_flop is None else at_most(figures.high_flop)
    return f"  measured   {measured}\n  at least   {at_least(figures.low_flop)}\n  at most    {high}\n"


def at_least(flop: int) -> str:
    return format_flop(flop, towards=Towards.DOWN)


def at_most(flop: int) -> str:
    return format_flop(flop, towards=Towards.UP)


def sealed_text(sealed: Sealed) -> str:
    """Where the ledger lies, what it says, and how to verify it."""
    replay = "  REPLAY     of a recording: no hardware was metered, this is no evidence\n" if sealed.replay else ""
    verify = verify_command(sealed.ledger, sealed.public_key, sealed.policies, replay=bool(sealed.replay))
    going_on = "" if sealed.ended else "  ROLLING    the run has no end yet: these are the figures so far\n"
    stamped = f"  timestamp  {sealed.timestamp}\n" if sealed.timestamp else ""
    return (
        f"sealed {sealed.ledger}\n{replay}{going_on}{figures_text(sealed.figures)}"
        f"  journal    {sealed.journal}\n  public key {sealed.public_key}\n{stamped}"
        f"verify it with:\n  {verify}\n"
    )


def verify_command(ledger: Path, public_key: Path, policies: Iterable[object], *, replay: bool) -> str:
    """What a shell verifies a ledger with that lies where it was put just now."""
    more = [word for file in policies for word in ("--policy", str(file))]
    more += ["--allow-replay"] if replay else []
    return shlex.join(["flopsd", "verify", str(ledger), "--key", str(public_key), *more])


def verified_text(verified: Verified) -> str:
    """What a verified ledger says, and what it does not."""
    predicate: Mapping[str, Any] = verified.statement["predicate"]
    executed, coverage = predicate["totals"]["executed"], predicate["coverage"]
    figures = Figures(*(None if executed[k] is None else int(executed[k]) for k in ("low", "measured", "high")))  # type: ignore[arg-type]
    share = "unknown" if coverage["coveragePpm"] is None else coverage_share(int(coverage["coveragePpm"]))
    energy = "unknown" if predicate["energyJoules"] is None else f"{predicate['energyJoules']} J"
    if predicate["energyJoules"] is not None and float(predicate["energyUncountedSeconds"]):
        energy += f" counted; not counted in {predicate['energyUncountedSeconds']} device seconds"
    evidence = ", ".join(executed["byEvidence"]) or "none"
    clock = at_most(int(executed["clockUncertaintyFlop"])) if int(executed["clockUncertaintyFlop"]) else ""
    lines = [
        f"VERIFIED: signed by {', '.join(k[:16] + '…' for k in verified.keyids)}, "
        f"all totals recomputed from {counted(verified.records, 'journal record')}",
        *(["REPLAY: read from a recording, no hardware was metered. This is no evidence."] if verified.replay else []),
        *_rolling(verified),
        f"run {one_line(predicate['run']['id'])} on {one_line(predicate['node']['name'])}, "
        f"{counted(len(predicate['devices']), 'device')}, {counted(len(predicate['incarnations']), 'incarnation')}",
        "executed FLOP:",
        figures_text(figures).rstrip("\n"),
        f"  evidence   {evidence}",
        *([f"  of that    {clock} either way from the SM clock between its samples"] if clock else []),
        f"  coverage   {share} of {coverage['spanSeconds']} device seconds, "
        f"{counted(len(coverage['gaps']), 'gap')} listed",
        f"  energy     {energy}",
        *meaning_lines(predicate),
        *_attached(verified.evidence),
        *([] if verified.anchored is None else anchored_lines(verified.anchored)),
        f"It says: {predicate['claim']['text']}",
        f"It does not say: {predicate['claim']['limits']}",
    ]
    return "\n".join(lines) + "\n"


def meaning_lines(predicate: Mapping[str, Any]) -> list[str]:
    """The other bases and the findings, short; `flopsd report` tells them whole."""
    totals = predicate["totals"]
    guidelines, architecture = totals["guidelines"], totals["architecture"]
    resting = f" ({one_line(guidelines['requiredPpmSource'])})" if "requiredPpmSource" in guidelines else ""
    lines = [f"  guidelines {_interval(guidelines)}: what contributes to parameter updates{resting}"]
    if architecture is not None:
        shown = f"{at_least(int(architecture['low']))} to {at_most(int(architecture['high']))}"
        lines.append(f"  by model   {format_flop(int(architecture['computed']))}, {shown}: from its shape and tokens")
    warned = [ratio for ratio in predicate["reconciliation"] if ratio["warning"] is not None]
    lines += [f"  WARNING    {one_line(ratio['name'])}: {one_line(ratio['warning'])}" for ratio in warned]
    judged = [finding for finding in predicate["findings"] if finding["state"] is not None]
    undeclared = [one for one in judged if one["applies"] is None and one["state"] == "indeterminate"]
    for finding in judged:
        if finding not in undeclared:
            sure = "" if finding["applies"] else " (if it applies)"
            if finding["state"] == "above" and finding["status"] == "interpretation":
                sure += " (flopsd's reading, not the text's)"
            lines.append(f"  {finding['state'].upper():<13} {one_line(finding['title'])}{sure}: {_share(finding)}")
    if undeclared:
        lines.append(
            f"  INDETERMINATE {counted(len(undeclared), 'threshold')}: too little is declared of the training and its "
            "base model (docs/thresholds.md)"
        )
    return lines


def _interval(figures: Mapping[str, Any]) -> str:
    low, measured, high = (None if figures[k] is None else int(figures[k]) for k in ("low", "measured", "high"))
    most = "no upper bound" if high is None else at_most(high)
    point = "no point figure" if measured is None else format_flop(measured)
    return f"{point}, {at_least(low or 0)} to {most}"


def _share(finding: Mapping[str, Any]) -> str:
    high = finding["sharePpm"]["high"]
    if high is None:
        return one_line(finding["reason"])
    return f"at most {share_text(int(high), Towards.UP)} of the threshold"


def share_text(ppm: int, towards: Towards) -> str:
    """A share in percent, below one to the millionth, else to a tenth of a percent."""
    if ppm < 10_000:
        return f"0.{ppm:04} %"
    tenths = divided(ppm, 1000, towards)
    return f"{tenths // 10}.{tenths % 10} %"


def coverage_share(ppm: int) -> str:
    """How much is known, in percent, rounded down: nothing is called whole that is not."""
    return f"{ppm // 10_000}.{ppm % 10_000 // 100:02} %"


def _attached(found: Sequence[EvidenceResult]) -> list[str]:
    """Each piece of attached evidence: what came of it, what it proves and what not."""
    lines = ["attached evidence:"] if found else []
    for finding in found:
        lines.append(f"  {one_line(finding.type)}: {finding.verdict.value}: {one_line(finding.words)}")
        if finding.verdict is not EvidenceState.ABSENT:
            lines.append(
                f"    {'proves' if finding.verdict is EvidenceState.HOLDS else 'claims'}: {one_line(finding.proves)}"
            )
            lines.append(f"    limits: {one_line(finding.limits)}")
    return lines


def _rolling(verified: Verified) -> list[str]:
    """What to know of a ledger that was sealed before its run's end, or whose journal goes on."""
    predicate = verified.statement["predicate"]
    lines = []
    if predicate["incarnations"][-1]["endReason"] is None:
        lines.append(
            "ROLLING: sealed while the run went on, or after it was killed. It speaks of the time up to "
            f"{predicate['method']['journal']['lastRecordAt']} only, and later work is not in it."
        )
    if verified.unsealed_records:
        lines.append(
            f"The journal beside it goes on: {counted(verified.unsealed_records, 'record')} not sealed, "
            "of which nothing is said."
        )
    return lines


def counted(count: int, noun: str, several: str = "") -> str:
    """`1 device`, `2 devices`; `several` is the plural where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def one_line(text: object) -> str:
    """Text from a ledger or a log as one printable line: it must not move a terminal's cursor or look like ours."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(text))


def anchored_lines(anchored: AnchorComparison) -> list[str]:
    """What checkpoint lines that left the host say of the journal, and what they leave open."""
    first, last, passed = anchored.first, anchored.last, anchored.passed
    lines = [
        f"  anchors    {counted(anchored.anchors, 'checkpoint')} in {counted(anchored.lines, 'line')} of the log, all "
        "on the journal's chain",
        f"             first: record {first.records}, {_taken(first)} ({one_line(first.where)})",
        f"             last:  record {last.records}, {_taken(last)} ({one_line(last.where)})",
        f"             the journal up to record {last.records} is unaltered since then, if the log is: get it from its "
        "service yourself",
        f"             behind the last anchor nothing off this host holds {counted(anchored.behind, 'record')}",
    ]
    if anchored.lag_ms is not None:
        least, most = (ms / 1000 for ms in anchored.lag_ms)
        lines.append(f"             taken {least:.1f} to {most:.1f} s after the time that the journal gives the record")
    if passed.unreadable:
        lines.append(
            f"             torn or garbled, so no anchor: {counted(passed.unreadable, 'more line')} of this run"
        )
    return lines


def _taken(anchor: Anchor) -> str:
    from flopsd.attestation.anchors import ingested_at

    if (at := ingested_at(anchor)) is not None:
        return f"taken by the log service at {at}"
    if anchor.line_time is not None:
        return f"at {one_line(anchor.line_time)} by the clock of whoever wrote the line: the log has no ingestion times"
    return "at no time that the log tells"
