"""The config.json of published decoders, with the fields that only real files have, and what their checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What most files have and no shape follows from.
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

# Each: the configuration, parameters in all, and those that one token uses, its row of the embedding's table.
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
    # OpenAI's 3.6 and 5.1 billion leave the embedding's 0.58 out.
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
}  # fmt: skip
