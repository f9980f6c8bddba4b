"""Configurations of published hybrids, as their config.json has them, with the parameters in all and for one token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GRANITE = ["mamba"] * 5 + ["attention"] + (["mamba"] * 9 + ["attention"]) * 3 + ["mamba"] * 4
_DELTA = ["linear_attention"] * 3 + ["full_attention"]
PUBLISHED_HYBRIDS: Mapping[str, tuple[dict[str, Any], int, int]] = {
    "Mamba2 2.7B": (
        {"model_type": "mamba2", "hidden_size": 2560, "num_hidden_layers": 64, "vocab_size": 50288, "num_heads": 80,
         "head_dim": 64, "state_size": 128, "n_groups": 1, "expand": 2, "conv_kernel": 4, "chunk_size": 256,
         "tie_word_embeddings": True, "time_step_rank": 160, "rms_norm": True, "residual_in_fp32": True,
         "use_bias": False, "use_conv_bias": True, "norm_before_gate": True, "time_step_limit": [0.0, 1e9]},
        2_702_599_680, 2_702_599_680,
    ),
    "Qwen3-Next 80B A3B": (
        {"model_type": "qwen3_next", "attention_dropout": 0.0, "decoder_sparse_step": 1, "full_attention_interval": 4,
         "head_dim": 256, "hidden_size": 2048, "intermediate_size": 5120, "linear_conv_kernel_dim": 4,
         "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
         "linear_value_head_dim": 128, "max_position_embeddings": 262144, "mlp_only_layers": [],
         "moe_intermediate_size": 512, "norm_topk_prob": True, "num_attention_heads": 16, "num_experts": 512,
         "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2, "output_router_logits": False,
         "partial_rotary_factor": 0.25, "rope_scaling": None, "rope_theta": 10000000, "router_aux_loss_coef": 0.001,
         "shared_expert_intermediate_size": 512, "tie_word_embeddings": False, "use_sliding_window": False,
         "vocab_size": 151936},
        79_674_391_296, 3_874_929_408,
    ),
    "Qwen3.5 27B, text": (
        {"model_type": "qwen3_5_text", "attention_bias": False, "attn_output_gate": True, "full_attention_interval": 4,
         "head_dim": 256, "hidden_size": 5120, "intermediate_size": 17408, "layer_types": _DELTA * 16,
         "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
         "linear_num_value_heads": 48, "linear_value_head_dim": 128, "mamba_ssm_dtype": "float32",
         "max_position_embeddings": 262144, "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False,
         "num_attention_heads": 24, "num_hidden_layers": 64, "num_key_value_heads": 4, "vocab_size": 248320,
         "tie_word_embeddings": False},
        26_895_998_464, 26_895_998_464,
    ),
    "Qwen3.5 35B A3B, text": (
        {"model_type": "qwen3_5_moe_text", "attn_output_gate": True, "full_attention_interval": 4, "head_dim": 256,
         "hidden_size": 2048, "layer_types": _DELTA * 10, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
         "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128,
         "mamba_ssm_dtype": "float32", "max_position_embeddings": 262144, "moe_intermediate_size": 512,
         "mtp_num_hidden_layers": 1, "num_attention_heads": 16, "num_experts": 256, "num_experts_per_tok": 8,
         "num_hidden_layers": 40, "num_key_value_heads": 2, "shared_expert_intermediate_size": 512,
         "vocab_size": 248320},
        34_660_610_688, 3_454_988_928,
    ),
    "Granite 4.0 H Small": (
        {"model_type": "granitemoehybrid", "attention_bias": False, "attention_dropout": 0.0,
         "attention_multiplier": 0.0078125, "embedding_multiplier": 12, "hidden_size": 4096, "init_method": "mup",
         "intermediate_size": 768, "layer_types": _GRANITE, "logits_scaling": 16, "mamba_chunk_size": 256,
         "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_expand": 2,
         "mamba_n_groups": 1, "mamba_n_heads": 128, "mamba_proj_bias": False, "max_position_embeddings": 131072,
         "normalization_function": "rmsnorm", "num_attention_heads": 32, "num_experts_per_tok": 10,
         "num_hidden_layers": 40, "num_key_value_heads": 8, "num_local_experts": 72, "output_router_logits": False,
         "position_embedding_type": "nope", "residual_multiplier": 0.22, "router_aux_loss_coef": 0.0,
         "shared_intermediate_size": 1536, "tie_word_embeddings": True, "vocab_size": 100352},
        32_207_337_984, 8_803_121_664,
    ),
    "Bamba 9B": (
        {"model_type": "bamba", "attn_layer_indices": [9, 18, 27], "attn_rotary_emb": 64, "hidden_size": 4096,
         "intermediate_size": 14336, "mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4,
         "mamba_d_head": 64, "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 128,
         "mamba_proj_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
         "num_logits_to_keep": 1, "vocab_size": 128256, "tie_word_embeddings": False},
        9_780_235_392, 9_780_235_392,
    ),
    "Gemma 3n E4B, text": (
        {"model_type": "gemma3n_text", "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 25, "altup_active_idx": 0,
         "altup_coef_clip": 120.0, "altup_correct_scale": True, "altup_num_inputs": 4, "attention_bias": False,
         "attention_dropout": 0.0, "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_activation":
         "gelu_pytorch_tanh", "hidden_size": 2048, "hidden_size_per_layer_input": 256, "intermediate_size": [16384] * 35,
         "laurel_rank": 64, "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
         "max_position_embeddings": 32768, "num_attention_heads": 8, "num_hidden_layers": 35,
         "num_key_value_heads": 2, "num_kv_shared_layers": 15, "rope_local_base_freq": 10000.0, "rope_scaling": None,
         "rope_theta": 1000000.0, "sliding_window": 512, "vocab_size": 262400, "vocab_size_per_layer_input": 262144},
        6_835_235_568, 6_835_235_568,
    ),
    "Gemma 4 E2B, text": (
        {"model_type": "gemma4_text", "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35,
         "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512,
         "num_kv_shared_layers": 20, "use_double_wide_mlp": True, "sliding_window": 512,
         "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7, "vocab_size": 262144},
        4_628_569_344, 4_628_569_344,
    ),
    "Gemma 4 E4B, text": (
        {"model_type": "gemma4_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42,
         "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "global_head_dim": 512,
         "num_kv_shared_layers": 18, "use_double_wide_mlp": False, "sliding_window": 512,
         "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 7, "vocab_size": 262144},
        7_463_013_376, 7_463_013_376,
    ),
}  # fmt: skip
