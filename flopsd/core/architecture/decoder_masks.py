"""Which layers of a decoder see everything before a token, and which a window or a chunk only."""

from __future__ import annotations

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_styles import Style
from flopsd.core.architecture.model import Mask
from flopsd.errors import ArchitectureError

Masks = list[tuple[Mask, int | None]]


def layer_masks(fields: Fields, style: Style, layers: int) -> Masks:
    """Each layer's mask, with the window or chunk that it has."""
    if style.window == "never":
        return [(Mask.CAUSAL, None)] * layers
    if style.window == "chunk":
        size, mask, kind = fields.optional("attention_chunk_size"), Mask.CHUNK, "chunked_attention"
    else:
        size, mask, kind = fields.optional("sliding_window"), Mask.WINDOW, "sliding_attention"
    if style.window in ("qwen", "no_rope") and not fields.flag("use_sliding_window", False):
        size = None
    types, local = fields.sequence("layer_types"), _local(fields, style, layers)
    if types is not None:
        if len(types) != layers or any(name not in ("full_attention", kind) for name in types):
            raise ArchitectureError(
                "layer_types_not_known",
                family=fields.family,
                kinds=("full_attention", kind),
                layers=layers,
                hint=f"flopsd models no other kind of layer; {fields.instead()}",
            )
        local = [name == kind for name in types]
    elif size is not None and fields.family == "qwen2_moe":
        raise ArchitectureError(
            "window_layers_not_known",
            family=fields.family,
            hint="give layer_types, as the loaded model's configuration has it",
        )
    return [(mask, size) if size is not None and here else (Mask.CAUSAL, None) for here in local]


def _local(fields: Fields, style: Style, layers: int) -> list[bool]:
    """Which layers have the window or chunk where layer_types is left out."""
    if style.window == "by_layer":
        pattern = fields.number("sliding_window_pattern", fields.number("_sliding_window_pattern", 2))
        return [(index + 1) % pattern != 0 for index in range(layers)]
    if style.window in ("chunk", "no_rope"):
        every = fields.number("no_rope_layer_interval")
        rotary = fields.sequence("no_rope_layers") or [(index + 1) % every != 0 for index in range(layers)]
        if len(rotary) < layers:
            raise fields.wrong("no_rope_layers", rotary)
        return [bool(rotary[index]) is (style.window == "chunk") for index in range(layers)]
    first = fields.number("max_window_layers", at_least=0) if "max_window_layers" in style.defaults else 0
    return [index >= first for index in range(layers)]
