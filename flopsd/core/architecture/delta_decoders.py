"""Qwen3-Next and the text models of Qwen3.5: the gated delta rule in most layers, gated attention in the others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_feed_forward import FeedForward
from flopsd.core.architecture.decoder_styles import Experts, Style
from flopsd.core.architecture.heads import decoder
from flopsd.core.architecture.hybrid_parts import kinds_of, read_heads
from flopsd.core.architecture.model import Block, Linear, Model, Recurrence
from flopsd.core.architecture.recurrent import Convolution, delta_products
from flopsd.core.architecture.recurrent_work import NOTE
from flopsd.core.notes import note

_ALIKE = {
    "num_attention_heads": 16, "head_dim": 256, "max_position_embeddings": 32_768, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
}  # fmt: skip
_EXPERTS = {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_key_value_heads": 2}
# The values of absent fields in transformers 5.24.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "qwen3_next": {
        **_ALIKE, **_EXPERTS, "hidden_size": 2048, "num_hidden_layers": 48, "vocab_size": 151_936,
        "intermediate_size": 5632, "num_experts": 512, "num_experts_per_tok": 10, "decoder_sparse_step": 1,
    },
    "qwen3_5_text": {
        **_ALIKE, "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 248_320, "intermediate_size": 12_288,
        "num_key_value_heads": 4,
    },
    "qwen3_5_moe_text": {
        **_ALIKE, **_EXPERTS, "hidden_size": 2048, "num_hidden_layers": 40, "vocab_size": 248_320, "num_experts": 256,
        "num_experts_per_tok": 8,
    },
}  # fmt: skip
_mixture = partial(
    Experts, "num_experts", shared="shared_expert", shared_size="shared_expert_intermediate_size", shared_gate=True
)
_STYLES: Mapping[str, Style] = {
    "qwen3_next": Style(
        experts=_mixture(step="decoder_sparse_step", dense_layers="mlp_only_layers", may_be_none=True)
    ),
    "qwen3_5_text": Style(),
    "qwen3_5_moe_text": Style(experts=_mixture(dense_size="moe_intermediate_size")),  # every layer has experts
}  # fmt: skip
DELTA_FAMILIES = tuple(_DEFAULTS)
_KINDS = {"linear_attention": "delta", "full_attention": "attention"}


def read_delta_decoder(family: str, config: Mapping[str, Any], within: str = "") -> Model:
    """A decoder of one of these families; `within`: its path in an enclosing model, which then has the head. Raises
    ArchitectureError, which names the field."""
    fields = Fields(family, config, _DEFAULTS[family])
    hidden, layers, path = fields.number("hidden_size"), fields.layers(), within or "model."
    tied, bias = fields.flag("tie_word_embeddings", False), fields.flag("attention_bias", False)
    heads = read_heads(fields, hidden, bias=bias, gated=True, qk_norm=True)
    every = fields.number("full_attention_interval", 4)
    default = ["linear_attention" if (index + 1) % every else "full_attention" for index in range(layers)]
    kinds, delta = kinds_of(fields, layers, _KINDS, default), _Delta(fields, hidden)
    feed = FeedForward(fields, _STYLES[family], hidden, layers)
    blocks = tuple(
        Block(
            at := f"{path}layers.{index}",
            (heads.at(f"{at}.self_attn") if kinds[index] == "attention" else delta.at(at), *feed.at(at, index)),
            others=2 * hidden,
            side_by_side=(1, 2),  # the routed experts and the shared one
            output_unneeded=feed.output_unneeded(index),
        )
        for index in range(layers)
    )
    fields.only("use_sliding_window", False, None)
    fields.only("attn_output_gate", True)
    notes = (NOTE, _FURTHER) if fields.get("mtp_num_hidden_layers") else (NOTE,)
    return decoder(fields, f"{path}embed_tokens", blocks, tied, _IRRELEVANT, head=not within, notes=notes)


_IRRELEVANT = ("intermediate_size", "mamba_ssm_dtype", "mlp_only_layers", "mtp_use_dedicated_embeddings")
_FURTHER = note("further_tokens_not_counted", name="mtp_num_hidden_layers")


class _Delta:
    """Every delta layer. Qwen3-Next makes its operands with two matrices, Qwen3.5 with four."""

    def __init__(self, fields: Fields, hidden: int) -> None:
        self.hidden, self.merged = hidden, fields.family == "qwen3_next"
        self.kernel = fields.number("linear_conv_kernel_dim")
        self.key, self.value = fields.number("linear_key_head_dim"), fields.number("linear_value_head_dim")
        self.key_heads = fields.number("linear_num_key_heads")
        self.value_heads = fields.number("linear_num_value_heads")
        if self.value_heads % self.key_heads:
            raise fields.wrong("linear_num_value_heads", self.value_heads)

    def at(self, path: str) -> Recurrence:
        path, heads = f"{path}.linear_attn", self.value_heads
        keys, values = self.key_heads * self.key, heads * self.value
        mixed = 2 * keys + values
        sizes: dict[tuple[str, ...], tuple[str, int]] = (
            {("q", "k", "v", "z"): ("qkvz", mixed + values), ("b", "a"): ("ba", 2 * heads)}
            if self.merged
            else {("q", "k", "v"): ("qkv", mixed), ("z",): ("z", values), ("b",): ("b", heads), ("a",): ("a", heads)}
        )
        return Recurrence(
            tuple(Linear(f"{path}.in_proj_{name}", self.hidden, size) for name, size in sizes.values()),
            tuple(sizes),
            Linear(f"{path}.out_proj", values, self.hidden),
            Convolution(f"{path}.conv1d", mixed, self.kernel, False, ("q", "k", "v")),
            delta_products(self.key_heads, heads, self.key, self.value),
            others=2 * heads + self.value,  # the decay, its bias, and a norm shared by all heads
        )
