"""Counts what passes the image tower of a model: rows, and the pairs of its attention. By shapes; what is in the grids
of images of any size is summed on their device.
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
from flopsd.integrations.head_counter import Defer


@dataclass(frozen=True, slots=True)
class ImageCounter:
    """How the images of one model are counted. `has_tower`: whether they pass a module within it, and text the rest."""

    images: Images
    has_tower: bool
    reads_text: bool
    compares: bool

    @classmethod
    def of(cls, base: Any) -> ImageCounter | None:
        """None for a model that reads no images, or whose configuration flopsd does not read."""
        config = getattr(base, "config", None)
        if not hasattr(config, "to_dict"):
            return None
        try:
            model: Model = read_model(config_of(base))
        except Exception:  # noqa: BLE001 (whatever is in it; why it is not read is stated where it is declared)
            return None
        if model.images is None:
            return None
        return cls(model.images, tower_of(base) is not None, model.reads_text, model.compares)

    def of_model(self, arguments: tuple[Any, ...], named: Mapping[str, Any], defer: Defer) -> dict[str, int]:
        """Counters of a pass of the whole model, without what its tower counts. That no image passed is known too."""
        found = {"images": 0, "patches": 0} if self.has_tower else self.of_tower(arguments, named, defer)
        if self.compares:
            texts, pixels = _tensor(arguments, named, 0, "input_ids"), _tensor(arguments, named, 1, "pixel_values")
            if texts is not None and pixels is not None:
                found["cross_pairs"] = texts.shape[0] * pixels.shape[0]
        return found

    def of_tower(self, arguments: tuple[Any, ...], named: Mapping[str, Any], defer: Defer) -> dict[str, int]:
        """Counters of a pass of the tower. Empty for inputs of a shape that flopsd does not know."""
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
        """Patches of images and videos of any size one behind the other; `grid` has frames, height and width of each
        in patches. Each frame attends to itself."""
        images = self.images
        defer("images", grid[:, 0].sum())
        defer("patch_square_pairs", (grid[:, 0] * (grid[:, 1] * grid[:, 2]) ** 2).sum())
        if images.window_side is not None:
            merge = isqrt(images.merge)
            side = images.window_side // merge
            cells = grid[:, 1:] // merge  # windows consist of what becomes one token
            squares = (cells // side) * side**2 + (cells % side) ** 2
            defer("patch_window_pairs", (grid[:, 0] * squares[:, 0] * squares[:, 1]).sum() * merge**4)
        return {"patches": int(pixels.shape[0])}


def tower_of(base: Any) -> Any:
    """The outermost module that was made of the configuration of images; None where the model has no such part."""
    inner = getattr(base.config, "vision_config", None)
    if inner is None:
        return None
    return next((module for module in base.modules() if type(getattr(module, "config", None)) is type(inner)), None)


def _tensor(arguments: tuple[Any, ...], named: Mapping[str, Any], place: int, *names: str) -> Any:
    given = next((named[name] for name in names if named.get(name) is not None), None)
    if given is None and len(arguments) > place:
        given = arguments[place]
    return given if isinstance(given, torch.Tensor) else None
