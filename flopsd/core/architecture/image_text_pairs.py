"""CLIP and SigLIP: an image encoder, a text encoder, and the scores of each text with each image of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import Head, class_name, head_of, labels, no_head
from flopsd.core.architecture.image_encoders import images_alone, siglip_head
from flopsd.core.architecture.image_towers import Tower, encoder_attention, read_tower
from flopsd.core.architecture.model import Block, Embedding, Linear, Mask, Model, Similarity, Stream
from flopsd.core.architecture.parts import plain_mlp
from flopsd.errors import ArchitectureError

_IMAGES, _SEQUENCES = Stream.IMAGES, Stream.SEQUENCES
_PROJECTION = ("projection_dim",)  # of a tower within a pair, where the pair's own field counts
_UNREAD = ("tie_word_embeddings",)  # no tower has a head


def read_clip_text(config: Mapping[str, Any]) -> Model:
    """CLIP's text tower on its own, with or without its projection."""
    fields = Fields("clip_text_model", config)
    projected = class_name(fields).endswith("WithProjection")
    text = _Text(fields, "text_model." if projected else "")
    projection = Linear("text_projection", text.width, fields.number("projection_dim", 512), stream=_SEQUENCES)
    heads: dict[str, Head] = {"TextModelWithProjection": lambda: (projection,), "Model": no_head}
    head = head_of(fields, heads, "TextModel")
    fields.finish(_UNREAD)
    return Model(
        "clip_text_model", text.embeddings, blocks=text.blocks, heads=head, others=text.others,
        max_positions=text.positions,
    )  # fmt: skip


def read_clip(config: Mapping[str, Any]) -> Model:
    """CLIP: both towers, a projection of each, and the scores of each text with each image of a batch; or a classifier
    on the image tower."""
    fields = Fields("clip", config)
    vision, text = _inner(fields, "vision", "clip_vision_model"), _inner(fields, "text", "clip_text_model")
    tower = read_tower(vision, "vision_model.")
    common = fields.number("projection_dim", 512)
    fields.get("logit_scale_init_value")
    vision.finish((*_PROJECTION, *_UNREAD))
    if class_name(fields).endswith("ForImageClassification"):
        classifier = Linear("classifier", tower.width, labels(fields), True, stream=_IMAGES)
        fields.finish(_UNREAD)
        return images_alone("clip", tower, heads=(classifier,))
    words = _Text(text, "text_model.")
    text.finish((*_PROJECTION, *_UNREAD))
    head_of(fields, {"CLIPModel": no_head}, "CLIPModel")
    fields.finish(_UNREAD)
    projections = (
        _projection("visual_projection", tower.width, common, _IMAGES, Stream.PATCHES),
        _projection("text_projection", words.width, common, _SEQUENCES, Stream.TOKENS),
    )
    return _compared("clip", tower, words, None, projections, common, others=1)


def read_siglip(config: Mapping[str, Any]) -> Model:
    """SigLIP: both towers, and the scores of each text with each image; or a classifier on the image tower."""
    fields = Fields("siglip", config)
    vision, text = _inner(fields, "vision", "siglip_vision_model"), _inner(fields, "text", "siglip_text_model")
    tower = read_tower(vision, "vision_model.")
    if class_name(fields).endswith("ForImageClassification"):
        vision.get("vision_use_head")  # this class has none
        vision.finish(_UNREAD)
        classifier = Linear("classifier", tower.width, labels(fields), True, stream=_IMAGES)
        fields.finish(_UNREAD)
        return images_alone("siglip", tower, heads=(classifier,))
    pooled = siglip_head(vision, "vision_model.", tower)
    vision.finish(_UNREAD)
    words = _Text(text, "text_model.")
    common = text.number("projection_size", words.width)
    text.finish(_UNREAD)
    if common != tower.width:
        raise text.wrong("projection_size", common)
    head_of(fields, {"SiglipModel": no_head}, "SiglipModel")
    fields.finish(_UNREAD)
    head = _projection("text_model.head", words.width, common, _SEQUENCES, Stream.TOKENS, bias=True)
    return _compared("siglip", tower, words, pooled, (head,), common, others=2)


class _Text:
    """A text tower. In CLIP a token sees earlier ones, in SigLIP all."""

    def __init__(self, fields: Fields, prefix: str) -> None:
        clip = fields.family == "clip_text_model"
        self.width, layers = fields.number("hidden_size", 512 if clip else 768), fields.layers("num_hidden_layers", 12)
        heads = fields.heads("num_attention_heads", self.width, 8 if clip else 12)
        size = fields.number("intermediate_size", 2048 if clip else 3072)
        self.positions = fields.number("max_position_embeddings", 77 if clip else 64)
        vocabulary = fields.number("vocab_size", 49408 if clip else 32000)
        mask, stream = Mask.CAUSAL if clip else Mask.FULL, Stream.TOKENS

        def block(path: str) -> Block:
            attention = encoder_attention(f"{path}.self_attn", self.width, heads, mask=mask, stream=stream)
            return Block(
                path, (attention, plain_mlp(f"{path}.mlp", self.width, size, stream=stream)), others=4 * self.width
            )

        self.blocks = tuple(block(f"{prefix}encoder.layers.{index}") for index in range(layers))
        self.embeddings = (
            Embedding(f"{prefix}embeddings.token_embedding", vocabulary, self.width),
            Embedding(f"{prefix}embeddings.position_embedding", self.positions, self.width),
        )
        self.others = 2 * self.width


def _projection(path: str, inputs: int, outputs: int, stream: Stream, source: Stream, *, bias: bool = False) -> Block:
    matrix = Linear(path, inputs, outputs, bias, stream=stream)
    return Block(path, (matrix,), stream=stream, source=source, checkpointed=False)


def _compared(
    family: str, tower: Tower, words: _Text, pooled: tuple[Embedding, Block] | None, projections: tuple[Block, ...],
    common: int, *, others: int,
) -> Model:  # fmt: skip
    alone = images_alone(family, tower, pooled)
    scores = Block("logits_per_text", (Similarity(common),), stream=_SEQUENCES, checkpointed=False)
    return replace(
        alone,
        embeddings=(*alone.embeddings, *words.embeddings),
        blocks=(*alone.blocks, *words.blocks, *projections, scores),
        others=alone.others + words.others + others,
        max_positions=words.positions,
    )


def _inner(fields: Fields, which: str, family: str) -> Fields:
    """The configuration of one tower; the older field of the same content takes precedence, as in transformers."""
    whole, older = fields.get(f"{which}_config"), fields.get(f"{which}_config_dict")
    config = whole if older is None else older
    if not isinstance(config, Mapping | None):
        raise ArchitectureError(
            "field_no_object", family=fields.family, name=f"{which}_config", hint="give the whole config.json"
        )
    return Fields(family, config or {})
