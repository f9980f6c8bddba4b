"""Rows of every stream, and pairs, from the counters of a process's work."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.architecture.attention_pairs import Kernel, Level, Pairs, latent_side, side_from
from flopsd.core.architecture.head_work import HeadWork
from flopsd.core.architecture.image_work import ImageWork, image_work
from flopsd.core.architecture.model import Model, Stream
from flopsd.core.architecture.training import Training
from flopsd.core.notes import Note, note
from flopsd.errors import ArchitectureError


def notes_on_lengths(model: Model, work: Mapping[str, int]) -> list[Note]:
    """Notes on the bound of the pairs if sequence lengths were not counted."""
    most, sides = model.max_positions, ("", "target_")
    if most is None or all(f"{side}square_pairs" in work or work.get(f"{side}tokens", 0) <= most for side in sides):
        return []
    return [note("lengths_not_counted", most=str(most))]


def resolve(
    model: Model, work: Mapping[str, int], training: Training, cached: bool
) -> tuple[Pairs, Mapping[Level, ImageWork], dict[Level, dict[Stream, int]], HeadWork]:
    """The pairs, the rows of every stream at every level, and the work of the head."""
    if model.reads_text and "tokens" not in work:
        raise ArchitectureError("no_tokens", hint="declare the tokens that passed through the model")
    source = side_from(work, "", model.max_positions, cached=cached)
    sides = {Stream.TOKENS: source}
    if model.compares and "cross_pairs" not in work:
        raise ArchitectureError(
            "no_cross_pairs", family=model.family, hint="count every text of a batch with every image of it"
        )
    if model.two_sided:
        if "target_tokens" not in work or "cross_pairs" not in work:
            raise ArchitectureError(
                "no_target_tokens",
                family=model.family,
                hint="an encoder-decoder counts both sides: tokens are the encoder's",
            )
        sides[Stream.TARGET] = side_from(work, "target_", model.max_positions, cached=cached)
    latents = 0
    if model.joins:
        sides[Stream.LATENTS] = latent_side(model, work, source.tokens)
        latents = sides[Stream.LATENTS].tokens
    pairs = Pairs(
        sides, work.get("cross_pairs", 0), Kernel.of(training.attention), training.packing,
        work.get("window_pairs"), training.window,
    )  # fmt: skip
    images, sequences, rows = image_work(model, work, source), work.get("sequences"), {}
    head, crossed = HeadWork.of(model, work), work.get("cross_tokens", source.tokens)
    for level in Level:
        rows[level] = {
            **images[level].rows(),
            Stream.TOKENS: source.tokens - (source.padding if level is Level.LOW else 0),
            Stream.TARGET: sides[Stream.TARGET].tokens if model.two_sided else 0,
            Stream.MEMORY: max(0, crossed - (source.padding if level is Level.LOW else 0)),
            Stream.SEQUENCES: sequences if sequences is not None else (source.tokens if level is Level.HIGH else 0),
            Stream.FRAMES: 2 * source.tokens,
            Stream.LATENTS: latents,
            Stream.TEXT: source.tokens - latents,
            Stream.CONDITIONS: sequences or 0,
            Stream.KEPT: head.kept(level),
            Stream.LOGITS: head.rows(level),
        }
    return pairs, images, rows, head
