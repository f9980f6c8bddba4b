"""The chips as devices. A device is a chip: its cores share a peak, and the peak table knows chips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flopsd.core.model import Device, Evidence
from flopsd.core.peaks import PeakTable
from flopsd.sources.neuron.document import MonitorDocument
from flopsd.sources.neuron.sysfs import ChipNode, Tree

UNKNOWN_MODEL = "unknown Neuron device"


@dataclass(slots=True)
class Chip:
    """One chip between reads. `since_ns` is where its next reading begins."""

    device: Device
    since_ns: int
    node: ChipNode | None
    flop_begin: int | None = None  # sysfs total when it was first read
    flop_total: int | None = None  # and when it was last read
    moved: int = 0  # documents with counted work during which the sysfs total moved
    stood: int = 0  # and during which it did not

    @property
    def sysfs_live(self) -> bool | None:
        """Whether its sysfs total moves while work is done, or only when a process exits. None: not seen yet."""
        return self.moved > self.stood if self.moved or self.stood else None

    def expect(self, evidence: Evidence, reason: str = "", fix: str = "") -> None:
        """Set what evidence there is from now on."""
        if (self.device.evidence, self.device.evidence_reason) != (evidence, reason):
            self.device = replace(self.device, evidence=evidence, evidence_reason=reason, evidence_fix=fix)

    def read_total(self, *, worked: bool = False) -> bool:
        """Read the sysfs total; false where it cannot be read, and then what was read before stays.

        `worked`: work was counted since the last time, so that a live total must have moved.
        """
        before = self.flop_total
        total = self.node.flop_total_after(before) if self.node is not None else None
        if total is None:
            return False
        if worked and before is not None:
            self.moved += total > before
            self.stood += total == before
        self.flop_total = total
        if self.flop_begin is None:
            self.flop_begin = total
        return True

    @property
    def counters(self) -> dict[str, int]:
        """The sysfs total as last read and as first read by this process; empty where there is none.

        An auditor compares its growth with the FLOP that the stream counted. `neuron_sysfs_live` states whether
        they can be compared while a process runs (1) or only after it exited (0).
        """
        if self.flop_total is None or self.flop_begin is None:
            return {}
        totals = {"neuron_sysfs_flop_total": self.flop_total, "neuron_sysfs_flop_begin": self.flop_begin}
        return totals if self.sysfs_live is None else {**totals, "neuron_sysfs_live": int(self.sysfs_live)}


def chips_of_document(document: MonitorDocument, tree: Tree, peaks: PeakTable, now_ns: int) -> list[Chip]:
    """The chips that a document counts, or else sysfs; none where neither does.

    Where sysfs shows another number of chips than neuron-monitor, which of them is which is not known.
    """
    count = document.device_count if document.device_count is not None else len(tree.chips)
    nodes: Sequence[ChipNode | None] = tree.chips if len(tree.chips) == count else [None] * count
    model = document.device_type or next((n.device_name for n in nodes if n is not None and n.device_name), None)
    return _chips(nodes, model or _model_of_instance(document.instance_type, peaks), tree, now_ns)


def chips_of_sysfs(tree: Tree, now_ns: int) -> list[Chip]:
    """The chips of the host as sysfs shows them."""
    name = next((node.device_name for node in tree.chips if node.device_name), None)
    return _chips(tree.chips, name, tree, now_ns)


def _chips(nodes: Sequence[ChipNode | None], model: str | None, tree: Tree, now_ns: int) -> list[Chip]:
    serials = Counter(node.serial for node in nodes if node is not None)
    found = []
    for index, node in enumerate(nodes):
        serial = node.serial if node is not None and serials[node.serial] == 1 else None
        device = Device(
            # Without a serial number the index has to do: it is stable on one host, whose name is in the ledger
            # too. An instance id would be unique, and would disclose whose machine it was.
            uid=f"NEURON-{serial}" if serial is not None else f"neuron{index}",
            index=index,
            vendor="aws",
            model=model or UNKNOWN_MODEL,
            serial=serial,
            driver=tree.driver,
            evidence=Evidence.COUNT,
        )
        found.append(Chip(device, now_ns, node))
    return found


def _model_of_instance(instance_type: str | None, peaks: PeakTable) -> str | None:
    """What an instance type holds, for tools that name no chip: the first name of its row."""
    known = peaks.instances.get(f"ml.{instance_type}")
    names = peaks.parts[known.accelerator].names if known is not None else ()
    return names[0] if names else None
