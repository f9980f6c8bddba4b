"""The text models of Gemma 3n and Gemma 4: layers that share keys and values, and per-layer inputs of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.architecture.config_fields import MAX_SIZE, Fields
from flopsd.core.architecture.heads import decoder
from flopsd.core.architecture.hybrid_parts import experts, kinds_of
from flopsd.core.architecture.model import AltUp, Attention, Block, Embedding, Linear, Mask, Mlp, Model, Part, Stream
from flopsd.core.architecture.parts import gated_mlp
from flopsd.core.values import is_whole
from flopsd.errors import ArchitectureError

_ALIKE = {"num_attention_heads": 8, "head_dim": 256, "sliding_window": 512, "vocab_size_per_layer_input": 262_144,
          "hidden_size_per_layer_input": 256}  # fmt: skip
# The values of absent fields in transformers 5.24.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma3n_text": {
        **_ALIKE, "vocab_size": 262_400, "hidden_size": 2048, "num_hidden_layers": 35, "num_key_value_heads": 2,
        "max_position_embeddings": 32_768, "altup_num_inputs": 4, "num_kv_shared_layers": 15, "laurel_rank": 64,
    },
    "gemma4_text": {
        **_ALIKE, "vocab_size": 262_144, "hidden_size": 2304, "num_hidden_layers": 30, "num_key_value_heads": 4,
        "intermediate_size": 9216, "max_position_embeddings": 131_072, "num_kv_shared_layers": 0,
    },
}  # fmt: skip
GEMMA_FAMILIES = tuple(_DEFAULTS)
_KINDS = {"sliding_attention": "sliding", "full_attention": "full"}
_IRRELEVANT = ("activation_sparsity_pattern", "altup_active_idx", "altup_coef_clip", "altup_correct_scale")


def read_gemma_decoder(family: str, config: Mapping[str, Any]) -> Model:
    """A text model of Gemma 3n or 4. Raises ArchitectureError, which names the field. The sparse activations of Gemma
    3n (activation_sparsity_pattern) are zeros that still take part in the matrix products."""
    if config.get("use_bidirectional_attention") == "vision":  # text is causal; at most, images attend both ways
        config = {**config, "use_bidirectional_attention": None}
    fields = Fields(family, config, _DEFAULTS[family])
    hidden, layers = fields.number("hidden_size"), fields.layers()
    tied = fields.flag("tie_word_embeddings", True)
    attention = _Attention(fields, hidden, layers)
    inputs = _LayerInputs(fields, hidden, layers)
    newer = family == "gemma4_text"
    layer = (_Gemma4 if newer else _Gemma3n)(fields, hidden, attention, inputs)
    blocks = tuple(layer.at(f"model.layers.{index}", index) for index in range(layers))
    if isinstance(layer, _Gemma3n):
        into, out_of = layer.streams_by("altup_projections"), layer.streams_by("altup_unembed_projections")
        blocks = (into, *blocks, out_of)
    model = decoder(fields, "model.embed_tokens", (*inputs.blocks, *blocks), tied, _IRRELEVANT)
    return replace(model, embeddings=(*model.embeddings, *inputs.tables), others=model.others + inputs.others)


class _Attention:
    """Every layer's attention. The last layers read the keys and values of the last earlier layer of their kind."""

    def __init__(self, fields: Fields, hidden: int, layers: int) -> None:
        self.hidden, self.heads = hidden, fields.number("num_attention_heads")
        self.bias = fields.flag("attention_bias", False)
        self.window = fields.number("sliding_window")
        every = 5 if fields.family == "gemma3n_text" else 6
        default = ["sliding_attention" if (index + 1) % every else "full_attention" for index in range(layers)]
        self.kinds = kinds_of(fields, layers, _KINDS, default)
        newer = fields.family == "gemma4_text"
        if newer:
            self.kinds[-1] = "full"  # as in transformers
        self.merged = newer and fields.flag("attention_k_eq_v", False)
        head_dim, kv_heads = fields.number("head_dim"), fields.optional("num_key_value_heads") or self.heads
        self.sizes = [(head_dim, kv_heads)] * layers
        if newer:
            self.sizes = _sizes_by_layer(fields, self.kinds, head_dim, kv_heads, self.merged)
        if any(self.heads % each for _, each in self.sizes):
            raise fields.wrong("num_key_value_heads", kv_heads)
        self.first_shared = layers - fields.number("num_kv_shared_layers", at_least=0)
        if self.first_shared < layers and not {*self.kinds} <= {*self.kinds[: max(0, self.first_shared)]}:
            raise fields.wrong("num_kv_shared_layers", layers - self.first_shared)

    def shares(self, index: int) -> bool:
        """Whether the layer reads keys and values of an earlier layer."""
        return index >= self.first_shared

    def at(self, path: str, index: int) -> Attention:
        path, (head_dim, kv_heads), kind = f"{path}.self_attn", self.sizes[index], self.kinds[index]
        width, kv_width = self.heads * head_dim, kv_heads * head_dim
        matrices = [("q", "q", width)]
        if not self.shares(index):
            merged = self.merged and kind == "full"  # the keys are also the values
            matrices += [("k", "kv", kv_width)] if merged else [("k", "k", kv_width), ("v", "v", kv_width)]
        return Attention(
            Mask.WINDOW if kind == "sliding" else Mask.CAUSAL,
            self.heads,
            head_dim,
            tuple(Linear(f"{path}.{name}_proj", self.hidden, size, self.bias) for name, _, size in matrices),
            tuple(feeds for _, feeds, _ in matrices),
            Linear(f"{path}.o_proj", width, self.hidden, self.bias),
            self.window if kind == "sliding" else None,
            others=head_dim * (1 if self.shares(index) else 2),
            shared=kind,
        )


