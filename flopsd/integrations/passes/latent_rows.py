"""Count the rows that pass through a diffusion transformer of diffusers: see core/architecture/diffusion.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flopsd.core.architecture.diffusion import FLUX, SD3

Rows = Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, int]]


def latent_rows(model: Any) -> Rows | None:
    """A function from the arguments of a forward pass to its counters; None for a model of another package. For classes
    that flopsd does not read it counts nothing: the meaning of their first argument is not known."""
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping) or not type(model).__module__.startswith("diffusers."):
        return None
    name = type(model).__name__
    if name not in (FLUX, SD3):
        return lambda _arguments, _named: {}
    patch = int(config["patch_size"])

    def rows(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, int]:
        given = dict(zip(("hidden_states", "encoder_hidden_states"), arguments, strict=False))
        images, text = ({**given, **named}[one].shape for one in ("hidden_states", "encoder_hidden_states"))
        # FLUX gets rows that the caller has cut; Stable Diffusion 3 gets latents: count, channels, height, width.
        patches = images[1] if name == FLUX else (images[-2] // patch) * (images[-1] // patch)
        sequences, length = images[0], patches + text[1]
        return {
            "sequences": sequences, "tokens": sequences * length, "square_pairs": sequences * length**2,
            "patches": sequences * patches, "patch_square_pairs": sequences * patches**2,
        }  # fmt: skip

    return rows
