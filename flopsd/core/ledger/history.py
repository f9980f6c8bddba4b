"""The content of a journal: the run's daemon starts with their devices, totals and gaps, and its processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import OperatorDeclarations, declared_from, run_declarations
from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.earlier_seals import SealsSoFar
from flopsd.core.ledger.segments import Continued
from flopsd.core.ledger.start_notes import ROTATED
from flopsd.core.ledger.steady import Steady
from flopsd.core.ledger.tally_records import Record, tally_from_record, tally_rows, text
from flopsd.core.model import DeviceUid, GapReason
from flopsd.core.operator_count import NO_COUNTS, OperatorCounts, counts_of
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.tally import Tally
from flopsd.errors import LedgerError


@dataclass(frozen=True, slots=True)
class GapInterval:
    """One unobserved interval of one device, on the boot-time clock of its daemon start."""

    incarnation: int
    device: DeviceUid
    begin_ns: int
    end_ns: int
    reason: GapReason


@dataclass(slots=True)
class Incarnation:
    """One start of the daemon, from its records."""

    begin: Record
    end: Record | None = None
    last_ns: int = 0
    last_utc: str = ""
    checkpoints: int = 0
    sources: dict[str, Record] = field(default_factory=dict)
    devices: dict[int, DeviceEntry] = field(default_factory=dict)
    read: dict[DeviceUid, Tally] = field(default_factory=dict)
    gaps_until: dict[int, int] = field(default_factory=dict)  # end of the last listed gap, by device number
    newest: Steady | None = None  # the last checkpoint
    counts_before: OperatorCounts = NO_COUNTS  # operator counts of training processes when it began
    unended_since_ns: int = 0  # when the first of the killed starts on this boot directly before this one began
    is_read: bool = True  # whether `read` has the newest tallies: they are parsed on first use

    @property
    def tallies(self) -> dict[DeviceUid, Tally]:
        if not self.is_read and self.newest is not None:
            self.is_read = True
            self.read.update(self.tallies_of(self.newest.devices, self.newest.tallies))
        return self.read

    def tallies_of(self, devices: Sequence[int], columns: Record) -> Iterator[tuple[DeviceUid, Tally]]:
        """The totals of a checkpoint, unchecked."""
        for number, row in zip(devices, tally_rows(columns, len(devices)), strict=True):
            uid = self.devices[number].device.uid
            yield uid, tally_from_record(row, self.read[uid].begin_ns)

    @property
    def number(self) -> int:
        return int(self.begin["incarnation"])

    @property
    def boot_id(self) -> str:
        return str(self.begin["boot_id"])

    @property
    def code_secret_sha256(self) -> str | None:
        """SHA-256 of the secret from which the codes of its lines are derived; None: its lines have no codes."""
        found: str | None = self.begin.get("code_secret_sha256")
        return found


@dataclass(slots=True)
class History:
    """A whole journal: the daemon starts of one run on one node, and their gaps in order."""

    incarnations: list[Incarnation] = field(default_factory=list)
    gaps: list[GapInterval] = field(default_factory=list)
    records: int = 0
    sessions: dict[str, DeclaredSession] = field(default_factory=dict)
    tracked: set[DeviceUid] = field(default_factory=set)  # devices, by any daemon start
    seals: SealsSoFar = field(default_factory=SealsSoFar)
    continues: Continued | None = None  # None: the journal begins its run
    work_before: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # in earlier segments, by session
    has_counts: bool = False  # whether any session counts operators

    @property
    def counts(self) -> OperatorCounts:
        """Operator counts of the training processes."""
        return counts_of(self.sessions.values()) if self.has_counts else NO_COUNTS

    @property
    def declared_by_starts(self) -> list[OperatorDeclarations]:
        """The settings' declarations of each daemon start."""
        return [declared_from(one.begin.get("declared")) for one in self.incarnations]

    @property
    def declared(self) -> OperatorDeclarations:
        """The settings' declarations for the run."""
        return run_declarations(self.declared_by_starts)

    @property
    def _earlier(self) -> Record:
        """What the first `begin` of a segment says of the daemon starts before it. Only the daemon uses it."""
        said = self.incarnations[0].begin.get("earlier") if self.incarnations else None
        return said if isinstance(said, dict) else {}

    @property
    def declared_before(self) -> list[OperatorDeclarations]:
        """The distinct declarations of settings in earlier segments."""
        try:
            return [declared_from(one) for one in self._earlier.get("declared", ())]
        except (LookupError, TypeError, ValueError):
            return []

    @property
    def run_key(self) -> str:
        """Tells this run from others, also of the same id; each of its segments has the same."""
        begin = self.incarnations[0].begin
        return str(self._earlier.get("run_key", f"{begin['boot_id']}/{begin['ns']}"))

    def stops_ns(self, next_begin: Record | None = None) -> tuple[int, ...]:
        """As `stops_here_ns`, after the stops in earlier segments in one sum."""
        before = self._earlier.get("stopped_ns")
        return (*([before] if type(before) is int else []), *self.stops_here_ns(next_begin))

    def stops_here_ns(self, next_begin: Record | None = None) -> tuple[int, ...]:
        """The times without a daemon between an end and the next start in this journal; `next_begin`: also before the
        start that has this. After a reboot they are by the wall clock, and negative if that was set back meanwhile."""
        return tuple(
            begin["ns"] - start.last_ns
            if begin["boot_id"] == start.boot_id
            else begin["wall_ns"] - start.begin["wall_ns"] - (start.last_ns - start.begin["ns"])
            for start, begin in self._stops(next_begin)
        )

    def stops_by_wall_clock(self, next_begin: Record | None = None) -> bool | None:
        """Whether one of `stops_ns` is by the wall clock; None: not known of those in earlier segments."""
        if any(begin["boot_id"] != start.boot_id for start, begin in self._stops(next_begin)):
            return True
        return None if self._earlier.get("stopped_ns") else False

    def _stops(self, next_begin: Record | None) -> list[tuple[Incarnation, Record]]:
        begins = [start.begin for start in self.incarnations[1:]] + ([] if next_begin is None else [next_begin])
        return [
            (start, begin)
            for start, begin in zip(self.incarnations, begins, strict=False)
            if start.end is not None and start.end["reason"] != ROTATED
        ]

    def unstopped_since_ns(self, begin: int, boot_id: str) -> tuple[int, int]:
        """Since when on this boot no daemon ended before the next began, if one begins at `begin`: as far as this
        journal shows, and 0 if that may also be so in the earlier segments."""
        for start in reversed(self.incarnations):
            if start.boot_id != boot_id or (start.end is not None and start.end["reason"] != ROTATED):
                return begin, begin
            begin = start.begin["ns"]
        return begin, begin if self.continues is None else 0

    @property
    def policy_sha256(self) -> list[str]:
        """SHA-256 of the policies that the last daemon start uses."""
        return [text(policy["sha256"]) for policy in self.incarnations[-1].begin.get("policies", ())]

    @property
    def run(self) -> str:
        return str(self.incarnations[0].begin["run"])

    @property
    def node(self) -> str:
        return str(self.incarnations[0].begin["node"])

    @property
    def place(self) -> Record:
        """Rank, nodes of the job and instance type, from the daemon start that lists the most nodes: a run may continue
        in a larger or a smaller job."""
        return max((one.begin["context"]["node"] for one in self.incarnations), key=lambda node: len(node["jobNodes"]))

    @property
    def replay(self) -> Record | None:
        """The replayed recording, if any reading came from a recording instead of hardware."""
        found = (facts["replay"] for inc in self.incarnations for facts in inc.sources.values() if facts.get("replay"))
        return next(found, None)

    @property
    def ended(self) -> bool:
        return bool(self.incarnations) and self.incarnations[-1].end is not None

    @property
    def is_rotated(self) -> bool:
        """Whether another journal continues this one."""
        end = self.incarnations[-1].end if self.incarnations else None
        return end is not None and end["reason"] == ROTATED

    @property
    def segment(self) -> int:
        """The number of this journal within its run; 1 if it begins the run, whether the run is rotated or not."""
        return 1 if self.continues is None else self.continues.before.number + 1

    @property
    def starts_before(self) -> int:
        """The offset from an incarnation number to the number of the daemon start within the whole run."""
        return 0 if self.continues is None else self.continues.daemon_starts

    @property
    def is_segment(self) -> bool:
        """Whether the journal is only a part of its run."""
        return self.continues is not None or self.is_rotated


def one_peak_table(history: History) -> str:
    """The SHA-256 of the peak table that all daemon starts used. Raises LedgerError if they used different ones."""
    tables = sorted({str(incarnation.begin["peak_table_sha256"]) for incarnation in history.incarnations})
    if len(tables) != 1:
        raise LedgerError(
            f"the run was metered with {len(tables)} different peak tables",
            hint="one ledger has one peak table: give each daemon start of a run the same --peaks, or another --run-id",
            code="law_1",
        )
    return tables[0]
