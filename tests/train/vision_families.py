"""Small real models that read images, and a batch for each: tensors, and the counters of their work."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.train.pytorch import torch

IMAGES, TEXTS, LENGTH = 3, 2, 24
_VIT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
_DINO = {name: value for name, value in _VIT.items() if name != "intermediate_size"}
_WORDS = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
          "vocab_size": 128, "max_position_embeddings": 32, "eos_token_id": 2}  # fmt: skip
_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
}  # fmt: skip
_LLAMA = {name: value for name, value in _TEXT.items() if name != "rope_parameters"}
_DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_EYES = {"depth": 3, "num_heads": 4, "patch_size": 4}
_MARKS = {"image_token_id": 3, "video_token_id": 2, "vision_start_token_id": 1, "vision_end_token_id": 0}
_TARGETS = ["q_proj", "v_proj"]
VISION_FAMILIES: Mapping[str, tuple[str, dict[str, Any], list[str]]] = {
    "vit": ("AutoModelForImageClassification", {**_VIT, "num_labels": 5}, _TARGETS),
    "deit": (
        "AutoModelForImageClassification",
        {**_VIT, "num_labels": 5, "architectures": ["DeiTForImageClassification"]},
        _TARGETS,
    ),
    "dinov2": ("AutoModelForImageClassification", {**_DINO, "num_labels": 5}, _TARGETS),
    "dinov2, gated": ("AutoModelForImageClassification", {**_DINO, "use_swiglu_ffn": True}, ["up_proj"]),
    "clip": ("AutoModel", {"vision_config": _VIT, "text_config": _WORDS, "projection_dim": 24}, _TARGETS),
    "clip_vision_model": ("AutoModel", _VIT, _TARGETS),
    "clip_text_model": ("AutoModel", _WORDS, _TARGETS),
    "siglip": ("AutoModel", {"vision_config": _VIT, "text_config": {**_WORDS, "projection_size": 32}}, ["fc1"]),
    "siglip_vision_model": ("AutoModel", _VIT, _TARGETS),
    "qwen2_vl": (
        "AutoModelForImageTextToText",
        {**_MARKS, "text_config": _TEXT, "vision_config": {**_EYES, "embed_dim": 32, "hidden_size": 64}},
        ["q_proj", "qkv"],
    ),
    "qwen2_5_vl": (
        "AutoModelForImageTextToText",
        {**_MARKS, "text_config": _TEXT,
         "vision_config": {**_EYES, "intermediate_size": 48, "hidden_size": 32, "out_hidden_size": 64, "window_size": 16,
                           "fullatt_block_indexes": [1]}},
        _TARGETS,
    ),
    "qwen3_vl": (
        "AutoModelForImageTextToText",
        {**_MARKS, "tie_word_embeddings": True, "text_config": {**_TEXT, "head_dim": 16},
         "vision_config": {**_EYES, "intermediate_size": 48, "hidden_size": 32, "out_hidden_size": 64, "num_position_embeddings": 16,
                           "deepstack_visual_indexes": [0, 1]}},
        ["v_proj", "linear_fc1"],
    ),
    "qwen3_vl_moe": (
        "AutoModelForImageTextToText",
        {**_MARKS, "tie_word_embeddings": False,
         "text_config": {**_TEXT, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
         "vision_config": {**_EYES, "intermediate_size": 48, "hidden_size": 32, "out_hidden_size": 64, "num_position_embeddings": 16,
                           "deepstack_visual_indexes": [0]}},
        ["all-linear"],
    ),
    "qwen3_5": (
        "AutoModelForImageTextToText",
        {**_MARKS, "text_config": {**_TEXT, "head_dim": 16, **_DELTA},
         "vision_config": {**_EYES, "intermediate_size": 48, "hidden_size": 32, "out_hidden_size": 64,
                           "num_position_embeddings": 16}},
        ["q_proj", "qkv"],
    ),
    "llama4": (
        "AutoModelForImageTextToText",
        {"image_token_index": 3,
         "text_config": {**_LLAMA, "head_dim": 16, "num_experts_per_tok": 1, "intermediate_size_mlp": 96, "num_local_experts": 3,
                         "attention_chunk_size": 8},
         "vision_config": {**_VIT, "intermediate_size": 128, "vision_output_dim": 40, "projector_input_dim": 40,
                           "projector_output_dim": 40}},
        ["v_proj", "linear_1"],
    ),
    "llava": (
        "AutoModelForImageTextToText",
        {"image_token_index": 3, "text_config": {**_LLAMA, "model_type": "mistral"},
         "vision_config": {**_VIT, "model_type": "clip_vision_model"}},
        _TARGETS,
    ),
    **dict.fromkeys(
        ("idefics3", "smolvlm"),
        (
            "AutoModelForImageTextToText",
            {"image_token_id": 3, "text_config": {**_LLAMA, "model_type": "llama", "pad_token_id": 0},
             "vision_config": _VIT},
            ["q_proj", "proj"],
        ),
    ),
    "qwen3_5_moe": (
        "AutoModelForImageTextToText",
        {**_MARKS, "text_config": {**_TEXT, "head_dim": 16, **_DELTA, "num_experts": 4, "num_experts_per_tok": 2,
                                   "moe_intermediate_size": 32, "shared_expert_intermediate_size": 24},
         "vision_config": {**_EYES, "intermediate_size": 48, "hidden_size": 32, "out_hidden_size": 64,
                           "num_position_embeddings": 16}},
        ["q_proj"],
    ),
}  # fmt: skip

# The closest configuration to a class's own with which a model can be built.
VISION_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "deit": {"num_hidden_layers": 2, "architectures": ["DeiTForImageClassification"]},
    **{family: {"text_config": {}, "vision_config": {"num_hidden_layers": 2}} for family in ("clip", "siglip")},
    **{
        family: {"text_config": {"num_hidden_layers": 2}, "vision_config": {"depth": 27}}
        for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
    },
    "llama4": {"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}},
    **{
        family: {"text_config": {"model_type": "llama", "num_hidden_layers": 2}}
        for family in ("llava", "idefics3", "smolvlm")
    },
}


def images_alone(class_tokens: int) -> dict[str, int]:
    rows = 16 + class_tokens
    return {"images": IMAGES, "patches": IMAGES * rows, "patch_square_pairs": IMAGES * rows**2}


def pixels() -> Any:
    return torch.rand(IMAGES, 3, 16, 16)


def _classified(class_tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
    return {"pixel_values": pixels(), "labels": torch.randint(0, 2, (IMAGES,))}, images_alone(class_tokens)


def _plain(class_tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
    return {"pixel_values": pixels()}, images_alone(class_tokens)


def _texts() -> tuple[dict[str, Any], dict[str, int]]:
    work = {"tokens": TEXTS * LENGTH, "sequences": TEXTS, "square_pairs": TEXTS * LENGTH**2, "padding_tokens": 0}
    return {"input_ids": torch.randint(4, 128, (TEXTS, LENGTH))}, work


def _compared(class_tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
    (words, text), (seen, image) = _texts(), _plain(class_tokens)
    return {**words, **seen}, {**text, **image, "cross_pairs": TEXTS * IMAGES}


def _grids() -> tuple[dict[str, Any], dict[str, int]]:
    """Images of 4 x 6 and 2 x 8 patches, 10 tokens of 2 x 2 patches, in the first of two texts."""
    ids = torch.randint(4, 128, (TEXTS, LENGTH))
    ids[0, 4:10] = ids[0, 12:16] = 3
    inputs = {
        "input_ids": ids, "labels": ids, "pixel_values": torch.rand(24 + 16, 3 * 2 * 4 * 4),
        "image_grid_thw": torch.tensor([[1, 4, 6], [1, 2, 8]]), "mm_token_type_ids": (ids == 3).int(),
    }  # fmt: skip
    _, work = _texts()
    windows = 16**2 + 8**2 + 2 * 8**2  # of at most 4 x 4 patches
    seen = {"images": 2, "patches": 40, "patch_square_pairs": 24**2 + 16**2, "patch_window_pairs": windows}
    return inputs, {**work, **seen}


def _squares(class_tokens: int, tokens: int, count: int = 1) -> tuple[dict[str, Any], dict[str, int]]:
    """Images of 16 patches, which become `tokens` tokens each, in the first of two texts."""
    ids = torch.randint(4, 128, (TEXTS, LENGTH))
    ids[0, : count * tokens] = 3
    _, work = _texts()
    rows = 16 + class_tokens
    seen = {"images": count, "patches": count * rows, "patch_square_pairs": count * rows**2}
    return {"input_ids": ids, "labels": ids, "pixel_values": pixels()[:count]}, {**work, **seen}


def _gemma3() -> tuple[dict[str, Any], dict[str, int]]:
    inputs, work = _squares(0, 4, 3)
    return {**inputs, "token_type_ids": (inputs["input_ids"] == 3).long()}, work


def _tiles() -> tuple[dict[str, Any], dict[str, int]]:
    """Two tiles for the first text; the second has none, and gets a blank one."""
    inputs, work = _squares(0, 4, 2)
    blank = torch.zeros(1, 2, 3, 16, 16)
    return {**inputs, "pixel_values": torch.cat([inputs["pixel_values"][None], blank])}, work


def _llama4() -> tuple[dict[str, Any], dict[str, int]]:
    from transformers.models.llama4 import modeling_llama4

    # transformers 5.24 reads it from an output of the decoder, which has none.
    modeling_llama4.MoeCausalLMOutputWithPast.image_outputs = None
    return _squares(1, 4, 3)


Batch = Callable[[], tuple[dict[str, Any], dict[str, int]]]
BATCHES: Mapping[str, Batch] = {
    "vit": lambda: _classified(1),
    "deit": lambda: _classified(2),
    "dinov2": lambda: _classified(1),
    "dinov2, gated": lambda: _classified(1),
    "clip": lambda: _compared(1),
    "clip_vision_model": lambda: _plain(1),
    "clip_text_model": _texts,
    "siglip": lambda: _compared(0),
    "siglip_vision_model": lambda: _plain(0),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), _grids),
    **dict.fromkeys(("idefics3", "smolvlm"), _tiles),
    "gemma3": _gemma3,
    "llama4": _llama4,
    "llava": lambda: _squares(1, 16),
}


def loss_of(output: Any) -> Any:
    """The value from which a training would go back; a sum where the class has no loss of its own."""
    for name in ("loss", "logits_per_text", "pooler_output"):
        if (found := getattr(output, name, None)) is not None:
            return found.sum()
    raise AssertionError(output.keys())
