"""The only code that touches an accelerator. Here: what a source is, and what it declares of itself.

One package per source. Its `__init__` holds a `SourceInfo` named SOURCE and stays light, since every command reads it;
the driver is imported by `SourceInfo.open`. `registry.py` finds sources by name, `calls.py` calls them.
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
    """What flopsd asks of a source of readings. One thread calls it.

    `devices` may change between reads, the evidence in them too. `read` gives for every device one reading that begins
    where the last one ended, or none when there is nothing new yet; a device that cannot be read gives a Gap with its
    reason, and never stops the others. `flopsd.testing.contract` checks all of it.
    """

    name: str

    def devices(self) -> Sequence[Device]: ...

    def read(self) -> Sweep: ...

    def describe(self) -> Mapping[str, Any]:
        """Versions and facts for the ledger: text and ints only. A replay says so in `replay`."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source is opened with. `options` are its own, by the names that its SourceInfo declares."""

    clock: Clock
    peaks: PeakTable
    options: Mapping[str, Any] = field(default_factory=dict)
    # Of the totals last journalled on this boot; complete when `read` is called, not before.
    origins: Mapping[DeviceUid, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceOption:
    """One option of a source. It becomes a setting: `url` of the source dcgm is the key `dcgm_url`, the flag
    `--dcgm-url` and the variable FLOPSD_DCGM_URL; `_seconds` at the end is left out of flag and variable.

    `parse` takes what YAML or text gave and raises ValueError stating what is expected (`flopsd.settings.parsers` has
    the usual ones). `default` is what the source gets where nothing is set; `default_text` describes it where its value
    does not.
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
    """What a source declares of itself; flags, settings, `doctor`, probing and ownership rules are made from it."""

    name: str
    title: str  # what it reads, in a few words
    open: Callable[[SourceSettings], Source]  # imports the driver; raises SourceUnavailableError
    evidence: tuple[Evidence, ...]  # that its devices can have, strongest first
    remedy: str  # what to do where there is nothing to read: the hint of an error that has no other
    vendor: str = ""  # of its devices, as in the rows of the peak table; "": of any
    peaks: Path | None = None  # a YAML list of rows that the packaged peak table lacks, for its devices
    options: tuple[SourceOption, ...] = ()
    packages: tuple[Package, ...] = ()
    ownership: Callable[[Job], VendorDevices] | None = None  # which devices are a job's; None: known by uid and index
    hardware: bool = True  # False: a recording, which no probe finds and no job owns

    def __post_init__(self) -> None:
        _require_name("a source", self.name)

    def options_from(self, given: Mapping[str, object]) -> dict[str, object]:
        """Its options from the settings of all sources by their keys, with its defaults."""
        values = ((option, given.get(self.key(option))) for option in self.options)
        return {option.name: option.default if value is None else value for option, value in values}

    def key(self, option: SourceOption) -> str:
        """The key of an option in flopsd.yaml."""
        return f"{self.name}_{option.name}".replace("-", "_")


def _require_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of {what}: lower-case letters and digits, with - or _ between them")
