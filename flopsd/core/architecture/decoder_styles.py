"""The differences between families of decoders that are modelled; decoder_families.py has the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from flopsd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: names of configuration fields, and paths of modules.

    `adaptable` is that of `Linear`. Shared experts are one wider MLP that every token passes: `shared_size` names the
    field with its width, or `shared_count` the field with its width in experts. `all_passed`: transformers' class sends
    each token through all experts, with an input of zeros for those that the routing did not select.
    """

    held: str
    alias: str | None = None  # another name of `held`, if transformers' class has one
    may_be_none: bool = False  # 0 experts make a model without any
    size: str = "moe_intermediate_size"
    dense_size: str = "intermediate_size"  # for layers without experts
    module: str = "mlp"
    dense_module: str = "mlp"
    router: str = "gate"
    matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    bias: bool = False
    adaptable: bool | None = None
    router_adaptable: bool | None = None
    all_passed: bool = False
    shared: str = "shared_experts"
    shared_size: str | None = None
    shared_count: str | None = None
    shared_gate: bool = False
    dense_first: str | None = None  # the field with the number of layers before the first one with experts
    step: str | None = None  # the field that says how often a layer with experts recurs
    dense_layers: str | None = None  # the field that lists layers without experts
    routed_layers: str | None = None  # the field that lists layers with experts
    layer_types: str | None = None  # the field that names each layer "dense" or "sparse"


@dataclass(frozen=True, slots=True)
class Style:
    """One family. A bias given as text is the name of the configuration field that decides.

    `defaults`: the meaning of absent config.json fields, as in transformers 5.24 (each `configuration_<family>.py`);
    `tests/train` compares every field with the class. If the number of heads of keys and values is null, or has no
    default, it equals that of the queries. `only`: the values of a field that flopsd models.
    """

    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: str = ""  # "head": as wide as one head; "width": as all heads
    qk_norm_flag: str | None = None
    norms: int = 2  # parameter vectors in a layer: one per norm, two per norm with biases
    final_norms: int = 1  # parameter vectors of the norm after the last layer
    post_norm: bool = False  # a norm follows the MLP, so the backward pass needs the output of its last product
    parallel: bool = False
    fused_qkv: bool = False
    fused_mlp: bool = False
    plain_mlp: tuple[str, str] | None = None  # without a gate: names of the two matrices
    dropout: str | None = None  # the field with the rate of the dropout at the end of a layer
    latent: bool = False  # multi-head latent attention: keys and values from a shared low-rank projection
    window: str = "never"  # never, always, by_layer, qwen, no_rope, chunk
    experts: Experts | None = None
    sinks: bool = False
    defaults: Mapping[str, float | None] = field(default_factory=dict)
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    irrelevant: tuple[str, ...] = ()
    untrained: str | None = None  # the field that counts layers missing from transformers' class