def _sizes_by_layer(
    fields: Fields, kinds: Sequence[str], head_dim: int, kv_heads: int, merged: bool
) -> list[tuple[int, int]]:
    """Gemma 4: full layers have their own head width. Published files state it once (global_head_dim); files written by
    transformers state it per layer (per_layer_config)."""
    full_dim = fields.number("global_head_dim", 512)
    full_kv = fields.optional("num_global_key_value_heads") if merged else None
    by_layer = fields.get("per_layer_config")
    if by_layer is None:
        return [(full_dim, full_kv or kv_heads) if kind == "full" else (head_dim, kv_heads) for kind in kinds]
    if not isinstance(by_layer, Mapping):
        raise fields.wrong("per_layer_config", by_layer)
    found = [(head_dim, kv_heads)] * len(kinds)
    for name, sizes in by_layer.items():
        known = isinstance(sizes, Mapping) and {*sizes} <= {"head_dim", "num_key_value_heads"}
        if not known or not str(name).isdecimal() or int(name) >= len(kinds):
            raise fields.wrong("per_layer_config", {name: sizes})
        both = (sizes.get("head_dim", head_dim), sizes.get("num_key_value_heads", kv_heads))
        if not all(is_whole(size) and 1 <= size <= MAX_SIZE for size in both):
            raise fields.wrong("per_layer_config", {name: sizes})
        found[int(name)] = both
    return found


class _LayerInputs:
    """A vector per token and layer, looked up and computed from the token's embedding."""

    def __init__(self, fields: Fields, hidden: int, layers: int) -> None:
        self.hidden, self.width = hidden, fields.optional("hidden_size_per_layer_input")
        rows = fields.number("vocab_size_per_layer_input")
        self.tables: tuple[Embedding, ...] = ()
        self.blocks: tuple[Block, ...] = ()
        self.others = self.width or 0
        if self.width is None:
            return
        path, every = "model.per_layer_model_projection", layers * self.width
        self.tables = (Embedding("model.embed_tokens_per_layer", rows, every, Stream.LAYER_INPUTS),)
        projection = Linear(path, hidden, every)
        self.blocks = (
            Block(path, (projection,), stream=Stream.LAYER_INPUTS, source=Stream.TOKENS, checkpointed=False),
        )

    def at(self, path: str) -> tuple[Mlp, ...]:
        """The part with which a layer takes in its vector; a norm of width `hidden` follows."""
        if self.width is None:
            return ()
        gate = Linear(f"{path}.per_layer_input_gate", self.hidden, self.width)
        back = Linear(f"{path}.per_layer_projection", self.width, self.hidden)
        return (Mlp((gate,), back, scaled_by=Stream.LAYER_INPUTS),)


