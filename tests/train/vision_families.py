"""Small real models that read images, and a batch for each: tensors, and the counters of their work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

IMAGES, TEXTS, LENGTH = 3, 2, 24
_VIT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
_DINO = {name: value for name, value in _VIT.items() if name != "intermediate_size"}
_WORDS = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
          "vocab_size": 128, "max_position_embeddings": 32, "eos_token_id": 2}  # fmt: skip
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
}  # fmt: skip

# As near to a class's own configuration as a model of it can be built.
VISION_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "deit": {"num_hidden_layers": 2, "architectures": ["DeiTForImageClassification"]},
    **{family: {"text_config": {}, "vision_config": {"num_hidden_layers": 2}} for family in ("clip", "siglip")},
}


def images_alone(class_tokens: int) -> dict[str, int]:
    rows = 16 + class_tokens
    return {"images": IMAGES, "patches": IMAGES * rows, "patch_square_pairs": IMAGES * rows**2}


def pixels() -> Any:
    import torch

    return torch.rand(IMAGES, 3, 16, 16)


def _classified(class_tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
    import torch

    return {"pixel_values": pixels(), "labels": torch.randint(0, 2, (IMAGES,))}, images_alone(class_tokens)


def _plain(class_tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
    return {"pixel_values": pixels()}, images_alone(class_tokens)


def _texts() -> tuple[dict[str, Any], dict[str, int]]:
    import torch

    work = {"tokens": TEXTS * LENGTH, "sequences": TEXTS, "square_pairs": TEXTS * LENGTH**2, "padding_tokens": 0}
    return {"input_ids": torch.randint(4, 128, (TEXTS, LENGTH))}, work


def _compared(class_tokens: int) -> tuple[dict[str, Any], dict[str, int]]:
    (words, text), (seen, image) = _texts(), _plain(class_tokens)
    return {**words, **seen}, {**text, **image, "cross_pairs": TEXTS * IMAGES}


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
}


def loss_of(output: Any) -> Any:
    """What a training would go back from; a sum where the class has no loss of its own."""
    for name in ("loss", "logits_per_text", "pooler_output"):
        if (found := getattr(output, name, None)) is not None:
            return found.sum()
    raise AssertionError(output.keys())
