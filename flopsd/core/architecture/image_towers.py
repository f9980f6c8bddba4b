"""Image encoders: patches of pixels pass the layers of a transformer that sees the whole image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.model import Attention, Block, Embedding, Images, Linear, Mask, Stream
from flopsd.core.architecture.parts import attention_of, gated_mlp, plain_mlp
from flopsd.core.dataclass import dataclass

_PATCHES, _IMAGES = Stream.PATCHES, Stream.IMAGES


@dataclass(frozen=True, slots=True)
class TowerStyle:
    """The differences between families; paths and defaults are those of transformers' classes."""

    patch: str  # path of the patch embedding
    position: str
    layers: str
    attention: str = "self_attn"
    output: str = "out_proj"
    patch_bias: bool = True
    patch_linear: bool = False  # a Linear module, not a convolution, so that PEFT adapts it like others
    patch_size: int = 16
    class_tokens: int = 0
    norms: int = 1  # in addition to those of the layers
    layer_scale: bool = False


_VIT = TowerStyle(
    "embeddings.patch_embeddings.projection", "embeddings.position_embeddings", "layers", "attention", "o_proj",
    class_tokens=1,
)  # fmt: skip
_SIGLIP = TowerStyle("embeddings.patch_embedding", "embeddings.position_embedding", "encoder.layers")
STYLES: Mapping[str, TowerStyle] = {
    "vit": _VIT,
    "deit": replace(_VIT, class_tokens=2),
    "dinov2": replace(_VIT, layers="encoder.layer", patch_size=14, layer_scale=True),
    "clip_vision_model": replace(_SIGLIP, patch_bias=False, patch_size=32, class_tokens=1, norms=2),
    "siglip_vision_model": _SIGLIP,
    **dict.fromkeys(("idefics3_vision", "smolvlm_vision"), replace(_SIGLIP, patch_size=32)),
    "llama4_vision_model": TowerStyle(
        "patch_embedding.linear", "positional_embedding_vlm", "model.layers", output="o_proj", patch_bias=False,
        patch_linear=True, patch_size=14, class_tokens=1, norms=2,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tower:
    """One encoder. `others`: parameters without a product outside its layers. `heads`: of attention."""

    embeddings: tuple[Embedding, ...]
    stem: tuple[Linear, ...]
    blocks: tuple[Block, ...]
    others: int
    width: int
    size: int
    heads: int
    images: Images


def read_tower(fields: Fields, prefix: str = "") -> Tower:
    """The encoder of `fields.family`, with the module path `prefix`. The caller reads everything after its last norm
    and calls `fields.finish`."""
    style = STYLES[fields.family]
    width, layers = fields.number("hidden_size", 768), fields.layers("num_hidden_layers", 12)
    heads, channels = fields.heads("num_attention_heads", width, 12), fields.number("num_channels", 3)
    (height, across), (patch, other) = fields.pair("image_size", 224), fields.pair("patch_size", style.patch_size)
    if patch != other or min(height, across) < patch:
        raise fields.wrong("patch_size", fields.get("patch_size"))
    bias, size, gated = fields.flag("qkv_bias", True), 0, False
    if fields.family == "dinov2":
        size, gated = _dinov2_mlp(fields, width)
    else:
        size = fields.number("intermediate_size", 3072)
    count = (height // patch) * (across // patch) + style.class_tokens
    position = Embedding(f"{prefix}{style.position}", count, width, _PATCHES)
    pixels = Linear(
        f"{prefix}{style.patch}",
        channels * patch**2,
        width,
        style.patch_bias,
        stream=Stream.PIXELS,
        adaptable=style.patch_linear,
    )

    def block(index: int) -> Block:
        path = f"{prefix}{style.layers}.{index}"
        attention = encoder_attention(f"{path}.{style.attention}", width, heads, style.output, bias=bias)
        scales = 2 * width if style.layer_scale else 0
        mlp = (gated_mlp if gated else plain_mlp)(f"{path}.mlp", width, size, True, stream=_PATCHES)
        return Block(
            path,
            (attention, mlp),
            others=4 * width + scales,
            output_unneeded=not style.layer_scale,
            stream=_PATCHES,
        )

    return Tower(
        embeddings=(position,),
        stem=(pixels,),
        blocks=tuple(block(index) for index in range(layers)),
        others=width * (style.class_tokens + 2 * style.norms),
        width=width,
        size=size,
        heads=heads,
        images=Images(patch, count, style.class_tokens),
    )


def _dinov2_mlp(fields: Fields, width: int) -> tuple[int, bool]:
    """The width of the hidden layer, and whether it is gated (SwiGLU: two thirds of it, up to a multiple of 8)."""
    size = width * fields.number("mlp_ratio", 4)
    return (size, False) if not fields.flag("use_swiglu_ffn", False) else ((size * 2 // 3 + 7) // 8 * 8, True)


def encoder_attention(
    path: str, width: int, heads: int, output: str = "out_proj", *, bias: bool = True, mask: Mask = Mask.FULL,
    stream: Stream = _PATCHES,
) -> Attention:  # fmt: skip
    """An attention whose output has a bias, as in all families."""
    names, biases = ("q_proj", "k_proj", "v_proj", output), (bias, bias, bias, True)
    return attention_of(path, names, width, (heads, width // heads), mask, stream, biases=biases)


def pooling_head(path: str, tower: Tower) -> tuple[Embedding, Block]:
    """SigLIP's pooling: one learned query per image attends to its patches; then an MLP."""
    width = tower.width

    def linear(name: str, stream: Stream, outputs: int = width) -> Linear:
        return Linear(f"{path}.attention.{name}", width, outputs, True, stream=stream, adaptable=False)

    attention = Attention(
        Mask.CROSS, tower.heads, width // tower.heads,
        (linear("in_proj_weight", _IMAGES), linear("in_proj_weight", _PATCHES, 2 * width)), ("q", "kv"),
        linear("out_proj", _IMAGES), stream=_IMAGES,
    )  # fmt: skip
    mlp = plain_mlp(f"{path}.mlp", width, tower.size, stream=_IMAGES)
    block = Block(path, (attention, mlp), others=2 * width, stream=_IMAGES, checkpointed=False)
    return Embedding(f"{path}.probe", 1, width, _IMAGES), block
