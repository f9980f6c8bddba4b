"""The families of decoders and their differences. The shapes are those of transformers' modeling files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from flopsd.core.architecture.decoder_styles import Experts, Style

_Defaults = Mapping[str, float | None]
_QWEN_EXPERTS = partial(Experts, "num_experts", step="decoder_sparse_step", dense_layers="mlp_only_layers")
_biased = partial(Style, qkv_bias="attention_bias", out_bias="attention_bias")  # set by the field attention_bias
_GEMMA: _Defaults = {"tie_word_embeddings": True, "head_dim": 256}
_GEMMA2: _Defaults = {
    **_GEMMA, "sliding_window": 4096, "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip

_GLM: _Defaults = {"attention_bias": True, "head_dim": 128, "num_key_value_heads": 2}
_MULTIPLIERS = ("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier")
# These decide how a token's experts are chosen, but not how many.
_ROUTING = (
    "aux_loss_alpha", "ep_size", "n_group", "norm_topk_prob", "rope_interleave", "routed_scaling_factor",
    "scoring_func", "seq_aux", "topk_group", "topk_method",
)  # fmt: skip
_DEEPSEEK_EXPERTS = partial(
    Experts, "n_routed_experts", shared_count="n_shared_experts", dense_first="first_k_dense_replace"
)
_LATENT: _Defaults = {
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
}  # fmt: skip
_DEEPSEEK_V3 = Style(
    latent=True,
    experts=_DEEPSEEK_EXPERTS(router_adaptable=False),
    only={"moe_layer_freq": (1,)},
    irrelevant=_ROUTING,
    untrained="num_nextn_predict_layers",
    defaults={**_LATENT, "first_k_dense_replace": 3, "n_shared_experts": 1, "num_nextn_predict_layers": 1},
)

STYLES: Mapping[str, Style] = {
    "llama": _biased(mlp_bias="mlp_bias"),
    "mistral": Style(window="always", defaults={"sliding_window": 4096, "num_key_value_heads": 8}),
    "mixtral": Style(
        window="always", defaults={"num_key_value_heads": 8},
        experts=Experts("num_local_experts", "num_experts", size="intermediate_size", module="block_sparse_moe",
                        matrices=("w1", "w3", "w2")),
    ),
    "qwen2": Style(
        qkv_bias=True, window="qwen",
        defaults={"sliding_window": 4096, "num_key_value_heads": 32, "max_window_layers": 28},
    ),
    "qwen3": _biased(
        qk_norm="head", window="qwen",
        defaults={"sliding_window": 4096, "head_dim": 128, "num_key_value_heads": 32, "max_window_layers": 28},
    ),
    "qwen2_moe": Style(
        qkv_bias="qkv_bias", window="qwen", irrelevant=("max_window_layers",),
        defaults={"qkv_bias": True, "sliding_window": 4096, "num_key_value_heads": 16, "decoder_sparse_step": 1},
        experts=_QWEN_EXPERTS(
            shared="shared_expert", shared_size="shared_expert_intermediate_size", shared_gate=True
        ),
    ),
    "qwen3_moe": _biased(
        qk_norm="head", window="qwen", irrelevant=("max_window_layers",),
        experts=_QWEN_EXPERTS(alias="num_local_experts"),
        defaults={"sliding_window": 4096, "num_key_value_heads": 4, "decoder_sparse_step": 1},
    ),
    "gemma": _biased(defaults={**_GEMMA, "num_key_value_heads": 16}),
    "gemma2": _biased(
        norms=4, post_norm=True, window="by_layer", defaults={**_GEMMA2, "vocab_size": 256_000},
    ),
    "gemma3_text": _biased(
        norms=4, post_norm=True, qk_norm="head", window="by_layer",
        defaults={**_GEMMA2, "_sliding_window_pattern": 6, "vocab_size": 262_208},
    ),
    "gpt_oss": Style(
        qkv_bias=True, out_bias=True, window="by_layer", sinks=True, only={"attention_bias": (True,)},
        defaults={"sliding_window": 128, "head_dim": 64, "num_key_value_heads": 8},
        # The experts of gpt-oss were never Linear modules.
        experts=Experts("num_local_experts", "num_experts", size="intermediate_size", router="router", bias=True,
                        adaptable=False, router_adaptable=False),
        irrelevant=("experts_per_token", "initial_context_length"),
    ),
    "phi3": Style(
        window="always", fused_qkv=True, fused_mlp=True, dropout="resid_pdrop", irrelevant=("interpolate_factor",),
        only={"attention_bias": (False,), "mlp_bias": (False,), "lm_head_bias": (False,), "full_attn_mod": (1,)},
    ),
    "ministral": Style(window="always", defaults={"sliding_window": 4096, "num_key_value_heads": 8}),
    "ministral3": Style(window="always", defaults={"head_dim": 128, "num_key_value_heads": 8}),
    "olmo": _biased(norms=0, final_norms=0, irrelevant=("clip_qkv",)),
    "olmo2": _biased(qk_norm="width", post_norm=True),
    "olmo3": _biased(
        qk_norm="width", post_norm=True, window="by_layer",
        defaults={"sliding_window": 4096, "_sliding_window_pattern": 4},
    ),
    "olmoe": _biased(
        qk_norm="width", experts=Experts("num_experts", "num_local_experts", size="intermediate_size"),
        irrelevant=("clip_qkv",),
    ),
    "granite": _biased(mlp_bias="mlp_bias", irrelevant=_MULTIPLIERS),
    "granitemoe": _biased(
        irrelevant=_MULTIPLIERS,
        experts=Experts("num_local_experts", size="intermediate_size", module="block_sparse_moe", router="router",
                        adaptable=False),
    ),
    "smollm3": _biased(
        mlp_bias="mlp_bias", window="no_rope", irrelevant=("max_window_layers",),
        defaults={"tie_word_embeddings": True, "num_key_value_heads": 4, "no_rope_layer_interval": 4},
    ),
    "seed_oss": Style(
        qkv_bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias", dropout="residual_dropout",
        defaults={"attention_bias": True, "head_dim": 128, "num_key_value_heads": 8, "residual_dropout": 0.1},
    ),
    "arcee": _biased(mlp_bias="mlp_bias", plain_mlp=("up_proj", "down_proj")),
    "starcoder2": Style(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", norms=4, final_norms=2, window="always",
        plain_mlp=("c_fc", "c_proj"), dropout="residual_dropout", irrelevant=("norm_epsilon", "embedding_dropout"),
        only={"mlp_type": ("default",), "norm_type": ("layer_norm",)},
        defaults={"use_bias": True, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "glm": Style(qkv_bias="attention_bias", fused_mlp=True, defaults=_GLM),
    "glm4": Style(qkv_bias="attention_bias", fused_mlp=True, norms=4, post_norm=True, defaults=_GLM),
    "glm4_moe": Style(
        qkv_bias="attention_bias", qk_norm="head", qk_norm_flag="use_qk_norm", irrelevant=_ROUTING,
        untrained="num_nextn_predict_layers", experts=_DEEPSEEK_EXPERTS(router_adaptable=False),
        defaults={"num_key_value_heads": 8, "first_k_dense_replace": 1, "n_shared_experts": 1,
                  "num_nextn_predict_layers": 1},
    ),
    "cohere": _biased(
        qk_norm="width", qk_norm_flag="use_qk_norm", norms=1, parallel=True, defaults={"tie_word_embeddings": True},
        irrelevant=("logit_scale", "model_max_length"),
    ),
    "cohere2": _biased(
        norms=1, parallel=True, window="by_layer",
        defaults={"tie_word_embeddings": True, "sliding_window": 4096, "_sliding_window_pattern": 4},
        irrelevant=("logit_scale", "position_embedding_type", "order_of_interleaved_layers", "layer_switch",
                    "use_parallel_embedding"),
        only={"use_gated_activation": (True,), "use_parallel_block": (True,), "use_qk_norm": (False,),
              "use_embedding_sharing": (True,)},
    ),
    "llama4_text": _biased(
        window="chunk",
        defaults={"attention_chunk_size": 8192, "head_dim": 128, "num_key_value_heads": 8,
                  "no_rope_layer_interval": 4, "interleave_moe_layer_step": 1},
        experts=Experts(
            "num_local_experts", size="intermediate_size", dense_size="intermediate_size_mlp", module="feed_forward",
            dense_module="feed_forward", router="router", adaptable=False, router_adaptable=True, all_passed=True,
            shared="shared_expert", shared_size="intermediate_size", step="interleave_moe_layer_step",
            routed_layers="moe_layers",
        ),
        irrelevant=("use_qk_norm", "attn_temperature_tuning", "floor_scale", "attn_scale", "for_llm_compressor"),
    ),
    "deepseek_v2": Style(
        latent=True, mlp_bias="mlp_bias", experts=_DEEPSEEK_EXPERTS(), only={"moe_layer_freq": (1,)},
        irrelevant=_ROUTING,
        defaults={**_LATENT, "first_k_dense_replace": 0, "n_shared_experts": 2},
    ),
    "deepseek_v3": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "glm4_moe_lite": Style(
        latent=True, irrelevant=_ROUTING, untrained="num_nextn_predict_layers",
        experts=_DEEPSEEK_EXPERTS(router_adaptable=False, layer_types="mlp_layer_types"),
        defaults={"kv_lora_rank": 512, "q_lora_rank": 768, "qk_rope_head_dim": 64, "v_head_dim": 256,
                  "qk_nope_head_dim": 192, "first_k_dense_replace": 1, "n_shared_experts": 1,
                  "num_nextn_predict_layers": 0},
    ),
}  # fmt: skip
