"""Counting by the growth of the driver's own totals, where neuron-monitor cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flopsd.core.model import Counted, Evidence, Gap, GapReason, Reading
from flopsd.sources.neuron.chips import Chip
from flopsd.sources.neuron.sysfs import Tree

_UPDATE_DRIVER = "update aws-neuronx-dkms to 2.30.2 or newer"
_SHARED = "any process on this host: the driver's totals do not separate processes"


def expect_growth(chip: Chip, tree: Tree, why: str, install: str) -> None:
    """Say what the totals of a chip can give, `why` being the reason for not going by neuron-monitor."""
    driver = f"driver {tree.driver}" if tree.driver else "a driver of unknown version"
    if chip.node is None or not chip.node.totals:
        why_none = chip.node.why_none if chip.node is not None else "there is no sysfs"
        chip.expect(Evidence.GAP, f"{why}, and {why_none}", install)
    elif not tree.live:
        reason = f"{why}, and {driver} moves its flop_count only when a process exits"
        chip.expect(Evidence.GAP, reason, f"{_UPDATE_DRIVER}, or {install}")
    else:
        chip.expect(Evidence.COUNT, f"{why}: counted from the driver's flop_count", install)
    chip.device = replace(chip.device, shared=_SHARED)


def read_growth(chip: Chip, now_ns: int) -> Reading:
    """What a chip's total grew by. One that cannot be read is a gap whose FLOP the next total still holds."""
    before, since_ns = chip.flop_total, chip.since_ns
    chip.since_ns = now_ns
    if chip.device.evidence is not Evidence.COUNT:
        return Reading(chip.device.uid, since_ns, now_ns, Gap(GapReason.NOT_SUPPORTED))
    work: Counted | Gap
    if not chip.read_total():
        work = Gap(GapReason.DRIVER_ERROR)
    elif before is None or chip.flop_total is None:
        work = Gap(GapReason.STARTING)
    elif chip.flop_total < before:
        work = Gap(GapReason.COUNTER_RESET)
    else:
        work = Counted(chip.flop_total - before)
    return Reading(chip.device.uid, since_ns, now_ns, work, chip.counters)


def sysfs_facts(chips: Sequence[Chip], tree: Tree) -> dict[str, str | None]:
    """What sysfs shows, for the ledger: text only."""
    seen = {chip.sysfs_live for chip in chips if chip.flop_total is not None}
    moves = None if not seen else "not seen" if None in seen else "live" if all(seen) else "at exit"
    nodes = [chip.node for chip in chips if chip.node is not None]
    powers = [(node.index, power) for node in nodes if (power := node.power()) is not None]
    return {
        "driver": tree.driver,
        "sysfs_flop_count": moves,
        "architecture": ", ".join(sorted({node.architecture for node in nodes if node.architecture})) or None,
        "power_percent": "; ".join(f"{i}: {'/'.join(power.percent)}" for i, power in powers) or None,
    }
