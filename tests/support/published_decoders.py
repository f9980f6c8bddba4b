"""The config.json of published decoders, with the fields that only real files have, and the sizes of their
checkpoints."""

from collections.abc import Mapping
from typing import Any

# Fields that most files have and that affect no shape.
_COMMON = {
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.3", "use_cache": True,
}  # fmt: skip
_QWEN2 = {
    **_COMMON, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_mrope": False,
    "use_sliding_window": False,
}  # fmt: skip
_GPT_OSS = {
    **_COMMON, "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True,
    "experts_per_token": 4, "num_experts_per_tok": 4, "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880,
    "initial_context_length": 4096, "max_position_embeddings": 131072, "num_attention_heads": 64,
    "num_key_value_heads": 8, "output_router_logits": False, "router_aux_loss_coef": 0.9, "sliding_window": 128,
    "swiglu_limit": 7.0, "vocab_size": 201088,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"},
}  # fmt: skip

_OLMO = {
    "attention_bias": False, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32,
}  # fmt: skip
_GRANITE = {
    "attention_bias": False, "attention_multiplier": 0.0078125, "embedding_multiplier": 12.0, "logits_scaling": 16.0,
    "residual_multiplier": 0.22, "max_position_embeddings": 131072, "num_key_value_heads": 8,
    "tie_word_embeddings": True, "vocab_size": 49155,
}  # fmt: skip
_GLM = {
    "attention_bias": True, "head_dim": 128, "hidden_size": 4096, "max_position_embeddings": 131072,
    "partial_rotary_factor": 0.5, "vocab_size": 151552,
}  # fmt: skip
_LATENT = {
    "attention_bias": False, "aux_loss_alpha": 0.001, "ep_size": 1, "kv_lora_rank": 512, "moe_layer_freq": 1,
    "norm_topk_prob": True, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "seq_aux": True, "v_head_dim": 128,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"},
}  # fmt: skip
_LLAMA4 = {
    "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "_attn_implementation_autoset": True,
    "attention_bias": False, "attention_chunk_size": 8192, "attn_scale": 0.1, "attn_temperature_tuning": 4,
    "floor_scale": 8192, "for_llm_compressor": False, "head_dim": 128, "hidden_size": 5120,
    "intermediate_size": 8192, "intermediate_size_mlp": 16384, "no_rope_layers": [], "num_attention_heads": 40,
    "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8, "output_router_logits": False,
    "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "vocab_size": 202048,
}  # fmt: skip

