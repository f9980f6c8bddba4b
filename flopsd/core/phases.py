"""A tally's shares by declared phase. Pure.

The training process declares its phase; the hardware supplies the counts. A reading belongs to a phase only if that
phase was active throughout the time that the reading covers. The rest is undeclared.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from flopsd.core.declarations import Phase, precision_from
from flopsd.core.model import PPM, UNDECLARED_PHASE, Precision
from flopsd.core.tally import TALLY_ABSOLUTES, TALLY_AMOUNTS, TALLY_MAPPINGS, Tally
from flopsd.core.values import added, sum_of_known

K = TypeVar("K", bound=Hashable)
PROCESS = "process"


class ActivePhase(NamedTuple):
    """The phase bucket of readings that begin at `since_ns` or later, on the boot-time clock."""

    bucket: str
    since_ns: int


NO_PHASE = ActivePhase(UNDECLARED_PHASE, 0)


def bucket(phase: str, precision: Precision | None) -> str:
    """`train`, or `train@bf16` where the process also declares the number format of its tensor work."""
    return phase if precision is None else f"{phase}@{precision.label}"


def split_bucket(name: str) -> tuple[str, Precision | None]:
    """The inverse of `bucket`. Raises ValueError."""
    phase, at, label = name.partition("@")
    if not at:
        return Phase(phase).value, None
    pieces = [piece.partition(":") for piece in label.split(",")]
    try:
        shares = {fmt: round(float(share or 1) * PPM) for fmt, _, share in pieces}
        precision = precision_from(shares, PROCESS)
    except (ValueError, OverflowError):
        precision = None
    if precision is None or precision.label != label:
        raise ValueError(f"{name!r:.80} is not a phase, or a phase and its number format")
    return Phase(phase).value, precision


def with_share(after: Tally, before: Tally, name: str) -> Tally:
    """`after`, with its growth since `before` added to the share `name`."""
    grown = _difference(after, before)
    known = after.phases.get(name)
    share = grown if known is None else _sum(known, grown)
    return after.changed({"phases": {**after.phases, name: share}})


def remainder(tally: Tally) -> Tally:
    """The part of a tally that no phase accounts for. Raises ValueError where phases account for more than there is."""
    left = replace(tally, phases={}, counters={}, energy_at_ns=0, totals=None, totals_ns=0)
    for share in tally.phases.values():
        left = _difference(left, share)
    return left


def sum_of(one: Tally, other: Tally) -> Tally:
    """Both tallies together, beginning at time 0, with the shares of their phases; without absolute counters."""
    shares = dict(one.phases)
    for name, share in other.phases.items():
        shares[name] = _sum(shares[name], share) if name in shares else share
    return replace(_sum(one, other), phases=shares)


def since(whole: Tally, base: Tally) -> Tally:
    """The growth of a tally since it stood at `base`, and that of its phases, with the tally's absolute counters."""
    grown = {name: _difference(share, base.phases.get(name, Tally(0, 0))) for name, share in whole.phases.items()}
    left = _difference(whole, base)
    absolutes = {name: getattr(whole, name) for name in TALLY_ABSOLUTES}
    return replace(
        left,
        begin_ns=base.watermark_ns,
        watermark_ns=whole.watermark_ns,
        energy_mj=left.energy_mj if left.energy_ns else None,
        phases={name: share for name, share in grown.items() if share != Tally(0, 0, energy_mj=share.energy_mj)},
        **absolutes,
    )


def _difference(whole: Tally, part: Tally) -> Tally:
    energy_mj = (whole.energy_mj or 0) - (part.energy_mj or 0)
    amounts = {name: getattr(whole, name) - getattr(part, name) for name in TALLY_AMOUNTS}
    span_ns = whole.span_ns - part.span_ns
    if min(span_ns, energy_mj, *amounts.values()) < 0:
        raise ValueError("a phase exceeds the device's totals")
    mappings: dict[str, Any] = {name: _less(getattr(whole, name), getattr(part, name)) for name in TALLY_MAPPINGS}
    return Tally(0, span_ns, energy_mj=None if whole.energy_mj is None else energy_mj, **amounts, **mappings)


def _sum(one: Tally, other: Tally) -> Tally:
    amounts = {name: getattr(one, name) + getattr(other, name) for name in TALLY_AMOUNTS}
    mappings: dict[str, Any] = {name: added(getattr(one, name), getattr(other, name)) for name in TALLY_MAPPINGS}
    energy_mj = sum_of_known((one.energy_mj, other.energy_mj))
    return Tally(0, one.span_ns + other.span_ns, energy_mj=energy_mj, **amounts, **mappings)


def _less(whole: Mapping[K, int], part: Mapping[K, int]) -> dict[K, int]:
    if any(amount > whole.get(key, 0) for key, amount in part.items()):
        raise ValueError("a phase exceeds the device's totals")
    left = {key: amount - part.get(key, 0) for key, amount in whole.items()}
    return {key: amount for key, amount in left.items() if amount}
