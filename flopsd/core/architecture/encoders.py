"""DistilBERT and ModernBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import HeadWithOthers, encoder_classifiers, head_of, labels
from flopsd.core.architecture.model import Attention, Block, Embedding, Linear, Mask, Mlp, Model, Stream
from flopsd.core.architecture.parts import attention_of, plain_mlp


def read_distilbert(config: Mapping[str, Any]) -> Model:
    """DistilBERT: BERT's layers without token types and without a pooler."""
    fields = Fields("distilbert", config)
    hidden, layers = fields.number("dim", 768), fields.layers("n_layers", 6)
    heads = fields.heads("n_heads", hidden, 12)
    size, vocabulary = fields.number("hidden_dim", 3072), fields.number("vocab_size", 30522)
    positions = fields.number("max_position_embeddings", 512)
    tied = fields.flag("tie_word_embeddings", True)
    blocks = []
    for index in range(layers):
        path = f"distilbert.transformer.layer.{index}"
        names = ("q_lin", "k_lin", "v_lin", "out_lin")
        attention = attention_of(f"{path}.attention", names, hidden, (heads, hidden // heads), Mask.FULL)
        mlp = plain_mlp(f"{path}.ffn", hidden, size, names=("lin1", "lin2"))
        blocks.append(Block(path, (attention, mlp), others=4 * hidden, output_unneeded=False))
    language = (
        Linear("vocab_transform", hidden, hidden, True),
        Linear("vocab_projector", hidden, vocabulary, True, tied=tied),
    )
    known: dict[str, HeadWithOthers] = {
        **encoder_classifiers(fields, hidden, Linear("pre_classifier", hidden, hidden, True, stream=Stream.SEQUENCES)),
        "Model": lambda: ((), 0),
        "ForMaskedLM": lambda: (language, 2 * hidden),
    }
    head, others = head_of(fields, known, "ForMaskedLM")
    fields.finish(("activation", "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_",
                   "output_past", "hidden_size", "num_attention_heads", "num_hidden_layers"))  # fmt: skip
    tables = (
        Embedding("distilbert.embeddings.word_embeddings", vocabulary, hidden),
        Embedding("distilbert.embeddings.position_embeddings", positions, hidden),
    )
    return Model(
        "distilbert", tables, blocks=tuple(blocks), heads=head, others=2 * hidden + others, max_positions=positions
    )


def read_modernbert(config: Mapping[str, Any]) -> Model:
    """ModernBERT: rotary positions, gated MLP; most layers are local: a token sees equally far in both directions."""
    fields = Fields("modernbert", config)
    hidden, layers = fields.number("hidden_size", 768), fields.layers("num_hidden_layers", 22)
    heads, vocabulary = fields.heads("num_attention_heads", hidden, 12), fields.number("vocab_size", 50368)
    size, positions = fields.number("intermediate_size", 1152), fields.number("max_position_embeddings", 8192)
    local, every = fields.number("local_attention", 128), fields.number("global_attn_every_n_layers", 3)
    attention_bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    norm = hidden * (2 if fields.flag("norm_bias", False) else 1)
    head_bias, decoder_bias = fields.flag("classifier_bias", False), fields.flag("decoder_bias", True)
    tied = fields.flag("tie_word_embeddings", True)
    pooling = fields.get("classifier_pooling", "cls")
    fields.only("sparse_prediction", False)  # the head would run only for masked tokens
    types = fields.sequence("layer_types")
    if types is None:
        types = ["sliding_attention" if index % every else "full_attention" for index in range(layers)]
    if len(types) != layers or not set(types) <= {"full_attention", "sliding_attention"}:
        raise fields.wrong("layer_types", types)
    if pooling not in ("cls", "mean"):
        raise fields.wrong("classifier_pooling", pooling)
    blocks = []
    for index, kind in enumerate(types):
        path, near = f"model.layers.{index}", kind == "sliding_attention"
        attention = Attention(
            Mask.LOCAL if near else Mask.FULL, heads, hidden // heads,
            (Linear(f"{path}.attn.Wqkv", hidden, 3 * hidden, attention_bias),), ("qkv",),
            Linear(f"{path}.attn.Wo", hidden, hidden, attention_bias),
            window=local // 2 if near else None,
        )  # fmt: skip
        mlp = Mlp(
            (Linear(f"{path}.mlp.Wi", hidden, 2 * size, mlp_bias),), Linear(f"{path}.mlp.Wo", size, hidden, mlp_bias)
        )
        blocks.append(Block(path, (attention, mlp), others=(2 if index else 1) * norm))

    def head_with(last: str, outputs: int, stream: Stream, bias: bool, tied: bool = False) -> HeadWithOthers:
        first = Linear("head.dense", hidden, hidden, head_bias, stream=stream)
        return lambda: ((first, Linear(last, hidden, outputs, bias, tied=tied, stream=stream)), norm)

    count = labels(fields)
    known: dict[str, HeadWithOthers] = {
        "ForMaskedLM": head_with("decoder", vocabulary, Stream.TOKENS, decoder_bias, tied),
        "ForSequenceClassification": head_with("classifier", count, Stream.SEQUENCES, True),
        "ForTokenClassification": head_with("classifier", count, Stream.TOKENS, True),
        "ForQuestionAnswering": head_with("classifier", count, Stream.TOKENS, True),
        "Model": lambda: ((), 0),
    }
    head, others = head_of(fields, known, "ForMaskedLM")
    fields.finish(_MODERNBERT)
    return Model(
        "modernbert", (Embedding("model.embeddings.tok_embeddings", vocabulary, hidden),), blocks=tuple(blocks),
        heads=head, others=2 * norm + others, max_positions=positions, unpads=True,
    )  # fmt: skip


_MODERNBERT = (
    "cls_token_id", "deterministic_flash_attn", "embedding_dropout", "global_rope_theta", "initializer_cutoff_factor",
    "local_rope_theta", "mlp_dropout", "norm_eps", "position_embedding_type", "reference_compile",
    "repad_logits_with_grad", "sparse_pred_ignore_index",
)  # fmt: skip
