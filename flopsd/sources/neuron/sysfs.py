"""The Neuron driver's sysfs tree: the identity of each chip, and the FLOP totals of its cores.

Driver 2.31.7 moved nodes, so `flop_count` is found by name under each chip, never at a fixed path. A total grows from
the time the driver is loaded; a write by root or a reset takes it back to zero. Up to driver 2.30.1 it moves only when
the process that did the work exits.
Sources: aws-neuron-driver 2.24.7.0 (neuron_sysfs_metrics.c); release notes of driver 2.30.2 and 2.31.7.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

ROOT = "/sys/devices/virtual/neuron_device"
MODULE = "/sys/module/neuron"
_SERIAL = re.compile(r"[0-9a-fA-F]{4,32}")
_NUMBER = re.compile(r"\d{1,20}")  # 64 bits


class ChipNode:
    """One chip's part of the tree."""

    def __init__(self, path: Path, index: int) -> None:
        self.index = index
        self._path = path
        self.serial = _serial(_text(path / "info" / "serial_number"))
        self.device_name = _text(path / "info" / "architecture" / "device_name")
        self.architecture = _text(path / "info" / "architecture" / "arch_type")
        self.totals, self.why_none = _find_totals(path)

    def flop_totals(self) -> tuple[int, ...] | None:
        """Return the FLOP of each core since the driver was loaded; None if not every core can be read."""
        read = [_count(path) for path in self.totals]
        known = tuple(value for value in read if value is not None)
        return known if known and len(known) == len(read) else None

    def flop_totals_after(self, before: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Return `flop_totals`, read again if one failed or seems to have fallen, to tell a torn read from a reset."""
        now = self.flop_totals()
        if before is not None and (now is None or has_fallen(before, now)):
            again = self.flop_totals()
            return again if again is not None else now
        return now

    def power_percent(self) -> str | None:
        """Return the board power of the last minute in percent of the chip's limit, `LOWEST/HIGHEST/MEAN` as printed;
        None if firmware does not report it."""
        fields = (_text(self._path / "stats" / "power" / "utilization") or "").split(",")
        if len(fields) != 5 or fields[0] != "POWER_STATUS_VALID" or not fields[1].isdigit():
            return None
        return "/".join(fields[2:])


def has_device_node() -> bool:
    """Whether the driver shows a chip to this process."""
    return any(Path("/dev").glob("neuron[0-9]*"))


def has_fallen(before: Sequence[int], now: Sequence[int]) -> bool:
    """Whether any core's total fell, as when it was reset, whatever the others grew by."""
    return any(later < earlier for earlier, later in zip(before, now, strict=True))


class Tree:
    """The tree of this machine: all chips of the host, whichever job uses them. Empty if the driver is not loaded."""

    def __init__(self, root: str | None = None, module: str | None = None) -> None:
        self._root = Path(root or ROOT)
        self.driver = _text(Path(module or MODULE) / "version")
        self.chips: Sequence[ChipNode] = []
        self.look()

    def look(self) -> None:
        """Add the chips that appeared since: a driver that is being loaded shows one after another."""
        known = {chip.index for chip in self.chips}
        if new := [ChipNode(self._root / f"neuron{at}", at) for at in _indices(self._root) if at not in known]:
            self.chips = sorted([*self.chips, *new], key=lambda chip: chip.index)

    @property
    def live(self) -> bool:
        """Whether this driver's totals move while a process runs."""
        return _version(self.driver) >= (2, 30, 2)


def _version(text: str | None) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", text or "")
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _indices(root: Path) -> list[int]:
    try:
        return [int(match[1]) for entry in root.iterdir() if (match := re.fullmatch(r"neuron(0|[1-9]\d*)", entry.name))]
    except OSError:
        return []


def _find_totals(chip: Path) -> tuple[tuple[Path, ...], str]:
    """Return the files that hold FLOP totals below `chip`, or why there are none. Only nodes of one shape are summed:
    the sum of totals of cores and of the chip would count everything twice, and to take either would be a guess."""
    found: list[Path] = []
    for folder, names, files in os.walk(chip):  # links are not followed: `subsystem` and `device` lead back
        if "flop_count" in files:
            found.append(Path(folder) / "flop_count")
        if "flop_count" in names:
            found.append(Path(folder) / "flop_count" / "total")
    shapes = {re.sub(r"\d+", "#", str(path.relative_to(chip))) for path in found}
    if not found:
        return (), "this driver shows no flop_count"
    if len(shapes) > 1:
        return (), f"this driver shows flop_count in {len(shapes)} kinds of places"
    return tuple(sorted(found)), ""


def _text(path: Path) -> str | None:
    """Return a file's text without the line end; None if it is empty or cannot be read."""
    try:
        return path.read_text("ascii", "replace").strip() or None
    except OSError:
        return None


def _count(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _serial(text: str | None) -> str | None:
    """Return a serial number that names one chip, in lower case; None if it is empty or the driver's zeros."""
    return text.lower() if text and _SERIAL.fullmatch(text) and int(text, 16) else None
