"""Image-only models: ViT, DeiT, DINOv2, and the image towers of CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import Head, class_name, head_of, labels, no_head
from flopsd.core.architecture.image_towers import Tower, pooling_head, read_tower
from flopsd.core.architecture.model import Block, Embedding, Linear, Model, Stream

_IMAGES = Stream.IMAGES
_UNREAD = ("encoder_stride", "pooler_act", "layerscale_value", "drop_path_rate", "apply_layernorm", "_out_features",
           "_out_indices", "out_features", "out_indices", "reshape_hidden_states", "stage_names",
           "tie_word_embeddings")  # fmt: skip


def read_vit(family: str, config: Mapping[str, Any]) -> Model:
    """ViT, DeiT and DINOv2, with a classifier, which reads one row per image, or the pooler of the bare class."""
    fields = Fields(family, config)
    tower = read_tower(fields, "" if class_name(fields).endswith("Model") else f"{family}.")
    width, dinov2 = tower.width, family == "dinov2"
    pooled = fields.number("pooler_output_size", width)

    def classifier(name: str = "classifier") -> Linear:
        return Linear(name, width * (2 if dinov2 else 1), labels(fields), True, stream=_IMAGES)

    pooler = () if dinov2 else (Linear("pooler.dense", width, pooled, True, stream=_IMAGES),)
    heads: dict[str, Head] = {"ForImageClassification": lambda: (classifier(),), "Model": lambda: pooler}
    if family == "deit":
        both = classifier("cls_classifier"), classifier("distillation_classifier")
        heads["ForImageClassificationWithTeacher"] = lambda: both
    head = head_of(fields, heads, "ForImageClassification")
    masked = width if dinov2 and fields.flag("use_mask_token", True) else 0
    fields.finish(_UNREAD)
    return images_alone(family, tower, heads=head, others=masked)


def read_clip_vision(config: Mapping[str, Any]) -> Model:
    """CLIP's image tower on its own, with or without its projection."""
    fields = Fields("clip_vision_model", config)
    projected = class_name(fields).endswith("WithProjection")
    tower = read_tower(fields, "vision_model." if projected else "")
    projection = Linear("visual_projection", tower.width, fields.number("projection_dim", 512), stream=_IMAGES)
    heads: dict[str, Head] = {"VisionModelWithProjection": lambda: (projection,), "Model": no_head}
    head = head_of(fields, heads, "VisionModel")
    fields.finish()
    return images_alone("clip_vision_model", tower, heads=head)


def read_siglip_vision(config: Mapping[str, Any]) -> Model:
    """SigLIP's image tower on its own."""
    fields = Fields("siglip_vision_model", config)
    tower = read_tower(fields)
    pooled = siglip_head(fields, "", tower)
    head_of(fields, {"Model": no_head}, "VisionModel")
    fields.finish()
    return images_alone("siglip_vision_model", tower, pooled)


def siglip_head(fields: Fields, prefix: str, tower: Tower) -> tuple[Embedding, Block] | None:
    return pooling_head(f"{prefix}head", tower) if fields.flag("vision_use_head", True) else None


def images_alone(
    family: str,
    tower: Tower,
    pooled: tuple[Embedding, Block] | None = None,
    *,
    heads: tuple[Linear, ...] = (),
    others: int = 0,
) -> Model:
    """A model without text input."""
    probe, pooling = ((pooled[0],), (pooled[1],)) if pooled else ((), ())
    return Model(
        family, (*tower.embeddings, *probe), tower.stem, (*tower.blocks, *pooling), heads,
        others=tower.others + others, images=tower.images,
    )  # fmt: skip
