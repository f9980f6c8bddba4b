"""Diffusion transformers of the diffusers package, in which rows of an image and rows of text attend to each other.

A sequence is an image's rows and its text's: `tokens` are both, `patches` those of the image, and `square_pairs` are of
both. One vector per sequence (diffusion step, pooled text) modulates every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.model import Attention, Block, Linear, Mask, Mlp, Model, Modulation, Part, Stream

FLUX, SD3 = "FluxTransformer2DModel", "SD3Transformer2DModel"
_BOTH = (Stream.LATENTS, Stream.TEXT)
_TIME = 256  # width of the sinusoidal embedding of a step
_WIDER = 4  # width of an MLP as a multiple of the layer's


def read_flux(config: Mapping[str, Any]) -> Model:
    """FLUX.1: layers with separate weights for image and text, then layers with shared weights."""
    fields = Fields(FLUX, config)
    heads, head_dim = fields.number("num_attention_heads", 24), fields.number("attention_head_dim", 128)
    channels, text = fields.number("in_channels", 64), fields.number("joint_attention_dim", 4096)
    outputs = fields.number("patch_size", 1) ** 2 * (fields.optional("out_channels") or channels)
    pooled, guided = fields.number("pooled_projection_dim", 768), fields.flag("guidance_embeds", False)
    double, single = fields.layers("num_layers", 19), fields.layers("num_single_layers", 38)
    fields.finish((*_IRRELEVANT, "axes_dims_rope"))
    width = heads * head_dim
    layers = [_Layer(f"transformer_blocks.{index}", heads, head_dim, norms=True).of_both() for index in range(double)]
    layers += [_single_layer(f"single_transformer_blocks.{index}", heads, head_dim) for index in range(single)]
    return _model(FLUX, (
        Linear("x_embedder", channels, width, True, stream=Stream.LATENTS),
        Linear("context_embedder", text, width, True, stream=Stream.TEXT),
    ), [*_conditions(width, pooled, guided), *layers], width, outputs)  # fmt: skip


def read_sd3(config: Mapping[str, Any]) -> Model:
    """Stable Diffusion 3 and 3.5: every layer has separate weights for image and text; the last has no MLP for the
    text. Some layers of 3.5 medium also have an attention of the image alone."""
    fields = Fields(SD3, config)
    heads, head_dim = fields.number("num_attention_heads", 18), fields.number("attention_head_dim", 64)
    patch, channels = fields.number("patch_size", 2), fields.number("in_channels", 16)
    outputs = patch**2 * (fields.optional("out_channels", 16) or channels)
    text, pooled = fields.number("joint_attention_dim", 4096), fields.number("pooled_projection_dim", 2048)
    count, width = fields.layers("num_layers", 18), heads * head_dim
    caption = fields.number("caption_projection_dim", 1152)
    if caption != width:
        raise fields.wrong("caption_projection_dim", caption)
    dual = fields.sequence("dual_attention_layers") or ()
    fields.only("qk_norm", None, "rms_norm")
    norms = fields.get("qk_norm") is not None
    fields.finish((*_IRRELEVANT, "pos_embed_max_size", "sample_size"))
    layers = [
        _Layer(f"transformer_blocks.{index}", heads, head_dim, norms).of_both(
            last=index == count - 1, dual=index in dual
        )
        for index in range(count)
    ]
    return _model(SD3, (
        Linear("pos_embed.proj", channels * patch**2, width, True, stream=Stream.LATENTS, adaptable=False),
        Linear("context_embedder", text, width, True, stream=Stream.TEXT),
    ), [*_conditions(width, pooled, False), *layers], width, outputs)  # fmt: skip


_IRRELEVANT = ("_class_name", "_diffusers_version")


def _model(family: str, stem: tuple[Linear, ...], blocks: list[Block], width: int, outputs: int) -> Model:
    modulation = Linear("norm_out.linear", width, 2 * width, True, stream=Stream.SEQUENCES)
    ending = Block("norm_out", (Modulation(modulation, (Stream.LATENTS,)),), checkpointed=False, joins=_BOTH)
    head = Linear("proj_out", width, outputs, True, stream=Stream.LATENTS)
    return Model(family, stem=stem, blocks=(*blocks, ending), heads=(head,))


def _conditions(width: int, pooled: int, guided: bool) -> Iterator[Block]:
    """The blocks that make the one vector per sequence: step, guidance and pooled text."""
    inputs = {"timestep_embedder": _TIME, **({"guidance_embedder": _TIME} if guided else {}), "text_embedder": pooled}
    for name, size in inputs.items():
        path = f"time_text_embed.{name}"
        inner = Linear(f"{path}.linear_1", size, width, True, stream=Stream.CONDITIONS)
        both = Mlp((inner,), Linear(f"{path}.linear_2", width, width, True, stream=Stream.SEQUENCES))
        yield Block(path, (both,), stream=Stream.SEQUENCES, source=Stream.CONDITIONS, checkpointed=False)


class _Layer:
    """A layer with separate weights for image and text."""

    def __init__(self, path: str, heads: int, head_dim: int, norms: bool) -> None:
        self._path, self._heads, self._head_dim = path, heads, head_dim
        self._width, self._norm = heads * head_dim, 2 * head_dim if norms else 0

    def of_both(self, *, last: bool = False, dual: bool = False) -> Block:
        """`last`: the text is not read after its attention. `dual`: the image also attends to itself."""
        image, text = Stream.LATENTS, Stream.TEXT
        parts: list[Part] = [
            self._modulation("norm1", 9 if dual else 6, image),
            self._modulation("norm1_context", 2 if last else 6, text),
            self._joint(last),
        ]
        if dual:
            read, out = self._projections("attn2", ("to_q", "to_k", "to_v"), image), self._linear("attn2.to_out.0")
            parts.append(Attention(
                Mask.FULL, self._heads, self._head_dim, read, ("q", "k", "v"), out, others=self._norm, stream=image
            ))  # fmt: skip
        parts.append(self._mlp("ff", image))
        if not last:
            parts.append(self._mlp("ff_context", text))
        return Block(self._path, tuple(parts), output_unneeded=False, joins=_BOTH)

    def _joint(self, last: bool) -> Attention:
        image = self._projections("attn", ("to_q", "to_k", "to_v"), Stream.LATENTS)
        text = self._projections("attn", ("add_q_proj", "add_k_proj", "add_v_proj"), Stream.TEXT)
        beside = () if last else (self._linear("attn.to_add_out", Stream.TEXT),)
        return Attention(
            Mask.FULL, self._heads, self._head_dim, (*image, *text), ("q", "k", "v") * 2, self._linear("attn.to_out.0"),
            beside=beside, others=2 * self._norm,
        )  # fmt: skip

    def _modulation(self, name: str, vectors: int, stream: Stream) -> Modulation:
        path = f"{self._path}.{name}.linear"
        linear = Linear(path, self._width, vectors * self._width, True, stream=Stream.SEQUENCES)
        return Modulation(linear, (stream,))

    def _projections(self, name: str, names: tuple[str, ...], stream: Stream) -> tuple[Linear, ...]:
        return tuple(self._linear(f"{name}.{one}", stream) for one in names)

    def _mlp(self, name: str, stream: Stream) -> Mlp:
        path, size = f"{self._path}.{name}.net", _WIDER * self._width
        inner = Linear(f"{path}.0.proj", self._width, size, True, stream=stream)
        return Mlp((inner,), Linear(f"{path}.2", size, self._width, True, stream=stream))

    def _linear(self, name: str, stream: Stream = Stream.LATENTS) -> Linear:
        return Linear(f"{self._path}.{name}", self._width, self._width, True, stream=stream)


def _single_layer(path: str, heads: int, head_dim: int) -> Block:
    """A layer with shared weights for image and text; one matrix reads the outputs of attention and MLP."""
    width = heads * head_dim
    modulation = Linear(f"{path}.norm.linear", width, 3 * width, True, stream=Stream.SEQUENCES)
    read = tuple(Linear(f"{path}.attn.to_{name}", width, width, True) for name in "qkv")
    attention = Attention(
        Mask.FULL, heads, head_dim, (Linear(f"{path}.proj_mlp", width, _WIDER * width, True), *read),
        ("o", "q", "k", "v"), Linear(f"{path}.proj_out", (1 + _WIDER) * width, width, True), others=2 * head_dim,
    )  # fmt: skip
    return Block(path, (Modulation(modulation, _BOTH), attention), output_unneeded=False, joins=_BOTH)
