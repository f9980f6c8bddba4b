"""FLOP from the weights that rows passed: values by hand, and contradictions between counters."""

from typing import Any

import pytest

from flopsd.core.architecture import Bounds, training_from
from flopsd.core.architecture.by_weights import _shape, weights_flop, weights_forward
from flopsd.core.architecture.parameters import Parameters
from flopsd.core.notes import note
from flopsd.core.policy.ways import way_for
from flopsd.errors import ArchitectureError
from flopsd.settings.words import say
from tests.support.architectures import refused

# 8 tokens of one sequence, a quarter of them padding; 125 multiply-adds with weights per token.
WORK = {
    "forward_passes": 1, "weight_passes": 1, "tokens": 8, "padding_tokens": 2, "sequences": 1, "square_pairs": 64,
    "weight_products": 1000, "trained_weight_products": 600, "graded_weight_products": 400,
}  # fmt: skip
SHAPE = {"hidden_size": 4, "num_hidden_layers": 3}
ATTENTION = 2 * 2 * 64 * 4 * 3  # two products for each pair, in three layers of width 4


@pytest.mark.parametrize(
    ("config", "more", "facts", "required", "executed"),
    [
        (SHAPE, {}, {"recomputation": "none"}, (3000, 4000, 4000 + 3 * ATTENTION), (4000, 4000, 4000 + 4 * ATTENTION)),
        (SHAPE, {}, {}, (3000, 4000, 4000 + 3 * ATTENTION), (4000, 4000, 4000 + 5 * ATTENTION)),
        # Recomputation is visible. Where it ended within a module, the rest of that module may have been recomputed
        # too.
        (
            SHAPE, {"recomputed_weight_products": 700}, {"recomputation": "full"},
            (3000, 4000, 4000 + 3 * ATTENTION), (5400, 5400, 6000 + 5 * ATTENTION),
        ),
        # Weights of unknown modules: at least none; gradients as for the other weights; at most all of them.
        (
            SHAPE, {"other_weight_products": 100, "other_weight_products_max": 300}, {"recomputation": "none"},
            (3000, 4000 + 200 + 200, 4000 + 1800 + 3 * ATTENTION), (4000, 4400, 4000 + 1800 + 4 * ATTENTION),
        ),
        # Without a width: as many pairs as at each product's narrower side; relative positions double the products.
        (
            {}, {"weight_square_pairs": 32, "weight_pair_products": 50}, {"recomputation": "none"},
            (3000, 4000, 4000 + 3 * 400), (4000, 4000, 4000 + 4 * 400),
        ),
        (
            {**SHAPE, "relative_attention": False}, {}, {"recomputation": "none"},
            (3000, 4000, 4000 + 6 * ATTENTION), (4000, 4000, 4000 + 8 * ATTENTION),
        ),
        # In addition, each token is compared with 2 x 5 states, which are more than the tokens counted.
        (
            {**SHAPE, "state_size": 5}, {"target_tokens": 4}, {"recomputation": "none"},
            (3000, 4000, 4000 + 3 * 4 * (64 + 12 * 10) * 12), (4000, 4000, 4000 + 4 * 4 * (64 + 12 * 10) * 12),
        ),
        (
            {**SHAPE, "state_size": 5}, {"weight_square_pairs": 400}, {"recomputation": "none"},
            (3000, 4000, 4000 + 3 * 4 * (400 + 20 * 10) * 12), (4000, 4000, 4000 + 4 * 4 * (400 + 20 * 10) * 12),
        ),
        # Differential attention multiplies two kinds of values, and has queries and keys for each.
        (
            {**SHAPE, "lambda_std_dev": "0.1"}, {}, {"recomputation": "none"},
            (3000, 4000, 4000 + 6 * ATTENTION), (4000, 4000, 4000 + 8 * ATTENTION),
        ),
        # Two towers, each with its own widths and layers.
        (
            {"text_config": SHAPE, "vision_config": SHAPE}, {}, {"recomputation": "none"},
            (3000, 4000, 4000 + 6 * ATTENTION), (4000, 4000, 4000 + 8 * ATTENTION),
        ),
    ],
)  # fmt: skip
def test_flop_by_hand(
    config: dict[str, Any],
    more: dict[str, int],
    facts: dict[str, Any],
    required: tuple[int, ...],
    executed: tuple[int, ...],
) -> None:
    found = weights_flop(config, {**WORK, **more}, training_from(facts))
    assert found.required == Bounds(*required)
    assert found.executed == Bounds(*executed)
    assert sum(found.terms.values()) == found.executed.computed
    assert "attention is in no computed figure" in say("architecture.assumptions", found.assumptions[0])


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, None),
        ({"hidden_size": 4}, None),
        ({"n_layer": 2}, None),
        ({**SHAPE, "hidden_size": "4"}, None),
        ({**SHAPE, "hidden_size": 0}, None),
        ({**SHAPE, "hidden_size": 10**6}, (10**6, 3, 0)),
        ({**SHAPE, "hidden_size": 10**6 + 1}, None),
        ({**SHAPE, "n_embd": 6, "n_layers": 2}, (6, 3, 0)),
        ({**SHAPE, "num_attention_heads": 3, "head_dim": 2}, (6, 3, 0)),
        ({**SHAPE, "num_attention_heads": 3, "head_dim": 1}, (4, 3, 0)),
        ({**SHAPE, "num_attention_heads": 3, "num_attention_heads_per_layer": [3, 5, 3], "head_dim": 2}, (10, 3, 0)),
        (
            {**SHAPE, "num_attention_heads": 3, "head_dim": 2, "swa_num_attention_heads": 2, "swa_head_dim": 4},
            (8, 3, 0),
        ),
        (
            {**SHAPE, "num_attention_heads": 3, "qk_nope_head_dim": 2, "qk_rope_head_dim": 3, "v_head_dim": 4},
            (15, 3, 0),
        ),
        ({**SHAPE, "n_head": 2, "dim_head": 3, "index_n_heads": 2, "index_head_dim": 5}, (6 + 10, 3, 0)),
        ({**SHAPE, "pred_num_hidden_layers": 2, "num_pooler_layers": 1}, (4, 6, 0)),
        ({**SHAPE, "num_heads": [1, 2], "hidden_sizes": [4, 8], "depths": [2, 7]}, (8, 9, 0)),
        ({**SHAPE, "expand": 2}, (8, 3, 0)),
        ({"d_model": 4, "encoder_layers": 3, "decoder_layers": 2}, (4, 5, 0)),
        ({**SHAPE, "encoder_layers": 1, "decoder_layers": 1}, (4, 3, 0)),
        ({**SHAPE, "position_buckets": 5, "max_position_embeddings": 7}, (4, 3, 10)),
        ({**SHAPE, "relative_attention": True, "max_position_embeddings": 7}, (4, 3, 14)),
        ({**SHAPE, "relative_attention": True, "position_buckets": 5, "max_position_embeddings": 7}, (4, 3, 10)),
        ({**SHAPE, "relative_attention": True}, (4, 3, 0)),
        ({**SHAPE, "position_buckets": 5, "state_size": 5, "chunk_size": 2}, (4, 3, 24)),
    ],
)
def test_a_configuration_gives_the_shape_of_its_widest_layers_or_none(
    config: dict[str, Any], shape: tuple[int, int, int] | None
) -> None:
    assert _shape(config) == shape


