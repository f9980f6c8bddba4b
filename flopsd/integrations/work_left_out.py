"""Work that no hook on a model's forward pass counts: texts by phase, for the fact `not_counted`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch

from flopsd.integrations.phase_of import Session

# Arguments of trainers that imply such work when they are set.
_BY_ARGUMENT = {
    "use_vllm": ("generate", "generation by vLLM, which runs the model outside of the training framework"),
    "use_transformers_continuous_batching": ("generate", "generation with continuous batching"),
    "teacher_model_server_url": ("other", "a teacher that a server runs"),
}


class WorkLeftOut:
    """The uncounted work of one model's passes."""

    def __init__(self, client: Session) -> None:
        self._client = client
        self.by_phase: dict[str, list[str]] = {}

    def add(self, phase: str, words: str) -> None:
        """Declare uncounted work, in addition to that declared already."""
        if words not in self.by_phase.get(phase, ()):
            self.by_phase.setdefault(phase, []).append(words)
            known = getattr(self._client, "facts", {}).get("not_counted") or {}
            phases = {*known, *self.by_phase}
            merged = {name: [*known.get(name, ()), *self.by_phase.get(name, ())] for name in phases}
            self._client.declare(not_counted=merged)


def left_out(arguments: Any, models: Iterable[str]) -> dict[str, list[str]]:
    """The uncounted work that a TRL trainer's arguments imply. `models`: texts on other models that are not counted."""
    found: dict[str, list[str]] = {}
    for name, (phase, words) in _BY_ARGUMENT.items():
        if getattr(arguments, name, None):
            found.setdefault(phase, []).append(words)
    others = [*found.get("other", ()), *models]
    return {**found, "other": others} if others else found


def splits_sequences() -> bool:
    """Whether Accelerate gives each rank a part of each sequence (context or sequence parallelism): a rank sees only
    its own tokens, but its attention covers those of all ranks."""
    state = getattr(sys.modules.get("accelerate.state"), "AcceleratorState", None)
    parallelism = getattr(state, "_shared_state", {}).get("parallelism_config")
    return any((getattr(parallelism, name, None) or 1) > 1 for name in ("cp_size", "sp_size"))


def is_first_of_its_group(model: Any) -> bool:
    """Whether this process is the first of the ranks over which tensor parallelism splits `model`: all of them see the
    same tokens. True if the model is not split."""
    size = int(getattr(model, "tp_size", None) or 1)
    has_ranks = size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized()
    return not has_ranks or torch.distributed.get_rank() % size == 0
