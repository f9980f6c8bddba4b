"""Decoders that read images: an image tower, a projection of its rows to the decoder's width, and the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoders import read_decoder
from flopsd.core.architecture.heads import Head, head_of
from flopsd.core.architecture.image_towers import Tower, read_tower
from flopsd.core.architecture.model import Block, Embedding, Images, Linear, Model, Part, Stream
from flopsd.errors import ArchitectureError

Layers = tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Eyes:
    """What stands before a decoder: an image tower with its projection, in the order of the forward pass."""

    embeddings: tuple[Embedding, ...]
    stem: tuple[Linear, ...]
    blocks: Layers
    images: Images
    others: int = 0


def read_gemma3(config: Mapping[str, Any]) -> Model:
    """Gemma 3: SigLIP, whose patches are averaged to soft tokens before the projection."""
    fields = Fields("gemma3", config)
    text = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, **inner_config(fields, "text")}
    decoder = read_decoder("gemma3_text", text, prefix="model.language_model.", head=False)
    vision = Fields("siglip_vision_model", inner_config(fields, "vision"))
    tower = read_tower(vision, "model.vision_tower.")
    vision.only("vision_use_head", False, missing=True)
    vision.finish()
    tokens, count = fields.number("mm_tokens_per_image", 256), tower.images.patches or 0
    if count % tokens:
        raise fields.wrong("mm_tokens_per_image", tokens)
    projection = Linear(
        "model.multi_modal_projector.mm_input_projection_weight", tower.width, decoder.embeddings[0].width,
        stream=Stream.SOFT, adaptable=False,
    )  # fmt: skip
    bridge = bridge_of("model.multi_modal_projector", projection, others=tower.width)
    # transformers ties them by the outer configuration; the inner one has the field too.
    model = with_images(fields, decoder, eyes_of(tower, bridge, merge=count // tokens), tied=True)
    fields.finish()
    return model


def inner_config(fields: Fields, which: str) -> Mapping[str, Any]:
    """The configuration of the text or of the vision part."""
    config = fields.get(f"{which}_config")
    if not isinstance(config, Mapping):
        raise ArchitectureError(f"{fields.family}: {which}_config is missing", hint="give the whole config.json")
    return config


def bridge_of(path: str, *parts: Part, others: int = 0) -> Block:
    """A projection of a tower's rows to soft tokens; not a layer, so activation checkpointing leaves it alone."""
    return Block(path, parts, others=others, stream=Stream.SOFT, source=Stream.PATCHES, checkpointed=False)


def eyes_of(tower: Tower, bridge: Block, *, merge: int = 1) -> Eyes:
    images = replace(tower.images, merge=merge)
    return Eyes(tower.embeddings, tower.stem, (*tower.blocks, bridge), images, tower.others)


def with_images(fields: Fields, decoder: Model, eyes: Eyes, *, tied: bool) -> Model:
    """The decoder behind its tower, with the head that the outer configuration names. `tied`: the default of whether
    the head's weights are those of the embedding."""
    table = decoder.embeddings[0]
    language = Linear("lm_head", table.width, table.rows, tied=fields.flag("tie_word_embeddings", tied))
    known: dict[str, Head] = {"ForConditionalGeneration": lambda: ((language,), 0), "Model": lambda: ((), 0)}
    heads, _ = head_of(fields, known, "ForConditionalGeneration")
    return replace(
        decoder,
        family=fields.family,
        embeddings=(*eyes.embeddings, *decoder.embeddings),
        stem=(*eyes.stem, *decoder.stem),
        blocks=(*eyes.blocks, *decoder.blocks),
        heads=heads,
        others=decoder.others + eyes.others,
        images=eyes.images,
    )
