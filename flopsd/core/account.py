"""The account: grow-only tallies of many devices, incarnations and nodes, and how they merge.

Merging keeps, for each key, the later of two states of the same counter: commutative, associative and
idempotent. Two states that are not one another's past are a fork and are refused, as is one device
that two incarnations claim to have watched at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flopsd.core.model import Tally, TallyKey
from flopsd.errors import LedgerError

K = TypeVar("K")
IncarnationKey = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an incarnation's boot-time clock stands among the others."""

    boot_id: str
    boottime_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Account:
    """Tallies by key, and the origin of every incarnation that they come from."""

    tallies: Mapping[TallyKey, Tally] = field(default_factory=dict)
    origins: Mapping[IncarnationKey, Origin] = field(default_factory=dict)


def merge(first: Account, second: Account) -> Account:
    """Both accounts as one. Raises LedgerError on a fork or on a device counted twice at once."""
    tallies = dict(first.tallies)
    for key, tally in second.tallies.items():
        tallies[key] = _later(key, tallies[key], tally) if key in tallies else tally
    origins = dict(first.origins)
    for incarnation, origin in second.origins.items():
        if origins.setdefault(incarnation, origin) != origin:
            raise LedgerError(
                f"incarnation {incarnation[2]} of run {incarnation[0]!r} on {incarnation[1]!r} began twice",
                hint="two different journals claim the same incarnation; one of them is not of this run",
            )
    merged = Account(tallies, origins)
    refuse_double_counting(merged)
    return merged


def refuse_double_counting(account: Account) -> None:
    """Raises LedgerError if two incarnations claim the same device and phase at the same time."""
    by_device: dict[tuple[str, str], list[tuple[TallyKey, Tally]]] = {}
    for key, tally in account.tallies.items():
        by_device.setdefault((key.device, key.phase), []).append((key, tally))
    for (device, _), claims in by_device.items():
        for one, other in _pairs(sorted(claims, key=lambda claim: claim[0])):
            if _overlap(account, one, other):
                first, second = (f"incarnation {k.incarnation} of {k.run!r} on {k.node!r}" for k, _ in (one, other))
                raise LedgerError(
                    f"device {device} is counted twice at the same time: by {first} and {second}",
                    hint="only one of the two ledgers may be in the account",
                )


def _overlap(account: Account, one: tuple[TallyKey, Tally], other: tuple[TallyKey, Tally]) -> bool:
    a, b = (account.origins[(k.run, k.node, k.incarnation)] for k, _ in (one, other))
    if a.boot_id == b.boot_id:
        shift_a = shift_b = 0
    elif (one[0].run, one[0].node) == (other[0].run, other[0].node):
        return False  # one journal's chain says which came first; the wall clock may have stepped between them
    else:  # different boots have only the wall clock in common
        shift_a, shift_b = a.wall_ns - a.boottime_ns, b.wall_ns - b.boottime_ns
    begin = max(one[1].begin_ns + shift_a, other[1].begin_ns + shift_b)
    end = min(one[1].watermark_ns + shift_a, other[1].watermark_ns + shift_b)
    return begin < end


def _pairs(claims: list[tuple[TallyKey, Tally]]) -> Iterable[tuple[tuple[TallyKey, Tally], tuple[TallyKey, Tally]]]:
    return ((claims[i], claims[j]) for i in range(len(claims)) for j in range(i + 1, len(claims)))


def _later(key: TallyKey, one: Tally, other: Tally) -> Tally:
    if grew_from(one, other):
        return other
    if grew_from(other, one):
        return one
    raise LedgerError(
        f"two histories of device {key.device} in incarnation {key.incarnation} of {key.run!r} contradict each other",
        hint="at least one of the two journals was altered or continued from a copy",
    )


def grew_from(before: Tally, after: Tally) -> bool:
    """Whether `after` can be a later state of the counter `before`."""
    return (
        before.begin_ns == after.begin_ns
        and before.watermark_ns <= after.watermark_ns
        and before.counted_flop <= after.counted_flop
        and before.busy_sm_cycles <= after.busy_sm_cycles
        and (before.energy_mj is None or (after.energy_mj is not None and before.energy_mj <= after.energy_mj))
        and before.energy_ns <= after.energy_ns
        and _grew(before.active_sm_cycles, after.active_sm_cycles)
        and _grew(before.observed_ns, after.observed_ns)
        and _grew(before.gap_ns, after.gap_ns)
        and before.recovered_ns <= after.recovered_ns
        and _grew(before.uncertainty_sm_cycles, after.uncertainty_sm_cycles)
        and _grew(before.unread_ns, after.unread_ns)
        and all(name in after.phases and grew_from(share, after.phases[name]) for name, share in before.phases.items())
        and (before.watermark_ns < after.watermark_ns or before == after)
    )


def _grew(before: Mapping[K, int], after: Mapping[K, int]) -> bool:
    return all(after.get(key, 0) >= value for key, value in before.items())
