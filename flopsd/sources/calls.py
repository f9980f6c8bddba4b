"""Calls into an open source: what it returns is checked, and what it raises becomes SourceError."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from flopsd.core.model import Device, Sweep
from flopsd.errors import SourceError
from flopsd.sources import Source
from flopsd.sources.validate import Checked, check_devices, check_facts, check_sweep
from flopsd.system.clock import Clock

T = TypeVar("T")
log = logging.getLogger("flopsd")


def read_source(source: Source, clock: Clock, checked: Checked | None = None) -> Sweep:
    """Read once. Raises SourceError. `checked`: devices of this source that need not be checked again."""
    renamed = None if checked is None else checked.renamed
    return _call(source, lambda: source.read(), lambda sweep: check_sweep(sweep, clock.boottime_ns(), renamed))


def poll_source(source: Source, until_ns: int) -> int | None:
    """Let a source sample what it has no counter for, before its next read at `until_ns`. Return when it wants the next
    poll; None: not before that read. Most sources have no `poll`. After a fault nothing is sampled until that read."""
    poll = getattr(source, "poll", None)
    if poll is None:
        return None
    try:
        due_ns = poll(until_ns)
    except Exception:  # noqa: BLE001 - a lost sample never costs a reading
        return None
    return due_ns if isinstance(due_ns, int) and due_ns < until_ns else None


def before_last_read(source: Source) -> None:
    """Tell a source that its next read is the last one. Most have no method for that."""
    with suppress(Exception):  # a fault here costs no reading
        getattr(source, "before_last_read", lambda: None)()


def devices_of(source: Source, checked: Checked | None = None) -> tuple[Device, ...]:
    """Return the devices that a source lists now. Raises SourceError. `checked`: see `read_source`."""
    listed = None if checked is None else checked.listed
    return _call(source, lambda: tuple(source.devices()), lambda devices: check_devices(devices, listed))


def facts_of(source: Source) -> Mapping[str, Any]:
    """Return the facts by which a source describes itself. Raises SourceError."""
    return _call(source, lambda: source.describe(), check_facts)


def facts_version_of(source: Source | None) -> str | None:
    """Return a text that changes whenever `facts_of` does; None for most sources, whose facts never change."""
    try:
        version = getattr(source, "facts_version", None)
    except Exception:  # noqa: BLE001 - facts that are not renewed never cost a reading
        return None
    return version if isinstance(version, str) else None


def close_source(source: Source) -> None:
    """Close a source. A fault is only logged: everything that was read has been received already."""
    try:
        _call(source, lambda: source.close(), lambda _: None)
    except SourceError as fault:
        log.warning("%s", fault)


def _call(source: Source, call: Callable[[], T], check: Callable[[T], None]) -> T:
    """Return what `call` returns, once checked. What a source raises, even an exit or a panic, becomes SourceError."""
    try:
        given = call()
        try:
            check(given)
        except ValueError as fault:
            raise SourceError(
                f"source {source.name!r}: {fault}",
                hint="nothing of this read is counted; this is a fault of the source: its authors can reproduce it "
                "with flopsd.testing.SourceContract",
            ) from fault
        return given
    except (SourceError, KeyboardInterrupt):
        raise
    except BaseException as fault:
        raise SourceError(f"source {source.name!r} failed: {fault!r}") from fault
