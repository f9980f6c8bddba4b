"""FLOP by architecture, without torch: closed forms, relations that the bounds must keep, and refused work."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import (
    ArchitectureFlop,
    Bounds,
    adapters,
    flop,
    forward_flop,
    parameters,
    read_model,
    training_from,
    window_pairs,
)
from flopsd.core.architecture.model import Stream
from flopsd.core.architecture.rows import resolve
from flopsd.core.architecture.training import Lora
from flopsd.core.declared_facts import facts_from
from tests.support.architectures import LLAMA_8B, PUBLISHED, assumed, refused

DECODERS = st.fixed_dictionaries(
    {
        "model_type": st.sampled_from(["llama", "mistral", "mixtral", "gpt_oss", "gemma2"]),
        "hidden_size": st.sampled_from([16, 32]),
        "intermediate_size": st.integers(1, 60),
        "num_hidden_layers": st.integers(1, 4),
        "num_attention_heads": st.sampled_from([2, 4]),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "vocab_size": st.integers(1, 100),
        "sliding_window": st.one_of(st.none(), st.integers(1, 40)),
        "num_local_experts": st.integers(2, 5),
        "num_experts_per_tok": st.integers(1, 2),
    }
)
TRAININGS = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["pretraining", "full", "partial", "lora", "qlora"]),
        "recomputation": st.sampled_from(["none", "full", "selective"]),
        "attention": st.sampled_from(["eager", "sdpa", "flash_attention_2", "flex_attention"]),
        "packing": st.booleans(),
        "lora": st.fixed_dictionaries(
            {"r": st.integers(1, 8)},
            optional={
                "target_modules": st.sampled_from([["q_proj", "v_proj"], ["all-linear"], ["o_proj"]]),
                "modules_to_save": st.sampled_from([["lm_head"], ["embed_tokens"]]),
            },
        ),
        "parameters_trainable": st.integers(1, 50_000),
        "parameters_total": st.integers(1, 200_000),
        "window": st.integers(1, 40),
    },
)
LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


def model_of(config: Mapping[str, Any]) -> Any:
    """Drop the fields that the family does not have."""
    mixture = config["model_type"] in ("mixtral", "gpt_oss")
    windowed = config["model_type"] != "llama"
    dropped = (() if mixture else ("num_local_experts", "num_experts_per_tok")) + (
        () if windowed else ("sliding_window",)
    )
    return read_model({name: value for name, value in config.items() if name not in dropped})


def work_of(lengths: list[int], padding: int = 0, window: int | None = None) -> dict[str, int]:
    """Return the counters for sequences of these lengths, each padded by `padding` tokens."""
    padded = [length + padding for length in lengths]
    work = {
        "tokens": sum(padded), "sequences": len(padded), "padding_tokens": padding * len(padded),
        "square_pairs": sum(s * s for s in padded),
    }  # fmt: skip
    if window is not None:
        work["window_pairs"] = sum(window_pairs(s, window) for s in padded)
    return work


def computed(config: Mapping[str, Any], work: Mapping[str, int], **facts: Any) -> ArchitectureFlop:
    return flop(read_model(config), work, training_from(facts_from(facts)))


@given(DECODERS, TRAININGS, LENGTHS, st.integers(0, 5))
def test_bounds_are_in_order_and_terms_add_up(
    config: dict[str, Any], facts: dict[str, Any], lengths: list[int], padding: int
) -> None:
    model, training = model_of(config), training_from(facts_from(facts))
    work = work_of(lengths, padding, facts.get("window"))
    found = flop(model, work, training)
    for bounds in (found.required, found.executed, forward_flop(model, work, training)):
        assert 0 <= bounds.low <= bounds.computed <= bounds.high
    assert sum(found.terms.values()) == found.executed.computed
    assert all(value >= 0 for value in found.terms.values())
    assert found.required.low <= found.executed.low
    assert found.required.computed <= found.executed.computed
    assert found.required.high <= found.executed.high


@given(DECODERS, LENGTHS, st.integers(0, 5), st.sampled_from(["full", "lora"]))
def test_bounds_with_fewer_counters_contain_the_exact_count(
    config: dict[str, Any], lengths: list[int], padding: int, method: str
) -> None:
    facts: dict[str, Any] = {"method": method, "recomputation": "none", "attention": "flash_attention_2"}
    if method == "lora":
        facts["lora"] = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    window = config["sliding_window"] or 1
    model = model_of({**config, "max_position_embeddings": 60})
    whole = work_of(lengths, padding, window)
    exact = flop(model, whole, training_from({**facts, "window": window})).required
    real = flop(model, work_of(lengths, 0, window), training_from({**facts, "window": window})).required
    for missing in ("window_pairs", "square_pairs", "sequences"):
        del whole[missing]
        found = flop(model, whole, training_from(facts)).required
        assert found.low <= real.low <= exact.computed <= found.high
    packed = flop(model, work_of([sum(lengths)]), training_from({**facts, "packing": True})).required
    assert packed.low <= real.computed <= packed.high


@given(DECODERS, TRAININGS, LENGTHS, LENGTHS)
def test_flop_of_two_pieces_of_work_add_up(
    config: dict[str, Any], facts: dict[str, Any], one: list[int], other: list[int]
) -> None:
    facts = {name: value for name, value in facts.items() if not name.startswith("parameters")}
    model, training = model_of(config), training_from(facts_from(facts))
    first, second = (work_of(lengths, 0, facts.get("window")) for lengths in (one, other))
    both = {name: first[name] + second[name] for name in first}
    parts = [flop(model, work, training).executed.high for work in (first, second)]
    assert flop(model, both, training).executed.high == sum(parts)


def test_dense_decoder_matches_its_closed_form() -> None:
    """6 x weights x tokens, and 12 x layers x width x pairs, written out independently of the code under test."""
    work = {"tokens": 4096, "sequences": 2, "square_pairs": 2 * 2048**2}
    found = computed(LLAMA_8B, work, method="full", recomputation="none", attention="eager")
    weights = 32 * (4096 * (4096 + 1024 + 1024 + 4096) + 3 * 4096 * 14336) + 4096 * 128256
    square = 6 * weights * 4096 + 12 * 32 * 4096 * 2 * 2048**2
    causal = 6 * weights * 4096 + 12 * 32 * 4096 * 2 * (2048 * 2049 // 2)
    assert found.required == Bounds(causal, square, square)
    assert found.executed == Bounds(square, square, square)
    # Each layer is computed again. The result of its last product may be kept or not.
    layers = 2 * (weights - 4096 * 128256) * 4096 + 4 * 32 * 4096 * 2 * 2048**2
    spare = 2 * 32 * 4096 * 14336 * 4096
    again = computed(LLAMA_8B, work, method="full", recomputation="full", attention="eager").executed
    assert again == Bounds(square + layers - spare, square + layers - spare, square + layers)
    flash = computed(LLAMA_8B, work, method="full", recomputation="none", attention="flash_attention_2")
    assert flash.required.computed == causal
    assert flash.terms["recomputed_scores"] == 2 * 32 * 4096 * 2 * (2048 * 2049 // 2)
    padded = computed(
        LLAMA_8B, {**work, "padding_tokens": 96}, method="full", recomputation="none", attention="flash_attention_2"
    )
    assert padded.executed.low - padded.required.low == 6 * weights * 96, "rows of padding are multiplied too"


def test_layers_below_the_first_trained_one_have_no_backward_pass() -> None:
    work = {"tokens": 1000, "sequences": 1, "square_pairs": 10**6}
    top = ["layers.31.mlp.down_proj"]
    found = computed(LLAMA_8B, work, method="lora", recomputation="full", attention="eager",
                     lora={"r": 8, "target_modules": top})  # fmt: skip
    adapter, head = 2 * 1000 * 8 * (14336 + 4096), 2 * 1000 * 4096 * 128256
    assert found.terms["weight_gradients"] == adapter
    assert found.terms["activation_gradients"] == head + 2 * 1000 * 8 * 4096
    everywhere = computed(LLAMA_8B, work, method="lora", recomputation="none", attention="eager",
                          lora={"r": 8, "target_modules": ["down_proj"]})  # fmt: skip
    assert found.required.computed < 0.6 * everywhere.required.computed


def test_q_b_proj_passes_gradients_on_to_an_adapter_on_q_a_proj() -> None:
    """In the first layer of a frozen model, which makes queries in two steps: an adapter on the second step needs
    none."""
    latent, heads, rank, tokens = 24, 4 * (12 + 8), 2, 1000
    config = {
        "model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100,
        "q_lora_rank": latent, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "v_head_dim": 10,
        "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    }  # fmt: skip
    work = {"tokens": tokens, "sequences": 1, "square_pairs": tokens**2}
    first, second = (
        computed(config, work, method="lora", recomputation="none", attention="eager",
                 lora={"r": rank, "target_modules": [name]}).terms["activation_gradients"]
        for name in ("q_a_proj", "q_b_proj")
    )  # fmt: skip
    assert first - second == 2 * tokens * latent * heads + 2 * tokens * rank * (latent - heads)


def test_fewer_adapters_than_named_may_be_on_the_last_layers_only() -> None:
    """With PEFT's layers_to_transform, the process declares module names and the number of parameters that it
    trains."""
    work = {"tokens": 1000, "sequences": 1, "square_pairs": 10**6}
    facts: dict[str, Any] = {
        "method": "lora", "recomputation": "none", "attention": "eager",
        "lora": {"r": 8, "target_modules": ["down_proj"]},
    }  # fmt: skip
    some = computed(LLAMA_8B, work, **facts, parameters_trainable=8 * (14336 + 4096))
    facts["lora"] = {"r": 8, "target_modules": ["layers.31.mlp.down_proj"]}
    top = computed(LLAMA_8B, work, **facts)
    assert some.required.low <= top.required.low
    assert top.required.high <= some.required.high
    assert "the named adapters have" in assumed(some)


def test_an_adapter_on_experts_is_bounded_until_the_process_counts_parameters() -> None:
    config = {**PUBLISHED["Qwen3 30B A3B"][0]}
    model, lora = read_model(config), Lora(8, ("q_proj", "down_proj"))
    plain, more = (adapters(model, lora, ambiguous=some) for some in (False, True))
    assert plain == 48 * 8 * (2048 + 4096)
    assert more == plain + 48 * 128 * 8 * (768 + 2048)
    work = {"tokens": 1000, "sequences": 1, "square_pairs": 10**6}
    facts: dict[str, Any] = {
        "method": "lora", "recomputation": "none", "attention": "eager",
        "lora": {"r": 8, "target_modules": ["q_proj", "down_proj"]},
    }  # fmt: skip
    unknown = computed(config, work, **facts)
    older = computed(config, work, **facts, parameters_trainable=more)
    assert unknown.terms["adapter_forward"] < older.terms["adapter_forward"]
    assert older.executed.computed <= unknown.executed.high
    assert "version of transformers" in assumed(unknown)


def test_a_model_with_only_a_size_is_counted_with_wider_bounds() -> None:
    model = read_model({"parameters_total": 7 * 10**9})
    work = {"tokens": 10**6, "sequences": 500, "square_pairs": 500 * 2000**2}
    full = flop(model, work, training_from({"method": "full", "recomputation": "none"}))
    assert full.required.computed == 6 * 7 * 10**9 * 10**6
    assert "each weight is used at most once a token" in assumed(full)
    exact = computed({**LLAMA_8B}, work, method="full", recomputation="none").required
    bare = flop(read_model({"parameters_total": 8_030_261_248}), work, training_from({"method": "full"})).required
    assert bare.low < exact.low < exact.high < bare.high
    adapted = flop(model, work, training_from({"method": "lora", "parameters_trainable": 10**7}))
    assert adapted.required.computed == (4 * 7 * 10**9 + 2 * 10**7) * 10**6
    assert forward_flop(model, work, training_from({})).computed == 2 * 7 * 10**9 * 10**6
    assert parameters(model).total == 7 * 10**9


def test_cached_generation_counts_pairs_with_earlier_positions() -> None:
    """A prompt of 100 tokens, then 20 tokens one at a time over the cache, cost as much as one pass over 120 tokens."""
    model = read_model(LLAMA_8B)
    training = training_from({"attention": "flash_attention_2"})
    whole = forward_flop(model, work_of([120]), training).computed
    prompt, steps = work_of([100]), {"tokens": 20, "sequences": 0, "square_pairs": 120**2 - 100**2}
    parts = [forward_flop(model, work, training).computed for work in (prompt, steps)]
    assert sum(parts) == whole


def test_the_head_is_counted_for_tokens_that_a_fused_loss_may_need() -> None:
    facts = {"method": "full", "recomputation": "none", "attention": "eager"}
    plain = computed(LLAMA_8B, work_of([10]), **facts)
    some = computed(
        LLAMA_8B, {**work_of([10]), "headless_tokens": 2, "unlabelled_tokens": 3, "fused_head_tokens": 4}, **facts
    )
    head = 2 * 4096 * 128256  # per token, forward
    assert plain.required.computed - some.required.low == 3 * 5 * head + (plain.required.computed - plain.required.low)
    assert plain.required.computed - some.required.computed == 3 * 5 * head
    assert plain.required.high - some.required.high == 3 * 2 * head
    assert some.executed.computed - some.required.computed == some.terms["recomputed_head"] == 4 * head
    assert some.executed.high - some.required.high == 7 * head
    assert some.executed.low == plain.executed.low - 3 * 5 * head
    last = forward_flop(read_model(LLAMA_8B), {**work_of([10]), "headless_tokens": 9}, training_from(facts))
    assert last.computed == forward_flop(read_model(LLAMA_8B), work_of([10]), training_from(facts)).computed - 9 * head
    assert "every token" not in assumed(some)
    with refused(match="contradict each other: 8 headless_tokens, 3 unlabelled_tokens"):
        computed(LLAMA_8B, {**work_of([10]), "headless_tokens": 8, "unlabelled_tokens": 3}, **facts)
    names = ("headless_tokens", "unlabelled_tokens", "fused_head_tokens")
    for tokens in ((8, 0, 3), (0, 8, 3), (11, 0, 0), (0, 0, 11)):
        with refused(match="contradict each other"):
            computed(LLAMA_8B, {**work_of([10]), **dict(zip(names, tokens, strict=True))}, **facts)
    computed(LLAMA_8B, {**work_of([10]), **dict(zip(names, (4, 3, 3), strict=True))}, **facts)


def test_lengths_bounded_only_by_max_positions_are_listed_as_an_assumption() -> None:
    counted = {"tokens": 10**6, "sequences": 10, "square_pairs": 10**11}
    said = "at most 131072 tokens, the model's positions"
    assert said not in assumed(computed(LLAMA_8B, counted, method="full"))
    assert said in assumed(computed(LLAMA_8B, {"tokens": 10**6}, method="full"))
    assert said not in assumed(computed(LLAMA_8B, {"tokens": 1000}, method="full"))


def test_a_declared_parameter_count_that_differs_widens_the_bounds() -> None:
    work = {"tokens": 1000, "sequences": 1, "square_pairs": 10**6}
    facts: dict[str, Any] = {"method": "full", "recomputation": "none"}
    ours = computed(LLAMA_8B, work, **facts)
    total = 8_030_261_248
    same = computed(LLAMA_8B, work, **facts, parameters_total=total)
    assert (same.required, same.assumptions) == (ours.required, ours.assumptions)
    low, high = ours.required.low, ours.required.high
    products = 3 * 2 * 1000  # FLOP of each additional parameter for all tokens
    assert products * total > high  # the embedding table is looked up, not multiplied
    for theirs, bounds in ((2 * total, (low, high + products * total)), (total // 3, (0, high)),
                           (total + 1, (low, high + products))):  # fmt: skip
        other = computed(LLAMA_8B, work, **facts, parameters_total=theirs)
        assert (other.required.low, other.required.high) == bounds
        assert other.required.computed == ours.required.computed
        # The executed work may have one more pass over each parameter, because layers may be computed again.
        assert other.executed.high == ours.executed.high + 4 * 2 * 1000 * max(0, theirs - total)
        assert f"counts {theirs} parameters" in assumed(other)


def test_declared_parameters_may_include_the_adapters() -> None:
    facts: dict[str, Any] = {"method": "lora", "lora": {"r": 8, "target_modules": ["q_proj"]}}
    base, adapters = 8_030_261_248, 32 * 8 * (4096 + 4096)
    expected = computed(LLAMA_8B, work_of([3]), **facts)
    for total in (base, base + adapters):
        assert computed(LLAMA_8B, work_of([3]), **facts, parameters_total=total).required == expected.required
    other = computed(LLAMA_8B, work_of([3]), **facts, parameters_total=base - adapters)
    assert other.required.low < expected.required.low


def test_a_module_in_modules_to_save_is_fully_trained() -> None:
    """The embedding and the head, 4096 columns for each of 128256 words, in addition to adapters on one matrix."""
    saved = ("embed_tokens", "lm_head")
    assert adapters(read_model(LLAMA_8B), Lora(8, ("q_proj",), saved)) == 32 * 8 * 2 * 4096 + 2 * 4096 * 128256
    work, facts = work_of([3]), {"method": "lora", "recomputation": "none", "attention": "eager"}
    alone, beside = (
        computed(LLAMA_8B, work, **facts, lora={"r": 8, "target_modules": ["q_proj"], "modules_to_save": names})
        for names in ((), saved)
    )
    assert beside.terms["weight_gradients"] - alone.terms["weight_gradients"] == 2 * 3 * 4096 * 128256
    # A trained embedding needs gradients of its consumers: the first layer's three projections, and its keys and
    # values.
    more = beside.terms["activation_gradients"] - alone.terms["activation_gradients"]
    assert more == 2 * 3 * 4096 * (4096 + 1024 + 1024 + 8) + 2 * 2 * 9 * 4096


def test_an_unknown_module_and_missing_target_tokens_are_refused() -> None:
    with refused(match="c_attn") as caught:
        computed(LLAMA_8B, work_of([3]), method="lora", lora={"r": 4, "target_modules": ["c_attn"]})
    assert "q_proj" in caught.value.hint

    with refused(match="target_tokens"):
        computed({"model_type": "t5"}, work_of([3]), method="full")


def test_zero_tokens_are_zero_flop_in_an_encoder_decoder() -> None:
    none = forward_flop(read_model({"model_type": "t5"}), {"tokens": 0, "target_tokens": 0, "cross_pairs": 0},
                        training_from({}))  # fmt: skip
    assert (none.low, none.computed, none.high) == (0, 0, 0)


@pytest.mark.parametrize(("cross", "expected"), [(None, (100, 70)), (80, (80, 50)), (20, (20, 0))])
def test_possible_padding_of_the_memory_lowers_only_the_low_end(cross: int | None, expected: tuple[int, int]) -> None:
    work = {"tokens": 100, "padding_tokens": 30, "target_tokens": 10, "cross_pairs": 1000}
    work |= {} if cross is None else {"cross_tokens": cross}
    _, _, rows, _ = resolve(read_model({"model_type": "t5"}), work, training_from({}), cached=False)
    found = {level.name: rows[level][Stream.MEMORY] for level in rows}
    assert (found.pop("LOW"), set(found.values())) == (expected[1], {expected[0]})


def test_cross_attention_takes_keys_and_values_from_the_encoder() -> None:
    streams: dict[str, set[tuple[str, Stream]]] = {}
    for linear in read_model({"model_type": "t5"}).linears():
        stack, *_, part, name = linear.path.split(".") if "Attention" in linear.path else ("", "", "")
        streams.setdefault(f"{stack} {part}", set()).add((name, linear.stream))
    both = {(name, Stream.TARGET) for name in "qkvo"}
    assert streams["decoder SelfAttention"] == both
    assert streams["encoder SelfAttention"] == {(name, Stream.TOKENS) for name in "qkvo"}
    crossed = {(name, Stream.MEMORY if name in "kv" else Stream.TARGET) for name in "qkvo"}
    assert streams["decoder EncDecAttention"] == crossed
