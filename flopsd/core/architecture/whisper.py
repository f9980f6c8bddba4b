"""Whisper: an encoder of audio frames behind two convolutions, and a decoder of text beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import Head, head_of, no_head
from flopsd.core.architecture.model import Attention, Block, Embedding, Linear, Mask, Model, Stream
from flopsd.core.architecture.parts import plain_mlp

_KERNEL = 3  # of both convolutions; the second has a stride of 2


def read_whisper(config: Mapping[str, Any]) -> Model:
    """Whisper. Its `tokens` are the rows of the encoder, of which each stands for two frames of the spectrogram."""
    fields = Fields("whisper", config)
    hidden, vocabulary = fields.number("d_model", 384), fields.number("vocab_size", 51865)
    bins = fields.number("num_mel_bins", 80)
    source, target = fields.number("max_source_positions", 1500), fields.number("max_target_positions", 448)
    tied = fields.flag("tie_word_embeddings", True)
    blocks: list[Block] = []
    spare = fields.spare_tail("dropout")
    for side, stream in (("encoder", Stream.TOKENS), ("decoder", Stream.TARGET)):
        layers, heads = fields.layers(f"{side}_layers", 4), fields.heads(f"{side}_attention_heads", hidden, 6)
        size = fields.number(f"{side}_ffn_dim", 1536)
        # Layers dropped at random would make every count a matter of luck.
        fields.only(f"{side}_layerdrop", 0, 0.0, "0.0", None)
        blocks += [
            _block(f"model.{side}.layers.{index}", hidden, heads, size, stream, spare) for index in range(layers)
        ]
    language = Linear("proj_out", hidden, vocabulary, tied=tied, stream=Stream.TARGET)
    known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "WhisperModel": no_head}
    head = head_of(fields, known, "ForConditionalGeneration")
    fields.finish(_IRRELEVANT)
    convolutions = (
        Linear("model.encoder.conv1", _KERNEL * bins, hidden, True, stream=Stream.FRAMES, adaptable=False),
        Linear("model.encoder.conv2", _KERNEL * hidden, hidden, True, adaptable=False),
    )
    tables = (
        Embedding("model.decoder.embed_tokens", vocabulary, hidden, Stream.TARGET),
        Embedding("model.decoder.embed_positions", target, hidden, Stream.TARGET),
    )
    return Model(
        "whisper", tables, convolutions, tuple(blocks), head, others=4 * hidden, constants=source * hidden,
        max_positions=max(source, target),
    )  # fmt: skip


def _block(path: str, hidden: int, heads: int, size: int, stream: Stream, spare_tail: bool | None) -> Block:
    def attention(name: str, mask: Mask) -> Attention:
        read = Stream.MEMORY if mask is Mask.CROSS else stream
        at = f"{path}.{name}"
        return Attention(
            mask, heads, hidden // heads,
            (Linear(f"{at}.q_proj", hidden, hidden, True, stream=stream),
             Linear(f"{at}.k_proj", hidden, hidden, stream=read),
             Linear(f"{at}.v_proj", hidden, hidden, True, stream=read)), ("q", "k", "v"),
            Linear(f"{at}.out_proj", hidden, hidden, True, stream=stream), stream=stream,
        )  # fmt: skip

    own = attention("self_attn", Mask.FULL if stream is Stream.TOKENS else Mask.CAUSAL)
    cross = () if stream is Stream.TOKENS else (attention("encoder_attn", Mask.CROSS),)
    parts = (own, *cross, plain_mlp(path, hidden, size, stream=stream))
    return Block(path, parts, others=2 * hidden * len(parts), spare_tail=spare_tail, stream=stream)


_IRRELEVANT = (
    "apply_spec_augment", "classifier_proj_size", "forced_decoder_ids", "mask_feature_length",
    "mask_feature_min_masks", "mask_feature_prob", "mask_time_length", "mask_time_min_masks", "mask_time_prob",
    "median_filter_width", "num_hidden_layers", "use_weighted_layer_sum", "hidden_size", "num_attention_heads",
    "num_key_value_heads",
)  # fmt: skip