def test_zero_tokens_have_no_padding_share_and_unknown_weights_are_named() -> None:
    def low(**more: int) -> int:
        return weights_flop(SHAPE, {**WORK, **more}, training_from({})).required.low

    assert [low(tokens=0), low(padding_tokens=8), low(padding_tokens=9), low(padding_tokens=0)] == [4000, 0, 0, 4000]
    some = weights_flop({}, {**WORK, "other_weight_products_max": 301}, training_from({}))
    assert note("other_weights", percent="23.1") in some.assumptions
    assert some.assumptions[-1] == note("pairs_by_products", products="2")
    assert len(weights_flop({}, WORK, training_from({})).assumptions) == len(some.assumptions) - 1


def test_uncounted_gradients_are_zero_at_the_low_end() -> None:
    bare = {name: value for name, value in WORK.items() if "weight_products" not in name}
    assert weights_flop(SHAPE, bare, training_from({"recomputation": "none"})).executed.low == 0


def test_a_forward_pass_alone_has_bounds() -> None:
    assert weights_forward(SHAPE, WORK) == Bounds(2000, 2000, 2000 + ATTENTION)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"forward_passes": 2}, "counted in 1 of 2 forward passes"),
        ({"trained_weight_products": 1001}, "contradict"),
        ({"graded_weight_products": 1001}, "contradict"),
        ({"other_weight_products": 1}, "contradict"),
    ],
)
def test_counters_that_contradict_each_other_give_no_figure(change: dict[str, int], why: str) -> None:
    with refused(match=why) as caught:
        weights_flop(SHAPE, {**WORK, **change}, training_from({}))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("facts", "work", "code"),
    [
        ({}, WORK, "no_model_declared"),
        ({"model_config": {"model_type": "own"}}, WORK, "no_parameters_total"),
        ({"model_config": {"model_type": "own"}, "parameters_total": 0}, WORK, "no_parameters_total"),
        ({"parameters_total": 0}, WORK, "no_parameters_total"),
        ({"model_config": {"model_type": "own"}, "parameters_total": 500}, WORK, None),
        ({"parameters_total": 500}, WORK, None),
        ({"model_config": {"model_type": "own"}, "parameters_total": 500}, {"tokens": 8}, "family_not_modelled"),
    ],
)
def test_a_model_of_unknown_shape_needs_its_size_to_be_counted_by_weights(
    facts: dict[str, Any], work: dict[str, int], code: str | None
) -> None:
    if code is not None:
        with pytest.raises(ArchitectureError) as caught:
            way_for(facts, {"train": work})
        assert caught.value.code == code
        return
    way = way_for(facts, {"train": work})
    assert way.sizes == Parameters(500, 0, 0, 500)
    assert way.forward(work, training_from({})).low == 2000