# Each: the configuration, parameters in total, and parameters that one token uses, including its row of the embedding
# table.
PUBLISHED_DECODERS: Mapping[str, tuple[dict[str, Any], int, int]] = {
    "Qwen2.5 0.5B": (
        {**_QWEN2, "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768,
         "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
         "sliding_window": 32768, "tie_word_embeddings": True, "vocab_size": 151936},
        494_032_768, 494_032_768,
    ),
    "DeepSeek R1 Distill Qwen 7B": (
        {**_QWEN2, "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
         "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
         "sliding_window": 4096, "vocab_size": 152064},
        7_615_616_512, 7_615_616_512,
    ),
    "DeepSeek R1 Distill Llama 8B": (
        {**_COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
         "mlp_bias": False, "pretraining_tp": 1, "hidden_size": 4096, "intermediate_size": 14336,
         "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 8, "vocab_size": 128256,
         "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"}},
        8_030_261_248, 8_030_261_248,
    ),
    "Phi-4": (
        {**_COMMON, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "attention_bias": False,
         "embd_pdrop": 0.0, "resid_pdrop": 0.0, "hidden_size": 5120, "intermediate_size": 17920,
         "max_position_embeddings": 16384, "original_max_position_embeddings": 16384, "num_attention_heads": 40,
         "num_hidden_layers": 40, "num_key_value_heads": 10, "pad_token_id": 100349, "sliding_window": None,
         "vocab_size": 100352},
        14_659_507_200, 14_659_507_200,
    ),
    "Phi-4 mini": (
        {**_COMMON, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "attention_bias": False,
         "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
         "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False, "hidden_size": 3072,
         "intermediate_size": 8192, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
         "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8, "partial_rotary_factor": 0.75,
         "sliding_window": 262144, "tie_word_embeddings": True, "vocab_size": 200064},
        3_836_021_760, 3_836_021_760,
    ),
    # OpenAI's 3.6 and 5.1 billion exclude the embedding's 0.58 billion.
    "gpt-oss 20B": (
        {**_GPT_OSS, "num_hidden_layers": 24, "num_local_experts": 32,
         "layer_types": ["sliding_attention", "full_attention"] * 12},
        20_914_757_184, 4_187_440_704,
    ),
    "gpt-oss 120B": (
        {**_GPT_OSS, "num_hidden_layers": 36, "num_local_experts": 128,
         "layer_types": ["sliding_attention", "full_attention"] * 18},
        116_829_156_672, 5_711_982_912,
    ),
    "OLMo 2 7B": (
        {**_COMMON, **_OLMO, "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "vocab_size": 100352,
         "max_position_embeddings": 4096},
        7_298_617_344, 7_298_617_344,
    ),
    "OLMo 3 7B": (
        {**_COMMON, **_OLMO, "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "vocab_size": 100278,
         "max_position_embeddings": 65536, "sliding_window": 4096,
         "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 8},
        7_298_011_136, 7_298_011_136,
    ),
    "OLMo 7B": (
        {**_COMMON, **_OLMO, "architectures": ["OlmoForCausalLM"], "model_type": "olmo", "vocab_size": 50304,
         "clip_qkv": None, "max_position_embeddings": 2048},
        6_888_095_744, 6_888_095_744,
    ),
    "OLMoE 1B 7B": (
        {**_COMMON, "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "attention_bias": False,
         "clip_qkv": None, "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096,
         "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
         "num_hidden_layers": 16, "num_key_value_heads": 16, "output_router_logits": False,
         "router_aux_loss_coef": 0.01, "vocab_size": 50304},
        6_919_161_856, 1_282_017_280,
    ),
    "Granite 3.1 8B": (
        {**_COMMON, **_GRANITE, "architectures": ["GraniteForCausalLM"], "model_type": "granite", "mlp_bias": False,
         "hidden_size": 4096, "intermediate_size": 12800, "num_attention_heads": 32, "num_hidden_layers": 40},
        8_170_848_256, 8_170_848_256,
    ),
    "Granite 3.1 3B A800M": (
        {**_COMMON, **_GRANITE, "architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe",
         "hidden_size": 1536, "intermediate_size": 512, "num_attention_heads": 24, "num_hidden_layers": 32,
         "num_local_experts": 40, "num_experts_per_tok": 8, "output_router_logits": False,
         "router_aux_loss_coef": 0.0},
        3_298_793_472, 882_874_368,
    ),
    "SmolLM3 3B": (
        {**_COMMON, "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "attention_bias": False,
         "hidden_size": 2048, "intermediate_size": 11008, "layer_types": ["full_attention"] * 36,
         "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": False,
         "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 9, "num_attention_heads": 16,
         "num_hidden_layers": 36, "num_key_value_heads": 4, "pretraining_tp": 2, "sliding_window": None,
         "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 128256},
        3_075_098_624, 3_075_098_624,
    ),
    "GLM-4 9B": (
        {**_COMMON, **_GLM, "architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "num_hidden_layers": 40,
         "intermediate_size": 13696, "num_attention_heads": 32, "num_key_value_heads": 2},
        9_400_279_040, 9_400_279_040,
    ),
    "GLM-4.5 Air": (
        {**_COMMON, **_GLM, "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe",
         "num_hidden_layers": 46, "intermediate_size": 10944, "moe_intermediate_size": 1408,
         "num_attention_heads": 96, "num_key_value_heads": 8, "first_k_dense_replace": 1, "n_group": 1,
         "topk_group": 1, "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8,
         "norm_topk_prob": True, "routed_scaling_factor": 1.0, "use_qk_norm": False,
         "num_nextn_predict_layers": 1},
        106_852_245_504, 13_424_123_904,
    ),
    "Command R": (
        {**_COMMON, "architectures": ["CohereForCausalLM"], "model_type": "cohere", "hidden_size": 8192,
         "intermediate_size": 22528, "layer_norm_eps": 1e-05, "logit_scale": 0.0625,
         "max_position_embeddings": 8192, "model_max_length": 131072, "num_attention_heads": 64,
         "num_hidden_layers": 40, "num_key_value_heads": 64, "use_qk_norm": False, "vocab_size": 256000,
         "tie_word_embeddings": True},
        34_980_831_232, 34_980_831_232,
    ),
    "Command R7B": (
        {**_COMMON, "architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", "attention_bias": False,
         "cache_implementation": "hybrid", "head_dim": 128, "hidden_size": 4096, "intermediate_size": 14336,
         "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25, "max_position_embeddings": 8192,
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
         "order_of_interleaved_layers": "local_attn_first", "position_embedding_type": "rope_gptj",
         "rotary_pct": 1.0, "sliding_window": 4096, "sliding_window_pattern": 4, "use_embedding_sharing": True,
         "use_gated_activation": True, "use_parallel_block": True, "use_parallel_embedding": True,
         "use_qk_norm": False, "vocab_size": 256000, "tie_word_embeddings": True},
        8_028_033_024, 8_028_033_024,
    ),
    "Seed-OSS 36B": (
        {**_COMMON, "architectures": ["SeedOssForCausalLM"], "model_type": "seed_oss", "attention_bias": True,
         "attention_out_bias": False, "attention_dropout": 0.1, "head_dim": 128, "hidden_size": 5120,
         "intermediate_size": 27648, "max_position_embeddings": 524288, "mlp_bias": False, "num_attention_heads": 80,
         "num_hidden_layers": 64, "num_key_value_heads": 8, "residual_dropout": 0.1, "vocab_size": 155136},
        36_151_104_512, 36_151_104_512,
    ),
    "StarCoder2 3B": (
        {"architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "attention_dropout": 0.1,
         "embedding_dropout": 0.1, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072,
         "initializer_range": 0.018042, "intermediate_size": 12288, "max_position_embeddings": 16384,
         "mlp_type": "default", "norm_epsilon": 1e-05, "norm_type": "layer_norm", "num_attention_heads": 24,
         "num_hidden_layers": 30, "num_key_value_heads": 2, "residual_dropout": 0.1, "rope_theta": 999999.44,
         "sliding_window": 4096, "use_bias": True, "use_cache": True, "vocab_size": 49152},
        3_030_371_328, 3_030_371_328,
    ),
    # DeepSeek's 671 and 37 billion; Hugging Face's 685 include the layer for multi-token prediction.
    "DeepSeek V3": (
        {**_COMMON, **_LATENT, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
         "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "first_k_dense_replace": 3,
         "hidden_size": 7168, "intermediate_size": 18432, "max_position_embeddings": 163840,
         "moe_intermediate_size": 2048, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
         "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
         "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "routed_scaling_factor": 2.5,
         "scoring_func": "sigmoid", "topk_group": 4, "topk_method": "noaux_tc", "vocab_size": 129280},
        671_026_404_352, 37_552_282_624,
    ),
    "Kimi K2": (
        {**_COMMON, **_LATENT, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2",
         "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "first_k_dense_replace": 1,
         "hidden_size": 7168, "intermediate_size": 18432, "max_position_embeddings": 131072,
         "moe_intermediate_size": 2048, "n_group": 1, "n_routed_experts": 384, "n_shared_experts": 1,
         "num_attention_heads": 64, "num_experts_per_tok": 8, "num_hidden_layers": 61,
         "num_key_value_heads": 64, "num_nextn_predict_layers": 0, "routed_scaling_factor": 2.827,
         "scoring_func": "sigmoid", "topk_group": 1, "topk_method": "noaux_tc", "vocab_size": 163840},
        1_026_408_209_408, 32_861_477_888,
    ),
    "DeepSeek V2": (
        {**_COMMON, **_LATENT, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
         "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"}, "first_k_dense_replace": 1,
         "hidden_size": 5120, "intermediate_size": 12288, "max_position_embeddings": 163840,
         "moe_intermediate_size": 1536, "n_group": 8, "n_routed_experts": 160, "n_shared_experts": 2,
         "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 60,
         "num_key_value_heads": 128, "routed_scaling_factor": 16.0, "scoring_func": "softmax", "topk_group": 3,
         "topk_method": "group_limited_greedy", "vocab_size": 102400},
        235_741_434_880, 21_375_800_320,
    ),
    # Meta's 109 and 400 billion include the image tower of about 0.9 billion.
    "Llama 4 Scout": (
        {**_COMMON, **_LLAMA4, "interleave_moe_layer_step": 1, "max_position_embeddings": 10485760,
         "num_local_experts": 16, "use_qk_norm": True},
        107_769_861_120, 17_172_894_720,
    ),
    "Llama 4 Maverick": (
        {**_COMMON, **_LLAMA4, "interleave_moe_layer_step": 2, "max_position_embeddings": 1048576,
         "num_local_experts": 128, "use_qk_norm": False, "moe_layers": list(range(1, 48, 2))},
        400_711_848_960, 17_184_691_200,
    ),
}  # fmt: skip
