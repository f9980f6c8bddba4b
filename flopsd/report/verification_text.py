"""The results of verification, in the words of `flopsd verify` and of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from flopsd.core.field_reader import words_of
from flopsd.core.ledger.merged_entry import Stop, recordings_text, stop_of
from flopsd.core.ledger.merged_types import MAX_SEGMENT
from flopsd.core.ledger.segments import segment_text
from flopsd.core.ledger.start_notes import ROTATED
from flopsd.core.rounding import format_duration
from flopsd.errors import LedgerError
from flopsd.report.ledger_json import HINT, LedgerObject
from flopsd.report.terminal import counted, one_line, stated
from flopsd.system.clock import NS_PER_S

if TYPE_CHECKING:
    from flopsd.attestation.anchors import AnchorComparison
    from flopsd.attestation.log_export import Anchor
    from flopsd.attestation.merge.verify_merged import VerifiedMerge
    from flopsd.attestation.verify import Verified
    from flopsd.core.ledger.history import History

_IN_NO_FIGURE = "what the devices did then is in no figure here"
_MOST_NODES = 3  # that are named


def recomputed(verified: Verified) -> str:
    """The verdict on a node's ledger."""
    return f"VERIFIED: signature checked, every total recomputed from {counted(verified.records, 'journal record')}"


def added_up_again(verified: VerifiedMerge) -> str:
    """The verdict on a merged ledger."""
    ledgers = counted(int(verified.statement["predicate"]["ledgerCount"]), "ledger")
    return f"VERIFIED: signature checked, every sum recomputed from the entries of {ledgers}"


def signed_by(verified: Verified | VerifiedMerge) -> str:
    """Which of the given keys signed the ledger, and which did not: without a threshold, one is enough."""
    others = verified.not_signed_by
    text = f"Signed by key {', '.join(verified.keyids)}."
    return f"{text} NOT signed by key {', '.join(others)}, which was given too." if others else text


def unsealed_text(records: int) -> str:
    return f"The journal beside it has {counted(records, 'more record')}: not sealed, and not covered by this ledger."


def stopped_text(predicate: LedgerObject, history: History | None = None) -> str:
    """A warning if the daemon ended and was started again later; else empty. `history`: of the ledger's journal, which
    has the clock since boot; a ledger has only the wall clock, which may have been set meanwhile."""
    if (children := predicate.mapping.get("children")) is not None:
        return stops_text(stops_of(children))
    starts = pairwise(predicate.objects("incarnations"))
    stops = [(before, after) for before, after in starts if before.raw("endReason") not in (None, ROTATED)]
    if history is None:
        stops_ns = [after.moment_ns("startedAt") - before.moment_ns("lastRecordAt") for before, after in stops]
        return daemon_stopped_text(stops_ns, by_wall_clock=True)
    is_rebooted = any(before.text("bootId") != after.text("bootId") for before, after in stops)
    return daemon_stopped_text(history.stops_here_ns(), by_wall_clock=is_rebooted)


def daemon_stopped_text(stops_ns: Sequence[int], *, by_wall_clock: bool | None) -> str:
    """A warning about these times between daemon starts; empty if there are none. `by_wall_clock`: None: not known."""
    if not any(stops_ns):
        return ""
    length = _length(stops_ns, by_wall_clock=by_wall_clock)
    return f"no daemon ran for {length} between its starts: {_IN_NO_FIGURE}"


def _length(stops_ns: Sequence[int], *, by_wall_clock: bool | None) -> str:
    """The sum of stops in words; one is negative if the wall clock was set back meanwhile."""
    if min(stops_ns) < 0:
        return "a time that is not known"
    by = {True: " by the wall clock", False: "", None: " (by the wall clock, if the machine was booted meanwhile)"}
    return format_duration(Fraction(sum(stops_ns), NS_PER_S)) + by[by_wall_clock]


def stops_text(stops: Sequence[Stop]) -> str:
    """The same of a merged ledger, by the stops of its children."""
    if not stops:
        return ""
    times_ns = [-1 if stop.ns is None else stop.ns for stop in stops]
    nodes = list(dict.fromkeys(one_line(stop.node) for stop in stops))
    more = len(nodes) - _MOST_NODES
    names = ", ".join(nodes[:_MOST_NODES]) + (f" and {more} more" if more > 0 else "")
    length = _length(times_ns, by_wall_clock=any(stop.by_wall_clock for stop in stops))
    return f"no daemon ran for {length} between its starts on {names}: {_IN_NO_FIGURE}"


