"""Small hybrids: layers with a state, where the sequences here fill one chunk and part of a second or third."""

from collections.abc import Mapping
from typing import Any

_BASE = {"hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 128, "max_position_embeddings": 64}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_state": 12, "mamba_n_groups": 2, "mamba_chunk_size": 10}
_DELTA = {
    **_BASE, **_HEADS, "head_dim": 24, "linear_key_head_dim": 12, "linear_value_head_dim": 20,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "intermediate_size": 96,
}  # fmt: skip
_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}
_GEMMA = {
    **_BASE, **_HEADS, "head_dim": 24, "intermediate_size": 96, "sliding_window": 8, "vocab_size_per_layer_input": 128,
    "hidden_size_per_layer_input": 12, "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
_GEMMA3N = {**_GEMMA, "altup_num_inputs": 3, "laurel_rank": 10}
_GEMMA4 = {**_GEMMA, "global_head_dim": 32, "use_double_wide_mlp": True}
_NEMOTRON = {
    "hidden_size": 64, "vocab_size": 128, **_HEADS, "head_dim": 24, "max_position_embeddings": 64,
    "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "moe"],
    "intermediate_size": 96, "ssm_state_size": 12, "mamba_num_heads": 8, "mamba_head_dim": 10, "n_groups": 2,
    "chunk_size": 10, "n_routed_experts": 4, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 40,
}  # fmt: skip
_LFM2 = {**_BASE, **_HEADS, "intermediate_size": 96, "layer_types": ["conv", "conv", "full_attention", "conv"]}
_CAUSAL = "AutoModelForCausalLM"
# What a configuration of two layers needs in addition.
HYBRIDS_NEED: Mapping[str, dict[str, Any]] = {
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
}
HYBRIDS_NEED_WHOLE = {"lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16}}  # for all its layers
HYBRIDS: Mapping[str, tuple[str, dict[str, Any], list[str]]] = {
    "mamba2": (
        _CAUSAL,
        {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 128, "num_heads": 8, "head_dim": 16, "state_size": 12,
         "n_groups": 2, "chunk_size": 10},
        ["in_proj"],
    ),
    "qwen3_next": (_CAUSAL, {**_DELTA, **_MOE, "mlp_only_layers": [1]}, ["in_proj_ba", "q_proj", "out_proj"]),
    "qwen3_next, dense": (_CAUSAL, {**_DELTA, "num_experts": 0}, ["in_proj_qkvz"]),
    "qwen3_5_text": (_CAUSAL, _DELTA, ["in_proj_a", "in_proj_z", "v_proj"]),
    "qwen3_5_text, rate": (_CAUSAL, _DELTA, ["in_proj_b"]),
    "qwen3_5_moe_text": (_CAUSAL, {**_DELTA, **_MOE}, ["in_proj_qkv", "o_proj"]),
    "granitemoehybrid": (
        _CAUSAL,
        {**_BASE, **_HEADS, **_MAMBA, "intermediate_size": 48, "shared_intermediate_size": 40, "num_local_experts": 4,
         "layer_types": ["mamba", "mamba", "attention", "mamba"]},
        ["q_proj", "in_proj", "output_linear"],
    ),
    "granitemoehybrid, dense": (
        _CAUSAL,
        {**_BASE, **_HEADS, **_MAMBA, "num_local_experts": 0, "layer_types": ["attention", "mamba"] * 2,
         "tie_word_embeddings": True, "shared_intermediate_size": 40},
        ["all-linear"],
    ),
    "bamba": (
        _CAUSAL,
        {**_BASE, **_HEADS, **_MAMBA, "intermediate_size": 96, "attn_layer_indices": [2]},
        ["v_proj", "gate_proj"],
    ),
    "falcon_h1": (
        _CAUSAL,
        {**_BASE, **_HEADS, **_MAMBA, "mamba_d_ssm": 96, "intermediate_size": 96, "mamba_rms_norm": True},
        ["in_proj", "down_proj"],
    ),
    "gemma3n_text": (_CAUSAL, _GEMMA3N, ["q_proj", "v_proj"]),
    "gemma3n_text, few": (
        _CAUSAL,
        {**_GEMMA3N, "num_kv_shared_layers": 0, "tie_word_embeddings": False},
        ["prediction_coefs", "correction_coefs", "linear_left", "per_layer_model_projection"],
    ),
    "gemma4_text": (_CAUSAL, _GEMMA4, ["k_proj", "per_layer_input_gate"]),
    "gemma4_text, experts": (
        _CAUSAL,
        {**_GEMMA4, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "attention_k_eq_v": True,
         "num_global_key_value_heads": 1, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
         "moe_intermediate_size": 32},
        ["mlp.down_proj"],
    ),
    "nemotron_h": (_CAUSAL, _NEMOTRON, ["in_proj", "q_proj"]),
    "nemotron_h, latent": (_CAUSAL, {**_NEMOTRON, "moe_latent_size": 20, "mlp_bias": True}, ["fc1_latent_proj", "o_proj"]),
    "lfm2": (_CAUSAL, {**_LFM2, "block_multiple_of": 16, "conv_bias": True}, ["in_proj", "w2"]),
    "lfm2_moe": (
        _CAUSAL,
        {**_LFM2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_dense_layers": 1},
        ["q_proj", "out_proj"],
    ),
}  # fmt: skip
