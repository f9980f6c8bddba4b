"""An estimate as JSON without floats: counts, hours, prices and shares are decimal strings; null means not known."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from flopsd.core.rounding import Towards, divided
from flopsd.report.estimate.estimate import Estimate, Option
from flopsd.report.estimate.planned_hardware import Hardware
from flopsd.settings.words import say


def as_dict(found: Estimate) -> dict[str, Any]:
    plan = found.plan
    return {
        "model": _model(found),
        "work": {name: str(value) for name, value in plan.work.items()},
        "hardware": [_hardware(one) for one in plan.hardware],
        "mfu": {**_ends(plan.mfu.low, plan.mfu.high), "source": plan.mfu.source},
        "assumed": list(found.assumed),
        "notKnown": list(found.not_known),
        "options": [_option(option, plan.hardware) for option in found.options],
    }


def _model(found: Estimate) -> dict[str, str | None]:
    """The sizes of the model; if only its size is known, those that were given."""
    model, sizes = found.plan.model, found.parameters
    counts: dict[str, int | None] = {
        "parameters": sizes.total, "active": sizes.active, "embedding": sizes.embedding,
    }  # fmt: skip
    if (size := model.bare) is not None:
        counts |= {"active": size.active, "embedding": size.embedding}
        counts |= {"layers": size.layers, "attentionWidth": size.attention_width}
    return {"family": model.family, **{name: None if value is None else str(value) for name, value in counts.items()}}


def _hardware(hardware: Hardware) -> dict[str, Any]:
    return {
        "name": hardware.name,
        "instances": str(hardware.instances),
        "part": hardware.part,
        "devices": str(hardware.devices),
        "format": hardware.number_format,
        "peakFlopPerSecond": str(hardware.peak_flop_per_s),
        "doubts": list(hardware.doubts),
        "assumedPriceUsdPerHour": None if hardware.price is None else _decimal(hardware.price, Towards.NEAREST, 6),
    }


def _option(option: Option, hardware: tuple[Hardware, ...]) -> dict[str, Any]:
    return {
        "method": option.method.value,
        "trainable": None if option.trainable is None else option.trainable.for_ledger(),
        "required": option.flop.required.for_ledger(),
        "executed": option.flop.executed.for_ledger(),
        "terms": {name: str(value) for name, value in option.flop.terms.items()},
        "assumptions": [say("architecture.assumptions", note) for note in option.flop.assumptions],
        "on": [
            {"name": one.name, "hours": _ends(*need.hours), "costUsd": None if need.usd is None else _ends(*need.usd)}
            for one, need in zip(hardware, option.needs, strict=True)
        ],
        "findings": [finding.for_ledger() for finding in option.findings],
    }


def _ends(low: Fraction, high: Fraction) -> dict[str, str]:
    return {"low": _decimal(low, Towards.DOWN), "high": _decimal(high, Towards.UP)}


def _decimal(number: Fraction, towards: Towards, places: int = 3) -> str:
    whole, part = divmod(divided(10**places * number.numerator, number.denominator, towards), 10**places)
    return f"{whole}.{part:0{places}}"
