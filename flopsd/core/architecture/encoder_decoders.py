"""Encoder-decoders: T5, BART and Whisper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import Head, head_of, no_head
from flopsd.core.architecture.model import Attention, Block, Embedding, Linear, Mask, Mlp, Model, Part, Stream
from flopsd.core.architecture.parts import attention_of, plain_mlp

_TARGET = Stream.TARGET


def read_t5(config: Mapping[str, Any]) -> Model:
    """T5, versions 1.0 and 1.1: no biases, relative positions in the first layer of each stack."""
    fields = Fields("t5", config)
    hidden, head_dim, size = fields.number("d_model", 512), fields.number("d_kv", 64), fields.number("d_ff", 2048)
    layers = fields.layers("num_layers", 6)
    decoder_layers = fields.layers("num_decoder_layers", layers)
    heads, vocabulary = fields.number("num_heads", 8), fields.number("vocab_size", 32128)
    buckets = fields.number("relative_attention_num_buckets", 32)
    feed = str(fields.get("feed_forward_proj", "relu"))
    gated = fields.flag("is_gated_act", feed.startswith("gated"))
    fields.get("dense_act_fn")
    if gated != feed.startswith("gated"):
        raise fields.wrong("is_gated_act", gated)
    tied = fields.flag("tie_word_embeddings", True)
    fields.only("is_decoder", False)
    inner = ("wi_0", "wi_1") if gated else ("wi",)

    def attention(path: str, mask: Mask, first: bool, stream: Stream) -> Attention:
        others = buckets * heads if first else 0
        names, biases = ("q", "k", "v", "o"), (False, False, False, False)
        return attention_of(path, names, hidden, (heads, head_dim), mask, stream, biases=biases, others=others)

    def mlp(path: str, stream: Stream) -> Mlp:
        matrices = tuple(Linear(f"{path}.DenseReluDense.{name}", hidden, size, stream=stream) for name in inner)
        return Mlp(matrices, Linear(f"{path}.DenseReluDense.wo", size, hidden, stream=stream))

    blocks, spare = [], fields.output_unneeded("dropout_rate", 0.1)
    for index in range(layers):
        path = f"encoder.block.{index}"
        own = attention(f"{path}.layer.0.SelfAttention", Mask.FULL, index == 0, Stream.TOKENS)
        both = (own, mlp(f"{path}.layer.1", Stream.TOKENS))
        blocks.append(Block(path, both, others=2 * hidden, output_unneeded=spare))
    for index in range(decoder_layers):
        path = f"decoder.block.{index}"
        own = attention(f"{path}.layer.0.SelfAttention", Mask.CAUSAL, index == 0, _TARGET)
        cross = attention(f"{path}.layer.1.EncDecAttention", Mask.CROSS, False, _TARGET)
        three = (own, cross, mlp(f"{path}.layer.2", _TARGET))
        blocks.append(Block(path, three, others=3 * hidden, output_unneeded=spare, stream=_TARGET))
    language = Linear("lm_head", hidden, vocabulary, tied=tied, stream=_TARGET)
    heads_known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "T5Model": no_head}
    head = head_of(fields, heads_known, "ForConditionalGeneration")
    fields.finish(("n_positions", "output_past", "num_hidden_layers", "num_attention_heads", "hidden_size"))
    table = Embedding("shared", vocabulary, hidden)
    return Model("t5", (table,), blocks=tuple(blocks), heads=head, others=2 * hidden)


def read_bart(config: Mapping[str, Any]) -> Model:
    """BART: learned positions with two spare rows, biases everywhere, a norm after each part."""
    fields = Fields("bart", config)
    hidden, vocabulary = fields.number("d_model", 1024), fields.number("vocab_size", 50265)
    positions = fields.number("max_position_embeddings", 1024)
    tied = fields.flag("tie_word_embeddings", True)
    fields.only("is_decoder", False)
    blocks = _stacks(fields, hidden, layers=12, heads=16, size=4096, output_unneeded=False)
    language = Linear("lm_head", hidden, vocabulary, tied=tied, stream=_TARGET)
    heads_known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "BartModel": no_head}
    head = head_of(fields, heads_known, "ForConditionalGeneration")
    fields.finish(("num_hidden_layers", "extra_pos_embeddings"))
    tables = (
        Embedding("model.shared", vocabulary, hidden),
        Embedding("model.encoder.embed_positions", positions + 2, hidden),
        Embedding("model.decoder.embed_positions", positions + 2, hidden, _TARGET),
    )
    return Model("bart", tables, blocks=blocks, heads=head, others=4 * hidden, max_positions=positions)


def read_whisper(config: Mapping[str, Any]) -> Model:
    """Whisper: two convolutions, then stacks as in BART. Its `tokens` are the rows of the encoder, one for every two
    frames of the spectrogram."""
    fields = Fields("whisper", config)
    hidden, vocabulary = fields.number("d_model", 384), fields.number("vocab_size", 51865)
    bins = fields.number("num_mel_bins", 80)
    source, target = fields.number("max_source_positions", 1500), fields.number("max_target_positions", 448)
    tied, spare = fields.flag("tie_word_embeddings", True), fields.output_unneeded("dropout")
    blocks = _stacks(
        fields, hidden, layers=4, heads=6, size=1536, output_unneeded=spare, biases=(True, False, True, True)
    )  # fmt: skip
    language = Linear("proj_out", hidden, vocabulary, tied=tied, stream=_TARGET)
    known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "WhisperModel": no_head}
    head = head_of(fields, known, "ForConditionalGeneration")
    fields.finish(_WHISPER)
    convolutions = (
        Linear("model.encoder.conv1", _KERNEL * bins, hidden, True, stream=Stream.FRAMES, adaptable=False),
        Linear("model.encoder.conv2", _KERNEL * hidden, hidden, True, adaptable=False),
    )
    tables = (
        Embedding("model.decoder.embed_tokens", vocabulary, hidden, _TARGET),
        Embedding("model.decoder.embed_positions", target, hidden, _TARGET),
    )
    return Model(
        "whisper", tables, convolutions, blocks, head, others=4 * hidden, constants=source * hidden,
        max_positions=max(source, target),
    )  # fmt: skip


_KERNEL = 3  # of both convolutions; the second has a stride of 2
_WHISPER = (
    "apply_spec_augment", "classifier_proj_size", "forced_decoder_ids", "mask_feature_length",
    "mask_feature_min_masks", "mask_feature_prob", "mask_time_length", "mask_time_min_masks", "mask_time_prob",
    "median_filter_width", "num_hidden_layers", "use_weighted_layer_sum", "hidden_size", "num_attention_heads",
    "num_key_value_heads",
)  # fmt: skip


def _stacks(
    fields: Fields, hidden: int, *, layers: int, heads: int, size: int, output_unneeded: bool | None,
    biases: tuple[bool, bool, bool, bool] = (True, True, True, True),
) -> tuple[Block, ...]:  # fmt: skip
    """The layers of both stacks; `layers`, `heads` and `size` are the values of absent fields."""
    names, blocks = ("q_proj", "k_proj", "v_proj", "out_proj"), []
    for side, stream in (("encoder", Stream.TOKENS), ("decoder", _TARGET)):
        count, each = fields.layers(f"{side}_layers", layers), fields.heads(f"{side}_attention_heads", hidden, heads)
        width = fields.number(f"{side}_ffn_dim", size)
        # Layers dropped at random would make every count random.
        fields.only(f"{side}_layerdrop", 0, 0.0, "0.0", None)
        masks = {"self_attn": Mask.FULL if stream is Stream.TOKENS else Mask.CAUSAL}
        if stream is _TARGET:
            masks["encoder_attn"] = Mask.CROSS
        for index in range(count):
            path = f"model.{side}.layers.{index}"
            parts: list[Part] = [
                attention_of(f"{path}.{name}", names, hidden, (each, hidden // each), mask, stream, biases=biases)
                for name, mask in masks.items()
            ]
            parts.append(plain_mlp(path, hidden, width, stream=stream))
            others = 2 * hidden * len(parts)
            blocks.append(Block(path, tuple(parts), others=others, output_unneeded=output_unneeded, stream=stream))
    return tuple(blocks)
