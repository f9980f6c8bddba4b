"""Small real decoders in addition to those of families.py, each as class, configuration and LoRA targets."""

from collections.abc import Mapping
from typing import Any

_BASE = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_LATENT = {
    **_BASE, "num_key_value_heads": 4, "kv_lora_rank": 20, "q_lora_rank": 28, "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8, "v_head_dim": 10, "moe_intermediate_size": 24, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "n_shared_experts": 2, "first_k_dense_replace": 1, "attention_bias": True,
}  # fmt: skip
_GROUPS = {"n_group": 2, "topk_group": 1}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LANGUAGE, _QV = "AutoModelForCausalLM", ["q_proj", "v_proj"]
_LATENT_LORA = ["q_b_proj", "kv_b_proj", "o_proj"]
# kimi_k2 is not in transformers: its own code is that of deepseek_v3.
WITHOUT_CLASS = ("kimi_k2",)
# What a class needs beyond its defaults before a model can be made of it.
NEEDED: Mapping[str, dict[str, int]] = {
    "ministral": {"head_dim": 128}, "glm4_moe": {"head_dim": 128}, "deepseek_v2": {"num_experts_per_tok": 6},
}  # fmt: skip

DECODERS: Mapping[str, tuple[str, dict[str, Any], list[str]]] = {
    "ministral": (_LANGUAGE, {**_BASE, "head_dim": 24, "sliding_window": 8}, _QV),
    "ministral3": (_LANGUAGE, {**_BASE, "head_dim": 24}, _QV),
    "olmo": (_LANGUAGE, _BASE, ["q_proj", "down_proj"]),
    "olmo2": (_LANGUAGE, {**_BASE, "attention_bias": True}, _QV),
    "olmo3": (_LANGUAGE, {**_BASE, "sliding_window": 8}, _QV),
    "olmoe": (_LANGUAGE, {**_BASE, "num_experts": 4, "num_experts_per_tok": 2}, _QV),
    "granite": (_LANGUAGE, {**_BASE, "mlp_bias": True, "attention_bias": True}, _QV),
    "granitemoe": (_LANGUAGE, {**_BASE, **_EXPERTS}, _QV),
    "smollm3": (_LANGUAGE, {**_BASE, "use_sliding_window": True, "sliding_window": 8}, _QV),
    "seed_oss": (_LANGUAGE, {**_BASE, "head_dim": 24, "attention_dropout": 0.0}, ["q_proj", "down_proj"]),
    "arcee": (_LANGUAGE, _BASE, ["up_proj"]),
    "starcoder2": (_LANGUAGE, {**_BASE, "residual_dropout": 0.1}, ["q_proj", "c_fc"]),
    "glm": (_LANGUAGE, {**_BASE, "head_dim": 24}, ["q_proj", "gate_up_proj"]),
    "glm4": (_LANGUAGE, {**_BASE, "head_dim": 24}, ["q_proj", "gate_up_proj"]),
    "glm4_moe": (
        _LANGUAGE,
        {**_BASE, **_GROUPS, "head_dim": 24, "moe_intermediate_size": 24, "n_routed_experts": 8, "use_qk_norm": True,
         "num_experts_per_tok": 2},
        _QV,
    ),
    "cohere": (_LANGUAGE, {**_BASE, "use_qk_norm": True}, ["o_proj", "up_proj"]),
    "cohere2": (_LANGUAGE, {**_BASE, "sliding_window": 8}, _QV),
    "llama4_text": (
        _LANGUAGE,
        {**_BASE, **_EXPERTS, "head_dim": 24, "intermediate_size_mlp": 80, "interleave_moe_layer_step": 2,
         "attention_chunk_size": 8},
        _QV,
    ),
    "deepseek_v2": (_LANGUAGE, {**_LATENT, "mlp_bias": True}, _LATENT_LORA),
    "deepseek_v2, whole q": (_LANGUAGE, {**_LATENT, "q_lora_rank": None}, ["q_proj"]),
    "deepseek_v3": (_LANGUAGE, {**_LATENT, **_GROUPS}, ["q_a_proj", "kv_a_proj_with_mqa"]),
    "glm4_moe_lite": (_LANGUAGE, {**_LATENT, **_GROUPS}, _LATENT_LORA),
}  # fmt: skip
