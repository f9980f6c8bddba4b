"""Mamba 2 and its hybrids with attention: Granite 4 (granitemoehybrid), Bamba and Falcon-H1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import decoder
from flopsd.core.architecture.hybrid_parts import experts, kinds_of, mamba2, read_heads, read_used
from flopsd.core.architecture.model import Block, Linear, Mlp, Model, Part, Recurrence
from flopsd.core.architecture.parts import gated_mlp
from flopsd.core.architecture.recurrent_work import NOTE

_ALIKE = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "mamba_n_heads": 128, "mamba_d_state": 256,
    "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_chunk_size": 256, "mamba_expand": 2,
}  # fmt: skip
_GATED = {**_ALIKE, "vocab_size": 128_000, "intermediate_size": 14_336, "num_key_value_heads": 8}
# The values of absent fields in transformers 5.24.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "mamba2": {
        "hidden_size": 4096, "num_hidden_layers": 64, "vocab_size": 32_768, "num_heads": 128, "head_dim": 64,
        "state_size": 128, "n_groups": 8, "conv_kernel": 4, "chunk_size": 256, "expand": 2,
    },
    "granitemoehybrid": {
        **_ALIKE, "vocab_size": 32_000, "intermediate_size": 11_008, "shared_intermediate_size": 1024,
        "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 2048,
    },
    "bamba": {**_GATED, "max_position_embeddings": 262_144},
    "falcon_h1": {**_GATED, "max_position_embeddings": 8192, "mamba_d_ssm": 1024},
}  # fmt: skip
MAMBA_FAMILIES = tuple(_DEFAULTS)
_KINDS = {"linear_attention": "mamba", "mamba": "mamba", "full_attention": "attention", "attention": "attention"}
Layer = Callable[[str, int], Block]  # from a path and the layer's number
Mixer = Callable[[str], Recurrence]


def read_mamba_decoder(family: str, config: Mapping[str, Any]) -> Model:
    """A decoder of one of these families. Raises ArchitectureError, which names the field."""
    fields, alone = Fields(family, config, _DEFAULTS[family]), family == "mamba2"
    path, table = ("backbone", "embeddings") if alone else ("model", "embed_tokens")
    hidden, layers = fields.number("hidden_size"), fields.layers()
    tied = fields.flag("tie_word_embeddings", False)
    block = _READERS[family](fields, hidden, layers)
    blocks = tuple(block(f"{path}.layers.{index}", index) for index in range(layers))
    return decoder(fields, f"{path}.{table}", blocks, tied, _IRRELEVANT, attends=not alone, notes=(NOTE,))


_IRRELEVANT = tuple(
    """
    attention_in_multiplier attention_multiplier attention_out_multiplier attn_rotary_emb embedding_multiplier
    init_method key_multiplier layer_types layers_block_type lm_head_multiplier logits_scaling mamba_norm_before_gate
    mamba_use_mlp mlp_multipliers norm_before_gate normalization_function num_logits_to_keep position_embedding_type
    rescale_prenorm_residual residual_in_fp32 residual_multiplier rms_norm ssm_in_multiplier ssm_multipliers
    ssm_out_multiplier time_step_floor time_step_limit time_step_max time_step_min time_step_rank z_loss_coefficient
    """.split()  # noqa: SIM905 (thirty quoted words read worse)
)


def _alone(fields: Fields, hidden: int, layers: int) -> Layer:  # noqa: ARG001 (one signature for all)
    """Mamba 2's own layers: a mixer only."""
    heads, head_dim = fields.number("num_heads"), fields.number("head_dim")
    if fields.number("expand") * hidden != heads * head_dim:
        raise fields.wrong("num_heads", heads)
    mixer = partial(
        mamba2, hidden=hidden, heads=heads, head_dim=head_dim, size=fields.number("state_size"),
        groups=fields.number("n_groups"), kernel=fields.number("conv_kernel"), chunk=fields.number("chunk_size"),
        bias=fields.flag("use_bias", False), convolution_bias=fields.flag("use_conv_bias", True),
    )  # fmt: skip
    return lambda path, _: Block(path, (mixer(f"{path}.mixer"),), others=hidden)


