"""Checks what a source gives: only what the journal can hold and the meter can add up enters the daemon. Pure.

A source may be third-party code. What is refused here is an outage of that source. If accepted, it could end the
metering of the others, or stay in the run's journal and make it unsealable. Each check raises a ValueError that names
the device and the field. The checks run at every reading, so they are written for speed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from operator import is_
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.start_notes import is_recording
from flopsd.core.model import (
    Active,
    Busy,
    Counted,
    Device,
    DeviceUid,
    Evidence,
    Gap,
    GapReason,
    Gauges,
    Growth,
    Pipe,
    Reading,
    Sweep,
    Totals,
)
from flopsd.core.values import MAX_SHOWN

# The ledger's counts have 40 digits. This many cycles or FLOP in each reading of a run of years still add up to less.
MOST = 10**24
MOST_OF_A_DEVICE = 2**32  # SMs, MHz, ids: what a field of a driver can hold
MOST_CHARACTERS = 10_000  # a device's whole description must fit into one line of the journal
MOST_FACTS_BYTES = 256 * 1024
MOST_DEVICES = 2000  # of one source, over time: each stays in every record of the run
AHEAD_NS = 10_000_000  # tolerated, since another clock of the machine may give the end of an interval
_RATIO, _MOST_RATIO = "a number from 0 to 10^24", float(MOST)  # floats are compared with a float in half the time


def is_count(value: object, most: int = MOST) -> bool:
    """Whether `value` is a non-negative int of at most `most`, and no bool."""
    return isinstance(value, int) and type(value) is not bool and 0 <= value <= most


def is_text(value: object) -> bool:
    """Whether `value` is text that every reader of a ledger can read: not too long, without lone surrogates."""
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        return False
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fit(text: str) -> str:
    """Return `text` so that `is_text` holds: what cannot be encoded is escaped, and what is too long is cut."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def check_facts(facts: object) -> None:
    """Raises ValueError for what `describe()` must not return, since the ledger cannot hold it."""
    if not isinstance(facts, Mapping):
        raise ValueError(f"describe() gave {type(facts).__name__}, not a mapping")
    _check_fact("describe()", facts, 8)
    if facts.get("replay") is not None and not is_recording(facts["replay"]):
        why = "it is None, or a mapping with the texts recording, sha256 and origin"
        raise ValueError(f"describe()['replay'] is {shown(facts['replay'])}: {why}")
    if len(json.dumps(facts, default=dict)) > MOST_FACTS_BYTES:
        raise ValueError(f"describe() gave more than {MOST_FACTS_BYTES} bytes")


