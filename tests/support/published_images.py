"""Configurations of published models that read images, with the parameters that their checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
# Fields that files of CLIP's time have in each tower.
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
# Files of its time have the fields of the text outside.
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
PUBLISHED_IMAGES: Mapping[str, tuple[dict[str, Any], int]] = {
    "ViT base": (
        {"model_type": "vit", "num_labels": 1000, "encoder_stride": 16, "qkv_bias": True}, 86_567_656
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
}  # fmt: skip
