"""What a journal says of a run: its starts of the daemon, their devices, totals and gaps, and its processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import OperatorDeclarations, Recomputation, declared_from, of_starts
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


@dataclass(frozen=True, slots=True)
class GapInterval:
    """One unobserved interval of one device, on the boot-time clock of its incarnation."""

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
    gaps_until: dict[int, int] = field(default_factory=dict)  # where the last listed gap ends, by number of the device
    newest: Steady | None = None  # the last checkpoint
    counts_before: OperatorCounts = NO_COUNTS  # what training processes had counted when it began
    unended_since_ns: int = 0  # when the first of those right before it began that are of this boot and have no end
    is_read: bool = True  # whether `read` has its tallies: they are read when someone asks for them

    @property
    def tallies(self) -> dict[DeviceUid, Tally]:
        if not self.is_read and self.newest is not None:
            self.is_read = True
            self.read.update(self.tallies_of(self.newest.devices, self.newest.tallies))
        return self.read

    def tallies_of(self, devices: Sequence[int], columns: Record) -> Iterator[tuple[DeviceUid, Tally]]:
        """The totals that a checkpoint has, unchecked."""
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
        """Of the secret from which the codes of its lines follow; None: they have none."""
        found: str | None = self.begin.get("code_secret_sha256")
        return found


@dataclass(slots=True)
class History:
    """A whole journal, read: the incarnations of one run on one node, and their gaps in order."""

    incarnations: list[Incarnation] = field(default_factory=list)
    gaps: list[GapInterval] = field(default_factory=list)
    records: int = 0
    sessions: dict[str, DeclaredSession] = field(default_factory=dict)
    tracked: set[DeviceUid] = field(default_factory=set)  # by any incarnation
    seals: SealsSoFar = field(default_factory=SealsSoFar)
    continues: Continued | None = None  # None: it begins its run
    work_before: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # by session, in earlier segments
    has_counts: bool = False  # whether a session counts operators

    @property
    def counts(self) -> OperatorCounts:
        """What training processes count of operators."""
        return counts_of(self.sessions.values()) if self.has_counts else NO_COUNTS

    @property
    def declared_by_starts(self) -> list[OperatorDeclarations]:
        """What the settings of each daemon start declare."""
        return [declared_from(one.begin.get("declared")) for one in self.incarnations]

    @property
    def declared(self) -> OperatorDeclarations:
        """What the settings declare about the run."""
        return of_starts(self.declared_by_starts)

    @property
    def recomputations_before(self) -> tuple[Recomputation | None, ...]:
        """What daemon starts of the segments before declare; of use to the daemon alone."""
        said = self.incarnations[0].begin.get("recomputations", ()) if self.incarnations else ()
        return tuple(one for one in (None, *Recomputation) if (one and one.value) in said)

    @property
    def policy_sha256(self) -> list[str]:
        """The policies that the last incarnation judges by."""
        return [text(policy["sha256"]) for policy in self.incarnations[-1].begin.get("policies", ())]

    @property
    def run(self) -> str:
        return str(self.incarnations[0].begin["run"])

    @property
    def node(self) -> str:
        return str(self.incarnations[0].begin["node"])

    @property
    def place(self) -> Record:
        """Rank, nodes of the job and instance type, by the daemon start that lists the most nodes: a run may go on in a
        larger job, or a smaller one."""
        return max((one.begin["context"]["node"] for one in self.incarnations), key=lambda node: len(node["jobNodes"]))

    @property
    def replay(self) -> Record | None:
        """The recording that was replayed, if any of the readings came from one and not from hardware."""
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
        """The number of this journal in its run; 1 for one that begins it, whether the run is rotated or not."""
        return 1 if self.continues is None else self.continues.before.number + 1

    @property
    def starts_before(self) -> int:
        """What to add to the number of an incarnation for that of the daemon start in the whole run."""
        return 0 if self.continues is None else self.continues.daemon_starts

    @property
    def is_segment(self) -> bool:
        """Whether it is only a part of its run."""
        return self.continues is not None or self.is_rotated
