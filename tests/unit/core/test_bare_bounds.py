"""Bounds from a size alone contain the bounds from the whole architecture, for published and for generated models."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.architecture import (
    ArchitectureFlop,
    Bounds,
    Model,
    adapters,
    bare_model,
    flop,
    forward_flop,
    parameters,
    read_model,
    training_from,
)
from flopsd.core.architecture.model import Attention
from flopsd.core.architecture.training import Lora
from tests.support.architectures import PUBLISHED, refused
from tests.support.published_decoders import PUBLISHED_DECODERS

EXPERTS = {"mixtral": "num_local_experts", "gpt_oss": "num_local_experts", "qwen3_moe": "num_experts"}
COMPUTES_ALL_EXPERTS = {"llama4_text"}  # as transformers implements it
LORA = Lora(16, ("all-linear",))
FULL = {"method": "full", "recomputation": "none"}


def bare_ones(model: Model) -> list[Model]:
    """The same model known by its total size; by its active size too; and by everything that a size can include."""
    sizes = parameters(model)
    tied = sum(linear.weights for linear in model.linears() if linear.tied)
    parts = [part for block in model.blocks for part in block.parts if isinstance(part, Attention)]
    known = {"layers": len(parts), "attention_width": max(part.width for part in parts)}
    if model.family in COMPUTES_ALL_EXPERTS:
        return [bare_model(sizes.total)]
    return [
        bare_model(sizes.total),
        bare_model(sizes.total, active=sizes.active),
        bare_model(sizes.total, active=sizes.active, embedding=max(0, sizes.embedding - tied), **known),
    ]


def work_of(model: Model, rows: int, length: int) -> dict[str, int]:
    work = {"tokens": rows * length, "sequences": rows, "square_pairs": rows * length**2}
    if model.two_sided:
        target = length // 2
        work |= {"target_tokens": rows * target, "target_square_pairs": rows * target**2,
                 "cross_pairs": rows * length * target}  # fmt: skip
    return work


def holds(outer: Bounds, inner: Bounds) -> bool:
    return outer.low <= inner.low and inner.high <= outer.high


def agree(model: Model, work: dict[str, int]) -> None:
    """For every training method and each set of known sizes, knowing more must narrow the bounds."""
    partial: dict[str, Any] = {"method": "partial", "parameters_trainable": parameters(model).total // 2}
    adapted: dict[str, Any] = {
        "method": "lora",
        "lora": {"r": LORA.r, "target_modules": list(LORA.target_modules or ())},
    }
    adapted["parameters_trainable"] = adapters(model, LORA, ambiguous=True)
    sizes = bare_ones(model)
    for facts in ({"method": "full"}, partial, adapted):
        training = training_from(facts)
        exact, forward = flop(model, work, training), forward_flop(model, work, training)
        found: list[ArchitectureFlop] = []
        for bare in sizes:
            found.append(flop(bare, work, training))
            assert holds(found[-1].required, exact.required), (facts, bare)
            assert holds(found[-1].executed, exact.executed), (facts, bare)
            assert holds(forward_flop(bare, work, training), forward), (facts, bare)
        for wider, narrower in pairwise(found):
            assert wider.required.high >= narrower.required.high


CONFIGS = {**PUBLISHED, **PUBLISHED_DECODERS}


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGS)
def test_bounds_from_a_size_contain_published_models(name: str) -> None:
    model = read_model(CONFIGS[name][0])
    for length in (64, 8192):
        agree(model, work_of(model, 500, length))


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Language models of usual proportions: each layer has at least 12 d^2 parameters."""
    heads, each = draw(st.sampled_from([4, 8, 16])), draw(st.sampled_from([64, 128]))
    width = heads * each
    family = draw(st.sampled_from(["llama", "mistral", "mixtral", "gemma2", "qwen2", "qwen3", "qwen3_moe", "gpt_oss"]))
    experts, wider = draw(st.integers(2, 64)), draw(st.sampled_from([1, 2]))
    return {
        "model_type": family, "hidden_size": width, "head_dim": each * wider,
        "num_attention_heads": heads, "num_key_value_heads": draw(st.sampled_from([1, 2, 4])),
        "intermediate_size": draw(st.integers(3, 8)) * width, "num_hidden_layers": draw(st.integers(8, 48 if wider > 1 else 100)),
        "vocab_size": draw(st.integers(256, 262_208)), "tie_word_embeddings": draw(st.booleans()),
        **({"sliding_window": draw(st.integers(32, 4096))} if family in ("mistral", "gemma2") else {}),
        **({EXPERTS[family]: experts, "num_experts_per_tok": draw(st.integers(2, min(experts, 8)))}
           if family in EXPERTS else {}),
        **({"moe_intermediate_size": draw(st.integers(1, 4)) * width} if family == "qwen3_moe" else {}),
    }  # fmt: skip


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(configurations(), st.integers(1, 1000), st.integers(32, 8192))
def test_bounds_from_a_size_contain_models_of_several_families(config: dict[str, Any], rows: int, length: int) -> None:
    model = read_model(config)
    agree(model, work_of(model, rows, length))


