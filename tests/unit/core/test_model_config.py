"""Models read from a config.json, without torch: published sizes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import causal_pairs, parameters, read_model, window_pairs
from flopsd.errors import ArchitectureError
from tests.support.architectures import LLAMA_8B, PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_parameters(name: str) -> None:
    config, total, active = PUBLISHED[name]
    found = parameters(read_model(config))
    assert (found.total, found.active) == (total, active)


@pytest.mark.parametrize("family", ["mistral", "llama"])
def test_grouped_heads_that_are_null_are_all_heads(family: str) -> None:
    whole = {**LLAMA_8B, "model_type": family}
    assert read_model({**whole, "num_key_value_heads": None}) == read_model({**whole, "num_key_value_heads": 32})


@given(st.integers(0, 80), st.integers(1, 80))
def test_pairs_are_what_a_mask_leaves(s: int, w: int) -> None:
    assert causal_pairs(s) == sum(1 for q in range(s) for k in range(s) if k <= q)
    assert window_pairs(s, w) == sum(1 for q in range(s) for k in range(s) if q - w < k <= q)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({}, "flopsd knows llama"),
        ({**LLAMA_8B, "kv_lora_rank": 512}, "kv_lora_rank"),
        ({**LLAMA_8B, "pruned_heads": {"1": [0]}}, "pruned_heads"),
        ({**LLAMA_8B, "hidden_size": None}, "the configuration has no hidden_size"),
        ({**LLAMA_8B, "hidden_size": 4096.0}, "hidden_size is 4096.0, which is invalid"),
        ({**LLAMA_8B, "hidden_size": True}, "hidden_size is True, which is invalid"),
        ({**LLAMA_8B, "num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, which is invalid"),
        ({**LLAMA_8B, "num_hidden_layers": -1}, "num_hidden_layers is -1, which is invalid"),
        ({**LLAMA_8B, "num_key_value_heads": 5}, "num_key_value_heads"),
        ({**LLAMA_8B, "tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', which is invalid"),
        ({**LLAMA_8B, "architectures": ["LlamaForSomethingElse"]}, "LlamaForSomethingElse"),
        ({**LLAMA_8B, "model_type": "mistral", "layer_types": ["chunked_attention"] * 32}, "layer_types"),
        ({**LLAMA_8B, "model_type": "mistral", "layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "bart", "encoder_layerdrop": 0.1}, "encoder_layerdrop"),
        ({"model_type": "gemma3", "text_config": {}}, "vision_config"),
        ({"model_type": "gemma3", "text_config": {}, "vision_config": {}}, "vision_use_head"),
        ({**LLAMA_8B, "model_type": "gemma", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"parameters_total": 0}, "parameters_total is 0"),
    ],
)
def test_what_could_change_the_counts_is_refused_by_name(config: dict[str, Any], names: str) -> None:
    with pytest.raises(ArchitectureError, match=names) as caught:
        read_model(config)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "albert"}, "shared"),
        ({"model_type": "zamba2"}, "shared"),
        ({"model_type": "own_universal", "num_loops": 4}, "loop"),
        ({"model_type": "xlnet"}, "several streams"),
        ({"model_type": "whisper"}, "frames"),
        ({"model_type": "wav2vec2"}, "frames"),
        ({"model_type": "convnext"}, "pixels"),
        ({"model_type": "qwen2_5_vl"}, "patches"),
        ({"model_type": "own_seeing", "vision_config": {}}, "patches"),
        ({**LLAMA_8B, "num_loops": 4}, "loop"),
        ({"model_type": "gemma3", "text_config": {**LLAMA_8B}, "vision_config": {}, "new": 1}, "patches"),
    ],
)
def test_no_hint_leads_to_6pd_where_a_weight_is_used_more_than_once_a_token(config: dict[str, Any], why: str) -> None:
    """ALBERT of 12 layers executes 4.2 times what the size alone allows at most."""
    with pytest.raises(ArchitectureError) as caught:
        read_model({**config, "text_config": {"model_type": "gemma3_text"}} if "text_config" in config else config)
    assert why in caught.value.hint
    assert "no upper bound" in caught.value.hint
    assert "parameters_total" not in caught.value.hint


@pytest.mark.parametrize("config", [{"model_type": "deepseek_v3"}, {**LLAMA_8B, "kv_lora_rank": 512}])
def test_a_hint_to_6pd_says_on_what_condition(config: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        read_model(config)
    assert "each weight at most once a token" in caught.value.hint
    assert "--parameters" in caught.value.hint
