"""Encoder-decoders: T5 and BART."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import Head, head_of, no_head
from flopsd.core.architecture.model import Attention, Block, Embedding, Linear, Mask, Mlp, Model, Stream
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
        names = ("q", "k", "v", "o")
        return attention_of(path, names, hidden, (heads, head_dim), mask, stream, bias=False, others=others)

    def mlp(path: str, stream: Stream) -> Mlp:
        matrices = tuple(Linear(f"{path}.DenseReluDense.{name}", hidden, size, stream=stream) for name in inner)
        return Mlp(matrices, Linear(f"{path}.DenseReluDense.wo", size, hidden, stream=stream))

    blocks, spare = [], fields.spare_tail("dropout_rate", 0.1)
    for index in range(layers):
        path = f"encoder.block.{index}"
        own = attention(f"{path}.layer.0.SelfAttention", Mask.FULL, index == 0, Stream.TOKENS)
        both = (own, mlp(f"{path}.layer.1", Stream.TOKENS))
        blocks.append(Block(path, both, others=2 * hidden, spare_tail=spare))
    for index in range(decoder_layers):
        path = f"decoder.block.{index}"
        own = attention(f"{path}.layer.0.SelfAttention", Mask.CAUSAL, index == 0, _TARGET)
        cross = attention(f"{path}.layer.1.EncDecAttention", Mask.CROSS, False, _TARGET)
        three = (own, cross, mlp(f"{path}.layer.2", _TARGET))
        blocks.append(Block(path, three, others=3 * hidden, spare_tail=spare, stream=_TARGET))
    language = Linear("lm_head", hidden, vocabulary, tied=tied, stream=_TARGET)
    heads_known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "T5Model": no_head}
    head = head_of(fields, heads_known, "ForConditionalGeneration")
    fields.finish(("n_positions", "output_past", "num_hidden_layers", "num_attention_heads", "hidden_size"))
    table = Embedding("shared", vocabulary, hidden)
    return Model("t5", (table,), blocks=tuple(blocks), heads=head, others=2 * hidden)


def read_bart(config: Mapping[str, Any]) -> Model:
    """BART: learned positions with two spare rows, biases everywhere, norms behind each part."""
    fields = Fields("bart", config)
    hidden, vocabulary = fields.number("d_model", 1024), fields.number("vocab_size", 50265)
    positions = fields.number("max_position_embeddings", 1024)
    tied = fields.flag("tie_word_embeddings", True)
    sides = []
    for side in ("encoder", "decoder"):
        heads = fields.heads(f"{side}_attention_heads", hidden, 16)
        # Layers dropped at random would make every count a matter of luck.
        fields.only(f"{side}_layerdrop", 0, 0.0, "0.0", None)
        sides.append((fields.layers(f"{side}_layers", 12), heads, fields.number(f"{side}_ffn_dim", 4096)))
    fields.only("is_decoder", False)

    def attention(path: str, mask: Mask, heads: int, stream: Stream) -> Attention:
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        return attention_of(path, names, hidden, (heads, hidden // heads), mask, stream)

    blocks = []
    for name, stream, (layers, heads, size) in zip(
        ("encoder", "decoder"), (Stream.TOKENS, _TARGET), sides, strict=True
    ):
        for index in range(layers):
            path = f"model.{name}.layers.{index}"
            own = Mask.FULL if stream is Stream.TOKENS else Mask.CAUSAL
            parts: list[Attention | Mlp] = [attention(f"{path}.self_attn", own, heads, stream)]
            if stream is _TARGET:
                parts.append(attention(f"{path}.encoder_attn", Mask.CROSS, heads, stream))
            parts.append(plain_mlp(path, hidden, size, stream=stream))
            blocks.append(Block(path, tuple(parts), others=2 * hidden * len(parts), spare_tail=False, stream=stream))
    language = Linear("lm_head", hidden, vocabulary, tied=tied, stream=_TARGET)
    heads_known: dict[str, Head] = {"ForConditionalGeneration": lambda: (language,), "BartModel": no_head}
    head = head_of(fields, heads_known, "ForConditionalGeneration")
    fields.finish(("num_hidden_layers", "extra_pos_embeddings"))
    tables = (
        Embedding("model.shared", vocabulary, hidden),
        Embedding("model.encoder.embed_positions", positions + 2, hidden),
        Embedding("model.decoder.embed_positions", positions + 2, hidden, _TARGET),
    )
    return Model("bart", tables, blocks=tuple(blocks), heads=head, others=4 * hidden, max_positions=positions)