@pytest.mark.parametrize(
    ("size", "length", "narrow"),
    [
        ({"parameters_total": 671 * 10**9, "active": 37 * 10**9}, 4096, 2.0),
        ({"parameters_total": 671 * 10**9, "active": 37 * 10**9, "layers": 61, "attention_width": 24576}, 4096, 1.5),
        ({"parameters_total": 540 * 10**9, "active": 540 * 10**9}, 2048, 1.05),
        ({"parameters_total": 540 * 10**9, "active": 540 * 10**9, "embedding": 0, "layers": 118,
          "attention_width": 12288}, 2048, 1.03),
    ],
)  # fmt: skip
def test_bounds_from_a_size_are_narrow_when_active_parameters_are_known(
    size: dict[str, int], length: int, narrow: float
) -> None:
    model = bare_model(**size)
    found = flop(model, work_of(model, 1000, length), training_from(FULL)).required
    assert found.low <= found.computed == 6 * size["active"] * 1000 * length <= found.high
    assert found.high <= narrow * found.low


def test_a_two_sided_model_is_bounded_by_its_shorter_and_longer_side() -> None:
    """It is unknown which weights are the encoder's. Padding need not pass through any weight."""

    def required(**work: int) -> Bounds:
        return flop(bare_model(10**6), work, training_from({"method": "full", "recomputation": "none"})).required

    padded, plain = required(tokens=10, padding_tokens=4, target_tokens=8), required(tokens=6, target_tokens=6)
    assert padded.low == plain.low == required(tokens=9, target_tokens=6).low
    assert padded.computed == 6 * 10**6 * 9


def test_a_token_uses_its_share_of_a_partially_trained_mixture() -> None:
    """A tenth of 1,000 parameters is trained, and a token uses half of all parameters."""
    partial = training_from({"method": "partial", "parameters_trainable": 100, "recomputation": "none"})
    found = flop(bare_model(1000, active=500), {"tokens": 7, "sequences": 1, "square_pairs": 49}, partial)
    assert found.terms["weight_gradients"] == 2 * 7 * 50
    assert found.required.computed == found.executed.computed == 2 * 7 * (500 + 500 + 50)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"active": 9}, "9 parameters are active, of 8"),
        ({"active": 0}, "0 parameters are active"),
        ({"embedding": 2}, "an unknown number of active ones"),
        ({"active": 4, "embedding": 4}, "4 parameters of embeddings, of 4 active ones"),
        ({"layers": 4}, "only together"),
        ({"attention_width": 4}, "only together"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(size: dict[str, int], words: str) -> None:
    with refused(match=words) as caught:
        bare_model(8, **size)
    assert caught.value.hint
