"""Llama-like decoders: grouped queries, gated MLP or experts, RMS norms, sliding windows on some layers.

The shapes are those of transformers' modeling files; `tests/train` compares each with the real class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_attention import GroupedAttention, LatentAttention
from flopsd.core.architecture.decoder_families import STYLES
from flopsd.core.architecture.decoder_feed_forward import FeedForward
from flopsd.core.architecture.decoder_styles import Style
from flopsd.core.architecture.heads import decoder
from flopsd.core.architecture.model import Block, Model
from flopsd.core.notes import Note, note


def read_decoder(family: str, config: Mapping[str, Any], within: str = "", style: Style | None = None) -> Model:
    """A decoder of a family in decoder_families.py, or of the given `style`. `within`: its path in an enclosing model,
    which then has the head. Raises ArchitectureError, which names the field."""
    style, prefix = style or STYLES[family], within or "model."
    fields = Fields(family, config, style.defaults)
    hidden, layers = fields.number("hidden_size"), fields.layers()
    tied = fields.flag("tie_word_embeddings", False)
    for name, allowed in style.only.items():
        fields.only(name, *allowed)
    attention = (LatentAttention if style.latent else GroupedAttention)(fields, style, hidden, layers)
    feed_forward = FeedForward(fields, style, hidden, layers)
    blocks = tuple(
        Block(
            path := f"{prefix}layers.{index}",
            (attention.at(path, index), *feed_forward.at(path, index)),
            others=style.norms * hidden,
            parallel=style.parallel,
            output_unneeded=feed_forward.output_unneeded(index),
        )
        for index in range(layers)
    )
    notes = (*feed_forward.notes, *_untrained(fields, style))
    model = decoder(
        fields, f"{prefix}embed_tokens", blocks, tied, style.irrelevant, head=not within, notes=notes
    )  # fmt: skip
    return replace(model, others=style.final_norms * hidden)


def _untrained(fields: Fields, style: Style) -> tuple[Note, ...]:
    """A note on the layers for multi-token prediction, which a checkpoint may contain."""
    count = fields.number(style.untrained, at_least=0) if style.untrained else 0
    if count == 0:
        return ()
    return (note("prediction_layers_not_counted", layers=str(count)),)