def _mixer(fields: Fields, hidden: int, inner: int, *, gated_norm: bool = True, out_bias: bool | None = None) -> Mixer:
    """The mixer of a hybrid, with `inner` channels in total."""
    heads = fields.number("mamba_n_heads")
    if inner % heads or fields.get("mamba_d_head", "auto") not in ("auto", None, inner // heads):
        raise fields.wrong("mamba_d_head", fields.get("mamba_d_head"))
    made = partial(
        mamba2, hidden=hidden, heads=heads, head_dim=inner // heads, size=fields.number("mamba_d_state"),
        groups=fields.number("mamba_n_groups"), kernel=fields.number("mamba_d_conv"),
        chunk=fields.number("mamba_chunk_size"), bias=fields.flag("mamba_proj_bias", False),
        convolution_bias=fields.flag("mamba_conv_bias", True), gated_norm=gated_norm, out_bias=out_bias,
    )  # fmt: skip
    return lambda path: made(f"{path}.mamba")


def _granite(fields: Fields, hidden: int, layers: int) -> Layer:
    """A mixer or attention, then experts (or none) and one MLP that every token passes."""
    mixer = _mixer(fields, hidden, fields.number("mamba_expand") * hidden)
    heads = read_heads(fields, hidden, bias=fields.flag("attention_bias", False))
    kinds = kinds_of(fields, layers, _KINDS, ["mamba"] * layers, "layers_block_type")
    each, shared = fields.number("intermediate_size"), fields.number("shared_intermediate_size")
    held = fields.number("num_local_experts", at_least=0)
    used = read_used(fields, held)

    def block(path: str, index: int) -> Block:
        first: Part = heads.at(f"{path}.self_attn") if kinds[index] == "attention" else mixer(path)
        last = Mlp(
            (Linear(f"{path}.shared_mlp.input_linear", hidden, 2 * shared),),
            Linear(f"{path}.shared_mlp.output_linear", shared, hidden),
        )
        routed = (experts(f"{path}.block_sparse_moe", hidden, each, held, used, "router"),) if held else ()
        return Block(path, (first, *routed, last), others=2 * hidden, side_by_side=(1, 2))

    return block


def _bamba(fields: Fields, hidden: int, layers: int) -> Layer:  # noqa: ARG001 (one signature for all)
    """A mixer or attention, then an MLP."""
    mixer = _mixer(fields, hidden, fields.number("mamba_expand") * hidden)
    heads = read_heads(fields, hidden, bias=fields.flag("attention_bias", False))
    whole = fields.sequence("attn_layer_indices") or ()
    size, bias = fields.number("intermediate_size"), fields.flag("mlp_bias", False)

    def block(path: str, index: int) -> Block:
        first: Part = heads.at(f"{path}.self_attn") if index in whole else mixer(path)
        return Block(path, (first, gated_mlp(f"{path}.feed_forward", hidden, size, bias)), others=2 * hidden)

    return block


def _falcon(fields: Fields, hidden: int, layers: int) -> Layer:  # noqa: ARG001 (one signature for all)
    """A mixer and attention side by side, then an MLP."""
    expanded = fields.number("mamba_expand") * hidden
    mixer = _mixer(
        fields, hidden, fields.optional("mamba_d_ssm") or expanded, gated_norm=fields.flag("mamba_rms_norm", False),
        out_bias=fields.flag("projectors_bias", False),
    )  # fmt: skip
    heads = read_heads(fields, hidden, bias=fields.flag("attention_bias", False))
    size, bias = fields.number("intermediate_size"), fields.flag("mlp_bias", False)

    def block(path: str, _: int) -> Block:
        feed = gated_mlp(f"{path}.feed_forward", hidden, size, bias)
        return Block(path, (mixer(path), heads.at(f"{path}.self_attn"), feed), others=2 * hidden, side_by_side=(0, 1))

    return block


_READERS: Mapping[str, Callable[[Fields, int, int], Layer]] = {
    "mamba2": _alone,
    "granitemoehybrid": _granite,
    "bamba": _bamba,
    "falcon_h1": _falcon,
}
