"""The meaning of colours on every panel, the thresholds between them, and the units.

Grafana's own defaults colour any value of 80 or more red; no panel here uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardRangeMapOptions,
    DashboardSpecialValueMapOptions,
    FieldColorModeId,
    RangeMap,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

GOOD, WARN, BAD = "green", "orange", "red"
NEUTRAL = "blue"  # a figure that is neither good nor bad
BOUND = "purple"  # an upper bound, or what widens one: never an estimate, never an alarm

FLOP, RATE, PER_JOULE = "si:FLOP", "si:FLOP/s", "si:FLOP/J"  # 12.3 YFLOP, 812 TFLOP/s: YFLOP are 10^24, ZFLOP 10^21
SHARE, COUNT, WATT, JOULE, SECONDS, HERTZ = "percentunit", "none", "watt", "joule", "s", "hertz"

# A colour from minus infinity on, then colours that each begin at a value. The values equal those of the alerts.
Scale = Sequence[tuple[float | None, str]]
PLAIN: Scale = ((None, NEUTRAL),)
COVERAGE: Scale = ((None, BAD), (0.9, WARN), (0.99, GOOD))
UTILISATION: Scale = ((None, WARN), (0.2, NEUTRAL), (0.4, GOOD))
THRESHOLD: Scale = ((None, GOOD), (0.8, WARN), (1.0, BAD))
FAULTS: Scale = ((None, GOOD), (1.0, BAD))
WARNINGS: Scale = ((None, GOOD), (1.0, WARN))
NOTES: Scale = ((None, GOOD), (1.0, NEUTRAL))
BOUNDED: Scale = ((None, GOOD), (1.0, BOUND))
LOSSES: Scale = ((None, WARN),)
UPPER_END: Scale = ((None, BOUND),)
SEAL_AGE: Scale = ((None, GOOD), (3600.0, WARN), (86400.0, BAD))


def thresholds(scale: Scale) -> Any:
    steps = [Threshold(value, colour) for value, colour in scale]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def by_thresholds() -> Any:
    return dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def shades_of(colour: str) -> Any:
    """Shades of one colour for series that differ only in name (nodes, runs), so that none looks like an alarm."""
    return dashboard.FieldColor().mode(FieldColorModeId.SHADES).fixed_color(colour)


def texts(colour_and_text: dict[str, tuple[str, str]]) -> ValueMap:
    return ValueMap(
        options={
            value: ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (colour, text)) in enumerate(colour_and_text.items())
        }
    )


NONE = texts({"0": (GOOD, "none")})
# An unknown value is neither good nor bad; without this it would have the colour of the lowest value.
UNKNOWN = SpecialValueMap(
    DashboardSpecialValueMapOptions(SpecialValueMatch.NULL_AND_NAN, ValueMappingResult(color=NEUTRAL, index=1))
)
NO_UPPER_END = RangeMap(
    DashboardRangeMapOptions(1e200, None, ValueMappingResult(text="no upper bound known", color=BOUND, index=0))
)
