"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5: images keep their size, and 2 x 2 patches become one token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_styles import Experts, Style
from flopsd.core.architecture.decoders import read_decoder
from flopsd.core.architecture.delta_decoders import read_delta_decoder
from flopsd.core.architecture.image_text import bridge_of, inner_config, with_images
from flopsd.core.architecture.model import Attention, Block, Embedding, Images, Linear, Mask, Mlp, Model, Stream
from flopsd.core.architecture.parts import gated_mlp, plain_mlp
from flopsd.core.dataclass import dataclass

_PATH = "model.visual."
_TOKENS = ("video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id")
# In an older file, the text fields are next to these.
_OUTER = frozenset(
    {*_TOKENS, "architectures", "image_token_id", "model_type", "text_config", "tie_word_embeddings", "torch_dtype",
     "transformers_version", "vision_config"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Style:
    """The differences between versions. `depth` and `size` are defaults of the class."""

    text: str
    width_field: str  # of the tower; the other field is its output width to the decoder
    out_field: str
    width: int
    size: int
    depth: int = 32
    patch_size: int = 14
    out: int = 3584
    rms: bool = False  # norms have one parameter vector, not two
    gated: bool = False
    names: tuple[str, str] = ("fc1", "fc2")
    merger: tuple[str, str] = ("mlp.0", "mlp.2")
    deepstack: bool = False  # further layers of the tower also give soft tokens


_QWEN3 = _Style(
    "qwen3_vl_text", "hidden_size", "out_hidden_size", 1152, 4304, depth=27, patch_size=16,
    names=("linear_fc1", "linear_fc2"), merger=("linear_fc1", "linear_fc2"), deepstack=True,
)  # fmt: skip
# The decoders: as Qwen2 and Qwen3, with other defaults.
_TEXT2 = Style(
    qkv_bias=True, window="qwen",
    defaults={"sliding_window": 4096, "num_key_value_heads": 8, "max_window_layers": 80, "vocab_size": 152_064},
)  # fmt: skip
_TEXT3 = Style(
    qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head",
    defaults={"head_dim": 128, "num_key_value_heads": 32, "vocab_size": 151_936},
)  # fmt: skip
_TEXTS: Mapping[str, Style] = {
    "qwen2_vl_text": _TEXT2,
    "qwen2_5_vl_text": _TEXT2,
    "qwen3_vl_text": _TEXT3,
    "qwen3_vl_moe_text": replace(
        _TEXT3, irrelevant=("sliding_window",),
        defaults={"num_key_value_heads": 16, "decoder_sparse_step": 1, "vocab_size": 151_936},
        experts=Experts("num_experts", "num_local_experts", step="decoder_sparse_step", dense_layers="mlp_only_layers"),
    ),
}  # fmt: skip
STYLES: Mapping[str, _Style] = {
    "qwen2_vl": _Style("qwen2_vl_text", "embed_dim", "hidden_size", 1280, 0),
    "qwen2_5_vl": _Style(
        "qwen2_5_vl_text", "hidden_size", "out_hidden_size", 3584, 3420, rms=True, gated=True
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": replace(_QWEN3, text="qwen3_vl_moe_text"),
    "qwen3_5": replace(_QWEN3, text="qwen3_5_text", deepstack=False),
    "qwen3_5_moe": replace(_QWEN3, text="qwen3_5_moe_text", deepstack=False),
}  # fmt: skip


def read_qwen_vl(family: str, config: Mapping[str, Any]) -> Model:
    """A model of one of these families. The text configuration may be nested, or next to that of the images."""
    style, whole = STYLES[family], dict(config)
    if whole.get("text_config") is None:
        text = {name: value for name, value in config.items() if name not in _OUTER}
        whole = {name: value for name, value in config.items() if name in _OUTER}
        whole["text_config"] = {**text, "tie_word_embeddings": config.get("tie_word_embeddings")}
    fields = Fields(family, whole)
    inner = inner_config(fields, "text")
    decoder = _decoder(style.text, inner)
    vision = Fields(f"{family}_vision", inner_config(fields, "vision"))
    eyes = _Tower(vision, style).eyes()
    fields.get("image_token_id")
    # Files of the older versions may have it only in the inner configuration, where transformers reads it.
    tied = family in ("qwen2_vl", "qwen2_5_vl") and inner.get("tie_word_embeddings") is True
    model = with_images(fields, decoder, eyes, tied=tied)
    fields.finish(_TOKENS)
    return model


def _decoder(family: str, config: Mapping[str, Any]) -> Model:
    path = "model.language_model."
    if family in _TEXTS:
        return read_decoder(family, config, path, _TEXTS[family])
    return read_delta_decoder(family, config, path)


class _Tower:
    def __init__(self, fields: Fields, style: _Style) -> None:
        self.fields, self.style = fields, style
        self.width, depth = fields.number(style.width_field, style.width), fields.layers("depth", style.depth)
        self.heads, channels = fields.heads("num_heads", self.width, 16), fields.number("in_channels", 3)
        patch, across = fields.pair("patch_size", style.patch_size)
        frames, _ = fields.pair("temporal_patch_size", 2)
        self.merge_side = fields.number("spatial_merge_size", 2)
        self.out = fields.number(style.out_field, style.out)
        fields.only("in_chans", channels, None)  # no class of transformers reads it
        if patch != across:
            raise fields.wrong("patch_size", fields.get("patch_size"))
        size = fields.number("mlp_ratio", 4) * self.width if style.size == 0 else None
        self.size = fields.number("intermediate_size", style.size) if size is None else size
        self.side, windowless = self._windows(patch, depth)
        self.images = Images(patch, merge=self.merge_side**2, window_side=self.side, input_gradients=not self._qwen3)
        self.pixels = Linear(
            f"{_PATH}patch_embed.proj", channels * frames * patch * across, self.width, self._qwen3,
            stream=Stream.PIXELS, adaptable=False,
        )  # fmt: skip
        table = fields.number("num_position_embeddings", 2304) if self._qwen3 else 0
        self.tables = (Embedding(f"{_PATH}pos_embed", table, self.width, Stream.PATCHES),) if table else ()
        levels = list(fields.sequence("deepstack_visual_indexes") or (8, 16, 24)) if style.deepstack else []
        if any(level not in range(depth) for level in levels):
            raise fields.wrong("deepstack_visual_indexes", levels)
        self.blocks: list[Block] = []
        for index in range(depth):
            self.blocks.append(self._block(f"{_PATH}blocks.{index}", index in windowless))
            if index in levels:
                self.blocks.append(self._merger(f"{_PATH}deepstack_merger_list.{levels.index(index)}", wide_norm=True))
        self.blocks.append(self._merger(f"{_PATH}merger"))
        fields.finish(("spatial_patch_size", "tokens_per_second"))

    @property
    def _qwen3(self) -> bool:
        return self.style.text.startswith("qwen3")

    def eyes(self) -> Model:
        return Model("", self.tables, (self.pixels,), tuple(self.blocks), images=self.images)

    def _windows(self, patch: int, depth: int) -> tuple[int | None, frozenset[int]]:
        """Patches on a window's side, and the layers that see the whole image."""
        if not self.style.gated:
            return None, frozenset(range(depth))
        merge = self.merge_side
        side = self.fields.number("window_size", 112) // merge // patch * merge
        if side == 0:
            raise self.fields.wrong("window_size", self.fields.get("window_size"))
        whole = self.fields.sequence("fullatt_block_indexes")
        return side, frozenset((7, 15, 23, 31) if whole is None else whole)

    def _block(self, path: str, sees_all: bool) -> Block:
        width, stream = self.width, Stream.PATCHES
        mask, window = (Mask.FULL, None) if sees_all or self.side is None else (Mask.WINDOW, self.side**2)
        attention = Attention(
            mask, self.heads, width // self.heads,
            (Linear(f"{path}.attn.qkv", width, 3 * width, True, stream=stream),), ("qkv",),
            Linear(f"{path}.attn.proj", width, width, True, stream=stream), window, stream=stream,
        )  # fmt: skip
        if self.style.gated:
            mlp: Mlp = gated_mlp(f"{path}.mlp", width, self.size, True, stream=stream)
        else:
            mlp = plain_mlp(f"{path}.mlp", width, self.size, names=self.style.names, stream=stream)
        return Block(path, (attention, mlp), others=self._norm(2 * width), stream=stream)

    def _merger(self, path: str, *, wide_norm: bool = False) -> Block:
        whole, (first, last) = self.width * self.merge_side**2, self.style.merger
        inner = Linear(f"{path}.{first}", whole, whole, True, stream=Stream.SOFT)
        down = Linear(f"{path}.{last}", whole, self.out, True, stream=Stream.SOFT)
        return bridge_of(path, Mlp((inner,), down), others=self._norm(whole if wide_norm else self.width))

    def _norm(self, width: int) -> int:
        return width if self.style.rms else 2 * width