@dataclass(slots=True)
class CheckedDevices:
    """The devices that were checked, by uid, and the last list of them that was accepted. A Device never changes, so
    each is checked once, and a list again only if it holds other ones."""

    known: dict[DeviceUid, Device] = field(default_factory=dict)
    accepted: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What one source listed and renamed."""

    listed: CheckedDevices = field(default_factory=CheckedDevices)
    renamed: CheckedDevices = field(default_factory=CheckedDevices)


def check_devices(devices: Sequence[object], checked: CheckedDevices | None = None) -> None:
    """Raises ValueError for what `devices()` must not list. `checked`: devices that need not be checked again."""
    checked = CheckedDevices() if checked is None else checked
    if len(devices) == len(checked.accepted) and all(map(is_, devices, checked.accepted)):
        return
    uids, parents, known = set(), dict[DeviceUid, DeviceUid](), checked.known
    for device in devices:
        if not isinstance(device, Device):
            raise ValueError(f"devices() lists {shown(device)}, which is not a Device")
        uid = device.uid
        if not is_text(uid) or not uid:
            raise _refusal("a device", "uid", uid, "text")
        uids.add(uid)
        if known.get(uid) is not device:
            if uid not in known and len(known) >= MOST_DEVICES:
                raise ValueError(f"devices() lists more than {MOST_DEVICES} devices, one after another")
            _check_device(uid, device)
            known[uid] = device
        if device.parent is not None:
            parents[uid] = device.parent
    if len(uids) != len(devices):
        raise ValueError("devices() lists two devices of one uid")
    for uid, parent in parents.items():  # a device with slices is not read: of nested slices, some never would be
        if parent in parents:
            raise _refusal(uid, "parent", parent, "the uid of a whole device")
    checked.accepted = tuple(devices)


def _check_device(uid: DeviceUid, device: Device) -> None:
    for name in ("vendor", "model", "evidence_reason", "evidence_fix"):
        if not is_text(getattr(device, name)):
            raise _refusal(uid, name, getattr(device, name), "text")
    for name in ("serial", "pci_bus_id", "parent", "driver", "shared", "mig_profile"):
        text = getattr(device, name)
        if text is not None and not is_text(text):
            raise _refusal(uid, name, text, "text or None")
    for name in ("sm_count", "sm_clock_max_mhz"):  # zero would make the ceiling zero
        count = getattr(device, name)
        if count is not None and (count == 0 or not is_count(count, MOST_OF_A_DEVICE)):
            raise _refusal(uid, name, count, "a whole number above 0, or None where it is not known")
    if not is_count(device.index, MOST_OF_A_DEVICE):
        raise _refusal(uid, "index", device.index, "a whole number")
    for name in ("pci_device_id", "gpu_instance"):
        number = getattr(device, name)
        if number is not None and not is_count(number, MOST_OF_A_DEVICE):
            raise _refusal(uid, name, number, "a whole number or None")
    if not isinstance(device.evidence, Evidence):
        raise _refusal(uid, "evidence", device.evidence, "an Evidence")


def check_sweep(sweep: object, now_ns: int, checked: CheckedDevices | None = None) -> None:
    """Raises ValueError for what `read()` must not return. `now_ns`: a moment after the read. `checked`: devices in
    `renamed` that need not be checked again."""
    if not isinstance(sweep, Sweep):
        raise ValueError(f"read() gave {type(sweep).__name__}, not a Sweep")
    readings: Any = sweep.readings
    if not isinstance(readings, tuple | list):
        raise _refusal("the sweep", "readings", readings, "a tuple")
    for reading in readings:
        _check_reading(reading, now_ns)
    _require_mapping("the sweep", "gauges", sweep.gauges)
    for uid, gauges in sweep.gauges.items():
        if not is_text(uid):
            raise _refusal("the sweep", "gauges", uid, "by the uids of devices")
        _check_gauges(uid, gauges)
    if not is_count(sweep.patience_ns):
        raise _refusal("the sweep", "patience_ns", sweep.patience_ns, "a whole number")
    others: Any = sweep.not_ours
    if not isinstance(others, frozenset | set) or not all(map(is_text, others)):
        raise _refusal("the sweep", "not_ours", others, "a set of uids")
    for name in ("not_ours_at_ns", "ours_until_ns"):
        at_ns: Any = getattr(sweep, name)
        if at_ns is not None and not is_count(at_ns):
            raise _refusal("the sweep", name, at_ns, "a whole number")
    _require_mapping("the sweep", "renamed", sweep.renamed)
    if not all(map(is_text, sweep.renamed)):
        raise _refusal("the sweep", "renamed", sweep.renamed, "by the uids of devices")
    check_devices(tuple(sweep.renamed.values()), checked)


def _check_reading(reading: object, now_ns: int) -> None:
    if not isinstance(reading, Reading):
        raise ValueError(f"the sweep holds {shown(reading)}, which is not a Reading")
    uid, begin_ns, end_ns, work = reading.device, reading.begin_ns, reading.end_ns, reading.work
    if not is_text(uid):
        raise _refusal("a reading", "device", uid, "the uid of a device")
    if not is_count(begin_ns):
        raise _refusal(uid, "begin_ns", begin_ns, "a whole number")
    if not is_count(end_ns) or end_ns <= begin_ns:
        raise _refusal(uid, "end_ns", end_ns, f"a whole number above its begin_ns, {begin_ns}")
    if end_ns > now_ns + AHEAD_NS:
        raise _refusal(uid, "end_ns", end_ns, f"not in the future: it is {now_ns} now")
    if isinstance(work, Active):
        if work.evidence not in (Evidence.CYCLES, Evidence.ACTIVITY):
            raise _refusal(uid, "work.evidence", work.evidence, "Evidence.CYCLES or Evidence.ACTIVITY")
        _check_cycles(uid, "work.sm_cycles", work.sm_cycles)
        _check_cycles(uid, "work.uncertainty_sm_cycles", work.uncertainty_sm_cycles)
        _check_cycles(uid, "work.square_sum", work.square_sum)
        _check_unread(uid, work.unread)
    elif isinstance(work, Growth):
        _check_unread(uid, work.unread)
    elif isinstance(work, Gap):
        if not isinstance(work.reason, GapReason):
            raise _refusal(uid, "work.reason", work.reason, "a GapReason")
        if not is_count(work.counted_flop):
            raise _refusal(uid, "work.counted_flop", work.counted_flop, "a whole number")
    elif isinstance(work, Busy):
        for name in ("sm_cycles", "clocked_sm_cycles", "square_sum"):
            value = getattr(work, name)
            if not is_count(value) and not (name == "clocked_sm_cycles" and value is None):
                raise _refusal(uid, f"work.{name}", value, "a whole number")
    elif not isinstance(work, Counted):
        raise _refusal(uid, "work", work, "Active, Growth, Counted, Busy or Gap")
    elif not is_count(work.flop):
        raise _refusal(uid, "work.flop", work.flop, "a whole number")
    _require_mapping(uid, "counters", reading.counters)
    for name, value in reading.counters.items():
        if not is_text(name):
            raise _refusal(uid, "counters", name, "by their names")
        if not is_count(value):
            raise _refusal(uid, f"counters[{name!r}]", value, "a whole number")
    if reading.totals is not None:
        _check_totals(uid, reading.totals)


def _check_totals(uid: str, totals: object) -> None:
    if not isinstance(totals, Totals):
        raise _refusal(uid, "totals", totals, "a Totals or None")
    if not is_text(totals.origin) or not totals.origin:
        raise _refusal(uid, "totals.origin", totals.origin, "text")
    if not is_count(totals.elapsed_sm_cycles):
        raise _refusal(uid, "totals.elapsed_sm_cycles", totals.elapsed_sm_cycles, "a whole number")
    _check_cycles(uid, "totals.sm_cycles", totals.sm_cycles)


def _check_cycles(uid: str, what: str, cycles: Mapping[Any, Any]) -> None:
    _require_mapping(uid, what, cycles)
    for pipe, amount in cycles.items():
        if type(pipe) is Pipe and type(amount) is int and 0 <= amount <= MOST:
            continue  # the usual case needs no call: most of a sweep is such values
        if not isinstance(pipe, Pipe):
            raise _refusal(uid, what, pipe, "by Pipe")
        if not is_count(amount):
            raise _refusal(uid, f"{what}[{pipe.value}]", amount, "a whole number")


def _check_unread(uid: str, unread: object) -> None:
    if not isinstance(unread, tuple) or (unread and not all(isinstance(pipe, Pipe) for pipe in unread)):
        raise _refusal(uid, "work.unread", unread, "a tuple of Pipe")


def _check_gauges(uid: str, gauges: object) -> None:
    if not isinstance(gauges, Gauges):
        raise _refusal(uid, "gauges", gauges, "a Gauges")
    _require_mapping(uid, "pipe_activity_ratio", gauges.pipe_activity_ratio)
    for pipe, ratio in gauges.pipe_activity_ratio.items():
        if type(pipe) is Pipe and type(ratio) is float and 0.0 <= ratio <= _MOST_RATIO:
            continue
        if not isinstance(pipe, Pipe):
            raise _refusal(uid, "pipe_activity_ratio", pipe, "by Pipe")
        if not _is_finite(ratio):
            raise _refusal(uid, f"pipe_activity_ratio[{pipe.value}]", ratio, _RATIO)
    if (used := gauges.utilization_ratio) is not None and not _is_finite(used):
        raise _refusal(uid, "utilization_ratio", used, f"{_RATIO}, or None")
    if (mhz := gauges.sm_clock_mhz) is not None and not _is_finite(mhz):
        raise _refusal(uid, "sm_clock_mhz", mhz, f"{_RATIO}, or None")


def _is_finite(value: object) -> bool:
    return isinstance(value, float | int) and type(value) is not bool and 0 <= value <= MOST


def _require_mapping(uid: str, what: str, value: object) -> None:
    if not isinstance(value, dict) and not isinstance(value, Mapping):  # nearly always a dict: a quick check
        raise _refusal(uid, what, value, "a mapping")


def _check_fact(where: str, value: object, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not is_text(key):
                raise ValueError(f"{where} has the key {shown(key)}, which is not text")
            _check_fact(f"{where}[{shown(key)}]", inner, depth - 1)
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            _check_fact(f"{where}[{at}]", inner, depth - 1)
    elif value is not None and not is_text(value) and not is_whole(value):
        raise ValueError(f"{where} is {shown(value)}: the ledger takes text, ints and None")


def is_whole(value: object) -> bool:
    """Whether `value` is an int that a ledger can hold, possibly negative, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and -MOST <= value <= MOST


def _refusal(uid: str, what: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{uid}: {what} is {shown(value)}, expected {expected}")


def shown(value: object, most: int = MAX_SHOWN) -> str:
    """Return `value` for a message, whatever it is: `repr` may fail for a long int and for a stranger's object."""
    try:
        return repr(value)[:most]
    except Exception:  # noqa: BLE001, a stranger's __repr__
        return f"a {type(value).__name__}"
