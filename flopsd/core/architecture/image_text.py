"""Decoders that read images: an image tower, a projection of its rows to the decoder's width, and the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_families import STYLES
from flopsd.core.architecture.decoders import read_decoder
from flopsd.core.architecture.heads import Head, head_of, no_head
from flopsd.core.architecture.image_towers import Tower, read_tower
from flopsd.core.architecture.model import Block, Linear, Mlp, Model, Part, Stream
from flopsd.errors import ArchitectureError


def read_gemma3(config: Mapping[str, Any]) -> Model:
    """Gemma 3: SigLIP, whose patches are averaged to soft tokens before the projection."""
    fields = Fields("gemma3", config)
    text = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, **inner_config(fields, "text")}
    decoder = read_decoder("gemma3_text", text, "model.language_model.")
    vision = Fields("siglip_vision_model", inner_config(fields, "vision"))
    tower = read_tower(vision, "model.vision_tower.")
    vision.only("vision_use_head", False, missing=True)
    vision.finish()
    tokens, count = fields.number("mm_tokens_per_image", 256), tower.images.patches or 0
    if count % tokens and tokens < count:  # the class's own default has fewer patches than tokens and cannot run
        raise fields.wrong("mm_tokens_per_image", tokens)
    projection = Linear(
        "model.multi_modal_projector.mm_input_projection_weight", tower.width, decoder.embeddings[0].width,
        stream=Stream.SOFT, adaptable=False,
    )  # fmt: skip
    bridge = bridge_of("model.multi_modal_projector", projection, others=tower.width)
    # transformers ties them by the outer configuration, although the inner one has the field too.
    model = with_images(fields, decoder, vision_part(tower, bridge, merge=max(1, count // tokens)), tied=True)
    fields.finish()
    return model


_LLAMA4_VISION = {"num_hidden_layers": 34, "num_attention_heads": 16, "intermediate_size": 5632, "image_size": 448}


def read_llama4(config: Mapping[str, Any]) -> Model:
    """Llama 4: the channels of each square of patches are concatenated and pass an MLP before the projection."""
    fields = Fields("llama4", config)
    decoder = read_decoder("llama4_text", inner_config(fields, "text"), "language_model.model.")
    vision = Fields("llama4_vision_model", inner_config(fields, "vision"), _LLAMA4_VISION)
    tower = read_tower(vision, "vision_model.")
    side = _shuffled_side(vision)
    between, out = vision.number("projector_input_dim", 4096), vision.number("projector_output_dim", 4096)
    last = vision.number("vision_output_dim", 7680)
    vision.only("multi_modal_projector_bias", False)
    vision.finish(("norm_eps", "projector_dropout", "vision_feature_layer", "vision_feature_select_strategy"))
    path = "vision_model.vision_adapter.mlp"
    adapter = Mlp(
        (Linear(f"{path}.fc1", tower.size, between, stream=Stream.SOFT),),
        Linear(f"{path}.fc2", out, out, stream=Stream.SOFT),
    )
    projection = Linear("multi_modal_projector.linear_1", last, decoder.embeddings[0].width, stream=Stream.SOFT)
    eyes = vision_part(tower, bridge_of("multi_modal_projector", adapter, projection), merge=side**2)
    model = with_images(fields, decoder, eyes, tied=False)
    fields.finish()
    return model


def _shuffled_side(fields: Fields) -> int:
    """Patches on a side of the square that becomes one token; the field is the inverse, in declared facts as text."""
    ratio = fields.get("pixel_shuffle_ratio", 0.5)
    try:
        side = 1 / Fraction(str(ratio))
    except (ValueError, ZeroDivisionError) as fault:
        raise fields.wrong("pixel_shuffle_ratio", ratio) from fault
    if side.denominator != 1 or side < 1:
        raise fields.wrong("pixel_shuffle_ratio", ratio)
    return side.numerator


def read_llava(config: Mapping[str, Any]) -> Model:
    """LLaVA: patches of CLIP or SigLIP through an MLP, before any decoder. If the layer that is read is not the last,
    the layers after it are computed without use."""
    fields = Fields("llava", config)
    text, images = inner_config(fields, "text"), inner_config(fields, "vision")
    family, kind = str(text.get("model_type", "llama")), str(images.get("model_type", "clip_vision_model"))
    if family not in STYLES or kind not in ("clip_vision_model", "siglip_vision_model"):
        raise ArchitectureError(
            "parts_not_read", family=fields.family, parts=(f"{family:.60}", f"{kind:.60}"), hint=fields.instead()
        )
    decoder = read_decoder(family, text, "model.language_model.")
    vision = Fields(kind, images)
    tower = read_tower(vision, "model.vision_tower.")
    vision.only("vision_use_head", False, missing=kind == "siglip_vision_model")
    vision.finish(("projection_dim", "vocab_size", "tie_word_embeddings"))
    # "default" leaves out the first row, which is the class token if there is one.
    strategy = "default" if tower.images.class_tokens else "full"
    fields.only("vision_feature_select_strategy", strategy, missing="default")
    tower, read = _read_layers(fields, tower)
    width, bias = decoder.embeddings[0].width, fields.flag("multimodal_projector_bias", True)
    path = "model.multi_modal_projector"
    mlp = Mlp(
        (Linear(f"{path}.linear_1", tower.width * read, width, bias, stream=Stream.SOFT),),
        Linear(f"{path}.linear_2", width, width, bias, stream=Stream.SOFT),
    )
    model = with_images(
        fields, decoder, vision_part(tower, bridge_of(path, mlp)), tied=text.get("tie_word_embeddings") is True
    )
    fields.finish(("ignore_index", "image_seq_length", "projector_hidden_act", "vocab_size"))
    return model


def _read_layers(fields: Fields, tower: Tower) -> tuple[Tower, int]:
    """The tower with unread layers marked, and the number of layers that each soft token is made from."""
    layer, count = fields.get("vision_feature_layer", -2), len(tower.blocks)
    layers = layer if isinstance(layer, list | tuple) else [layer]
    if not layers or not all(type(one) is int and -count <= one <= count for one in layers):
        raise fields.wrong("vision_feature_layer", layer)
    last = max(one if one >= 0 else count + 1 + one for one in layers)  # 0 stands for the rows before the first layer
    blocks = tuple(replace(block, unused=index >= last) for index, block in enumerate(tower.blocks))
    return replace(tower, blocks=blocks), len(layers)


# Text fields of published files that transformers' Llama does not read.
_UNREAD_TEXT = ("_flash_attn_2_enabled", "is_llama_config", "neftune_noise_alpha", "perceiver_config",
                "pixel_shuffle_factor")  # fmt: skip
_SWITCHED_OFF = ("qk_layer_norms", "use_resampler")


def read_idefics3(family: str, config: Mapping[str, Any]) -> Model:
    """Idefics 3 and SmolVLM: the channels of each square of patches are concatenated and projected. Tiles that only
    fill up a batch do not pass the tower."""
    fields = Fields(family, config)
    text, images = inner_config(fields, "text"), inner_config(fields, "vision")
    name = str(text.get("model_type", "llama"))
    if name not in STYLES:
        raise ArchitectureError("parts_not_read", family=family, parts=(f"{name!s:.60}",), hint=fields.instead())
    dropped = {*_UNREAD_TEXT, *(switch for switch in _SWITCHED_OFF if text.get(switch) is False)}
    text = {key: value for key, value in text.items() if key not in dropped}
    decoder = read_decoder(name, text, "model.text_model.")
    vision = Fields(f"{family}_vision", images, {"hidden_size": 1152, "num_attention_heads": 16})
    tower = read_tower(vision, "model.vision_model.")
    vision.finish(("max_image_size", "size", "tie_word_embeddings", "use_base_siglip"))
    merge = fields.number("scale_factor", 2) ** 2
    path = "model.connector.modality_projection"
    projection = Linear(f"{path}.proj", tower.width * merge, decoder.embeddings[0].width, stream=Stream.SOFT)
    model = with_images(fields, decoder, vision_part(tower, bridge_of(path, projection), merge=merge), tied=False)
    fields.finish(("_pad_token_id", "image_seq_len", "use_reentrant_checkpointing", "vocab_size"))
    return model


def inner_config(fields: Fields, which: str) -> Mapping[str, Any]:
    """The configuration of the text part or of the vision part."""
    config = fields.get(f"{which}_config")
    if not isinstance(config, Mapping):
        raise ArchitectureError(
            "field_missing", family=fields.family, name=f"{which}_config", hint="give the whole config.json"
        )
    return config


def bridge_of(path: str, *parts: Part, others: int = 0) -> Block:
    """A projection of a tower's rows to soft tokens. It is not a layer, so activation checkpointing leaves it out."""
    return Block(path, parts, others=others, stream=Stream.SOFT, source=Stream.PATCHES, checkpointed=False)


def vision_part(tower: Tower, bridge: Block, *, merge: int = 1) -> Model:
    """The part before a decoder: an image tower with its projection."""
    images, blocks = replace(tower.images, merge=merge), (*tower.blocks, bridge)
    return Model("", tower.embeddings, tower.stem, blocks, others=tower.others, images=images)


def with_images(fields: Fields, decoder: Model, eyes: Model, *, tied: bool) -> Model:
    """The decoder after its tower, with the head that the outer configuration names. `tied`: the default for whether
    the head shares the weights of the embedding."""
    table = decoder.embeddings[0]
    language = Linear("lm_head", table.width, table.rows, tied=fields.flag("tie_word_embeddings", tied))
    known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "Model": no_head}
    heads = head_of(fields, known, "ForConditionalGeneration")
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
