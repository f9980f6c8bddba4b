"""LFM2 and its mixtures of experts: short convolutions between two gates in most layers, attention in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import decoder
from flopsd.core.architecture.hybrid_parts import experts, kinds_of, read_heads, read_used
from flopsd.core.architecture.model import Block, Linear, Mlp, Model, Part, Recurrence
from flopsd.core.architecture.recurrent import Convolution
from flopsd.core.values import ceil_div
from flopsd.errors import ArchitectureError

_ALIKE = {"vocab_size": 65_536, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
          "max_position_embeddings": 128_000, "conv_L_cache": 3}  # fmt: skip
# The values of absent fields in transformers 5.24.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "lfm2": {**_ALIKE, "hidden_size": 2560, "intermediate_size": 12_288, "block_multiple_of": 256},
    "lfm2_moe": {
        **_ALIKE, "hidden_size": 2048, "intermediate_size": 7168, "moe_intermediate_size": 1792, "num_experts": 32,
        "num_experts_per_tok": 4, "num_dense_layers": 2,
    },
}  # fmt: skip
LFM2_FAMILIES = tuple(_DEFAULTS)
_KINDS = {"conv": "conv", "full_attention": "attention"}
_IRRELEVANT = ("block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_swiglu",
               "block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init", "norm_eps",
               "num_heads", "routed_scaling_factor", "theta", "use_expert_bias", "use_pos_enc")  # fmt: skip


def read_lfm2(family: str, config: Mapping[str, Any]) -> Model:
    """A decoder of one of these families. Raises ArchitectureError, which names the field."""
    fields = Fields(family, config, _DEFAULTS[family])
    hidden, layers = fields.number("hidden_size"), fields.layers()
    tied = fields.flag("tie_embedding", fields.flag("tie_word_embeddings", True))
    heads = read_heads(fields, hidden, qk_norm=True)
    kernel, bias = fields.number("conv_L_cache"), fields.flag("conv_bias", False)
    kinds = kinds_of(fields, layers, _KINDS, _default_kinds(fields, layers))
    feed = _Feed(fields, hidden)
    blocks = []
    for index, kind in enumerate(kinds):
        path = f"model.layers.{index}"
        mixer: Part = (
            heads.at(f"{path}.self_attn", "out_proj")
            if kind == "attention"
            else _convolution(f"{path}.conv", hidden, kernel, bias)
        )
        blocks.append(
            Block(path, (mixer, feed.at(path, index)), others=2 * hidden, output_unneeded=not feed.routed(index))
        )
    return decoder(fields, "model.embed_tokens", tuple(blocks), tied, _IRRELEVANT)


def _default_kinds(fields: Fields, layers: int) -> Sequence[str]:
    """The kinds without layer_types: LFM2 lists the layers with attention, and without a list all have it."""
    if fields.family == "lfm2_moe":
        if fields.get("layer_types") is None:
            raise ArchitectureError(
                "field_missing", family="lfm2_moe", name="layer_types", hint="give the whole config.json"
            )
        return ()
    whole = fields.sequence("full_attn_idxs")
    return ["full_attention" if whole is None or index in whole else "conv" for index in range(layers)]


def _convolution(path: str, hidden: int, kernel: int, bias: bool) -> Recurrence:
    """One matrix makes B, C and x; B scales x before the convolution, and C scales its result."""
    return Recurrence(
        (Linear(f"{path}.in_proj", hidden, 3 * hidden, bias),),
        (("B", "C", "x"),),
        Linear(f"{path}.out_proj", hidden, hidden, bias),
        Convolution(f"{path}.conv", hidden, kernel, bias, ("B", "x")),
    )


class _Feed:
    """Every layer's MLP or experts."""

    def __init__(self, fields: Fields, hidden: int) -> None:
        self.hidden, self.dense, self.held = hidden, 0, 0
        if fields.family == "lfm2":
            self.size = _adjusted(fields)
            return
        self.size, self.dense = fields.number("intermediate_size"), fields.number("num_dense_layers", at_least=0)
        self.held = fields.number("num_experts")
        self.used, self.each = read_used(fields, self.held), fields.number("moe_intermediate_size")

    def routed(self, index: int) -> bool:
        return self.held > 0 and index >= self.dense

    def at(self, path: str, index: int) -> Mlp:
        path = f"{path}.feed_forward"
        if self.routed(index):
            return experts(path, self.hidden, self.each, self.held, self.used, "gate")
        inner = tuple(Linear(f"{path}.{name}", self.hidden, self.size) for name in ("w1", "w3"))
        return Mlp(inner, Linear(f"{path}.w2", self.size, self.hidden))


def _adjusted(fields: Fields) -> int:
    """LFM2's width: two thirds of the named one, times a factor, rounded up to a multiple as in transformers."""
    size = fields.number("block_ff_dim", fields.number("intermediate_size"))
    multiple, factor = fields.number("block_multiple_of"), fields.get("block_ffn_dim_multiplier", 1.0)
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return size
    size = int(2 * size / 3)
    if factor is None:
        return size
    try:
        factor = float(factor)  # text in declared facts
    except (TypeError, ValueError):
        raise fields.wrong("block_ffn_dim_multiplier", factor) from None
    if not 0 < factor < 1000:
        raise fields.wrong("block_ffn_dim_multiplier", factor)
    return multiple * ceil_div(int(factor * size), multiple)
