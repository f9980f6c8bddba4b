"""Nemotron-H and Nemotron 3: each layer is one of a Mamba 2 mixer, attention, an MLP or experts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import decoder
from flopsd.core.architecture.hybrid_parts import kinds_of, mamba2, read_heads, read_used
from flopsd.core.architecture.model import Block, Linear, Mlp, Model, Part
from flopsd.core.architecture.recurrent_work import NOTE
from flopsd.core.notes import note

# The values of absent fields in transformers 5.24.
_DEFAULTS: Mapping[str, int] = {
    "vocab_size": 131_072, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 4096, "intermediate_size": 21_504, "ssm_state_size": 128, "mamba_num_heads": 128,
    "mamba_head_dim": 64, "n_groups": 8, "conv_kernel": 4, "chunk_size": 128, "n_routed_experts": 8,
    "moe_intermediate_size": 7688, "moe_shared_expert_intermediate_size": 7688, "num_experts_per_tok": 2,
}  # fmt: skip
_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
_KINDS = {"linear_attention": "mamba", "mamba": "mamba", "full_attention": "attention", "attention": "attention",
          "mlp": "mlp", "moe": "moe"}  # fmt: skip
_IRRELEVANT = tuple(
    """
    expand hybrid_override_pattern layer_norm_epsilon mamba_hidden_act mamba_proj_bias mamba_ssm_cache_dtype
    mlp_hidden_act moe_shared_expert_overlap mtp_hybrid_override_pattern mtp_layers_block_type n_group n_shared_experts
    num_hidden_layers num_logits_to_keep rescale_prenorm_residual residual_in_fp32 routed_scaling_factor
    sliding_window time_step_floor time_step_limit time_step_max time_step_min topk_group use_mamba_kernels
    """.split()  # noqa: SIM905 (twenty quoted words read worse)
)
_FURTHER = note("further_tokens_not_counted", name="num_nextn_predict_layers")


def read_nemotron_h(config: Mapping[str, Any]) -> Model:
    """A decoder of this family. Raises ArchitectureError, which names the field."""
    fields = Fields("nemotron_h", config, _DEFAULTS)
    hidden, kinds = fields.number("hidden_size"), _kinds(fields)
    layer = _Layer(fields, hidden)
    blocks = tuple(layer.at(f"model.layers.{index}", kind) for index, kind in enumerate(kinds))
    fields.only("tie_word_embeddings", False)
    further = fields.number("num_nextn_predict_layers", 0, at_least=0)
    notes = (NOTE, _FURTHER) if further else (NOTE,)
    return decoder(fields, "model.embeddings", blocks, False, _IRRELEVANT, notes=notes)


def _kinds(fields: Fields) -> list[str]:
    """Each layer's kind: a list, or in published files one letter per layer. It determines the number of layers."""
    named = fields.sequence("layers_block_type") or fields.sequence("layer_types")
    pattern = fields.get("hybrid_override_pattern")
    if named is None and pattern is not None:
        if not isinstance(pattern, str) or not {*pattern} <= {*_LETTERS} or not pattern:
            raise fields.wrong("hybrid_override_pattern", pattern)
        named = [_LETTERS[letter] for letter in pattern]
    default = ("linear_attention", "moe", "full_attention", "mlp")
    layers = fields.layers("num_hidden_layers", len(named or default)) if named is None else len(named)
    return kinds_of(fields, layers, _KINDS, named or default, "layers_block_type")


class _Layer:
    def __init__(self, fields: Fields, hidden: int) -> None:
        self.hidden, self.mlp_bias = hidden, fields.flag("mlp_bias", False)
        self.heads = read_heads(fields, hidden)
        fields.only("attention_bias", False)
        self.mixer = partial(
            mamba2, hidden=hidden, heads=fields.number("mamba_num_heads"), head_dim=fields.number("mamba_head_dim"),
            size=fields.number("ssm_state_size"), groups=fields.number("n_groups"),
            kernel=fields.number("conv_kernel"), chunk=fields.number("chunk_size"),
            bias=fields.flag("use_bias", False), convolution_bias=fields.flag("use_conv_bias", True),
        )  # fmt: skip
        self.size, self.each = fields.number("intermediate_size"), fields.number("moe_intermediate_size")
        self.held = fields.number("n_routed_experts")
        self.used, self.latent = read_used(fields, self.held), fields.optional("moe_latent_size")
        self.shared = fields.number("moe_shared_expert_intermediate_size")

    def at(self, path: str, kind: str) -> Block:
        mixer = f"{path}.mixer"
        if kind == "moe":
            return self._experts(path, mixer)
        part: Part = self._mlp(mixer, self.size)
        if kind == "mamba":
            part = self.mixer(mixer)
        elif kind == "attention":
            part = self.heads.at(mixer)
        return Block(path, (part,), others=self.hidden)

    def _mlp(self, path: str, size: int) -> Mlp:
        """An MLP without a gate: its activation is the square of the positive part."""
        up = Linear(f"{path}.up_proj", self.hidden, size, self.mlp_bias)
        return Mlp((up,), Linear(f"{path}.down_proj", size, self.hidden, self.mlp_bias))

    def _experts(self, path: str, mixer: str) -> Block:
        """Experts, in some models narrower than the layer, between two matrices that every token passes."""
        width = self.latent or self.hidden

        def one(name: str, inputs: int, outputs: int) -> Linear:
            return Linear(f"{mixer}.experts.{name}", inputs, outputs, held=self.held, used=self.used, adaptable=None)

        router = Linear(f"{mixer}.gate", self.hidden, self.held, adaptable=None)
        routed = Mlp((one("up_proj", width, self.each),), one("down_proj", self.each, width))
        shared = self._mlp(f"{mixer}.shared_experts", self.shared)
        if not self.latent:
            return Block(path, (router, routed, shared), others=self.hidden, side_by_side=(0, 1, 2))
        into = Linear(f"{mixer}.fc1_latent_proj", self.hidden, width, self.mlp_bias)
        back = Linear(f"{mixer}.fc2_latent_proj", width, self.hidden, self.mlp_bias)
        return Block(path, (router, into, routed, back, shared), others=self.hidden, side_by_side=(0, 1, 4))
