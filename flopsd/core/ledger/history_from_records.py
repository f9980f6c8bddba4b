"""The kinds of journal records, and the reader that turns them back into a history.

Records are plain JSON objects of ints and strings. All their figures are running totals, so the last checkpoint of a
daemon start has everything that it counted. They hold no FLOP; these follow from the cycles and the peak table.

  begin        one start of the daemon: run, node, boot, clocks, versions, settings
  source       a source was opened: its versions and facts; marks a replay
  device       a device seen for the first time in this daemon start
  evidence     a device's source, its expected evidence or the reason for it changed; or its identity became known
  declaration  training processes and the facts that they declared
  sealed       a ledger of the first bytes of this journal was sealed
  checkpoint   running totals of every device, the gaps since the last checkpoint, and the counters of training
               processes that changed since then
  end          the daemon stopped on purpose; a killed one writes none
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flopsd.core.declarations import declared_from
from flopsd.core.field_reader import words_of
from flopsd.core.ledger.device_records import device_entry, evidence_from_record, identified, precision_from_record
from flopsd.core.ledger.earlier_seals import EarlierSeal
from flopsd.core.ledger.history import GapInterval, History, Incarnation
from flopsd.core.ledger.impossible_records import LEAD_NS, grew_from, refuse_context, refuse_counted, refuse_time
from flopsd.core.ledger.isolation import isolation_from
from flopsd.core.ledger.segments import Continued
from flopsd.core.ledger.session_records import take_sessions
from flopsd.core.ledger.start_notes import refuse_end, refuse_policies, refuse_recovered, refuse_replay
from flopsd.core.ledger.steady import Steady
from flopsd.core.ledger.tally_records import Record, count, tally_from_record, tally_rows, text
from flopsd.core.model import GapReason
from flopsd.core.operator_count import counts_of
from flopsd.core.phases import remainder
from flopsd.core.tally import Tally
from flopsd.core.values import is_digest, is_timestamp, shown
from flopsd.errors import JournalDamagedError

FORMAT = "flopsd-journal/1"
MALFORMED = "record_malformed"  # as in refusals-v1.json
_KINDS = frozenset(("begin", "source", "device", "evidence", "declaration", "sealed", "checkpoint", "end"))


def read_history(records: Iterable[Record]) -> History:
    """Read the history of a journal to be continued. Raises JournalDamagedError for records that no daemon of this
    format writes: unknown kinds, totals that fall, time that is not conserved, gaps that do not add up; and for a time
    with which no ledger of it could be sealed."""
    history = History()
    for record in records:
        extend(history, record)
        if "utc" in record and not is_timestamp(record["utc"]):
            line = history.records
            text = f"journal line {line}: {shown(record['utc'])} is not a time"
            raise JournalDamagedError(text, code=MALFORMED, path=f"journal:{line}")
    return history


def extend(history: History, record: Record) -> None:
    """Add one record. Raises JournalDamagedError as `read_history` does."""
    line = history.records + 1
    try:
        _take(history, record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as fault:
        text = f"journal line {line}: not a record of {FORMAT}: {words_of(fault)}"
        raise JournalDamagedError(text, code=MALFORMED, path=f"journal:{line}") from fault
    except JournalDamagedError as fault:
        raise JournalDamagedError(f"journal line {line}: {fault}", code=fault.code, path=f"journal:{line}") from fault
    history.records = line


def _take(history: History, record: Record) -> None:
    kind = record["kind"]
    count(record["incarnation"])
    if kind not in _KINDS:
        raise JournalDamagedError(f"unknown kind of record {shown(kind)}", code=MALFORMED)
    if kind == "begin":
        _begin(history, record)
        return
    if not history.incarnations:
        raise JournalDamagedError("the first record is not a 'begin'", code="law_1")
    incarnation = history.incarnations[-1]
    if incarnation.end is not None:
        raise JournalDamagedError(f"a {kind!r} record after the incarnation's end", code="law_1")
    if record["incarnation"] != incarnation.number:
        raise JournalDamagedError(
            f"record of incarnation {record['incarnation']} within incarnation {incarnation.number}", code="law_1"
        )
    if kind == "source":
        refuse_replay(record["facts"].get("replay"))
        incarnation.sources[text(record["name"])] = {**record["facts"]}
    elif kind == "device":
        entry, number = device_entry(record), count(record["number"])
        start = tally_from_record(record, entry.begin_ns)
        if number != len(incarnation.devices) or entry.device.uid in incarnation.tallies:
            raise JournalDamagedError("device numbered out of order or named twice", code="law_3")
        incarnation.devices[number] = entry
        is_older = entry.device.uid in history.tracked or history.continues is not None
        refuse_counted(start, None if is_older else incarnation.unended_since_ns)
        incarnation.tallies[entry.device.uid] = start
        history.tracked.add(entry.device.uid)
    elif kind == "evidence":
        seen = incarnation.devices[number := count(record["number"])]
        if "identity" in record:
            seen = identified(seen, record["identity"])
        changed = replace(seen.device, **evidence_from_record(record))
        incarnation.devices[number] = replace(seen, device=changed, source=text(record["source"]))
        refuse_time(incarnation.last_ns, count(record["ns"]))
    elif kind == "declaration":
        if not isinstance(record["sessions"], list) or not all("facts" in one for one in record["sessions"]):
            raise JournalDamagedError("a declaration needs a list of sessions, each with its facts", code=MALFORMED)
        take_sessions(history, record)
    elif kind == "sealed":
        history.seals.add(EarlierSeal.from_record(record))
    elif kind == "checkpoint":
        _checkpoint(history, incarnation, record)
    else:
        refuse_end(record["reason"], record["child_exit_code"])
        incarnation.last_utc = text(record["utc"])
        refuse_time(incarnation.last_ns, count(record["ns"]))
        incarnation.end, incarnation.last_ns = record, record["ns"]


def _begin(history: History, record: Record) -> None:
    _refuse_place(history, record)
    if "continues" in record:
        history.continues = Continued.from_record(record["continues"])
    if record["format"] != FORMAT:
        raise JournalDamagedError(f"format {shown(record['format'])}; this flopsd reads {FORMAT!r}", code=MALFORMED)
    for name in ("run", "node", "boot_id", "utc", "flopsd_version"):
        text(record[name])
    if not (is_digest(record["peak_table_sha256"]) and is_digest(record["config_sha256"])):
        raise JournalDamagedError("its peak_table_sha256 or config_sha256 is not a SHA-256", code=MALFORMED)
    for name in ("ns", "wall_ns", "interval_ns", "checkpoint_ns"):
        count(record[name])
    refuse_policies(record["policies"])
    precision_from_record(record["precision"])
    if record["code_secret_sha256"] is not None and not is_digest(record["code_secret_sha256"]):
        raise JournalDamagedError("its code_secret_sha256 is not a SHA-256", code=MALFORMED)
    refuse_recovered(record["recovered"])
    declared_from(record["declared"])
    isolation_from(record["isolation"])
    try:
        refuse_context(record["context"])
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise JournalDamagedError(f"its context cannot be read: {words_of(fault)}", code="law_14") from fault
    incarnation = Incarnation(record, last_ns=record["ns"], last_utc=record["utc"], unended_since_ns=record["ns"])
    before = history.incarnations[-1] if history.incarnations else None
    if before is not None and before.end is None and before.boot_id == incarnation.boot_id:
        incarnation.unended_since_ns = before.unended_since_ns
    if history.has_counts:
        incarnation.counts_before = counts_of(history.sessions.values())
    history.incarnations.append(incarnation)


def _refuse_place(history: History, begin: Record) -> None:
    """Raise JournalDamagedError if a `begin` may not come at this position."""
    if history.is_rotated:
        raise JournalDamagedError(
            "a 'begin' record after the journal was rotated: the run continues in another journal", code="law_1"
        )
    if begin["incarnation"] != len(history.incarnations) + 1:
        raise JournalDamagedError(
            f"incarnation {begin['incarnation']}, expected {len(history.incarnations) + 1}", code="law_1"
        )
    if not history.incarnations:
        return
    if "continues" in begin:
        raise JournalDamagedError("only the first 'begin' of a journal may have 'continues'", code="law_1")
    first = history.incarnations[0].begin
    for name in ("run", "node", "peak_table_sha256"):
        if begin.get(name) != first[name]:
            other = f"{begin[name]!r:.80}" if begin.get(name) is not None else "missing"
            raise JournalDamagedError(f"{name} is {other}, not {first[name]!r}", code="law_1")


def _checkpoint(history: History, incarnation: Incarnation, record: Record) -> None:
    devices, tallies, at_ns, utc = _numbers(record), record["tallies"], count(record["ns"]), text(record["utc"])
    if not isinstance(record["gaps"], list):
        raise JournalDamagedError("the gaps of a checkpoint are not a list", code=MALFORMED)
    newest, watched = incarnation.newest, list[Tally]()
    before = None if newest is None else newest.tallies
    if newest is not None and record["gaps"] == [] and newest.goes_on(devices, tallies, at_ns + LEAD_NS):
        incarnation.is_read = incarnation.is_read and newest.tallies is before
    else:
        _take_tallies(history, incarnation, record)
        watched = list(incarnation.tallies.values())
        begin_ns = [incarnation.read[incarnation.devices[number].device.uid].begin_ns for number in devices]
        incarnation.newest = Steady(devices, tallies, begin_ns)
    take_sessions(history, record)
    refuse_time(incarnation.last_ns, at_ns, *watched)
    incarnation.checkpoints += 1
    incarnation.last_ns, incarnation.last_utc = at_ns, utc


def _take_tallies(history: History, incarnation: Incarnation, record: Record) -> None:
    """Check the tallies and the gaps of a checkpoint: that all can be read, and then the laws, device by device."""
    devices, tallies = _numbers(record), incarnation.tallies
    uids = [incarnation.devices[number].device.uid for number in devices]
    rows = tally_rows(record["tallies"], len(devices))
    read = [tally_from_record(row, tallies[uid].begin_ns) for uid, row in zip(uids, rows, strict=True)]
    gaps = [_gap(incarnation, gap) for gap in record["gaps"]]
    grown: dict[tuple[int, GapReason], int] = {}
    for number, uid, after in zip(devices, uids, read, strict=True):
        before = tallies[uid]
        if not grew_from(before, after):
            raise JournalDamagedError(f"totals of device {uid} fell since the record before", code="law_4")
        if after.total_observed_ns + after.total_gap_ns != after.span_ns:
            raise JournalDamagedError(
                f"time of device {uid} does not add up: observed + gap is not its span", code="law_5"
            )
        if after.phases:
            try:
                remainder(after)
            except ValueError as fault:
                raise JournalDamagedError(f"the phases of device {uid} exceed its totals", code="law_9") from fault
        if any(share.total_observed_ns + share.total_gap_ns != share.span_ns for share in after.phases.values()):
            raise JournalDamagedError(f"time of a phase of device {uid} does not add up", code="law_5")
        for reason, gap_ns in after.gap_ns.items():
            grown[(number, reason)] = gap_ns - before.gap_ns.get(reason, 0)
        tallies[uid] = after
    for number, gap in gaps:
        since = incarnation.gaps_until.get(number, tallies[gap.device].begin_ns)
        if gap.begin_ns < since or gap.end_ns > tallies[gap.device].watermark_ns:
            raise JournalDamagedError(
                f"a gap of device {gap.device} overlaps another one or lies outside the device's time", code="law_6"
            )
        incarnation.gaps_until[number] = gap.end_ns
        grown[(number, gap.reason)] = grown.get((number, gap.reason), 0) - (gap.end_ns - gap.begin_ns)
        _append_gap(history.gaps, gap)
    if any(grown.values()):
        raise JournalDamagedError("the listed gaps do not add up to the gap totals", code="law_6")


def _gap(incarnation: Incarnation, listed: object) -> tuple[int, GapInterval]:
    """A gap that a checkpoint lists, with the number of its device."""
    if not isinstance(listed, list) or len(listed) != 4:
        raise ValueError("a gap has a device, a begin, an end and a reason")
    number, begin_ns, end_ns, reason = listed
    uid = incarnation.devices[count(number)].device.uid
    begin_ns, end_ns = count(begin_ns, signed=True), count(end_ns, signed=True)
    return number, GapInterval(incarnation.number, uid, begin_ns, end_ns, GapReason(reason))


def _numbers(checkpoint: Record) -> list[int]:
    """The device numbers of a checkpoint."""
    numbers = [count(number) for number in checkpoint["devices"]]
    if numbers != sorted(set(numbers)):
        raise JournalDamagedError("the devices of a checkpoint are not in order", code="law_3")
    return numbers


def skip_to(history: History, checkpoint: Record) -> None:
    """Take the totals of a checkpoint, skipping those before it; its process counters are for `take_sessions`. Checks
    nothing, so use it only on a journal that was fully read before."""
    incarnation = history.incarnations[-1]
    incarnation.tallies.update(incarnation.tallies_of(_numbers(checkpoint), checkpoint["tallies"]))
    incarnation.newest = None
    take_sessions(history, checkpoint)
    incarnation.last_ns, incarnation.last_utc = count(checkpoint["ns"]), text(checkpoint["utc"])


def _append_gap(gaps: list[GapInterval], gap: GapInterval) -> None:
    """Append `gap`, or extend the device's last gap if `gap` continues it for the same reason."""
    if gap.begin_ns >= gap.end_ns:
        raise JournalDamagedError("a gap is empty or ends before it begins", code="law_6")
    for at in range(len(gaps) - 1, max(-1, len(gaps) - 64), -1):
        last = gaps[at]
        if (last.incarnation, last.device) == (gap.incarnation, gap.device):
            if last.reason is gap.reason and last.end_ns == gap.begin_ns:
                gaps[at] = replace(last, end_ns=gap.end_ns)
                return
            break
    gaps.append(gap)
