"""Count one forward pass of a model, by the shapes of its arguments, and by sums on the device if counters depend on
the content of tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from flopsd.integrations.passes.head_counter import head_work
from flopsd.integrations.passes.image_counter import ImageCounter
from flopsd.integrations.passes.latent_rows import Rows, latent_rows
from flopsd.integrations.passes.model_sessions import Deferred
from flopsd.integrations.passes.token_counter import TokenCounter, first_tensor


class PassCounter:
    """Counts the passes of one model, after `read`."""

    def __init__(self) -> None:
        self.tokens = TokenCounter()
        self.images: ImageCounter | None = None
        self._latents: Rows | None = None
        self.encoded: dict[str, int] = defaultdict(int)  # counters of the model's encoder, if called before the model

    def read(self, model: Any, inner: Any) -> None:
        """Read the configuration of `model`. `inner`: `model` without the wrapper of its adapters."""
        self.tokens = TokenCounter(getattr(model, "config", None))
        self.images, self._latents = ImageCounter.of(inner), latent_rows(inner)

    @property
    def by_shape(self) -> bool:
        """Whether the names and shapes of the arguments determine the counters of a pass without a cache."""
        return self.tokens.by_shape and self.images is None and self._latents is None

    @property
    def reads_tokens(self) -> bool:
        """Whether each pass has tokens or their embeddings."""
        return self._latents is None and (self.images is None or self.images.reads_text)

    def of_pass(
        self, arguments: tuple[Any, ...], named: Mapping[str, Any], past: int, deferred: Deferred, *, has_head: bool
    ) -> dict[str, int]:
        """The counters of a pass. Those that depend on the content of tensors go into `deferred`. `has_head`: the pass
        is of the whole model, not only of the part before its head."""

        def defer(counter: str, value: Any) -> None:
            deferred.append((counter, value))

        found, images = {"forward_passes": 1}, self.images
        if images is not None:
            found |= images.of_model(arguments, named, defer)
        ids = first_tensor(named, "input_ids", "inputs_embeds")
        reads_text = images is None or images.reads_text
        if ids is None and reads_text and arguments and isinstance(arguments[0], torch.Tensor):
            ids = arguments[0]
        if self._latents is not None:
            found |= self._latents(arguments, named)
        else:
            found |= self.tokens.of_pass(ids, named, past, defer) | self.encoded
            self.encoded.clear()
        tokens = found.get("target_tokens", found.get("tokens", 0))
        if tokens and not has_head:
            found["unlabelled_tokens"] = tokens
        elif tokens:
            found |= head_work(tokens, tokens if ids is None else ids.shape[0], named, defer)
        return found

    def add_encoder(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Count a pass of the encoder on its own: generation encodes once, and uses the result in all passes, for each
        of its beams."""
        ids = arguments[0] if arguments else first_tensor(named, "input_ids", "inputs_embeds")
        for name, value in self.tokens.of_encoder(ids, named).items():
            self.encoded[name] += value
