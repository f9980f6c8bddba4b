"""Configurations of published models that read images, with the number of parameters in their checkpoints."""

from collections.abc import Mapping
from typing import Any

_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
# Fields that files from CLIP's time have in each tower.
_OLD = {
    "_name_or_path": "", "add_cross_attention": False, "attention_dropout": 0.0, "bad_words_ids": None,
    "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None, "diversity_penalty": 0.0, "dropout": 0.0,
    "hidden_act": "quick_gelu", "initializer_factor": 1.0, "is_decoder": False, "is_encoder_decoder": False,
    "pruned_heads": {}, "tie_encoder_decoder": False, "tie_word_embeddings": True, "torchscript": False,
    "typical_p": 1.0, "use_bfloat16": False,
}  # fmt: skip
_DINOV2 = {
    "model_type": "dinov2", "architectures": ["Dinov2Model"], "image_size": 518, "apply_layernorm": True,
    "drop_path_rate": 0.0, "layerscale_value": 1.0, "mlp_ratio": 4, "out_features": ["stage12"], "out_indices": [12],
    "reshape_hidden_states": True, "stage_names": ["stem", "stage1"],
}  # fmt: skip
_QWEN_MARKS = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
               "vision_end_token_id": 151653}  # fmt: skip
_QWEN_SCALES = {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "rope_theta": 1000000.0}
# Files from its time have the text fields at the top level.
_QWEN25_VL = {
    **_QWEN_MARKS, **_QWEN_SCALES, "model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944,
    "architectures": ["Qwen2_5_VLForConditionalGeneration"], "bos_token_id": 151643, "eos_token_id": 151645,
    "hidden_act": "silu", "max_position_embeddings": 128000, "max_window_layers": 28, "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": 32768, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False, "vision_token_id": 151654,
    "vocab_size": 152064,
    "vision_config": {
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "in_chans": 3, "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2,
    },
}  # fmt: skip
_QWEN3_VL: dict[str, Any] = {
    **_QWEN_MARKS, "model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"],
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen3_vl_text", "attention_bias": False, "head_dim": 128, "hidden_size": 4096,
        "intermediate_size": 12288, "max_position_embeddings": 262144, "num_attention_heads": 32,
        "num_hidden_layers": 36, "num_key_value_heads": 8, "vocab_size": 151936, "rope_theta": 5000000,
    },
    "vision_config": {
        "model_type": "qwen3_vl", "deepstack_visual_indexes": [8, 16, 24], "depth": 27, "hidden_size": 1152,
        "in_channels": 3, "intermediate_size": 4304, "num_heads": 16, "num_position_embeddings": 2304,
        "out_hidden_size": 4096, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    },
}  # fmt: skip
_SCOUT = {
    "model_type": "llama4", "architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200080,
    "eoi_token_index": 200081, "image_token_index": 200092, "tie_word_embeddings": False,
    "text_config": {
        "model_type": "llama4_text", "_attn_implementation_autoset": True, "attention_bias": False,
        "attention_chunk_size": 8192, "for_llm_compressor": False, "head_dim": 128, "hidden_size": 5120,
        "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "max_position_embeddings": 10485760, "no_rope_layers": [], "num_attention_heads": 40,
        "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 16,
        "router_jitter_noise": 0.0, "use_qk_norm": True, "vocab_size": 202048,
    },
    "vision_config": {
        "model_type": "llama4_vision_model", "_attn_implementation_autoset": True, "hidden_size": 1408,
        "image_size": 336, "intermediate_size": 5632, "multi_modal_projector_bias": False, "norm_eps": 1e-5,
        "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 34, "patch_size": 14,
        "pixel_shuffle_ratio": 0.5, "projector_dropout": 0.0, "projector_input_dim": 4096,
        "projector_output_dim": 4096, "rope_theta": 10000, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default", "vision_output_dim": 4096,
    },
}  # fmt: skip
_LLAVA = {
    "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100,
    "image_token_index": 32000, "pad_token_id": 32001, "projector_hidden_act": "gelu", "vocab_size": 32064,
    "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    "text_config": {"model_type": "llama", "_name_or_path": "lmsys/vicuna-7b-v1.5", "hidden_size": 4096,
                    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
                    "max_position_embeddings": 4096, "vocab_size": 32064},
    "vision_config": {"model_type": "clip_vision_model", **_LARGE, "image_size": 336, "patch_size": 14,
                      "projection_dim": 768, "vocab_size": 32000},
}  # fmt: skip
_SMOLVLM = {
    "model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"], "image_seq_len": 64,
    "image_token_id": 49190, "pad_token_id": 128002, "scale_factor": 4, "tie_word_embeddings": False,
    "use_cache": False, "vocab_size": 49280,
    "text_config": {"model_type": "llama", "_flash_attn_2_enabled": True, "head_dim": 64, "hidden_size": 960,
                    "intermediate_size": 2560, "is_llama_config": True, "max_position_embeddings": 8192,
                    "neftune_noise_alpha": 0.0, "num_attention_heads": 15, "num_key_value_heads": 5,
                    "num_hidden_layers": 32, "perceiver_config": {"model_type": "vllama3"},
                    "pixel_shuffle_factor": 4, "qk_layer_norms": False, "use_resampler": False, "vocab_size": 49280},
    "vision_config": {"model_type": "smolvlm_vision", "hidden_size": 768, "image_size": 512, "patch_size": 16,
                      "max_image_size": {"longest_edge": 512}, "num_attention_heads": 12,
                      "size": {"longest_edge": 2048}, "tie_word_embeddings": False, "use_base_siglip": False},
}  # fmt: skip
PUBLISHED_IMAGES: Mapping[str, tuple[dict[str, Any], int]] = {
    "ViT base": (
        {"model_type": "vit", "num_labels": 1000, "encoder_stride": 16, "qkv_bias": True}, 86_567_656
    ),
    "ViT base without a head": (
        {"model_type": "vit", "architectures": ["ViTModel"], "encoder_stride": 16, "qkv_bias": True}, 86_389_248
    ),
    "ViT large": ({"model_type": "vit", "num_labels": 1000, **_LARGE}, 304_326_632),
    "DeiT base distilled": (
        {"model_type": "deit", "num_labels": 1000, "architectures": ["DeiTForImageClassificationWithTeacher"]},
        87_338_192,
    ),
    "DINOv2 base": (_DINOV2, 86_580_480),
    "DINOv2 giant": (
        {**_DINOV2, "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True},
        1_136_480_768,
    ),
    "CLIP ViT-B/32": (
        {"model_type": "clip", "text_config": _OLD, "text_config_dict": None, "vision_config": _OLD}, 151_277_313
    ),
    "CLIP ViT-L/14": (
        {"model_type": "clip", "projection_dim": 768, "vision_config": {**_OLD, **_LARGE, "patch_size": 14},
         "text_config": {**_OLD, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}},
        427_616_513,
    ),
    "SigLIP base": ({"model_type": "siglip"}, 203_155_970),
    "SigLIP so400m": (
        {"model_type": "siglip", "text_config": _SO400M,
         "vision_config": {**_SO400M, "image_size": 384, "patch_size": 14}},
        877_960_498,
    ),
    "Qwen2-VL 2B": (
        {**_QWEN25_VL, "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"],
         "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
         "tie_word_embeddings": True, "vocab_size": 151936,
         "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
                           "hidden_size": 1536, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
                           "temporal_patch_size": 2}},
        2_208_985_600,
    ),
    "Qwen2.5-VL 7B": (_QWEN25_VL, 8_292_166_656),
    "Qwen3-VL 8B": (_QWEN3_VL, 8_767_123_696),
    "Qwen3-VL 30B A3B": (
        {**_QWEN3_VL, "model_type": "qwen3_vl_moe",
         "text_config": {**_QWEN3_VL["text_config"], "decoder_sparse_step": 1, "hidden_size": 2048,
                         "intermediate_size": 6144, "moe_intermediate_size": 768, "mlp_only_layers": [],
                         "norm_topk_prob": True, "num_experts": 128, "num_experts_per_tok": 8,
                         "num_hidden_layers": 48, "num_key_value_heads": 4},
         "vision_config": {**_QWEN3_VL["vision_config"], "out_hidden_size": 2048}},
        31_070_754_032,
    ),
    "Llama 4 Scout": (_SCOUT, 108_641_793_536),
    "LLaVA 1.5 7B": (_LLAVA, 7_063_427_072),
    "SmolVLM 500M": (_SMOLVLM, 507_482_304),
}  # fmt: skip
