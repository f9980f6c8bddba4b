"""The models that the processes of a run declare, and a bound on what their FLOP cost to compute."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from flopsd.core.declared_facts import MODEL_FACTS, layers_to_compute

# Of the present models of all sessions: computing their FLOP takes some 15 s, at most once in twenty times as long.
MAX_LAYERS = 50_000


class DeclaredModels:
    """One model for each session. Equal models count once, except those of sessions with a role: each is computed."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}  # by session
        self._sessions: Counter[str] = Counter()  # by model
        self._layers: dict[str, int] = {}
        self._configs: set[str] = set()  # all that were ever declared
        self._layers_read = 0
        self.unread: list[Mapping[str, Any]] = []  # new configurations; their reader removes them

    def take(self, session: str, facts: Mapping[str, Any]) -> bool:
        """Note the model that a session's facts describe now. Return False, and note nothing, if all models of the run
        would then have more than MAX_LAYERS."""
        declared = {name: facts[name] for name in MODEL_FACTS if name in facts}
        model = json.dumps([declared, session if "role" in facts else None], sort_keys=True)
        before = self._of.get(session, "")
        if not declared or model == before:
            return True
        layers = self._layers.get(model) or layers_to_compute(declared)
        others = sum(self._layers.values()) - self._layers.get(model, 0)
        freed = self._layers[before] if self._sessions[before] == 1 else 0
        if others - freed + layers > MAX_LAYERS:
            return False
        self._of[session], self._layers[model] = model, layers
        self._sessions[model] += 1
        if before:
            self._sessions[before] -= 1
            if not self._sessions[before]:
                del self._sessions[before], self._layers[before]
        self._note(declared.get("model_config"), layers)
        return True

    def _note(self, config: Mapping[str, Any] | None, layers: int) -> None:
        text = json.dumps(config, sort_keys=True)
        if config is None or text in self._configs or self._layers_read + layers > MAX_LAYERS:
            return
        self._configs.add(text)
        self._layers_read += layers
        self.unread.append(config)
