"""Count the tokens, sequences and pairs of a forward pass by the shapes of its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, is_grad_enabled

from flopsd.integrations.describe_model import sliding_window
from flopsd.integrations.passes.device_sums import DeviceSum
from flopsd.integrations.passes.head_counter import Defer


class TokenCounter:
    """Counts the tokens of one model."""

    def __init__(self, config: Any = None) -> None:
        """`config`: the model's configuration; None if it has none."""
        self.saw_documents = False  # documents within rows were seen, not only the length of rows
        self.sees_encoder = False  # the encoder's passes are counted on their own, and may precede the model's
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        # From a cache of latents, the keys and values of all its positions are computed in each pass.
        self.caches_latents = bool(getattr(text, "kv_lora_rank", None))
        self.encodes = bool(getattr(config, "is_encoder_decoder", False))
        self._window = sliding_window(config)
        self._hears = getattr(config, "model_type", None) == "whisper"
        self._config = text
        self._restarts = DeviceSum()
        self.see_kernel()

    def see_kernel(self) -> None:
        """Read the attention kernel that the model uses now."""
        kernel = getattr(self._config, "_attn_implementation", None) or ""
        self._flash = kernel.startswith(("flash", "flex"))
        # Even a kernel that skips nothing computes no pairs with positions that the cache does not keep.
        self.keeps_window = kernel == "eager" and self._window is not None

    @property
    def by_shape(self) -> bool:
        """Whether the shape of `ids` determines the counters of a pass without a cache."""
        return not self.encodes and not self._flash

    def of_pass(self, ids: Any, named: Mapping[str, Any], past: int, defer: Defer) -> dict[str, int]:
        """The counters of a pass. `ids`: the tokens or their embeddings; None if neither is given. `past`: the number
        of positions in a cache already. `defer` takes counters that depend on the content of tensors."""
        if self.encodes:
            return self._encoder_decoder(ids, named, past)
        shape: Sequence[int] = () if ids is None else ids.shape
        if len(shape) < 2:
            return {}
        rows, length, window = shape[0], shape[1], self._window
        positions = None if past else first_tensor(named, "position_ids")
        if positions is not None and tuple(positions.shape) != (rows, length):
            positions = None
        if self._flash and rows == 1 and not past:
            # Concatenated documents, each attending only to itself.
            ends = first_tensor(named, "cu_seq_lens_q")
            if ends is not None and ends.dim() == 1:
                return self._by_ends(length, ends, defer)
            if positions is not None:
                return self._by_positions(length, positions[0], defer)
        elif positions is not None and named.get("attention_mask") is None:
            self._restarts.add((positions.diff() != 1).sum())
        whole = past + length
        pairs = rows * _square_pairs(past, length)
        sequences = 0 if past and not is_grad_enabled() else rows
        found = {"tokens": rows * length, "sequences": sequences, "square_pairs": pairs}
        if window is not None:
            found["window_pairs"] = rows * (_window_pairs(whole, window) - _window_pairs(past, window))
        return found

    def saw_restarts(self) -> bool:
        """Whether positions restarted within a row since the last call: the row holds several documents, which
        transformers masks from each other. Waits for the device."""
        return bool(self._restarts.read())

    def of_encoder(self, ids: Any, named: Mapping[str, Any]) -> dict[str, int]:
        """The counters of a pass of the encoder."""
        source = self._source(ids, named)
        return {} if source is None else _encoded(*source)

    def _by_ends(self, length: int, ends: Any, defer: Defer) -> dict[str, int]:
        """The counters of documents. `ends`: where each begins and the last one ends."""
        self.saw_documents = True
        lengths = ends.diff().long()
        defer("square_pairs", lengths.square().sum())
        if self._window is not None:
            within = lengths.clamp(max=self._window)
            defer("window_pairs", (within * (within + 1) // 2 + (lengths - within) * self._window).sum())
        return {"tokens": length, "sequences": lengths.numel()}

    def _by_positions(self, length: int, positions: Any, defer: Defer) -> dict[str, int]:
        """The counters of documents, which begin where `positions` has its minimum, as in transformers. A position need
        not be a token's number within its document."""
        self.saw_documents = True
        begins = positions == positions.min()
        places = torch.arange(length, device=positions.device)
        numbers = places + 1 - torch.where(begins, places, 0).cummax(0).values
        defer("sequences", begins.sum())
        defer("square_pairs", (2 * numbers - 1).sum())
        if self._window is not None:
            defer("window_pairs", numbers.clamp(max=self._window).sum())
        return {"tokens": length}

    def _encoder_decoder(self, ids: Any, named: Mapping[str, Any], past: int) -> dict[str, int]:
        states = None if ids is not None else (named.get("encoder_outputs") or (None,))[0]
        source = self._source(ids, named) if states is None else (int(states.shape[0]), int(states.shape[1]))
        target = first_tensor(named, "decoder_input_ids", "decoder_inputs_embeds", "labels")
        if source is None or target is None or target.dim() < 2:  # labels of whole sequences
            return {}
        rows, length = target.shape[0], target.shape[1]
        encoded = source[1]
        found = {
            "target_tokens": rows * length,
            "target_square_pairs": rows * _square_pairs(past, length),
            "cross_pairs": rows * length * encoded,
        }
        if not past:
            found["cross_tokens"] = rows * encoded
        if not past and (states is None or not self.sees_encoder):
            found |= _encoded(rows, encoded)
        return found

    def _source(self, ids: Any, named: Mapping[str, Any]) -> tuple[int, int] | None:
        """The number of sequences that the encoder reads, and the rows of each; None if not known."""
        features = first_tensor(named, "input_features")
        if features is None and self._hears:
            features, ids = ids, None
        if features is not None:
            # Whisper's second convolution makes one row of two frames; for other audio models it is not known.
            return (int(features.shape[0]), int(features.shape[-1]) // 2) if self._hears else None
        return None if ids is None else (int(ids.shape[0]), int(ids.shape[1]))


def _encoded(rows: int, length: int) -> dict[str, int]:
    return {"sequences": rows, "tokens": rows * length, "square_pairs": rows * length * length}


def _square_pairs(past: int, length: int) -> int:
    """The pairs of a sequence of which `past` positions are in a cache. The passes of a generation add up to the square
    of the whole. A pass that records gradients may be one of several chunks: it counts as a sequence of its own, with
    the pairs of its positions and the whole, the most that a kernel which skips no masked pairs computes."""
    whole = past + length
    return length * whole if is_grad_enabled() else whole * whole - past * past


def _window_pairs(length: int, window: int) -> int:
    within = min(length, window)
    return within * (within + 1) // 2 + (length - within) * window


@functools.cache
def names_of(kind: Any) -> tuple[str, ...]:
    """The names of the positional arguments of a module class's forward pass."""
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    with suppress(TypeError, ValueError):  # the function does not show them
        return tuple(name for name, one in inspect.signature(kind.forward).parameters.items() if one.kind in places)[1:]
    return ()


def first_tensor(named: Mapping[str, Any], *names: str) -> Any:
    """The first of the arguments with these names that is a tensor; None if none is."""
    for name in names:
        if isinstance(value := named.get(name), Tensor):
            return value
    return None
