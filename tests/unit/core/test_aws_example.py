"""The published example of the tool that this one answers: its figures, reproduced, and why they are wrong."""

from __future__ import annotations

from fractions import Fraction

from flopsd.core.architecture import adapters, parameters, read_model
from tests.support.aws_example import (
    FLOPS_ARCHITECTURE,
    FLOPS_HARDWARE,
    GEMMA_4B,
    LLAMA_3B,
    LORA,
    N_TOTAL,
    N_TRAINABLE,
    PEAK_FLOP_PER_S,
    PERCENT,
    SECONDS,
    TOKENS,
    packed,
    table,
    their_formula,
)
from tests.support.paths import ROOT


def test_its_parameters_are_packed_elements_of_another_model() -> None:
    gemma = read_model(GEMMA_4B)
    found = packed(gemma)
    assert (found.elements, found.trainable) == (N_TOTAL, N_TRAINABLE)
    assert parameters(gemma).total == 4_300_079_472
    assert parameters(read_model(LLAMA_3B)).total == 3_212_749_824
    assert 2.71 < Fraction(parameters(gemma).total, N_TOTAL) < 2.72


def test_its_trainable_parameters_are_not_the_adapters() -> None:
    assert adapters(read_model(LLAMA_3B), LORA) == 2_293_760
    assert adapters(read_model(GEMMA_4B), LORA) < N_TRAINABLE // 200


def test_its_figures_do_not_follow_from_each_other() -> None:
    assert their_formula(N_TOTAL, N_TRAINABLE, TOKENS) == 16_557_941_750_400 != FLOPS_ARCHITECTURE
    assert 1000 * round(Fraction(FLOPS_ARCHITECTURE, 33 * 10**21), 12) == PERCENT
    assert round(FLOPS_HARDWARE / SECONDS / PEAK_FLOP_PER_S, 4) == Fraction(496, 10_000)


def test_the_table_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "model-flop.md").read_text()
    assert "\n".join(table()) in page
