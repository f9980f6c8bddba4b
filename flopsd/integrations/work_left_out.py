"""What a Trainer of TRL does where no hook on a model's forward pass can count it, in words by phase."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flopsd.integrations.forward_counter import AFTER_ERROR

# Arguments of trainers that name such work when they are set.
_BY_ARGUMENT = {
    "use_vllm": ("generate", "generation by vLLM, which runs the model outside of the training framework"),
    "use_transformers_continuous_batching": ("generate", "generation with continuous batching"),
    "teacher_model_server_url": ("other", "a teacher that a server runs"),
}


def left_out(arguments: Any, models: Iterable[str], failed: bool) -> dict[str, list[str]]:
    """For the fact `not_counted`. `models` are others that could not be attached to; `failed`: the counter had an
    error."""
    found: dict[str, list[str]] = {}
    for name, (phase, words) in _BY_ARGUMENT.items():
        if getattr(arguments, name, None):
            found.setdefault(phase, []).append(words)
    others = [*models, *([AFTER_ERROR] if failed else [])]
    return {**found, "other": [*found.get("other", []), *others]} if others else found
