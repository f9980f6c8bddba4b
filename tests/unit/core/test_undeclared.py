"""Undeclared facts of a training leave an interval exactly as wide as the possible declarations; for a small model
of each family."""

from itertools import product
from typing import Any

import pytest

from flopsd.core.architecture import Bounds, Model, flop, forward_flop, read_model, training_from
from tests.support.extent import unless_quick
from tests.unit.core.test_torch_steps import RANK, STEPS

ROWS = [row for row in STEPS.values() if "alone" in row]
families = pytest.mark.parametrize("row", unless_quick(ROWS, 3), ids=lambda row: row["name"])

KERNELS, AGAIN = ("eager", "flash_attention_2"), ("none", "full", "selective")
EAGER, FLASH = ({"attention": kernel} for kernel in KERNELS)


@pytest.fixture
def model(row: dict[str, Any]) -> Model:
    return read_model(row["filled"])


def work_of(row: dict[str, Any], padding: int = 3) -> dict[str, int]:
    return {**row["work"], **({"padding_tokens": padding} if "tokens" in row["work"] else {})}


def around(found: list[Bounds]) -> tuple[int, int]:
    return min(one.low for one in found), max(one.high for one in found)


@families
def test_bounds_cover_exactly_the_possible_declarations(row: dict[str, Any], model: Model) -> None:
    work = work_of(row)
    lora = {"r": RANK, "target_modules": row["target_modules"]}
    for method in ({"method": "full"}, {"method": "lora", "lora": lora}):
        known = {
            (kernel, again): flop(model, work, training_from({**method, "attention": kernel, "recomputation": again}))
            for kernel, again in product(KERNELS, AGAIN)
        }
        for kernel, again in [*((None, again) for again in (*AGAIN, None)), *((kernel, None) for kernel in KERNELS)]:
            open_ones = {"attention": kernel, "recomputation": again}
            facts = {**method, **{name: value for name, value in open_ones.items() if value is not None}}
            found = flop(model, work, training_from(facts))
            may = [one for key, one in known.items() if kernel in (None, key[0]) and again in (None, key[1])]
            for what in ("required", "executed"):
                ours = getattr(found, what)
                assert (ours.low, ours.high) == around([getattr(one, what) for one in may]), (facts, what)


@families
def test_an_undeclared_method_may_have_trained_nothing_or_everything(row: dict[str, Any], model: Model) -> None:
    work = work_of(row)
    everything = flop(model, work, training_from({**EAGER, "recomputation": "full", "method": "full"}))
    for method in ({}, {"method": "lora"}, {"method": "partial"}):
        found = flop(model, work, training_from({**EAGER, "recomputation": "full", **method}))
        assert found.required.high == everything.required.high
        assert found.executed.high == everything.executed.high
        back = everything.required.low - found.required.low
        assert 0 < back <= 2 * found.required.low
        assert everything.executed.low > found.executed.low >= found.required.low


@families
def test_sdpa_skips_masked_pairs_unless_it_is_given_a_mask(row: dict[str, Any], model: Model) -> None:
    for padding, packing in ((0, False), (3, False), (0, True)):
        if padding and model.two_sided:
            continue  # only the encoder is given the mask, and the mask hides nothing else
        eager, flash, own = (
            forward_flop(
                model, work_of(row, padding), training_from({"attention": kernel, "packing": packing})
            ).computed
            for kernel in (*KERNELS, "sdpa")
        )
        masked = padding or packing or "local_attention" in row["filled"]
        assert flash <= own == (eager if masked else flash)


@families
def test_forward_flop_is_the_first_terms_of_a_step(row: dict[str, Any], model: Model) -> None:
    lora = {"r": RANK, "target_modules": row["target_modules"]}
    for method in ({"method": "full"}, {"method": "lora", "lora": lora}):
        facts = training_from({**method, **EAGER})
        terms = flop(model, work_of(row), facts).terms
        first = [terms[name] for name in ("linear_forward", "adapter_forward", "attention_forward")]
        assert forward_flop(model, work_of(row), facts).computed == sum(first)
