"""Models read from a config.json, without torch: published sizes, the defaults of absent fields in each family
(windows by layer, heads, biases, tied heads), and refusals."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import (
    Bounds,
    adapters,
    causal_pairs,
    flop,
    parameters,
    read_model,
    training_from,
    window_pairs,
)
from flopsd.core.architecture.model import Attention, Block, Linear, Mask, Model, linears_of
from flopsd.core.architecture.training import Lora
from flopsd.core.notes import note
from flopsd.errors import ArchitectureError
from tests.support.architectures import LLAMA_8B, PUBLISHED, refused
from tests.support.published_decoders import PUBLISHED_DECODERS
from tests.support.published_hybrids import PUBLISHED_HYBRIDS

PUBLISHED_MODELS = {**PUBLISHED, **PUBLISHED_DECODERS, **PUBLISHED_HYBRIDS}


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_published_models_have_their_published_parameters(name: str) -> None:
    config, total, active = PUBLISHED_MODELS[name]
    found = parameters(read_model(config))
    assert (found.total, found.active) == (total, active)


@pytest.mark.parametrize("family", ["mistral", "llama"])
def test_null_key_value_heads_mean_all_heads(family: str) -> None:
    whole = {**LLAMA_8B, "model_type": family}
    assert read_model({**whole, "num_key_value_heads": None}) == read_model({**whole, "num_key_value_heads": 32})


GEMMA3 = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}


@given(st.integers(0, 80), st.integers(1, 80))
def test_pairs_match_a_count_over_the_mask(s: int, w: int) -> None:
    assert causal_pairs(s) == sum(1 for q in range(s) for k in range(s) if k <= q)
    assert window_pairs(s, w) == sum(1 for q in range(s) for k in range(s) if q - w < k <= q)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({}, "no model_type"),
        ({**LLAMA_8B, "kv_lora_rank": 512}, "kv_lora_rank"),
        ({**LLAMA_8B, "num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, which is invalid"),
        ({**LLAMA_8B, "architectures": ["LlamaForSomethingElse"]}, "LlamaForSomethingElse"),
        ({**LLAMA_8B, "model_type": "mistral", "layer_types": ["chunked_attention"] * 32}, "layer_types"),
        ({**LLAMA_8B, "model_type": "mistral", "layer_types": ["full_attention"]}, "layer_types"),
        ({**LLAMA_8B, "model_type": "phi3", "full_attn_mod": 2}, "full_attn_mod is 2"),
        ({**LLAMA_8B, "model_type": "smollm3", "no_rope_layers": [1]}, r"no_rope_layers is \[1\]"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "bart", "encoder_layerdrop": 0.1}, "encoder_layerdrop"),
        ({"model_type": "bart", "decoder_layerdrop": 1}, "decoder_layerdrop"),
        ({"model_type": "whisper", "encoder_layerdrop": 1.0}, "encoder_layerdrop"),
        ({"model_type": "gemma3", "text_config": {}}, "vision_config"),
        ({"model_type": "gemma3", "text_config": {}, "vision_config": {}}, "vision_use_head"),
        ({"parameters_total": 0}, "parameters_total is 0"),
        ({"model_type": 7}, "model_type is 7, not a name"),
        ({"model_type": "albert"}, "does not model the family 'albert'"),
        ({**LLAMA_8B, "hidden_size": 18}, "cannot be|head_dim"),
        ({**LLAMA_8B, "new_field": 0}, "does not know new_field"),
        ({**LLAMA_8B, **{f"n{i}": 1 for i in range(10)}}, "n0 and .* and n7 and 2 more"),
        ({**LLAMA_8B, "hidden_size": 10**30}, "hidden_size is 1000.*, which is invalid"),
        ({"model_type": "gemma3", "text_config": 5, "vision_config": {"vision_use_head": False}}, "type|text_config"),
        ({"model_type": "t5", "is_gated_act": 1}, "is_gated_act is 1"),
        ({**LLAMA_8B, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok is 3"),
    ],
)  # fmt: skip
def test_fields_that_could_change_the_counts_are_refused_by_name(config: dict[str, Any], names: str) -> None:
    with refused(match=names) as caught:
        read_model(config)
    assert caught.value.hint


def test_a_model_with_its_own_code_gets_a_note() -> None:
    own = note("code_of_its_own")
    assert own in read_model({**LLAMA_8B, "auto_map": {"AutoModel": "modeling.Own"}}).notes
    assert own not in read_model({**LLAMA_8B, "auto_map": {}}).notes


def test_an_unknown_field_that_is_off_is_named_and_ignored() -> None:
    plain = read_model(LLAMA_8B)
    assert read_model({**LLAMA_8B, "use_mrope": False}) == plain  # a known field: not named
    found = read_model({**LLAMA_8B, "new_switch": False, "new_list": [], "other": None})
    assert found.blocks == plain.blocks
    assert [one.for_ledger()["name"] for one in found.notes] == ["new_list", "new_switch", "other"]
    tower = {"vision_use_head": False, "image_size": 28, "patch_size": 14}
    text = {**GEMMA3, "new": None}
    nested = {"model_type": "gemma3", "text_config": text, "vision_config": tower, "mm_tokens_per_image": 4}
    assert read_model(nested).notes[-1] == note("field_taken_as_off", name="new")
    twice = {**nested, "vision_config": {**tower, "new": False}}
    with refused(match="does not know new"):
        read_model(twice)  # it is unclear which of the two is meant


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "albert"}, "shared"),
        ({"model_type": "zamba2"}, "shared"),
        ({"model_type": "own_universal", "num_loops": 4}, "loop"),
        ({"model_type": "xlnet"}, "several streams"),
        ({"model_type": "whisper", "new": 1}, "frames"),
        ({"model_type": "wav2vec2"}, "frames"),
        ({"model_type": "convnext"}, "pixels"),
        ({"model_type": "florence2"}, "patches"),
        ({"model_type": "own_seeing", "vision_config": {}}, "patches"),
        ({**LLAMA_8B, "num_loops": 4}, "loop"),
        ({"model_type": "gemma3", "text_config": {**LLAMA_8B}, "vision_config": {}, "new": 1}, "patches"),
    ],
)
def test_no_hint_suggests_6pd_where_a_weight_is_used_more_than_once_per_token(config: dict[str, Any], why: str) -> None:
    """ALBERT with 12 layers executes 4.2 times the upper bound from its size alone."""
    with pytest.raises(ArchitectureError) as caught:
        read_model({**config, "text_config": {"model_type": "gemma3_text"}} if "text_config" in config else config)
    assert why in caught.value.hint
    assert "not an upper bound" in caught.value.hint
    assert "parameters_total" not in caught.value.hint


@pytest.mark.parametrize("config", [{"model_type": "bitnet"}, {**LLAMA_8B, "kv_lora_rank": 512}])
def test_a_hint_to_use_6pd_states_its_condition(config: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        read_model(config)
    assert "each weight at most once a token" in caught.value.hint
    assert "--parameters" in caught.value.hint


BASE = {
    "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 7, "num_attention_heads": 32, "vocab_size": 50,
}  # fmt: skip
EXPERTS = {
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8,
    },
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "deepseek_v3": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "glm4_moe_lite": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "llama4_text": {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48},
}  # fmt: skip
NONE: list[int | None] = [None] * 7


def model(family: str, **fields: object) -> Model:
    return read_model({"model_type": family, **BASE, **EXPERTS.get(family, {}), **fields})


def attentions(found: Model) -> list[Attention]:
    return [part for block in found.blocks for part in block.parts if isinstance(part, Attention)]


# family; heads of keys and values, width of a head, bias of queries and of the output, tied head; windows by layer
DEFAULTS: list[tuple[str, int, int, bool, bool, bool, list[int | None]]] = [
    ("llama", 32, 2, False, False, False, NONE),
    ("mistral", 8, 2, False, False, False, [4096] * 7),
    ("mixtral", 8, 2, False, False, False, NONE),
    ("qwen2", 32, 2, True, False, False, NONE),
    ("qwen3", 32, 128, False, False, False, NONE),
    ("qwen2_moe", 16, 2, True, False, False, NONE),
    ("qwen3_moe", 4, 2, False, False, False, NONE),
    ("gemma", 16, 256, False, False, True, NONE),
    ("gemma2", 4, 256, False, False, True, [4096, None, 4096, None, 4096, None, 4096]),
    ("gemma3_text", 4, 256, False, False, True, [4096, 4096, 4096, 4096, 4096, None, 4096]),
    ("gpt_oss", 8, 64, True, True, False, [128, None, 128, None, 128, None, 128]),
    ("ministral", 8, 2, False, False, False, [4096] * 7),
    ("ministral3", 8, 128, False, False, False, NONE),
    ("olmo", 32, 2, False, False, False, NONE),
    ("olmo2", 32, 2, False, False, False, NONE),
    ("olmo3", 32, 2, False, False, False, [4096, 4096, 4096, None, 4096, 4096, 4096]),
    ("olmoe", 32, 2, False, False, False, NONE),
    ("granite", 32, 2, False, False, False, NONE),
    ("granitemoe", 32, 2, False, False, False, NONE),
    ("smollm3", 4, 2, False, False, True, NONE),
    ("glm4_moe", 8, 2, False, False, False, NONE),
    ("glm", 2, 128, True, False, False, NONE),
    ("glm4", 2, 128, True, False, False, NONE),
    ("cohere", 32, 2, False, False, True, NONE),
    ("cohere2", 32, 2, False, False, True, [4096, 4096, 4096, None, 4096, 4096, 4096]),
    ("llama4_text", 8, 128, False, False, False, [8192, 8192, 8192, None, 8192, 8192, 8192]),
]


@pytest.mark.parametrize(
    ("family", "kv", "width", "qkv", "out", "tied", "windows"), DEFAULTS, ids=[d[0] for d in DEFAULTS]
)
def test_an_absent_field_has_the_familys_default(
    family: str, kv: int, width: int, qkv: bool, out: bool, tied: bool, windows: list[int | None]
) -> None:
    found = model(family)
    for part in attentions(found):
        queries, keys, values = part.projections
        assert (part.heads, part.head_dim) == (32, width)
        assert (queries.outputs, keys.outputs, values.outputs) == (32 * width, kv * width, kv * width)
        assert (queries.bias, part.output.bias) == (qkv, out)
    assert [part.window for part in attentions(found)] == windows
    assert found.heads[0].tied is tied


@pytest.mark.parametrize(
    ("family", "fields", "windows"),
    [
        ("mistral", {"sliding_window": 7}, [7] * 7),
        ("mistral", {"sliding_window": None}, NONE),
        ("mistral", {"sliding_window": 0}, NONE),
        ("mixtral", {"sliding_window": 7}, [7] * 7),
        ("phi3", {"sliding_window": 7}, [7] * 7),
        ("qwen2", {"sliding_window": 7, "max_window_layers": 2}, NONE),
        (
            "qwen2",
            {"sliding_window": 7, "max_window_layers": 2, "use_sliding_window": True},
            [None, None, 7, 7, 7, 7, 7],
        ),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 0}, [4096] * 7),
        ("qwen3", {"use_sliding_window": True}, NONE),
        ("qwen3_moe", {"sliding_window": 7, "use_sliding_window": True}, [7] * 7),
        ("gemma2", {"sliding_window": 7}, [7, None, 7, None, 7, None, 7]),
        ("gemma3_text", {"sliding_window_pattern": 3}, [4096, 4096, None, 4096, 4096, None, 4096]),
        ("gemma2", {"layer_types": ["full_attention"] * 6 + ["sliding_attention"]}, [None] * 6 + [4096]),
        (
            "gemma3n_text",
            {
                "layer_types": (["full_attention", "sliding_attention"] * 4)[:7],
                "sliding_window": 7,
                "num_kv_shared_layers": 0,
            },
            [None, 7, None, 7, None, 7, None],
        ),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 7}, [None, None, None, 7, None, None, None]),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 7, "no_rope_layers": [0] + [1] * 6}, [7, *NONE[1:]]),
        ("llama4_text", {"attention_chunk_size": 7, "no_rope_layers": [1, 0] * 4}, [7, None, 7, None, 7, None, 7]),
        ("llama4_text", {"attention_chunk_size": None}, NONE),
        ("llama4_text", {"layer_types": ["full_attention"] * 6 + ["chunked_attention"]}, [None] * 6 + [8192]),
    ],
)
def test_windows_are_assigned_to_the_right_layers(
    family: str, fields: dict[str, Any], windows: list[int | None]
) -> None:
    found = attentions(model(family, **fields))
    assert [part.window for part in found] == windows
    limited = Mask.CHUNK if family == "llama4_text" else Mask.WINDOW
    assert {part.mask for part in found if part.window} <= {limited}
    assert {part.mask for part in found if not part.window} <= {Mask.CAUSAL}


@pytest.mark.parametrize(
    ("family", "fields", "routed"),
    [
        ("olmoe", {}, [0, 1, 2, 3, 4, 5, 6]),
        ("deepseek_v3", {}, [3, 4, 5, 6]),
        ("deepseek_v3", {"first_k_dense_replace": 6}, [6]),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense", "sparse"] + ["dense"] * 5}, [1]),
        ("llama4_text", {"interleave_moe_layer_step": 3}, [2, 5]),
        ("llama4_text", {"moe_layers": [0, 6]}, [0, 6]),
        ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1, 5]),
    ],
)
def test_experts_are_assigned_to_the_right_layers(family: str, fields: dict[str, Any], routed: list[int]) -> None:
    blocks = model(family, **fields).blocks
    assert [index for index, block in enumerate(blocks) if any(one.held > 1 for one in products(block))] == routed


def products(block: Block) -> list[Linear]:
    return [linear for part in block.parts for linear in linears_of(part)]


def test_layers_whose_window_differs_between_versions_are_refused() -> None:
    with refused(match="differs between versions"):
        model("qwen2_moe", use_sliding_window=True)
    with refused(match="for each of 7 layers"):
        model("gemma2", layer_types=["full_attention"] * 6)
    with refused(match="for each of 7 layers"):
        model("gemma2", layer_types=["full_attention"] * 6 + ["ring_attention"])
    with refused(match="mlp_layer_types"):
        model("glm4_moe_lite", mlp_layer_types=["dense"] * 6)
    with refused(match="moe_layers"):
        model("llama4_text", moe_layers=[7])
    with refused(match="moe_layers"):
        model("llama4_text", moe_layers=[[0]])
    with refused(match="moe_layer_freq is 2"):
        model("deepseek_v3", moe_layer_freq=2)


def test_a_window_reduces_pairs_and_a_window_counter_is_used() -> None:
    """One sequence of 10 tokens: 55 causal pairs, but 10 + 6 x 4 = 34 with a window of 4. A pair costs 4 FLOP per
    unit of width."""
    work = {"tokens": 10, "sequences": 1, "square_pairs": 100}
    facts = {"method": "full", "recomputation": "none", "attention": "flash_attention_2"}
    everything = flop(model("mistral", sliding_window=None), work, training_from(facts))
    windowed = flop(model("mistral", sliding_window=4), work, training_from(facts))
    counted = flop(
        model("mistral", sliding_window=4), {**work, "window_pairs": 33}, training_from({**facts, "window": 4})
    )
    other = flop(
        model("mistral", sliding_window=4), {**work, "window_pairs": 33}, training_from({**facts, "window": 5})
    )
    pair = 3 * 7 * 4 * 64  # forward, and twice that backward, in 7 layers of 32 heads of width 2
    assert everything.required.computed - windowed.required.computed == (55 - 40) * pair
    assert everything.required.computed - counted.required.computed == (55 - 33) * pair
    assert other == windowed
    assert everything.required.low - windowed.required.low == (55 - 34) * pair
    assert windowed.required.high == everything.required.high
    assert isinstance(counted.required, Bounds)


def test_padding_takes_a_whole_window_each_from_the_least_pairs() -> None:
    """Rows of 18 and 2 tokens, with 2 of padding somewhere: 66 + 3 pairs in a window of 4, of which padding has at most
    2 x 4. Without the window counter: two rows of 9 tokens, 30 pairs each."""
    work = {"tokens": 20, "sequences": 2, "padding_tokens": 2, "square_pairs": 18 * 18 + 2 * 2}
    facts = {"method": "full", "recomputation": "none", "attention": "flash_attention_2", "window": 4}
    windowed = model("mistral", sliding_window=4)
    alike = flop(windowed, work, training_from(facts)).required
    counted = flop(windowed, {**work, "window_pairs": 69}, training_from(facts)).required
    assert counted.low - alike.low == (69 - 8 - 60) * 3 * 7 * 4 * 64


def test_chunks_of_equal_sequences_are_exact() -> None:
    """Two sequences of 10 tokens in chunks of 4: 10 + 10 + 3 pairs each, instead of 55."""
    work = {"tokens": 20, "sequences": 2, "square_pairs": 200}
    facts = {"method": "full", "recomputation": "none", "attention": "flash_attention_2"}
    whole, chunked = (
        flop(model("llama4_text", attention_chunk_size=size), work, training_from(facts)).required for size in (10, 4)
    )
    layers = sum(part.window == 4 for part in attentions(model("llama4_text", attention_chunk_size=4)))
    pair = 3 * layers * 4 * attentions(model("llama4_text"))[0].width
    assert whole.computed - chunked.computed == whole.low - chunked.low == 2 * (55 - 23) * pair


def test_parameters_include_each_familys_norms_and_biases() -> None:
    """By hand, for one layer: hidden size 4, intermediate size 3, 2 heads of 2, vocabulary 5."""
    small = {"hidden_size": 4, "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "vocab_size": 5}  # fmt: skip
    llama = 4 * 16 + 3 * 12 + 2 * 4 + 4 + 2 * 20
    assert parameters(read_model({"model_type": "llama", **small})).total == llama
    assert parameters(read_model({"model_type": "llama", **small, "attention_bias": True})).total == llama + 4 * 4
    assert parameters(read_model({"model_type": "llama", **small, "mlp_bias": True})).total == llama + 3 + 3 + 4
    assert parameters(read_model({"model_type": "llama", **small, "tie_word_embeddings": True})).total == llama - 20
    assert parameters(read_model({"model_type": "qwen2", **small})).total == llama + 3 * 4
    qwen3 = {"model_type": "qwen3", **small, "head_dim": 2}
    assert parameters(read_model(qwen3)).total == llama + 2 * 2
    gemma2 = {"model_type": "gemma2", **small, "head_dim": 2}
    assert parameters(read_model(gemma2)).total == llama - 20 + 2 * 4


def test_phi3_adapters_are_named_by_its_fused_matrices() -> None:
    """Rank 1 on one layer's gate_up_proj: 64 inputs and twice 32 outputs; on its qkv_proj: 64 and three times 64."""
    found = model("phi3")
    assert adapters(found, Lora(1, ("gate_up_proj",))) == 7 * (64 + 2 * 32)
    assert adapters(found, Lora(1, ("qkv_proj",))) == 7 * (64 + 3 * 64)
    assert adapters(found, Lora(1, ("q_proj", "gate_proj"))) == 0
    assert adapters(model("llama"), Lora(1, ("q_proj", "gate_proj"))) == 7 * (64 + 64 + 64 + 32)


def test_absent_fields_of_a_tower_have_siglips_defaults() -> None:
    given = {"vision_use_head": False}
    whole = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "num_attention_heads": 12,
             "image_size": 224, "patch_size": 16, "num_channels": 3}  # fmt: skip
    kind = {"model_type": "siglip_vision_model"}
    assert read_model({**kind, **given}) == read_model({**kind, **given, **whole})
    odd = {"patch_size": 15}  # one more patch of this size fits in 225
    assert read_model({**kind, **given, **odd}) == read_model({**kind, **given, **whole, **odd})
