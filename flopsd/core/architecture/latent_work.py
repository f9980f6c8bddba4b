"""The rows of sequences that are rows of an image and rows of text: see diffusion.py."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.architecture.attention_pairs import Side, side_from
from flopsd.core.architecture.model import Model
from flopsd.errors import ArchitectureError

_HINT = "tokens are rows of image and text, patches those of the image among them, as ForwardCounter counts them"


def latent_side(model: Model, work: Mapping[str, int], tokens: int) -> Side:
    """The rows of images. Raises ArchitectureError where the counters do not have them, or contradict each other."""
    patches = work.get("patches")
    if patches is None or "sequences" not in work:
        raise ArchitectureError("no_patches_or_sequences", family=model.family, hint=_HINT)
    if patches > tokens:
        raise ArchitectureError("patches_contradict", patches=patches, tokens=tokens, hint=_HINT)
    names = {"tokens": "patches", "square_pairs": "patch_square_pairs", "sequences": "sequences"}
    return side_from({to: work[name] for to, name in names.items() if name in work}, "", None)