def stops_of(children: Iterable[Mapping[str, Any]]) -> list[Stop]:
    """Of each child of a merged ledger whose daemon was stopped. Raises LedgerError for what is no child."""
    try:
        return [stop for child in children if (stop := stop_of(child)) is not None]
    except (LookupError, TypeError, ValueError) as fault:
        raise LedgerError(f"predicate.children has malformed times: {one_line(words_of(fault))}", hint=HINT) from fault


def lone_node_text(rank: int | None, job_nodes: int) -> str:
    """A warning for the ledger of a node whose job has other nodes, or may have (rank 0), that it does not list; else
    empty. Its findings treat the node as the whole job."""
    if job_nodes or rank is None:
        return ""
    others = "the other nodes" if rank else "other nodes, if it has any,"
    return f"this is rank {rank} of its job: its answer is of this node, and nothing that {others} did is in it"


def codes_text(checked: int, starts: int) -> str:
    """Whether the journal's codes were checked, and for how many daemon starts."""
    of = f" in {checked} of {counted(starts, 'daemon start')}" if 0 < checked < starts else ""
    return f"checked{of}" if checked else "not checkable"


def replay_text(predicate: LedgerObject) -> str:
    """What of a ledger was read from recordings; empty if nothing was."""
    replay = predicate.maybe_object("replay")
    if replay is None:
        return ""
    if (recording := replay.maybe_text("recording")) is not None:
        return f"read from the recording {recording}: no hardware was metered, and this is not evidence"
    recordings = recordings_text(replay.count("children"), predicate.count("ledgerCount"))
    return f"{recordings}: the sums are not evidence"


def part_texts(predicate: LedgerObject, history: History | None = None) -> list[tuple[str, str]]:
    """Warnings about a ledger that covers only a part of its job or its run, each with the word that begins it.
    `history`: see `stopped_text`."""
    node, segment = predicate.maybe_object("node"), predicate.maybe_object("segment")
    return stated(
        [
            ("NODE", "" if node is None else lone_node_text(node.maybe_count("rank"), len(node.texts("jobNodes")))),
            ("SEGMENT", "" if segment is None else segment_text(segment.whole("number", 1, MAX_SEGMENT))),
            ("STOPPED", stopped_text(predicate, history)),
        ]
    )


def children_text(verified: VerifiedMerge) -> str:
    """Which of the ledgers that a merged ledger is made of were checked, and how."""
    checked, count = verified.children, int(verified.statement["predicate"]["ledgerCount"])
    if checked is None:
        return (
            "The ledgers that it is made of were not checked: their figures, and the job and nodes that they name, are "
            "its signer's statement. To check them, name their location with --children."
        )
    given = f"{checked.given} of its {counted(count, 'ledger')} given and unchanged"
    text = f"{given}, {checked.recomputed} of them recomputed."
    if checked.added_up:
        jobs = counted(checked.added_up, "job")
        text += f" Of {jobs} only the entries in the job's own ledger were added up again: verify that with --children."
    return text


def anchor_texts(anchored: AnchorComparison) -> list[str]:
    """What checkpoint lines that left the host prove about the journal, and what they leave open."""
    first, last, skipped = anchored.first, anchored.last, anchored.skipped
    texts = [
        f"{counted(anchored.anchors, 'checkpoint')} in {counted(anchored.lines, 'line')} of the log, all on the "
        "journal's chain",
        f"first: record {first.records}, {_logged(first)} ({one_line(first.where)})",
        f"last: record {last.records}, {_logged(last)} ({one_line(last.where)})",
        f"the journal up to record {last.records} is unaltered since then, provided that the log is: get it from the "
        "log service yourself",
        f"{counted(anchored.behind, 'record')} after the last anchor: no copy off this host vouches for them",
    ]
    if anchored.lag_ms is not None:
        least, most = (format_duration(Fraction(ms, 1000)) for ms in anchored.lag_ms)
        texts.append(f"logged {least} to {most} after the time that the journal gives the record")
    if (foreign := anchored.foreign).first is not None:
        lines = counted(foreign.count, "checkpoint line")
        texts.append(
            f"{lines} printed by another process, the first at {one_line(foreign.first.where)}, and so no anchor"
        )
    if skipped.others:
        others = counted(skipped.others, "checkpoint line")
        names = one_line("; ".join(skipped.names))
        texts.append(f"{others} of other runs, nodes or segments, of which this ledger states nothing: {names}")
    if skipped.unreadable:
        texts.append(f"{counted(skipped.unreadable, 'line')} of this run torn or garbled, and so no anchor")
    return texts


def _logged(anchor: Anchor) -> str:
    if (at := anchor.ingested_at) is not None:
        return f"received by the log service at {at}"
    if anchor.line_time is not None:
        return f"at {one_line(anchor.line_time)} by the clock of the line's writer: the log has no ingestion times"
    return "with no time in the log"
