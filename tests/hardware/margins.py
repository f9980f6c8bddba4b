"""The rule for margins: docs/adr/0021."""

from fractions import Fraction

from flopsd.core.values import ceil_div

SAFETY = Fraction(3, 2)
LEAST_WITHOUT_RUNS_PPM = 80_000
_PERCENT_PPM = 10_000


def margin_ppm(widest: Fraction) -> int:
    """The margin for runs with this largest |executed / metered - 1|: whole percents from 1 to 100, rounded up."""
    percent = widest * SAFETY * 100
    return min(100, max(1, ceil_div(percent.numerator, percent.denominator))) * _PERCENT_PPM