class _Gemma4:
    def __init__(self, fields: Fields, hidden: int, attention: _Attention, inputs: _LayerInputs) -> None:
        self.hidden, self.attention, self.inputs = hidden, attention, inputs
        self.size = fields.number("intermediate_size")
        self.wide = fields.flag("use_double_wide_mlp", False)
        self.routed = fields.flag("enable_moe_block", False)
        names = ("num_experts", "top_k_experts", "moe_intermediate_size")
        self.held, self.used, self.each = (
            fields.number(name) if self.routed else fields.optional(name) or 0 for name in names
        )
        if self.used > self.held:
            raise fields.wrong("top_k_experts", self.used)

    def at(self, path: str, index: int) -> Block:
        hidden, inputs = self.hidden, self.inputs.at(path)
        size = self.size * (2 if self.wide and self.attention.shares(index) else 1)
        others = (4 + len(inputs)) * hidden
        mixture: tuple[Mlp, ...] = ()
        if self.routed:
            made = experts(path, hidden, self.each, self.held, self.used, "router.proj", router_adaptable=True)
            mixture, others = (made,), others + 4 * hidden + self.held
        parts: tuple[Part, ...] = (
            self.attention.at(path, index),
            gated_mlp(f"{path}.mlp", hidden, size),
            *mixture,
            *inputs,
        )
        return Block(
            path, parts, others=others, output_unneeded=False, side_by_side=(1, 2) if mixture else (),
            may_skip_unlabelled=self.attention.shares(index),
        )  # fmt: skip


class _Gemma3n:
    """AltUp: a token has several streams of width `hidden`; a layer computes one and mixes the others."""

    def __init__(self, fields: Fields, hidden: int, attention: _Attention, inputs: _LayerInputs) -> None:
        self.hidden, self.attention, self.inputs = hidden, attention, inputs
        self.streams, self.rank = fields.number("altup_num_inputs"), fields.number("laurel_rank")
        size = fields.get("intermediate_size", 16_384)
        self.sizes = size if isinstance(size, list | tuple) else [size] * len(attention.kinds)
        if len(self.sizes) != len(attention.kinds) or not all(
            is_whole(each) and 1 <= each <= MAX_SIZE for each in self.sizes
        ):
            raise fields.wrong("intermediate_size", size)
        if inputs.width is None:
            raise ArchitectureError(
                "field_not_modelled",
                family=fields.family,
                name="hidden_size_per_layer_input",
                value="0",
                hint=fields.instead(),
            )

    def streams_by(self, name: str) -> Block:
        """Between embedding and streams, or streams and head: a matrix for each stream except the first."""
        path = f"model.{name}"
        matrices = tuple(Linear(f"{path}.{i}", self.hidden, self.hidden) for i in range(self.streams - 1))
        return Block(path, matrices, parallel=True, checkpointed=False)

    def at(self, path: str, index: int) -> Block:
        hidden, count, altup, laurel = self.hidden, self.streams, f"{path}.altup", f"{path}.laurel"
        router = Linear(f"{altup}.modality_router", hidden, count)
        predict = AltUp(router, Linear(f"{altup}.prediction_coefs", count, count**2), count, hidden)
        correct = AltUp(router, Linear(f"{altup}.correction_coefs", count, count), count, hidden, corrects=True)
        beside = Mlp(
            (Linear(f"{laurel}.linear_left", hidden, self.rank),), Linear(f"{laurel}.linear_right", self.rank, hidden)
        )
        parts: tuple[Part, ...] = (
            predict,
            beside,
            self.attention.at(path, index),
            gated_mlp(f"{path}.mlp", hidden, self.sizes[index]),
            correct,
            *self.inputs.at(path),
        )
        # Norms: four around attention and MLP, one each of LAuReL, router and layer input; the correction's scale.
        return Block(path, parts, others=8 * hidden, output_unneeded=False, side_by_side=(1, 2))
