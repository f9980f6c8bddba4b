"""The settings of the writer, and which of them hold after a killed daemon start had others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from itertools import takewhile

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import NOTHING_DECLARED, OperatorDeclarations, declared_from
from flopsd.core.ledger.device_records import precision_record
from flopsd.core.ledger.history import History
from flopsd.core.ledger.isolation import UNKNOWN, Isolation
from flopsd.core.ledger.open_accounts import has_ended, left_open
from flopsd.core.model import Device, Precision
from flopsd.core.policy.policy_file import Policy
from flopsd.settings.load import settings_sha256
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S

log = logging.getLogger("flopsd")
_OTHER = (
    "the previous daemon start was killed and had another %s, and the time in between may belong to either: the "
    "setting counts as not declared until flopsd is stopped with SIGTERM and started again"
)


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """What the writer needs from the settings."""

    interval_ns: int
    checkpoint_ns: int
    config_sha256: str
    precision: Precision | None  # declared for the run
    sources: Sequence[str]
    device_precision: Mapping[str, Precision] = field(default_factory=dict)  # see `device_names`
    run_declared: OperatorDeclarations = NOTHING_DECLARED
    policies: Sequence[Policy] = ()
    isolation: Isolation = UNKNOWN
    is_rotated: bool = False

    @classmethod
    def of(
        cls, settings: Settings, sources: Sequence[str], declared: OperatorDeclarations, policies: Sequence[Policy],
        isolation: Isolation,
    ) -> WriterSettings:  # fmt: skip
        return cls(
            round(settings.interval_seconds * NS_PER_S),
            # A seal covers checkpoints only, so they come at least as often as rolling seals.
            round(min(settings.checkpoint_seconds, settings.seal_every_seconds or 3600) * NS_PER_S),
            settings_sha256(settings),
            settings.precision,
            sources,
            settings.device_precision,
            declared,
            policies,
            isolation,
            settings.rotate_every is not None,
        )

    def continuing(self, history: History) -> WriterSettings:
        """Return the settings without the phase or the number formats, if a killed daemon start that this one continues
        declared others: the time in between may belong to either."""
        last = takewhile(lambda start: not has_ended(start), reversed(history.incarnations))
        killed = {start.number: start for start in (*last, *left_open(history).values())}.values()
        begins, entries = [one.begin for one in killed], [entry for one in killed for entry in one.devices.values()]
        phase, formats = self.run_declared.phase, precision_record(self.precision)
        without = self
        if any(declared_from(begin.get("declared")).phase is not phase for begin in begins):
            log.warning(_OTHER, "--phase")
            without = replace(without, run_declared=replace(self.run_declared, phase=None))
        if any(begin["precision"] != formats for begin in begins) or any(
            entry.precision != self.declared(entry.device) for entry in entries
        ):
            log.warning(_OTHER, "--precision")
            without = replace(without, precision=None, device_precision={})
        return without

    def declared(self, device: Device) -> Precision | None:
        """Return the number format declared for a device: its own, else the run's."""
        by_name = {name.casefold(): precision for name, precision in self.device_precision.items()}
        return next((by_name[name] for name in device_names(device) if name in by_name), self.precision)


def device_names(device: Device) -> tuple[str, ...]:
    """Return the names of a device in settings, casefolded, the most exact first; a GPU stands for its slices."""
    return device.uid.casefold(), (device.parent or "").casefold(), str(device.index)
