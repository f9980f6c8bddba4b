"""Checks for impossible totals: more cycles than a device had, more FLOP than its peak, time counted twice. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from flopsd.core.ledger.history import History
from flopsd.core.ledger.rated_tally import RatedTally
from flopsd.core.meter import excess, max_counted_flop
from flopsd.core.model import DeviceUid, Evidence, Limits
from flopsd.core.tally import Tally
from flopsd.errors import JournalDamagedError, LedgerError

_EVIDENCE = tuple(Evidence)


def refuse_impossible(rated: Iterable[RatedTally]) -> None:
    """Raise JournalDamagedError for totals that the devices of a journal cannot have reached. `rated`: all tallies up
    to its last record."""
    by_device: dict[DeviceUid, list[Tally]] = {}
    for one in rated:
        _refuse_tally(one)
        by_device.setdefault(one.uid, []).append(one.tally)
    for uid, tallies in by_device.items():
        if sum([tally.total_recovered_ns - tally.total_gap_ns for tally in tallies]) > 0:
            raise JournalDamagedError(f"device {uid}: more gap time was recovered than its gaps have", code="law_11")
        if sum([tally.energy_ns - tally.job_ns for tally in tallies]) > 0:
            raise JournalDamagedError(
                f"device {uid}: energy covers more time than the device's job time", code="law_11"
            )


def refuse_double_counting(history: History) -> None:
    """Raise LedgerError if two daemon starts of one boot account for the same time of a device. Daemon starts of
    different boots are ordered by the journal's chain; the wall clock may have stepped between them."""
    claimed: dict[tuple[str, DeviceUid], list[tuple[int, int, int]]] = {}
    for start in history.incarnations:
        number, boot_id = start.number, start.boot_id
        for uid, tally in start.tallies.items():
            if tally.begin_ns < tally.watermark_ns:
                claimed.setdefault((boot_id, uid), []).append((tally.begin_ns, tally.watermark_ns, number))
    for (_, uid), of_device in claimed.items():
        # In order of start time, the first device time that overlaps any other overlaps the one before it.
        before_ns, one = 0, 0
        for begin_ns, end_ns, other in sorted(of_device):
            if one and begin_ns < before_ns:
                raise LedgerError(
                    f"device {uid} is counted twice at the same time: "
                    f"by daemon starts {min(one, other)} and {max(one, other)}",
                    hint="the journal was altered, or continued from a copy",
                    code="law_7",
                )
            before_ns, one = end_ns, other


def _refuse_tally(rated: RatedTally) -> None:
    entry, tally, limits = rated.entry, rated.tally, rated.rating.limits
    part, table = rated.rating.part, rated.rating.table
    if entry.part_id is not None and part is None:
        raise JournalDamagedError(
            f"the journal rates {rated.uid} by row {entry.part_id!r}, which the peak table does not have",
            code="peak_row_unknown",
        )
    if part is not None and not table.fits(part, entry.device):
        raise JournalDamagedError(
            f"the journal rates {rated.uid} by row {entry.part_id!r}, which in the peak table does not match its name "
            f"{entry.device.model!r} and PCI id",
            code="peak_row_other",
        )
    most = max_counted_flop(limits, tally.job_ns)
    if most is not None and tally.counted_flop > most:
        raise JournalDamagedError(
            f"device {rated.uid}: {tally.counted_flop} FLOP were counted, of {most} possible", code="law_8"
        )
    if not isinstance(limits, Limits):
        return
    counted_by = {evidence for evidence, _ in tally.active_sm_cycles}
    for evidence in _EVIDENCE:
        if evidence in counted_by and (found := excess(limits, evidence, tally)) is not None:
            pipe, cycles, possible = found
            raise JournalDamagedError(
                f"device {rated.uid}: pipe {pipe.value} was active for {cycles} cycles, of {possible} possible",
                code="law_8",
            )
