"""Encoders of BERT's shape: BERT, RoBERTa, XLM-RoBERTa, CamemBERT and ELECTRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import HeadWithOthers, encoder_classifiers, head_of, labels
from flopsd.core.architecture.model import Block, Embedding, Linear, Mask, Model, Stream
from flopsd.core.architecture.parts import attention_of, plain_mlp
from flopsd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class _Style:
    """A family: the path of its modules, its heads, and the defaults of transformers' class."""

    prefix: str
    heads: str  # the family whose heads it uses
    vocabulary: int = 30522
    hidden: int = 768
    attention_heads: int = 12
    intermediate: int = 3072
    head: str = "ForMaskedLM"  # used if the configuration names no class


STYLES: Mapping[str, _Style] = {
    "bert": _Style("bert", "bert"),
    "roberta": _Style("roberta", "roberta", vocabulary=50265),
    "xlm-roberta": _Style("roberta", "roberta"),
    "camembert": _Style("roberta", "roberta"),
    "electra": _Style(
        "electra", "electra", hidden=256, attention_heads=4, intermediate=1024, head="ForPreTraining"
    ),
}  # fmt: skip


def read_bert(family: str, config: Mapping[str, Any]) -> Model:
    """An encoder with a norm after each part. ELECTRA's embeddings may be narrower than its layers."""
    fields, style = Fields(family, config), STYLES[family]
    hidden, layers = fields.number("hidden_size", style.hidden), fields.layers("num_hidden_layers", 12)
    heads = fields.heads("num_attention_heads", hidden, style.attention_heads)
    size, vocabulary = (
        fields.number("intermediate_size", style.intermediate),
        fields.number("vocab_size", style.vocabulary),
    )
    positions, types = fields.number("max_position_embeddings", 512), fields.number("type_vocab_size", 2)
    width = fields.number("embedding_size", 128) if family == "electra" else hidden
    tied = fields.flag("tie_word_embeddings", True)
    fields.only("is_decoder", False)
    fields.only("position_embedding_type", "absolute", None)
    blocks = []
    for index in range(layers):
        path = f"{style.prefix}.encoder.layer.{index}"
        names = ("self.query", "self.key", "self.value", "output.dense")
        attention = attention_of(f"{path}.attention", names, hidden, (heads, hidden // heads), Mask.FULL)
        mlp = plain_mlp(path, hidden, size, names=("intermediate.dense", "output.dense"))
        blocks.append(Block(path, (attention, mlp), others=4 * hidden, output_unneeded=False))
    known = _HEADS[style.heads](fields, style.prefix, hidden, width, vocabulary, tied)
    head, others = head_of(fields, known, style.head)
    fields.finish(_IRRELEVANT)
    at = f"{style.prefix}.embeddings"
    tables = (
        Embedding(f"{at}.word_embeddings", vocabulary, width),
        Embedding(f"{at}.position_embeddings", positions, width),
        Embedding(f"{at}.token_type_embeddings", types, width),
    )
    stem = () if width == hidden else (Linear(f"{style.prefix}.embeddings_project", width, hidden, True),)
    return Model(
        family, tables, stem, tuple(blocks), head, others=2 * width + others, max_positions=positions
    )  # fmt: skip


_IRRELEVANT = (
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
    "pooler_type", "summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj",
)  # fmt: skip


def _pooled_heads(
    dense: str, decoder: str, own: bool,
    fields: Fields, prefix: str, hidden: int, width: int, vocabulary: int, tied: bool,
) -> dict[str, HeadWithOthers]:  # fmt: skip
    """`own`: the sequence classifier has a matrix of its own in place of the pooler."""
    pooler = Linear(f"{prefix}.pooler.dense", hidden, hidden, True, stream=Stream.SEQUENCES)
    language = (Linear(dense, hidden, hidden, True), Linear(decoder, width, vocabulary, True, tied=tied))
    classifiers = encoder_classifiers(fields, hidden, pooler)
    if own:
        classifiers["ForSequenceClassification"] = lambda: _own_classifier(fields, hidden)
    return {**classifiers, "ForMaskedLM": lambda: (language, 2 * hidden)}


def _electra_heads(
    fields: Fields, _prefix: str, hidden: int, width: int, vocabulary: int, tied: bool
) -> dict[str, HeadWithOthers]:  # fmt: skip
    language = (
        Linear("generator_predictions.dense", hidden, width, True),
        Linear("generator_lm_head", width, vocabulary, True, tied=tied),
    )
    discriminator = (
        Linear("discriminator_predictions.dense", hidden, hidden, True),
        Linear("discriminator_predictions.dense_prediction", hidden, 1, True),
    )
    return {
        **encoder_classifiers(fields, hidden),
        "ForSequenceClassification": lambda: _own_classifier(fields, hidden),
        "ForMaskedLM": lambda: (language, 2 * width),
        "ForPreTraining": lambda: (discriminator, 0),
    }


_HEADS: Mapping[str, Callable[..., dict[str, HeadWithOthers]]] = {
    "bert": partial(_pooled_heads, "cls.predictions.transform.dense", "cls.predictions.decoder", False),
    "roberta": partial(_pooled_heads, "lm_head.dense", "lm_head.decoder", True),
    "electra": _electra_heads,
}


def _own_classifier(fields: Fields, hidden: int) -> tuple[tuple[Linear, ...], int]:
    """A classifier of one row per sequence, with its own first matrix in place of the pooler."""
    first = Linear("classifier.dense", hidden, hidden, True, stream=Stream.SEQUENCES)
    return (first, Linear("classifier.out_proj", hidden, labels(fields), True, stream=Stream.SEQUENCES)), 0
