"""One line of neuron-monitor as a `MonitorDocument`. Pure.

Every metric group has its own `period` and `error`, every runtime an `error` too. What is absent stays absent:
tools of 2023 print no FLOP rate at all, later ones `effective_flops`, the guide has `flops`.
Sources: AWS's neuron-monitor user guide (SDK 2.32); captures on trn1, inf1 and inf2 in tests/samples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.model import GapReason
from flopsd.errors import SourceError
from flopsd.sources.validate import is_count, is_text, is_whole

RATE_FIELDS = ("effective_flops", "flops")  # in this order: the first that is there
# The facts of neuron_hardware_info that name no machine and no account.
_HARDWARE_FACTS = (
    "neuron_device_type", "neuron_device_version", "neuroncore_version", "neuron_device_count",
    "neuron_device_memory_size", "neuroncore_per_device_count", "logical_neuroncore_config",
)  # fmt: skip
_ABSURD_EXPONENT = 30  # beyond 10^30, or below its inverse, an exact number would only cost memory
_LONGEST_NUMBER = 64
SAID_CHARACTERS = 200  # kept of its text on a fault
_MOST_PARTS = 1000  # chips of a machine, cores of a chip, processes: room is made for each
_IDENTIFIER = re.compile(r"\b(?:i|ami|subnet|vpc|eni)-[0-9a-f]{8,17}\b")


class DocumentError(SourceError):
    """A line is not a document of neuron-monitor."""


@dataclass(frozen=True, slots=True)
class Core:
    """One logical core in one runtime's report. None: not reported. `fault`: what is reported cannot be true."""

    flop_per_s: Fraction | None
    utilization_percent: Fraction | None
    fault: GapReason | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process that has the Neuron runtime open. `error` is not empty if its report is unusable."""

    key: str
    error: str
    period_seconds: Fraction
    cores: Mapping[int, Core] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonitorDocument:
    """One line of output. `rate_field` is None if no core reports a FLOP rate."""

    runtimes: tuple[Runtime, ...]
    rate_field: str | None
    system_period_seconds: Fraction | None
    device_type: str | None
    device_count: int | None
    cores_per_device: int | None
    instance_type: str | None
    hardware_error: str
    facts: Mapping[str, str | int] = field(default_factory=dict)
    reports: tuple[int, ...] = ()  # of each runtime a hash of what was printed, to recognise it if printed again

    @property
    def has_periods(self) -> bool:
        return not all(runtime.error for runtime in self.runtimes)


def scrub(text: str) -> str:
    """Return `text` without ids of instances, images and networks: they do not belong in a ledger."""
    return _IDENTIFIER.sub("(id)", text)


def parse(line: bytes) -> MonitorDocument:
    """Return the document in one line. Raises DocumentError: not JSON, or not the shape of a document."""
    try:
        data = json.loads(
            line, parse_float=partial(_short, Decimal), parse_int=partial(_short, int), parse_constant=Decimal
        )
    except (ValueError, ArithmeticError, RecursionError) as fault:
        raise DocumentError(f"neuron-monitor printed no JSON: {type(fault).__name__}") from fault
    if not isinstance(data, dict) or not isinstance(data.get("neuron_runtime_data", []), list | None):
        raise DocumentError("neuron-monitor printed JSON that is not a report")
    if "neuron_runtime_data" not in data:
        raise DocumentError("neuron-monitor printed a report without neuron_runtime_data")
    entries = data["neuron_runtime_data"] or []  # Go prints an empty list as null, too
    if len(entries) > _MOST_PARTS:
        raise DocumentError(f"neuron-monitor printed a report of {len(entries)} processes")
    fields = [name for name in RATE_FIELDS if any(name in core for entry in entries for core in _raw_cores(entry))]
    hardware, instance = _mapping(data.get("neuron_hardware_info")), _mapping(data.get("instance_info"))
    return MonitorDocument(
        runtimes=tuple(_runtime(entry, at) for at, entry in enumerate(entries)),
        rate_field=fields[0] if fields else None,
        system_period_seconds=_period(_mapping(_mapping(data.get("system_data")).get("neuron_hw_counters"))),
        device_type=_word(hardware.get("neuron_device_type")),
        device_count=_whole(hardware.get("neuron_device_count")),
        cores_per_device=_whole(hardware.get("neuroncore_per_device_count")) or None,
        instance_type=_word(instance.get("instance_type")),
        hardware_error=str(hardware.get("error") or "")[:SAID_CHARACTERS],
        facts={k: hardware[k] for k in _HARDWARE_FACTS if is_text(hardware.get(k)) or is_whole(hardware.get(k))},
        reports=tuple(hash(repr(entry)) for entry in entries),
    )


def _runtime(entry: object, at: int) -> Runtime:
    runtime = _mapping(entry)
    # `pid` is the host's, the tag may be the same in all containers: together they name a process.
    key = f"{runtime.get('pid', f'#{at}')}/{runtime.get('neuron_runtime_tag', '')}"
    if len(key) > SAID_CHARACTERS:
        key = str(hash(key))
    group = _mapping(_mapping(runtime.get("report")).get("neuroncore_counters"))
    period, listed = _period(group), group.get("neuroncores_in_use")
    error = str(runtime.get("error") or group.get("error") or "")
    if error or period is None or not isinstance(listed, dict):
        return Runtime(key, error or "no usable neuroncore_counters", Fraction(0))
    try:
        return Runtime(key, "", period, {int(index): _core(_mapping(core)) for index, core in listed.items()})
    except ValueError:
        return Runtime(key, "a core without a number", Fraction(0))


def _raw_cores(entry: object) -> list[Mapping[str, Any]]:
    group = _mapping(_mapping(_mapping(entry).get("report")).get("neuroncore_counters"))
    return [_mapping(core) for core in _mapping(group.get("neuroncores_in_use")).values()]


def _core(report: Mapping[str, Any]) -> Core:
    rate = next((report[name] for name in RATE_FIELDS if name in report), None)
    numbers = [_number(rate), _number(report.get("neuroncore_utilization"))]
    fault = next((number for number in numbers if isinstance(number, GapReason)), None)
    flop_per_s, percent = (number if isinstance(number, Fraction) and fault is None else None for number in numbers)
    return Core(flop_per_s, percent, fault)


def _number(value: object) -> Fraction | GapReason | None:
    """Return an exact number of at least zero, None for no value, or what is wrong with it."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return GapReason.NOT_A_NUMBER
    if isinstance(value, Decimal):
        if not value.is_finite():
            return GapReason.NOT_A_NUMBER
        if (value.is_signed() and value) or (value and value.adjusted() > _ABSURD_EXPONENT):
            return GapReason.OUT_OF_RANGE
        if not value or value.adjusted() < -_ABSURD_EXPONENT:
            return Fraction(0)
    return Fraction(value) if 0 <= value < 10**_ABSURD_EXPONENT else GapReason.OUT_OF_RANGE


def _period(group: Mapping[str, Any]) -> Fraction | None:
    seconds = _number(group.get("period"))
    return seconds if isinstance(seconds, Fraction) and seconds > 0 else None


def _short(kind: type[int | Decimal], text: str) -> int | Decimal:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    return kind(text)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    return value if is_count(value, _MOST_PARTS) else None  # type: ignore[return-value]


def _word(value: object) -> str | None:
    return value if is_text(value) and value else None  # type: ignore[return-value]
