"""Decoders whose products differ from Llama's: chunked attention, latent attention, and experts that all run."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import flop, read_model, training_from
from flopsd.core.architecture.attention_pairs import Kernel, Level, Pairs, chunk_pairs, side_from
from flopsd.core.architecture.model import Mask, Stream
from tests.support.architectures import assumed

SMALL = {
    "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 5,
}  # fmt: skip
WORK = {"tokens": 10, "sequences": 1, "square_pairs": 100}
FULL = {"method": "full", "recomputation": "none", "attention": "flash_attention_2"}


@given(st.integers(0, 40), st.integers(1, 40))
def test_chunk_pairs_match_a_count_over_the_mask(s: int, c: int) -> None:
    assert chunk_pairs(s, c) == sum(1 for q in range(s) for k in range(q + 1) if q // c == k // c)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 40))
def test_bounds_contain_the_chunk_pairs_and_are_exact_for_equal_sequences(lengths: list[int], chunk: int) -> None:
    work = {"tokens": sum(lengths), "sequences": len(lengths), "square_pairs": sum(s * s for s in lengths)}
    for known in (work, {"tokens": work["tokens"], "sequences": work["sequences"]}, {"tokens": work["tokens"]}):
        pairs = Pairs({Stream.TOKENS: side_from(known, "", None)}, 0, Kernel.SKIPS, False, None, None)
        low, computed, high = (pairs.of(Mask.CHUNK, chunk, Stream.TOKENS, level) for level in Level)
        true = sum(chunk_pairs(s, chunk) for s in lengths)
        assert low <= true <= high
        if known is work:
            assert true <= computed <= high
            assert len(set(lengths)) > 1 or low == true == computed


def test_flash_kernels_may_pad_latent_attention_values_to_the_width_of_keys() -> None:
    """2 heads, keys of 5 + 2 and values of 3: each of 55 causal pairs costs 2 x 2 x (7 + 3) FLOP forward and twice
    that backward."""
    latent = {"kv_lora_rank": 4, "q_lora_rank": None, "qk_nope_head_dim": 5, "qk_rope_head_dim": 2, "v_head_dim": 3}
    experts = {"n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 4}
    config = {"model_type": "deepseek_v3", **SMALL, **latent, **experts}
    found = flop(read_model(config), WORK, training_from(FULL))
    wider = flop(read_model({**config, "qk_rope_head_dim": 3}), WORK, training_from(FULL))
    linear = (
        3 * 2 * 10 * (2 * 8 + 8)
    )  # one more column of each head's queries, and of the part of the keys that heads share
    assert found.terms["attention_forward"] == 2 * 2 * 55 * (7 + 3)
    assert found.terms["recomputed_scores"] == 2 * 2 * 55 * 7
    assert wider.required.computed - found.required.computed == linear + 3 * 2 * 2 * 55
    assert wider.required.high - found.required.high == linear + 2 * 3 * 2 * 2 * 100
    assert "multi-token prediction (1)" in assumed(found)


def test_experts_that_all_run_are_in_computed_and_only_routed_ones_in_low() -> None:
    """A token is routed to 1 of 4 experts of 3 x 8 x 6."""
    experts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 6}
    found = flop(read_model({"model_type": "llama4_text", **SMALL, **experts}), WORK, training_from(FULL))
    without = flop(
        read_model({"model_type": "llama4_text", **SMALL, **experts, "moe_layers": []}), WORK, training_from(FULL)
    )
    each = 3 * 2 * 10 * 3 * 8 * 6
    router = 3 * 2 * 10 * 8 * 4
    # The layer without experts has an MLP as wide as the shared expert.
    assert found.required.computed - without.required.computed == 4 * each + router
    assert found.required.low - without.required.low == each + router
    assert found.executed.low - without.executed.low == each + router


def test_dropout_after_the_last_product_makes_checkpointing_recompute_it() -> None:
    """The mask is drawn after the product, so the MLP's last matrix is computed again: 2 x 10 x 6 x 8 FLOP in one
    layer."""
    config = {"model_type": "phi3", **SMALL}
    facts = training_from({**FULL, "recomputation": "full"})
    with_it, without = (flop(read_model({**config, "resid_pdrop": rate}), WORK, facts) for rate in ("0.1", 0.0))
    assert with_it.executed.computed - without.executed.computed == 2 * 10 * 6 * 8
    assert with_it.executed.low == without.executed.low
    assert with_it.executed.high == without.executed.high
