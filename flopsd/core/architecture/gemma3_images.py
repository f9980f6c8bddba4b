"""Gemma 3 with its image tower: a decoder, a SigLIP encoder before it, and the projection between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoders import read_decoder
from flopsd.core.architecture.heads import Head, head_of
from flopsd.core.architecture.model import Attention, Block, Embedding, Images, Linear, Mask, Mlp, Model, Stream
from flopsd.errors import ArchitectureError

_TOWER = "model.vision_tower.vision_model"


def read_gemma3(config: Mapping[str, Any]) -> Model:
    """Gemma 3 for images and text. How many images passed is in no counter, so they are in the upper bound only."""
    fields = Fields("gemma3", config)
    text, vision = fields.get("text_config"), fields.get("vision_config")
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise ArchitectureError("gemma3: text_config or vision_config is missing", hint="give the whole config.json")
    text = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, **text}
    decoder = read_decoder("gemma3_text", text, prefix="model.language_model.", head=False)
    width = decoder.embeddings[0].width
    tokens = fields.number("mm_tokens_per_image", 256)
    # transformers ties them by the outer configuration; the inner one has the field too.
    tied = fields.flag("tie_word_embeddings", True)
    language = Linear("lm_head", width, decoder.embeddings[0].rows, tied=tied)
    known: dict[str, Head] = {"ForConditionalGeneration": lambda: ((language,), 0), "Model": lambda: ((), 0)}
    heads, _ = head_of(fields, known, "ForConditionalGeneration")
    tower = _Tower(vision)
    side = tower.vision_width
    projection = Linear(
        "model.multi_modal_projector.mm_input_projection_weight", side, width, stream=Stream.SOFT, adaptable=False
    )
    fields.finish()
    return replace(
        decoder,
        family="gemma3",
        embeddings=(*tower.embeddings, *decoder.embeddings),
        stem=(tower.patches, projection),
        blocks=(*tower.blocks, *decoder.blocks),
        heads=heads,
        others=decoder.others + 2 * side + side,
        images=Images(tower.count, tokens),
        notes=("no counter tells how many images passed: the upper bound has as many as the tokens could stand for",),
    )


class _Tower:
    """SigLIP: an encoder of patches."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        fields = Fields("siglip_vision_model", config)
        width, layers = fields.number("hidden_size", 768), fields.layers("num_hidden_layers", 12)
        size, heads = fields.number("intermediate_size", 3072), fields.number("num_attention_heads", 12)
        image, patch = fields.number("image_size", 224), fields.number("patch_size", 16)
        channels = fields.number("num_channels", 3)
        fields.only("vision_use_head", False, missing=True)
        fields.finish()
        if width % heads or image < patch:
            raise fields.wrong("num_attention_heads", heads)
        self.vision_width, self.count = width, (image // patch) ** 2

        def linear(path: str, inputs: int, outputs: int, adaptable: bool = True) -> Linear:
            return Linear(path, inputs, outputs, True, stream=Stream.PATCHES, adaptable=adaptable)

        self.embeddings = (Embedding(f"{_TOWER}.embeddings.position_embedding", self.count, width, Stream.PATCHES),)
        self.patches = linear(f"{_TOWER}.embeddings.patch_embedding", channels * patch**2, width, False)

        def block(path: str) -> Block:
            feeds = ("k", "v", "q")
            projections = tuple(linear(f"{path}.self_attn.{name}_proj", width, width) for name in feeds)
            output, each = linear(f"{path}.self_attn.out_proj", width, width), width // heads
            attention = Attention(Mask.FULL, heads, each, projections, feeds, output, stream=Stream.PATCHES)
            mlp = Mlp((linear(f"{path}.mlp.fc1", width, size),), linear(f"{path}.mlp.fc2", size, width))
            return Block(path, (attention, mlp), others=4 * width, stream=Stream.PATCHES)

        self.blocks = tuple(block(f"{_TOWER}.encoder.layers.{index}") for index in range(layers))
