"""Count the rows that pass through the image tower of a model, and the pairs of its attention: by shapes; for images of
any size, by their grids, which are summed on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch

from flopsd.core.architecture import read_model
from flopsd.core.architecture.model import Images, Model
from flopsd.core.dataclass import dataclass
from flopsd.integrations.describe_model import config_of
from flopsd.integrations.passes.head_counter import Defer


@dataclass(frozen=True, slots=True)
class ImageCounter:
    """Counts the images of one model. `has_tower`: images pass through a part of the model, text through the rest.
    `unread`: the last layers of the tower, of which nothing reads the result."""

    images: Images
    has_tower: bool
    reads_text: bool
    compares: bool
    unread: int

    @classmethod
    def of(cls, base: Any) -> ImageCounter | None:
        """A counter for `base`; None if the model takes no images, or flopsd cannot read its configuration."""
        config = getattr(base, "config", None)
        if not hasattr(config, "to_dict"):
            return None
        try:
            model: Model = read_model(config_of(base))
        except Exception:  # noqa: BLE001 (any fault in it; the declaration states the reason)
            return None
        if model.images is None:
            return None
        unread = sum(block.unused for block in model.blocks)
        return cls(model.images, tower_of(base) is not None, model.reads_text, model.compares, unread)

    def of_model(self, arguments: tuple[Any, ...], named: Mapping[str, Any], defer: Defer) -> dict[str, int]:
        """The counters of a pass of the whole model, without those of its tower: a pass without images counts zero."""
        found = {"images": 0, "patches": 0} if self.has_tower else self.of_tower(arguments, named, defer)
        if self.compares:
            texts, pixels = _tensor(arguments, named, 0, "input_ids"), _tensor(arguments, named, 1, "pixel_values")
            if texts is not None and pixels is not None:
                found["cross_pairs"] = texts.shape[0] * pixels.shape[0]
        return found

    def of_tower(self, arguments: tuple[Any, ...], named: Mapping[str, Any], defer: Defer) -> dict[str, int]:
        """The counters of a pass of the tower; empty for inputs of an unknown shape."""
        pixels = _tensor(arguments, named, 0, "pixel_values", "hidden_states")
        grid = _tensor(arguments, named, 1, "grid_thw")
        if pixels is None:
            return {}
        if grid is not None and pixels.dim() == 2:
            return self._of_grid(pixels, grid, defer)
        if pixels.dim() != 4:
            return {}
        count, side = pixels.shape[0], self.images.patch_size
        rows = (pixels.shape[2] // side) * (pixels.shape[3] // side) + self.images.class_tokens
        return {"images": count, "patches": count * rows, "patch_square_pairs": count * rows * rows}

    def _of_grid(self, pixels: Any, grid: Any, defer: Defer) -> dict[str, int]:
        """The counters of concatenated images and videos of any size. `grid`: the frames, height and width of each, in
        patches. Each frame attends to itself."""
        images = self.images
        defer("images", grid[:, 0].sum())
        defer("patch_square_pairs", (grid[:, 0] * (grid[:, 1] * grid[:, 2]) ** 2).sum())
        if images.window_side is not None:
            merge = isqrt(images.merge)
            side = images.window_side // merge
            cells = grid[:, 1:] // merge  # windows consist of groups of patches that become one token
            squares = (cells // side) * side**2 + (cells % side) ** 2
            defer("patch_window_pairs", (grid[:, 0] * squares[:, 0] * squares[:, 1]).sum() * merge**4)
        return {"patches": int(pixels.shape[0])}


def tower_of(base: Any) -> Any:
    """The outermost module built from the configuration of images; None if the model has no such part."""
    inner = getattr(base.config, "vision_config", None)
    if inner is None:
        return None
    return next((module for module in base.modules() if type(getattr(module, "config", None)) is type(inner)), None)


def _tensor(arguments: tuple[Any, ...], named: Mapping[str, Any], place: int, *names: str) -> Any:
    given = next((named[name] for name in names if named.get(name) is not None), None)
    if given is None and len(arguments) > place:
        given = arguments[place]
    return given if isinstance(given, torch.Tensor) else None
