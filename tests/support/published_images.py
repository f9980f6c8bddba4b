"""Configurations of published models that read images, with what their checkpoints hold, in all and for one row."""

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
}  # fmt: skip
