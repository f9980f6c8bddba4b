"""A model's head, by the class that `architectures` names; and a text decoder with its head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.model import Block, Embedding, Linear, Model, Stream
from flopsd.core.notes import Note
from flopsd.errors import ArchitectureError

Head = Callable[[], tuple[Linear, ...]]
HeadWithOthers = Callable[[], tuple[tuple[Linear, ...], int]]  # its matrices; parameters without a product
_Found = TypeVar("_Found")
# Classes with their own head, or any head, whose names end like those of models without one.
_NOT_BARE = ("HeadModel", "HeadsModel", "PreTrainedModel")


def no_head() -> tuple[Linear, ...]:
    return ()


def head_of(fields: Fields, heads: Mapping[str, Callable[[], _Found]], default: str) -> _Found:
    """The head whose ending matches the class name; `default` if the configuration names no class."""
    name = class_name(fields) or default
    for ending in sorted(heads, key=len, reverse=True):
        if name.endswith(ending) and not (ending == "Model" and name.endswith(_NOT_BARE)):
            return heads[ending]()
    raise ArchitectureError(
        "head_not_known", family=fields.family, name=f"{name:.80}", known=tuple(heads), hint=fields.instead()
    )


def class_name(fields: Fields) -> str:
    """The class with which the configuration was saved; empty if none is named."""
    named = fields.sequence("architectures")
    return str(named[0]) if named else ""


def causal_heads(fields: Fields, hidden: int, vocabulary: int, tied: bool) -> dict[str, Head]:
    """Heads of decoders: language model (a product with every token), classifiers, none."""
    language = Linear("lm_head", hidden, vocabulary, tied=tied)
    return {
        **dict.fromkeys(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"), lambda: (language,)),
        "ForSequenceClassification": lambda: (Linear("score", hidden, labels(fields)),),
        "ForTokenClassification": lambda: (Linear("score", hidden, labels(fields), bias=True),),
        "Model": no_head,
    }


def decoder(
    fields: Fields, embedding: str, blocks: tuple[Block, ...], tied: bool, irrelevant: Sequence[str], *,
    head: bool = True, attends: bool = True, notes: tuple[Note, ...] = (),
) -> Model:  # fmt: skip
    """The model with these layers; refuses fields that were not read. `embedding` is the path of its table. `attends`:
    if no layer does, only a counter bounds the length of a sequence."""
    hidden, vocabulary = fields.number("hidden_size"), fields.number("vocab_size")
    heads = head_of(fields, causal_heads(fields, hidden, vocabulary, tied), "ForCausalLM") if head else ()
    maximum = fields.optional("max_position_embeddings") if attends else None
    fields.finish(irrelevant)
    table = Embedding(embedding, vocabulary, hidden)
    return Model(
        fields.family, (table,), blocks=blocks, heads=heads, others=hidden, max_positions=maximum, notes=notes
    )  # fmt: skip


def labels(fields: Fields) -> int:
    """The number of classes of a classifier; transformers' default is 2."""
    named: Any = fields.get("id2label")
    return len(named) if isinstance(named, Mapping) and named else fields.number("num_labels", 2)


def encoder_classifiers(fields: Fields, hidden: int, *pooled: Linear) -> dict[str, HeadWithOthers]:
    """Classifiers on an encoder. `pooled`: its pooler, if any, which reads one row per sequence."""
    return {
        "ForSequenceClassification": lambda: (
            (*pooled, Linear("classifier", hidden, labels(fields), bias=True, stream=Stream.SEQUENCES)),
            0,
        ),
        "ForTokenClassification": lambda: ((Linear("classifier", hidden, labels(fields), bias=True),), 0),
        "ForQuestionAnswering": lambda: ((Linear("qa_outputs", hidden, labels(fields), bias=True),), 0),
        "Model": lambda: (pooled, 0),
    }
