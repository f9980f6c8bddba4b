"""The only code that touches an accelerator. This module defines what a source is and what it declares.

Each source is a package. Its `__init__` holds a `SourceInfo` named SOURCE and imports little, since every command reads
it; `SourceInfo.open` imports the driver. `registry.py` finds sources by name, `calls.py` calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Device, DeviceUid, Evidence, Sweep

if TYPE_CHECKING:
    from flopsd.core.peaks import PeakTable
    from flopsd.sources.ownership.rule import Job, VendorDevices
    from flopsd.system.clock import Clock

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


class Source(Protocol):
    """What flopsd requires of a source of readings. One thread calls it.

    `devices` may change between reads, and so may their evidence. `read` returns one reading for each device, which
    begins where the device's last one ended, or none if there is nothing new yet. A device that cannot be read gives a
    Gap with its reason, and never stops the others. `flopsd.testing.contract` checks all of this.
    """

    name: str

    def devices(self) -> Sequence[Device]: ...

    def read(self) -> Sweep: ...

    def describe(self) -> Mapping[str, Any]:
        """Return versions and facts for the ledger: text and ints only. A replay says so in `replay`."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source is opened with. `options`: its own options, by the names that its SourceInfo declares."""

    clock: Clock
    peaks: PeakTable
    options: Mapping[str, Any] = field(default_factory=dict)
    # By device, the origin of the totals last journalled on this boot. Incomplete until `read` is called.
    origins: Mapping[DeviceUid, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceOption:
    """One option of a source. It becomes a setting: `url` of the source dcgm is the key `dcgm_url`, the flag
    `--dcgm-url` and the variable FLOPSD_DCGM_URL; `_seconds` at the end is left out of flag and variable.

    `parse` takes a value from YAML or text and raises a ValueError that states what is expected
    (`flopsd.settings.parsers` has the usual ones). The source gets `default` if nothing is set; `default_text`
    describes it if its value does not.
    """

    name: str
    metavar: str
    help: str
    parse: Callable[[object], object]
    default: Any = None
    default_text: str = ""

    def __post_init__(self) -> None:
        _require_name("an option", self.name)


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that a source imports: its module, its name, and what to give to `pip install`."""

    module: str
    name: str
    install: str


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source declares. Flags, settings, `doctor`, probing and ownership rules are made from it."""

    name: str
    title: str  # what it reads, in a few words
    open: Callable[[SourceSettings], Source]  # imports the driver; raises SourceUnavailableError
    evidence: tuple[Evidence, ...]  # that its devices can have, strongest first
    remedy: str  # what to do if there is nothing to read: the hint of an error that has no other
    vendor: str = ""  # of its devices, as in the rows of the peak table; "": any
    peaks: Path | None = None  # a YAML list of rows for its devices that the packaged peak table lacks
    options: tuple[SourceOption, ...] = ()
    packages: tuple[Package, ...] = ()
    ownership: Callable[[Job], VendorDevices] | None = None  # which devices are a job's; None: known by uid and index
    hardware: bool = True  # False: a recording, which no probe finds and no job owns

    def __post_init__(self) -> None:
        _require_name("a source", self.name)

    def options_from(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the options of this source from `given`, the settings of all sources by key, else their defaults."""
        values = ((option, given.get(self.key(option))) for option in self.options)
        return {option.name: option.default if value is None else value for option, value in values}

    def key(self, option: SourceOption) -> str:
        """Return the key of an option in flopsd.yaml."""
        return f"{self.name}_{option.name}".replace("-", "_")


def _require_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of {what}: lower-case letters and digits, with - or _ between them")
