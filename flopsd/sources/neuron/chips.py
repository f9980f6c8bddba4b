"""The chips as devices. A device is a chip: its cores share a peak, and the peak table lists chips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Counted, Device, Evidence, Gap, GapReason, Reading
from flopsd.core.peaks import PeakTable
from flopsd.sources.neuron.document import MonitorDocument
from flopsd.sources.neuron.sysfs import ChipNode, Tree, has_fallen


@dataclass(slots=True)
class Chip:
    """One chip between reads. `since_ns` is where its next reading begins."""

    device: Device
    since_ns: int
    node: ChipNode | None
    flop_begin: int | None = None  # sysfs total of all cores when they were first read
    totals: tuple[int, ...] | None = None  # the sysfs total of each core when last read
    moved: int = 0  # documents with counted work during which the sysfs total moved
    stood: int = 0  # documents with counted work during which it did not

    @property
    def flop_total(self) -> int | None:
        return None if self.totals is None else sum(self.totals)

    @property
    def sysfs_live(self) -> bool | None:
        """Whether the sysfs total moves while work is done, not only when a process exits. None: not seen yet."""
        return self.moved > self.stood if self.moved or self.stood else None

    def expect(self, evidence: Evidence, reason: str = "", fix: str = "") -> None:
        if (self.device.evidence, self.device.evidence_reason) != (evidence, reason):
            self.device = replace(self.device, evidence=evidence, evidence_reason=reason, evidence_fix=fix)

    def read_total(self, *, worked: bool = False) -> bool:
        """Read the sysfs total; return False, and keep the last one, if it cannot be read. `worked`: work was counted
        since the last read, so that a live total must have moved."""
        before, earlier = self.totals, self.flop_total
        totals = self.node.flop_totals_after(before) if self.node is not None else None
        if totals is None:
            return False
        self.totals, total = totals, sum(totals)
        if worked and earlier is not None:
            self.moved += total > earlier
            self.stood += total == earlier
        if self.flop_begin is None:
            self.flop_begin = total
        return True

    @property
    def counters(self) -> dict[str, int]:
        """The sysfs total as last read and as first read by this process; empty if there is none. An auditor compares
        its growth with the FLOP that the stream counted. `neuron_sysfs_live` states whether they can be compared while
        a process runs (1) or only after it exited (0)."""
        if self.flop_total is None or self.flop_begin is None:
            return {}
        totals = {"neuron_sysfs_flop_total": self.flop_total, "neuron_sysfs_flop_begin": self.flop_begin}
        return totals if self.sysfs_live is None else {**totals, "neuron_sysfs_live": int(self.sysfs_live)}

    def expect_growth(self, tree: Tree, why: str) -> None:
        """Set the evidence that the totals can give. `why`: the reason for not using neuron-monitor."""
        install = "install aws-neuronx-tools; in a container mount /opt/aws/neuron and give it /dev/neuron*"
        driver = f"driver {tree.driver}" if tree.driver else "a driver of unknown version"
        if self.node is None or not self.node.totals:
            why_none = self.node.why_none if self.node is not None else "the driver shows no sysfs"
            self.expect(Evidence.GAP, f"{why}, and {why_none}", install)
        elif not tree.live:
            reason = f"{why}, and {driver} updates its flop_count only when a process exits"
            self.expect(Evidence.GAP, reason, f"update aws-neuronx-dkms to 2.30.2 or newer, or {install}")
        else:
            self.expect(Evidence.COUNT, f"{why}: counted from the driver's flop_count", install)
        shared = "any process on this host: the driver's totals are of all processes"
        self.device = replace(self.device, shared=shared)

    def read_growth(self, now_ns: int) -> Reading:
        """Return the growth of the totals. If they cannot be read, that is a gap: the next totals hold its FLOP."""
        before, since_ns = self.totals, self.since_ns
        self.since_ns = now_ns
        if self.device.evidence is not Evidence.COUNT:
            return Reading(self.device.uid, since_ns, now_ns, Gap(GapReason.NOT_SUPPORTED))
        work: Counted | Gap
        if not self.read_total():
            work = Gap(GapReason.DRIVER_ERROR)
        elif before is None or self.totals is None:
            work = Gap(GapReason.STARTING)
        elif has_fallen(before, self.totals):
            work = Gap(GapReason.COUNTER_RESET)
        else:
            work = Counted(sum(self.totals) - sum(before))
        return Reading(self.device.uid, since_ns, now_ns, work, self.counters)


def sysfs_facts(chips: Sequence[Chip], tree: Tree) -> dict[str, str | None]:
    """Return what sysfs shows, for the ledger: text only."""
    seen = {chip.sysfs_live for chip in chips if chip.flop_total is not None}
    moves = None if not seen else "not seen" if None in seen else "live" if all(seen) else "at exit"
    nodes = [chip.node for chip in chips if chip.node is not None]
    powers = [(node.index, power) for node in nodes if (power := node.power_percent()) is not None]
    return {
        "driver": tree.driver,
        "sysfs_flop_count": moves,
        "architecture": ", ".join(sorted({node.architecture for node in nodes if node.architecture})) or None,
        "power_percent": "; ".join(f"{i}: {power}" for i, power in powers) or None,
    }


def chips_of_document(document: MonitorDocument, tree: Tree, peaks: PeakTable, now_ns: int) -> list[Chip]:
    """Return the chips that a document, or else sysfs, counts; none if neither does. If sysfs shows another number of
    chips than neuron-monitor, it is not known which chip is which."""
    count = document.device_count if document.device_count is not None else len(tree.chips)
    nodes: Sequence[ChipNode | None] = tree.chips if len(tree.chips) == count else [None] * count
    model = document.device_type or next((n.device_name for n in nodes if n is not None and n.device_name), None)
    known = peaks.instances.get(f"ml.{document.instance_type}")
    names = peaks.parts[known.accelerator].names if known is not None else ()  # for tools that name no chip
    return _chips(nodes, model or next(iter(names), None), tree, now_ns)


def chips_of_sysfs(tree: Tree, now_ns: int, known: Sequence[Chip] = ()) -> list[Chip]:
    """Return the chips that sysfs shows, without the `known` ones."""
    name = next((node.device_name for node in tree.chips if node.device_name), None)
    nodes = [chip.node for chip in known]
    return [chip for chip in _chips(tree.chips, name, tree, now_ns) if chip.node not in nodes]


def _chips(nodes: Sequence[ChipNode | None], model: str | None, tree: Tree, now_ns: int) -> list[Chip]:
    serials = Counter(node.serial for node in nodes if node is not None)
    found = []
    for at, node in enumerate(nodes):
        index = at if node is None else node.index
        serial = node.serial if node is not None and serials[node.serial] == 1 else None
        device = Device(
            # Without a serial number the index has to do: it is stable on one host, whose name is in the ledger too. An
            # instance id would be unique, but would disclose whose machine it was.
            uid=f"NEURON-{serial}" if serial is not None else f"neuron{index}",
            index=index,
            vendor="aws",
            model=model or "unknown Neuron device",
            serial=serial,
            driver=tree.driver,
            evidence=Evidence.COUNT,
        )
        found.append(Chip(device, now_ns, node))
    return found
