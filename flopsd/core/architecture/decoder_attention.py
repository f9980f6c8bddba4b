"""Attention of decoders, grouped-query or latent, and the layers that see only a window or a chunk."""

from __future__ import annotations

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_styles import Style
from flopsd.core.architecture.model import Attention, Linear, Mask
from flopsd.errors import ArchitectureError

Masks = list[tuple[Mask, int | None]]


class GroupedAttention:
    """Every layer's attention; layers differ only in their mask."""

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
    """Whether a matrix has a bias; a field of the configuration may decide."""
    return fields.flag(bias, False) if isinstance(bias, str) else bias


class LatentAttention:
    """Every layer's attention: multi-head latent attention as in DeepSeek V2 and V3, with low-rank projections for the
    queries and for keys with values. The rotary part of the keys comes from the first projection of keys and values, is
    shared by all heads, and makes keys wider than values."""

    def __init__(self, fields: Fields, style: Style, hidden: int, layers: int) -> None:
        del style, layers
        self.hidden, self.heads = hidden, fields.number("num_attention_heads")
        self.q_rank, self.kv_rank = fields.optional("q_lora_rank"), fields.number("kv_lora_rank")
        self.rotary, self.plain = fields.number("qk_rope_head_dim"), fields.number("qk_nope_head_dim")
        self.value_dim = fields.number("v_head_dim")
        self.bias = fields.flag("attention_bias", False)
        # Each head has its own keys and values, whatever num_key_value_heads says; the other two fields are derived.
        for derived in ("num_key_value_heads", "head_dim", "qk_head_dim"):
            fields.get(derived)

    def at(self, path: str, index: int) -> Attention:
        del index
        path, hidden, key_dim = f"{path}.self_attn", self.hidden, self.rotary + self.plain
        if self.q_rank is None:
            queries = [(Linear(f"{path}.q_proj", hidden, self.heads * key_dim), "q", "")]
        else:
            queries = [
                (Linear(f"{path}.q_a_proj", hidden, self.q_rank, self.bias), "a", ""),
                (Linear(f"{path}.q_b_proj", self.q_rank, self.heads * key_dim), "q", "a"),
            ]
        width = self.heads * (self.plain + self.value_dim)
        keys = [
            (Linear(f"{path}.kv_a_proj_with_mqa", hidden, self.kv_rank + self.rotary, self.bias), "ck", ""),
            (Linear(f"{path}.kv_b_proj", self.kv_rank, width), "kv", "c"),
        ]
        projections, feeds, reads = zip(*queries, *keys, strict=True)
        return Attention(
            Mask.CAUSAL,
            self.heads,
            key_dim,
            projections,
            feeds,
            Linear(f"{path}.o_proj", self.heads * self.value_dim, hidden, self.bias),
            reads=reads,
            value_dim=self.value_dim,
            others=(self.q_rank or 0) + self.kv_rank,
        )


def layer_masks(fields: Fields, style: Style, layers: int) -> Masks:
    """Each layer's mask, with its window or chunk."""
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
    """Which layers have the window or chunk if layer_types is absent."""
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
