"""Every worked example of the Commission's Guidelines, computed exactly by our formulae and rounded as it is printed.

Every format counts alike and the peak is a dense one: annex A.3 takes 300 TFLOP/s for A100 and 989 for H100, both BF16.
The Guidelines do not define the utilisation U. The share of time that a driver reports is not it: that reads 2.4 to
5.8 times too high (Vilanakis 2026); the examples fit model FLOP utilisation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from flopsd.core.rounding import Towards, significant
from flopsd.core.values import parse_flop
from tests.support.paths import SAMPLES

SAMPLE = SAMPLES / "guidelines_annex_a3_examples.json"
EXAMPLES: list[dict[str, Any]] = json.loads(SAMPLE.read_text())


def computed(example: dict[str, Any]) -> Fraction:
    if example["approach"] == "architecture":
        return Fraction(dense_transformer_flop(parse_flop(example["parameters"]), parse_flop(example["tokens"])))
    # The text gives the product N x L as unit-hours.
    unit_seconds = Fraction(int(example["unit_hours"]) * 3600)
    peak = Fraction(parse_flop(example["peak_flop_per_s"]))
    return hardware_flop([Period(1, unit_seconds, peak, Fraction(example["utilization"]))])


def value(text: str) -> Fraction:
    return Fraction(parse_flop(text))


def figures(text: str) -> int:
    return len(text.partition("e")[0].replace(".", ""))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e['version']}: {e['label']}")
def test_a_printed_figure_is_met(example: dict[str, Any]) -> None:
    digits, exponent = significant(computed(example), figures(example["printed"]), Towards(example["rounding"]))
    assert digits * Fraction(10) ** exponent == value(example["printed"])
    if "flopcheck" in example:
        digits, exponent = significant(computed(example), figures(example["flopcheck"]))
        assert digits * Fraction(10) ** exponent == value(example["flopcheck"])


def test_all_eight_final_examples_are_here() -> None:
    assert {e["label"][0] for e in EXAMPLES if e["version"].startswith("final")} == set("ABCDEFGH")


def test_model_g_with_its_epochs() -> None:
    """61 B tokens x 164 epochs is 10.004 T, which the text takes as 10 T."""
    tokens = 61 * 10**9 * 164
    assert tokens == 10_004 * 10**9
    assert significant(dense_transformer_flop(2_600_000_000, tokens), 2) == (16, 22)


def test_periods_add_up_and_unlike_units_are_weighted() -> None:
    a100, h100, half = Fraction(300 * 10**12), Fraction(989 * 10**12), Fraction(1, 2)
    peak = mixed_peak_flop_per_s([(2, a100), (1, h100)])
    assert peak == (2 * a100 + h100) / 3
    mixed = hardware_flop([Period(3, Fraction(60), peak, half)])
    apart = hardware_flop([Period(2, Fraction(60), a100, half), Period(1, Fraction(60), h100, half)])
    assert mixed == apart == 60 * (2 * 300 + 989) * 10**12 // 2
    with pytest.raises(ValueError, match="no units"):
        mixed_peak_flop_per_s([])


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which the number of units does not change. `utilization` is the share of the peak achieved."""

    units: int
    seconds: Fraction
    peak_flop_per_s: Fraction
    utilization: Fraction


def hardware_flop(periods: Iterable[Period]) -> Fraction:
    """C = N x L x H x U, summed over periods (annex A.2.1)."""
    return sum((p.units * p.seconds * p.peak_flop_per_s * p.utilization for p in periods), Fraction(0))


def mixed_peak_flop_per_s(units: Iterable[tuple[int, Fraction]]) -> Fraction:
    """The peak of unlike units: their mean, weighted by how many there are. Raises ValueError for no units."""
    counted = list(units)
    total = sum(number for number, _ in counted)
    if total <= 0:
        raise ValueError("no units, so no peak")
    return sum((number * peak for number, peak in counted), Fraction(0)) / total


def dense_transformer_flop(parameters: int, tokens: int) -> int:
    """C = 6 x P x D (annex A.2.2): all parameters, and tokens as often as they were trained on.

    For large dense transformers only: parameters far more than a twelfth of the context's tokens (footnote 13).
    """
    return 6 * parameters * tokens
