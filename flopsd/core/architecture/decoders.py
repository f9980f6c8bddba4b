"""Decoders of the Llama kind: grouped queries, gated MLP or experts, RMS norms, sliding windows on some layers.

The shapes are those of transformers' modeling files; `tests/train` compares each with the real class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import causal_heads, head_of
from flopsd.core.architecture.model import Attention, Block, Embedding, Linear, Mask, Mlp, Model
from flopsd.errors import ArchitectureError


@dataclass(frozen=True, slots=True)
class Style:
    """What differs between families. Text for a bias: the name of the field of the configuration that has it.

    What a config.json leaves out has the default of the family's class, here as in transformers 5.24 (each
    `configuration_<family>.py`); `tests/train` holds every field against the class.
    """

    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: bool = False
    norms: int = 2  # a layer
    fused: bool = False  # Phi-3: one matrix for q, k and v, one for gate and up
    tied: bool = False
    window: str = "never"  # never, always, by_layer, qwen
    window_default: int | None = None
    pattern: int = 2  # every so many layers one sees all
    head_dim: int | None = None
    heads_default: int = -1  # where a published config.json leaves it out
    kv_default: int | None = None  # None: as many as heads, which is what null means in each
    full_before: int = 28  # qwen: the layers before the first with a window
    vocabulary_default: int = -1
    experts: str = "none"  # none, mixtral, qwen, gpt_oss
    sinks: bool = False
    irrelevant: tuple[str, ...] = ()


_WINDOWLESS = ("max_window_layers",)
STYLES: Mapping[str, Style] = {
    "llama": Style(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Style(window="always", window_default=4096, kv_default=8),
    "mixtral": Style(window="always", experts="mixtral", kv_default=8),
    "qwen2": Style(qkv_bias=True, window="qwen", window_default=4096, kv_default=32, irrelevant=_WINDOWLESS),
    "qwen3": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=True, window="qwen", window_default=4096,
        head_dim=128, kv_default=32, irrelevant=_WINDOWLESS,
    ),
    "qwen2_moe": Style(qkv_bias="qkv_bias", window="qwen", window_default=4096, experts="qwen2", kv_default=16,
                       irrelevant=_WINDOWLESS),
    "qwen3_moe": Style(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=True, window="qwen",
                       window_default=4096, experts="qwen3", kv_default=4, irrelevant=_WINDOWLESS),
    "gemma": Style(qkv_bias="attention_bias", out_bias="attention_bias", tied=True, head_dim=256, kv_default=16),
    "gemma2": Style(qkv_bias="attention_bias", out_bias="attention_bias", tied=True, head_dim=256, norms=4,
                    window="by_layer", window_default=4096, heads_default=8, kv_default=4, vocabulary_default=256_000),
    "gemma3_text": Style(qkv_bias="attention_bias", out_bias="attention_bias", tied=True, head_dim=256, norms=4,
                         qk_norm=True, window="by_layer", window_default=4096, pattern=6, heads_default=8,
                         kv_default=4, vocabulary_default=262_208),
    "gpt_oss": Style(qkv_bias=True, out_bias=True, window="by_layer", window_default=128, head_dim=64,
                     experts="gpt_oss", kv_default=8, sinks=True,
                     irrelevant=("experts_per_token", "initial_context_length")),
    "phi3": Style(window="always", fused=True),
}  # fmt: skip


def read_decoder(family: str, config: Mapping[str, Any], *, prefix: str = "model.", head: bool = True) -> Model:
    """A decoder of one of these families. Raises ArchitectureError naming the field."""
    style, fields = STYLES[family], Fields(family, config)
    hidden, layers = fields.number("hidden_size"), fields.layers()
    vocabulary = fields.number("vocab_size", style.vocabulary_default)
    tied = fields.flag("tie_word_embeddings", style.tied)
    fields.only("use_bidirectional_attention", None, False)
    if family == "gpt_oss":
        fields.only("attention_bias", True)
    windows = _windows(fields, style, layers)
    attention = _Attention(fields, style, hidden)
    feed = _Feed(fields, style, hidden)
    blocks = tuple(
        Block(
            path := f"{prefix}layers.{index}",
            (attention.at(path, windows[index]), *feed.at(path, index)),
            others=style.norms * hidden,
            # A norm or the routing weights follow the last product, so the backward pass needs its output.
            spare_tail=style.norms == 2 and not feed.routed(index),
        )
        for index in range(layers)
    )
    heads, others = head_of(fields, causal_heads(fields, hidden, vocabulary, tied), "ForCausalLM") if head else ((), 0)
    embedding = Embedding(f"{prefix}embed_tokens", vocabulary, hidden)
    maximum = fields.optional("max_position_embeddings")
    fields.finish(style.irrelevant)
    return Model(family, (embedding,), blocks=blocks, heads=heads, others=hidden + others, max_positions=maximum)


class _Attention:
    """Every layer's attention: they differ in their window only."""

    def __init__(self, fields: Fields, style: Style, hidden: int) -> None:
        self.hidden, self.style = hidden, style
        self.heads = fields.number("num_attention_heads", style.heads_default)
        grouped = fields.get("num_key_value_heads", style.kv_default) is not None
        self.kv_heads = fields.number("num_key_value_heads", style.kv_default) if grouped else self.heads
        fallback = style.head_dim or (hidden // self.heads if hidden % self.heads == 0 else None)
        self.head_dim = fields.number("head_dim", fallback)
        self.bias, self.out_bias = _bias(fields, style.qkv_bias), _bias(fields, style.out_bias)
        if self.heads % self.kv_heads:
            raise fields.wrong("num_key_value_heads", self.kv_heads)

    def at(self, path: str, window: int | None) -> Attention:
        path, hidden, width = f"{path}.self_attn", self.hidden, self.heads * self.head_dim
        kv_width = self.kv_heads * self.head_dim
        if self.style.fused:
            projections: tuple[Linear, ...] = (Linear(f"{path}.qkv_proj", hidden, width + 2 * kv_width),)
            feeds: tuple[str, ...] = ("qkv",)
        else:
            sizes = (("q", width), ("k", kv_width), ("v", kv_width))
            projections = tuple(Linear(f"{path}.{n}_proj", hidden, size, self.bias) for n, size in sizes)
            feeds = ("q", "k", "v")
        output = Linear(f"{path}.o_proj", width, hidden, self.out_bias)
        mask = Mask.CAUSAL if window is None else Mask.WINDOW
        others = (2 * self.head_dim if self.style.qk_norm else 0) + (self.heads if self.style.sinks else 0)
        return Attention(mask, self.heads, self.head_dim, projections, feeds, output, window, others=others)


class _Feed:
    """Every layer's MLP or experts."""

    def __init__(self, fields: Fields, style: Style, hidden: int) -> None:
        self.hidden, self.style = hidden, style
        self.size = fields.number("intermediate_size")
        self.bias = _bias(fields, style.mlp_bias)
        self.held = self.used = 1
        self.dense: Sequence[Any] = ()
        self.step, self.expert_size, self.shared_size = 1, self.size, 0
        if style.experts == "none":
            return
        name = "num_experts" if style.experts.startswith("qwen") else "num_local_experts"
        other = {"num_experts": "num_local_experts", "num_local_experts": "num_experts"}[name]
        self.held = fields.number(name, fields.get(other))
        self.used = fields.number("num_experts_per_tok")
        if self.used > self.held:
            raise fields.wrong("num_experts_per_tok", self.used)
        if style.experts.startswith("qwen"):
            self.step = fields.number("decoder_sparse_step", 1)
            self.dense = fields.sequence("mlp_only_layers") or ()
            self.expert_size = fields.number("moe_intermediate_size")
        if style.experts == "qwen2":
            self.shared_size = fields.number("shared_expert_intermediate_size")

    def routed(self, index: int) -> bool:
        return self.style.experts != "none" and index not in self.dense and (index + 1) % self.step == 0

    def at(self, path: str, index: int) -> tuple[Mlp, ...]:
        path = f"{path}.{'block_sparse_moe' if self.style.experts == 'mixtral' else 'mlp'}"
        if not self.routed(index):
            return (self._mlp(path, self.size),)
        # Neither experts nor router are Linear modules in transformers 5; the experts of gpt-oss never were.
        gpt_oss = self.style.experts == "gpt_oss"
        adaptable = False if gpt_oss else None

        def expert(name: str, inputs: int, outputs: int) -> Linear:
            return Linear(f"{path}.experts.{name}", inputs, outputs, gpt_oss, self.held, self.used, adaptable=adaptable)

        names = ("w1", "w3", "w2") if self.style.experts == "mixtral" else ("gate_proj", "up_proj", "down_proj")
        gate, up = (expert(name, self.hidden, self.expert_size) for name in names[:2])
        router = Linear(
            f"{path}.{'router' if gpt_oss else 'gate'}", self.hidden, self.held, gpt_oss, adaptable=adaptable
        )
        mlp = Mlp((gate, up), expert(names[2], self.expert_size, self.hidden), router=(router,))
        if not self.shared_size:
            return (mlp,)
        shared = self._mlp(f"{path}.shared_expert", self.shared_size)
        gate_of_shared = Linear(f"{path}.shared_expert_gate", self.hidden, 1)
        return (mlp, Mlp(shared.inner, shared.down, router=(gate_of_shared,)))

    def _mlp(self, path: str, size: int) -> Mlp:
        if self.style.fused:
            inner: tuple[Linear, ...] = (Linear(f"{path}.gate_up_proj", self.hidden, 2 * size, self.bias),)
        else:
            inner = tuple(Linear(f"{path}.{name}_proj", self.hidden, size, self.bias) for name in ("gate", "up"))
        return Mlp(inner, Linear(f"{path}.down_proj", size, self.hidden, self.bias))


def _bias(fields: Fields, bias: bool | str) -> bool:
    return fields.flag(bias, bias == "qkv_bias") if isinstance(bias, str) else bias


def _windows(fields: Fields, style: Style, layers: int) -> list[int | None]:
    """Each layer's window; None: it sees everything before it."""
    if style.window == "never":
        return [None] * layers
    size = fields.optional("sliding_window", style.window_default)
    if style.window == "qwen" and not fields.flag("use_sliding_window", False):
        size = None
    types = fields.sequence("layer_types")
    first = (
        fields.number("max_window_layers", style.full_before, at_least=0) if fields.family in ("qwen2", "qwen3") else 0
    )
    pattern = fields.number("sliding_window_pattern", fields.number("_sliding_window_pattern", style.pattern))
    if types is not None:
        if len(types) != layers or set(types) - {"full_attention", "sliding_attention"}:
            raise ArchitectureError(
                f"{fields.family}: layer_types does not name full_attention or sliding_attention for each of "
                f"{layers} layers",
                hint=f"flopsd models no other kind of layer; {fields.instead()}",
            )
        return [size if kind == "sliding_attention" else None for kind in types]
    if style.window == "by_layer":
        return [size if (index + 1) % pattern else None for index in range(layers)]
    if size is not None and fields.family == "qwen2_moe":
        raise ArchitectureError(
            "qwen2_moe: which layers have the sliding window differs between versions of transformers",
            hint="give layer_types, as the loaded model's configuration has it",
        )
    return [size if index >= first else None for index in range(layers)]
