"""What may differ between families of decoders; decoder_families.py is the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from flopsd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts. Fields of the configuration stand here by their names, modules by their paths.

    `adaptable` is that of `Linear`. Shared experts are one wider MLP that every token passes: `shared_size` names its
    width, or `shared_count` how many experts wide it is. `all_passed`: transformers' class sends each token through
    all experts, those that the routing did not ask for with an input of zeros.
    """

    held: str
    alias: str | None = None  # another name of `held`, where transformers' class has one
    may_be_none: bool = False  # 0 of them make a model without
    size: str = "moe_intermediate_size"
    dense_size: str = "intermediate_size"  # of the layers without experts
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
    dense_first: str | None = None  # the field that counts the layers before the first with experts
    step: str | None = None  # the field that says every how many layers one has experts
    dense_layers: str | None = None  # the field that lists layers without experts
    routed_layers: str | None = None  # the field that lists layers with experts
    layer_types: str | None = None  # the field that names each layer "dense" or "sparse"


@dataclass(frozen=True, slots=True)
class Style:
    """One family. Text for a bias: the name of the field of the configuration that has it.

    `defaults`: what a config.json that leaves the field out means, as in transformers 5.24 (each
    `configuration_<family>.py`); `tests/train` holds every field against the class. Heads of keys and values that are
    null, or have no default, are as many as heads. `only`: the values of a field that flopsd models.
    """

    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: str = ""  # "head": of one head's width; "width": of all heads
    qk_norm_flag: str | None = None
    norms: int = 2  # vectors of parameters in a layer: one a norm, two where it has biases
    final_norms: int = 1  # as many, of the norm after the last layer
    post_norm: bool = False  # a norm follows the MLP, so the backward pass needs the output of its last product
    parallel: bool = False
    fused_qkv: bool = False
    fused_mlp: bool = False
    plain_mlp: tuple[str, str] | None = None  # without a gate: the names of its two matrices
    dropout: str | None = None  # the field with the rate of the dropout that ends a layer
    latent: bool = False  # multi-head latent attention: keys and values from a common projection of low rank
    window: str = "never"  # never, always, by_layer, qwen, no_rope, chunk
    experts: Experts | None = None
    sinks: bool = False
    defaults: Mapping[str, float | None] = field(default_factory=dict)
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    irrelevant: tuple[str, ...] = ()
    untrained: str | None = None  # the field that counts layers which transformers' class does not have
