"""What differs between families of decoders, as a table. The shapes are those of transformers' modeling files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts. Fields of the configuration stand here by their names, modules by their paths.

    `adaptable` is that of `Linear`, for experts and router. Shared experts are one wider MLP that every token passes:
    `shared_size` names its width, or `shared_count` how many experts wide it is.
    """

    held: str
    size: str = "moe_intermediate_size"
    dense_size: str = "intermediate_size"  # of the layers without experts
    module: str = "mlp"
    dense_module: str = "mlp"
    router: str = "gate"
    matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    bias: bool = False
    adaptable: bool | None = None
    shared: str = "shared_experts"
    shared_size: str | None = None
    shared_count: str | None = None
    shared_gate: bool = False
    dense_first: str | None = None  # the field that counts the layers before the first with experts
    step: str | None = None  # the field that says every how many layers one has experts
    dense_layers: str | None = None  # the field that lists layers without experts


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
    norms: int = 2  # with parameters, in a layer
    final_norm: bool = True
    post_norm: bool = False  # a norm follows the MLP, so the backward pass needs the output of its last product
    parallel: bool = False
    fused_qkv: bool = False
    fused_mlp: bool = False
    window: str = "never"  # never, always, by_layer, qwen, no_rope
    experts: Experts | None = None
    sinks: bool = False
    defaults: Mapping[str, int | bool | None] = field(default_factory=dict)
    only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    irrelevant: tuple[str, ...] = ()


_QWEN_EXPERTS = partial(Experts, "num_experts", step="decoder_sparse_step", dense_layers="mlp_only_layers")
_biased = partial(Style, qkv_bias="attention_bias", out_bias="attention_bias")  # by the field attention_bias
_GEMMA: Mapping[str, int | bool | None] = {"tie_word_embeddings": True, "head_dim": 256}
_GEMMA2: Mapping[str, int | bool | None] = {
    **_GEMMA, "sliding_window": 4096, "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip

STYLES: Mapping[str, Style] = {
    "llama": _biased(mlp_bias="mlp_bias"),
    "mistral": Style(window="always", defaults={"sliding_window": 4096, "num_key_value_heads": 8}),
    "mixtral": Style(
        window="always", defaults={"num_key_value_heads": 8},
        experts=Experts("num_local_experts", size="intermediate_size", module="block_sparse_moe",
                        matrices=("w1", "w3", "w2")),
    ),
    "qwen2": Style(
        qkv_bias=True, window="qwen",
        defaults={"sliding_window": 4096, "num_key_value_heads": 32, "max_window_layers": 28},
    ),
    "qwen3": _biased(
        qk_norm="head", window="qwen",
        defaults={"sliding_window": 4096, "head_dim": 128, "num_key_value_heads": 32, "max_window_layers": 28},
    ),
    "qwen2_moe": Style(
        qkv_bias="qkv_bias", window="qwen", irrelevant=("max_window_layers",),
        defaults={"qkv_bias": True, "sliding_window": 4096, "num_key_value_heads": 16, "decoder_sparse_step": 1},
        experts=_QWEN_EXPERTS(
            shared="shared_expert", shared_size="shared_expert_intermediate_size", shared_gate=True
        ),
    ),
    "qwen3_moe": _biased(
        qk_norm="head", window="qwen", irrelevant=("max_window_layers",), experts=_QWEN_EXPERTS(),
        defaults={"sliding_window": 4096, "num_key_value_heads": 4, "decoder_sparse_step": 1},
    ),
    "gemma": _biased(defaults={**_GEMMA, "num_key_value_heads": 16}),
    "gemma2": _biased(
        norms=4, post_norm=True, window="by_layer", defaults={**_GEMMA2, "vocab_size": 256_000},
    ),
    "gemma3_text": _biased(
        norms=4, post_norm=True, qk_norm="head", window="by_layer",
        defaults={**_GEMMA2, "_sliding_window_pattern": 6, "vocab_size": 262_208},
    ),
    "gpt_oss": Style(
        qkv_bias=True, out_bias=True, window="by_layer", sinks=True, only={"attention_bias": (True,)},
        defaults={"sliding_window": 128, "head_dim": 64, "num_key_value_heads": 8},
        # The experts of gpt-oss never were Linear modules.
        experts=Experts("num_local_experts", size="intermediate_size", router="router", bias=True, adaptable=False),
        irrelevant=("experts_per_token", "initial_context_length"),
    ),
    "phi3": Style(
        window="always", fused_qkv=True, fused_mlp=True, irrelevant=("interpolate_factor",),
        only={"attention_bias": (False,), "mlp_bias": (False,), "lm_head_bias": (False,), "full_attn_mod": (1,)},
    ),
}  # fmt: skip
