"""Attention of decoders with grouped queries."""

from __future__ import annotations

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_masks import layer_masks
from flopsd.core.architecture.decoder_styles import Style
from flopsd.core.architecture.model import Attention, Linear


class GroupedAttention:
    """Every layer's attention: they differ in their mask only."""

    def __init__(self, fields: Fields, style: Style, hidden: int, layers: int) -> None:
        self.hidden, self.style = hidden, style
        self.heads = fields.number("num_attention_heads")
        grouped = fields.get("num_key_value_heads") is not None
        self.kv_heads = fields.number("num_key_value_heads") if grouped else self.heads
        self.head_dim = fields.number("head_dim", hidden // self.heads if hidden % self.heads == 0 else None)
        self.bias, self.out_bias = (declared_bias(fields, bias) for bias in (style.qkv_bias, style.out_bias))
        self.qk_norm = style.qk_norm
        if style.qk_norm_flag is not None and not fields.flag(style.qk_norm_flag, False):
            self.qk_norm = ""
        if self.heads % self.kv_heads:
            raise fields.wrong("num_key_value_heads", self.kv_heads)
        self.masks = layer_masks(fields, style, layers)

    def at(self, path: str, index: int) -> Attention:
        path, hidden, width = f"{path}.self_attn", self.hidden, self.heads * self.head_dim
        kv_width, (mask, window) = self.kv_heads * self.head_dim, self.masks[index]
        if self.style.fused_qkv:
            projections: tuple[Linear, ...] = (Linear(f"{path}.qkv_proj", hidden, width + 2 * kv_width),)
            feeds: tuple[str, ...] = ("qkv",)
        else:
            sizes = (("q", width), ("k", kv_width), ("v", kv_width))
            projections = tuple(Linear(f"{path}.{n}_proj", hidden, size, self.bias) for n, size in sizes)
            feeds = ("q", "k", "v")
        output = Linear(f"{path}.o_proj", width, hidden, self.out_bias)
        norms = {"": 0, "head": 2 * self.head_dim, "width": width + kv_width}[self.qk_norm]
        others = norms + (self.heads if self.style.sinks else 0)
        return Attention(mask, self.heads, self.head_dim, projections, feeds, output, window, others=others)


def declared_bias(fields: Fields, bias: bool | str) -> bool:
    """Whether a matrix has a bias, which a field of the configuration may say."""
    return fields.flag(bias, False) if isinstance(bias, str) else bias
