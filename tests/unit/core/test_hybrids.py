"""Layers with a state: bounds of the products of their chunks, and the part of them that kernels compute."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import flop, read_model, training_from
from flopsd.core.architecture.attention_pairs import Level, Side
from flopsd.core.architecture.recurrent import State, delta_products, ssd_products
from flopsd.core.architecture.recurrent_work import StateFlop, StateWork
from tests.support.architectures import refused
from tests.support.published_hybrids import PUBLISHED_HYBRIDS

DELTA = delta_products(key_heads=16, value_heads=32, key=128, value=128)
SSD = ssd_products(heads=80, head_dim=64, size=128, groups=1, chunk=256)
GRADED = dict.fromkeys("qkvbazxBCt", True)
LENGTHS = st.lists(st.integers(1, 700), min_size=1, max_size=6)


def side(lengths: list[int], *, counted: bool = True) -> Side:
    tokens, square = sum(lengths), sum(s * s for s in lengths)
    if counted:
        return Side(tokens, 0, len(lengths), square, square)
    return Side(tokens, 0, None, tokens, tokens**2)


def of(state: State, lengths: list[int], level: Level, *, counted: bool = True, packing: bool = False) -> StateFlop:
    return StateWork(side(lengths, counted=counted), level, packing).products(state, GRADED)


def chunks(lengths: list[int], size: int) -> int:
    return sum(-(-s // size) for s in lengths)


def ssd_kernel(lengths: list[int]) -> tuple[int, int]:
    """Forward and backward pass of mamba_ssm 2.3 (ops/triton/ssd_combined.py), tl.dot by tl.dot. Forward: C with B
    (per group), scores with x, the states and their output. Backward: the first and the third again, then dstates,
    dx (twice), dB, dC, dCB, dB and dC of dCB, and the gradient of the decays."""
    count, heads, groups, p, n, q = chunks(lengths, 256), 80, 1, 64, 128, 256
    scores, values, state = groups * q * q * n, heads * q * q * p, heads * q * p * n
    return 2 * count * (scores + values + 2 * state), 2 * count * (3 * scores + 3 * values + 5 * state)


def delta_kernel(lengths: list[int], tiles: int) -> tuple[int, int]:
    """Forward and backward pass of flash-linear-attention 0.5 (ops/gated_delta_rule/chunk.py), tl.dot by tl.dot.

    Forward: keys with keys, the inverse of 64 x 64 in blocks of 16, w and u, the two products of the states, and the
    scores again in each of the `tiles` of the values' columns. Backward: w, u and states again, dv (2), dh (3), dq, dk
    and dw (5) with do x v in each tile, and for the WY form 5 with keys, 2 with values and 2 of 64 x 64.
    """
    count, heads, k, v, q = chunks(lengths, 64), 32, 128, 128, 64
    forward = q * q * ((2 + tiles) * k + 2 * v) + 3 * q * k * v + 16 * 16**3
    backward = q * q * (9 * k + (4 + tiles) * v) + 8 * q * k * v + 2 * q**3
    return 2 * count * heads * forward, 2 * count * heads * backward


@pytest.mark.parametrize("tiles", [1, 2, 4])  # of 128, 64 and 32 columns
@given(LENGTHS)
def test_the_flop_of_a_kernel_are_within_the_bounds(tiles: int, lengths: list[int]) -> None:
    for state, (forward, backward) in ((SSD, ssd_kernel(lengths)), (DELTA, delta_kernel(lengths, tiles))):
        low, high = of(state, lengths, Level.LOW), of(state, lengths, Level.HIGH)
        alone = StateWork(side(lengths), Level.HIGH, False).products(state, dict.fromkeys(GRADED, False))
        assert low.forward <= forward <= alone.forward + alone.again
        assert alone.gradients == 0
        one = StateWork(side(lengths), Level.HIGH, False).products(state, {**dict.fromkeys(GRADED, False), "b": True})
        assert low.forward + low.gradients <= forward + backward <= high.forward + high.gradients + high.again
        assert one == high  # a kernel computes the gradient of every operand
        # In packed rows each document has its own chunks, but only the row is counted.
        packed = of(state, [sum(lengths)], Level.HIGH, packing=True)
        assert forward + backward <= packed.forward + packed.gradients + packed.again


@given(LENGTHS, st.booleans())
def test_levels_are_in_order_and_low_is_at_most_the_recurrence(lengths: list[int], counted: bool) -> None:
    for state in (SSD, DELTA):
        low, computed, high = (of(state, lengths, level, counted=counted) for level in Level)
        assert low.forward <= computed.forward <= high.forward
        assert low.gradients <= computed.gradients <= high.gradients
        read = 2 * state.read * sum(lengths)
        pairs = 2 * state.pair * sum(s * (s + 1) // 2 for s in lengths)
        assert low.forward <= min(read, pairs)


def test_low_counts_pairs_for_a_short_sequence_and_state_reads_for_a_long_one() -> None:
    """A pair costs one product of keys for each key head, and scales the values of each value head."""
    assert of(DELTA, [10], Level.LOW).forward == 2 * (16 * 128 + 32 * 128) * 55
    assert of(SSD, [10], Level.LOW).forward == 2 * (1 * 128 + 80 * 64) * 55
    for state, read in ((DELTA, 32 * 128 * 128), (SSD, 80 * 64 * 128)):
        assert 0.98 * 2 * read * 10**6 < of(state, [10**6], Level.LOW).forward <= 2 * read * 10**6


@given(st.integers(1, 600), st.integers(1, 4), st.integers(0, 4))
def test_computed_is_exact_for_sequences_of_nearly_equal_length(length: int, some: int, longer: int) -> None:
    lengths = [length] * some + [length + 1] * longer
    for state in (DELTA, SSD):
        alone = [of(state, [one], Level.COMPUTED) for one in lengths]
        together = of(state, lengths, Level.COMPUTED)
        assert together.forward == sum(one.forward for one in alone)
        assert together.gradients == sum(one.gradients for one in alone)


def test_products_without_weights_may_have_no_gradients_under_adapters() -> None:
    for state in (DELTA, SSD):
        some = StateWork(side([100]), Level.LOW, False).products(state, {**GRADED, "v": False, "x": False})
        assert (some.forward, some.gradients) == (of(state, [100], Level.LOW).forward, 0)


def test_one_chunk_costs_the_kernels_products_and_a_full_inverse() -> None:
    whole = 2 * 32 * (64**3 - 16 * 16**3)  # kernels invert in blocks of 16
    assert of(DELTA, [64], Level.HIGH).forward == delta_kernel([64], 1)[0] + whole
    each_heads_scores, passed_on = 2 * 79 * 256**2 * 128, 2 * (1 + 1) ** 2 * 80 * 64 * 128
    assert of(SSD, [256], Level.COMPUTED).forward == ssd_kernel([256])[0] + each_heads_scores + passed_on


def test_gradients_of_one_chunk_cost_two_products_per_forward_product() -> None:
    """At the high end, with the inverse of the triangular system; products with a zero state are included."""
    for state in (DELTA, SSD):
        high = of(state, [state.chunk], Level.HIGH)
        assert (high.gradients, high.again) == (2 * high.forward, 2 * high.forward)


@pytest.mark.parametrize("name", PUBLISHED_HYBRIDS)
@pytest.mark.parametrize("work", [{}, {"sequences": 300}, {"sequences": 300, "padding_tokens": 10**5}])
def test_figures_of_a_whole_model_are_in_order(name: str, work: dict[str, int]) -> None:
    model = read_model(PUBLISHED_HYBRIDS[name][0])
    for facts in ({"method": "full"}, {"method": "lora", "recomputation": "full"}, {"method": "full", "packing": True}):
        found = flop(model, {"tokens": 10**6, **work}, training_from(facts))
        for bounds in (found.required, found.executed):
            assert bounds.low <= bounds.computed <= bounds.high
        assert found.required.low <= found.executed.low
        assert found.required.computed <= found.executed.computed


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("Qwen3.5 27B, text", {"attn_output_gate": False}, "attn_output_gate"),
        ("Qwen3.5 27B, text", {"layer_types": ["sliding_attention"] * 64}, "layer_types"),
        ("Qwen3-Next 80B A3B", {"linear_num_value_heads": 33}, "linear_num_value_heads"),
        ("Qwen3-Next 80B A3B", {"num_experts": 4}, "num_experts_per_tok"),
        ("Qwen3-Next 80B A3B", {"num_experts": None, "num_local_experts": 16}, "num_local_experts"),
        ("Bamba 9B", {"mamba_d_head": 63}, "mamba_d_head"),
        ("Nemotron-H 8B", {"hybrid_override_pattern": "M-X"}, "hybrid_override_pattern"),
        ("Nemotron-H 8B", {"layers_block_type": ["mamba", "rwkv"]}, "layer_types"),
        ("LFM2 1.2B", {"block_ffn_dim_multiplier": "wide"}, "block_ffn_dim_multiplier"),
        ("LFM2 8B A1B", {"layer_types": None}, "layer_types"),
        ("Gemma 3n E4B, text", {"intermediate_size": [16384] * 34}, "intermediate_size"),
        ("Gemma 3n E4B, text", {"num_kv_shared_layers": 34}, "num_kv_shared_layers"),
        ("Gemma 4 E2B, text", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ("Gemma 4 E2B, text", {"per_layer_config": [4]}, "per_layer_config"),
        ("Gemma 4 E2B, text", {"per_layer_config": {"4": {"intermediate_size": 9}}}, "per_layer_config"),
        ("Gemma 4 E2B, text", {"per_layer_config": {"35": {"head_dim": 512}}}, "per_layer_config"),
        (
            "Gemma 4 E2B, text",
            {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 5, "moe_intermediate_size": 8},
            "top_k_experts",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_name(name: str, fields: dict[str, object], said: str) -> None:
    with refused(match=said):
        read_model({**PUBLISHED_HYBRIDS[name][0], **fields})


def test_nemotron_h_layers_are_counted_from_either_field() -> None:
    config = {**PUBLISHED_HYBRIDS["Nemotron-H 8B"][0], "num_hidden_layers": 52}
    named = {**config, "hybrid_override_pattern": None, "layers_block_type": ["mamba", "attention", "mlp"]}
    assert [len(read_model(one).blocks) for one in (config, named)] == [52, 3]


def test_gemma_4_full_layer_width_is_read_globally_or_per_layer() -> None:
    config = PUBLISHED_HYBRIDS["Gemma 4 E2B, text"][0]
    each = {str(index): {"head_dim": 512} for index, kind in enumerate(config["layer_types"]) if kind[0] == "f"}
    written = {name: value for name, value in config.items() if name != "global_head_dim"}
    assert read_model({**written, "per_layer_config": each}) == read_model(config)
    assert read_model({**config, "use_bidirectional_attention": "vision"}) == read_model(config)


_GRANITE = {
    "model_type": "granitemoehybrid", "architectures": ["GraniteMoeHybridForCausalLM"], "intermediate_size": 48,
    "layer_types": ["attention"], "num_local_experts": 4, "mamba_n_heads": 8, "mamba_d_state": 12,
    "mamba_chunk_size": 10,
}  # fmt: skip
_QWEN = {
    "model_type": "qwen3_next", "architectures": ["Qwen3NextForCausalLM"], "moe_intermediate_size": 24,
    "layer_types": ["full_attention"], "num_experts": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "head_dim": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "size_name", "trained"),
    [
        (_GRANITE, "shared_intermediate_size", ["output_linear", "block_sparse_moe"]),
        (_QWEN, "shared_expert_intermediate_size", ["gate", "mlp.experts"]),
    ],
    ids=["Granite", "Qwen3-Next"],
)
def test_a_shared_mlp_below_trained_experts_needs_no_input_gradient(
    config: dict[str, Any], size_name: str, trained: list[str]
) -> None:
    """Nothing below it is trained, and it does not read the output of the experts."""
    one = {
        **config, "num_hidden_layers": 1, "hidden_size": 64, "vocab_size": 128, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "num_experts_per_tok": 2,
    }  # fmt: skip
    training = training_from(
        {
            "method": "lora",
            "lora": {"r": 4, "target_modules": trained[:1], "modules_to_save": trained[1:]},
            "recomputation": "none",
        }
    )
    work = {"tokens": 10, "sequences": 1, "square_pairs": 100}
    small, large = (flop(read_model({**one, size_name: size}), work, training).terms for size in (40, 80))
    assert large["linear_forward"] > small["linear_forward"]
    assert large["activation_gradients"] == small["activation_gradients"] > 0
