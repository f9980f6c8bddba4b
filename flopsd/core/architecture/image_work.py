"""How many rows pass an image tower, and the pairs of its attention, from the counters of a process's work.

Uncounted images are in the upper bound only: as many as the tokens could stand for.
"""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.architecture.attention_pairs import Level, Side
from flopsd.core.architecture.model import Attention, Images, Mask, Model, Stream
from flopsd.core.dataclass import dataclass
from flopsd.core.notes import note
from flopsd.core.values import ceil_div
from flopsd.errors import ArchitectureError

NOT_COUNTED = note("images_not_counted")


@dataclass(frozen=True, slots=True)
class ImageWork:
    """Rows at one level of uncertainty, and pairs of patches of one image: `square` counts all pairs, `windowed` those
    within one window (None: not counted)."""

    patches: int = 0
    pixels: int = 0
    images: int = 0
    soft: int = 0
    square: int = 0
    windowed: int | None = None

    def rows(self) -> dict[Stream, int]:
        return {
            Stream.PATCHES: self.patches,
            Stream.PIXELS: self.pixels,
            Stream.IMAGES: self.images,
            Stream.SOFT: self.soft,
        }

    def pairs(self, part: Attention, level: Level) -> int:
        if part.stream is Stream.IMAGES:
            return self.patches  # one query per image, with each of its patches
        if part.mask is not Mask.WINDOW or part.window is None:
            return self.square
        if self.windowed is not None:
            return self.windowed
        # At least each patch with itself, at most with a full window.
        return self.patches if level is Level.LOW else min(self.square, self.patches * part.window)


def image_work(model: Model, work: Mapping[str, int], text: Side) -> Mapping[Level, ImageWork]:
    """Work by level. Raises ArchitectureError for contradictory counters, or an image-only model without patches."""
    images = model.images
    if images is None:
        return dict.fromkeys(Level, ImageWork())
    if "patches" in work:
        return _counted(images, work)
    if not model.reads_text:
        raise ArchitectureError("no_patches", family=model.family, hint="count the rows that pass the image tower")
    return {Level.LOW: ImageWork(), Level.COMPUTED: ImageWork(), Level.HIGH: _at_most(images, text)}


def _counted(images: Images, work: Mapping[str, int]) -> Mapping[Level, ImageWork]:
    patches, square, count = work["patches"], work.get("patch_square_pairs"), work.get("images")
    least = ceil_div(patches**2, count) if count else patches
    if square is not None and not least <= square <= patches**2:
        raise ArchitectureError(
            "patch_pairs_contradict",
            pairs=square,
            patches=patches,
            hint="patch_square_pairs are summed over images: of p patches p x p",
        )
    known = ceil_div(patches, images.patches) if images.patches else min(patches, 1)
    counts = dict.fromkeys(Level, count) if count is not None else _between(min(patches, 1), known, patches)
    like = min(patches**2, patches * images.patches) if images.patches else least
    squares = dict.fromkeys(Level, square) if square is not None else _between(least, max(least, like), patches**2)
    found = {}
    for level in Level:
        # The more images, the more of the rows are class tokens.
        classes = images.class_tokens * counts[_OTHER_END[level]]
        pixels = max(0, patches - classes)
        found[level] = ImageWork(
            patches, pixels, counts[level], pixels // images.merge, squares[level], work.get("patch_window_pairs")
        )
    return found


def _at_most(images: Images, text: Side) -> ImageWork:
    """The most patches that the tokens can stand for: images of one size, or one image per sequence."""
    if images.patches is None:
        patches = text.tokens * images.merge
        return ImageWork(patches, patches, text.tokens, text.tokens, images.merge**2 * text.square_high)
    pixels = images.patches - images.class_tokens
    count = text.tokens * images.merge // pixels
    return ImageWork(
        count * images.patches, count * pixels, count, count * pixels // images.merge, count * images.patches**2
    )


def _between(low: int, computed: int, high: int) -> dict[Level, int]:
    return {Level.LOW: low, Level.COMPUTED: computed, Level.HIGH: high}


_OTHER_END = {Level.LOW: Level.HIGH, Level.COMPUTED: Level.COMPUTED, Level.HIGH: Level.LOW}
