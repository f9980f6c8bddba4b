"""Counts tokens and sequences that pass through a Hugging Face PyTorch model, by hooks on its forward pass.

    counter = ForwardCounter(client)
    counter.attach(model)

Only shapes are read, which needs no synchronisation with the device. What depends on the content of tensors, such as
padding, is summed on the device and read by `settle`.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import torch

from flopsd.integrations.describe_model import sliding_window, why_unread
from flopsd.integrations.head_counter import backbone_of, head_work
from flopsd.integrations.image_counter import ImageCounter, tower_of
from flopsd.integrations.inert_hook import Hook
from flopsd.integrations.latent_rows import Rows, latent_rows
from flopsd.integrations.weight_passes import WeightPasses, weight_passes_of

log = logging.getLogger("flopsd.client")
_STOPS = "flopsd stops counting this model's forward passes; the training goes on"
AFTER_ERROR = "forward passes after an error in flopsd's counter"
UNSETTLED = ""  # a phase that becomes known later
PhaseOf = Callable[[Any, bool], str]


class Session(Protocol):
    """Where work is declared: a `flopsd.client.Client`, or something like it."""

    @property
    def current_phase(self) -> str | None: ...
    def count(self, phase: str, **counters: int) -> None: ...
    def declare(self, **facts: object) -> None: ...


class ForwardCounter:
    """Declares the work of one model's forward passes to `client`."""

    def __init__(self, client: Session, phase_of: PhaseOf | None = None) -> None:
        """`phase_of` receives the model and whether it generates, and returns a phase or UNSETTLED.

        By default a pass with gradients is training, and any other belongs to the client's current phase.
        """
        self.client, self._phase_of = client, phase_of or self._usual_phase
        self._model: Callable[[], Any] = lambda: None  # weak, so that it is freed with its owner
        self._backbone: Callable[[], Any] = lambda: None
        self.saw_documents = False  # the documents within a row were seen, not only its length
        self._window: int | None = None
        self._flash = self._encodes = self._hears = False
        self._latents: Rows | None = None
        self._images: ImageCounter | None = None
        self._handles: list[Any] = []
        self._unsettled: dict[str, int] = defaultdict(int)
        self._on_device: dict[tuple[str, str, Any], Any] = {}  # by phase, counter, device: a sum on that device
        self._inside = threading.local()
        self.failed = False  # after an error nothing is counted any more
        self._weights: WeightPasses | None = None  # of a model whose architecture flopsd does not read
        self._passing: dict[str, int] | None = None  # what was counted of the pass that goes on
        self._phase = "other"  # of the last pass

    def attach(self, model: Any, *, compiled: bool = False) -> None:
        """Count the passes of `model` from now on, and of no other. `compiled`: torch.compile will compile it."""
        self.detach()
        self._model = weakref.ref(model)
        config = getattr(model, "config", None)
        self._window = sliding_window(config)
        self._encodes = bool(getattr(config, "is_encoder_decoder", False))
        self._hears = getattr(config, "model_type", None) == "whisper"
        self._flash = (getattr(config, "_attn_implementation", None) or "").startswith(("flash", "flex"))
        enter, leave, see = self._enter, self._leave, self._see
        if compiled:  # the graph breaks before each hook and continues after it
            enter, leave, see = (torch.compiler.disable(hook) for hook in (enter, leave, see))
        # PEFT's forward passes bypass the hooks of the inner model, its generation those of the outer one.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        backbone = None if compiled or self._encodes else backbone_of(inner)  # some losses have the head outside
        if backbone is not None:
            self._backbone = weakref.ref(backbone)
        self._latents = latent_rows(inner)
        if not compiled and why_unread(inner):
            self._weights = weight_passes_of(model)
        for one in {id(each): each for each in (model, inner, backbone) if each is not None}.values():
            self._handles.append(one.register_forward_pre_hook(Hook(enter), with_kwargs=True))
            self._handles.append(one.register_forward_hook(Hook(leave), with_kwargs=True, always_call=True))
        self._images = ImageCounter.of(inner)
        if self._images is not None and self._images.has_tower:
            self._handles.append(tower_of(inner).register_forward_pre_hook(Hook(see), with_kwargs=True))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._weights is not None:
            self._take_weights()
            self._weights.detach()
        self._weights = None
        self._model = self._backbone = lambda: None
        self._images = None

    def counts(self, model: Any) -> bool:
        return self._model() is model

    def modules(self) -> Iterable[Any]:
        """All modules of the counted model; none where it is gone."""
        model = self._model()
        return () if model is None else model.modules()

    def settle(self, phase: str = "other") -> None:
        """Declare the sums on the device; unsettled work belongs to `phase`. Waits for the device."""
        pending, self._on_device = self._on_device, {}
        for (of, counter, _), value in pending.items():
            self.client.count(of or phase, **{counter: int(value.item())})
        self.settle_phase(phase)

    def settle_phase(self, phase: str) -> None:
        """Assign unsettled work to `phase`, without waiting for the device."""
        self._take_weights()
        self._phase = self._phase or phase
        unsettled, self._unsettled = self._unsettled, defaultdict(int)
        if unsettled:
            self.client.count(phase, **unsettled)
        for of, counter, device in list(self._on_device):
            if of == UNSETTLED:
                self._defer(phase, counter, device, self._on_device.pop((of, counter, device)))

    def _enter(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if arguments and isinstance(arguments[0], torch.nn.Module):
            return  # no pass: TRL runs a method of its trainer within the wrappers' hooks, which calls the backbone
        depth = getattr(self._inside, "depth", 0)
        self._inside.depth = depth + 1
        if depth or self.failed or "read_index" in named:  # continuous batching: rows of many lengths in one
            return
        try:
            self._take_weights()
            self._count(model, arguments, named)
            if self._weights is not None:
                self._weights.begin()
        except Exception:
            log.exception(_STOPS)
            self._give_up()

    def _leave(self, *_: object) -> None:
        self._inside.depth = max(0, getattr(self._inside, "depth", 1) - 1)
        found = self._passing
        if self._weights is None or found is None or self._inside.depth or self.failed:
            return
        self._passing = None
        self._weights.end(found.get("tokens", 0) + found.get("target_tokens", 0))
        self._declare(self._phase, {**found, **self._weights.take()})

    def _take_weights(self) -> None:
        """Declare what passed the weights outside of a forward pass of the model, such as in a backward pass."""
        if self._weights is not None and (found := self._weights.take()):
            self._declare(self._phase, found)

    def _count(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        past = _past_length(named.get("past_key_values", named.get("cache")))  # its name before transformers 5 and now
        phase = self._inside.phase = self._phase_of(model, past is not None)
        found, images = {"forward_passes": 1}, self._images
        if images is not None:
            found |= images.of_model(arguments, named, functools.partial(self._add, phase))
        ids = _first(named, "input_ids", "inputs_embeds")
        reads_text = images is None or images.reads_text
        if ids is None and reads_text and arguments and isinstance(arguments[0], torch.Tensor):
            ids = arguments[0]
        if self._latents is not None:
            found |= self._latents(arguments, named)
        elif self._encodes:
            found |= self._encoder_decoder(ids, named, past or 0)
        elif ids is not None and ids.dim() >= 2:
            found |= self._decoder(phase, ids.shape[0], ids.shape[1], past or 0, named)
        tokens = found.get("target_tokens", found.get("tokens", 0))
        if tokens and model is self._backbone():
            found["unlabelled_tokens"] = tokens
        elif tokens:
            rows = tokens if ids is None else ids.shape[0]
            found |= head_work(tokens, rows, named, functools.partial(self._add, phase))
        mask = named.get("attention_mask")
        if not past and isinstance(mask, torch.Tensor) and mask.dim() == 2 and found.get("tokens") == mask.numel():
            self._add(phase, "padding_tokens", mask.device, lambda: (mask == 0).sum())
        self._phase = phase
        if self._weights is None:
            self._declare(phase, found)
        else:  # together with what passes the weights, when the pass is over
            self._passing = found

    def _see(self, tower: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:  # noqa: ARG002
        model, images = self._model(), self._images
        if model is None or images is None or self.failed:
            return
        try:
            inside = getattr(self._inside, "depth", 0) > 0
            phase = self._inside.phase if inside else self._phase_of(model, False)
            self._declare(phase, images.of_tower(arguments, named, functools.partial(self._add, phase)))
        except Exception:
            log.exception(_STOPS)
            self._give_up()

    def _give_up(self) -> None:
        self.failed = True
        with suppress(Exception):
            self.client.declare(not_counted={"other": [AFTER_ERROR]})

    def _declare(self, phase: str, found: Mapping[str, int]) -> None:
        if phase == UNSETTLED:
            for name, value in found.items():
                self._unsettled[name] += value
        else:
            self.client.count(phase, **found)

    def _usual_phase(self, model: Any, generating: bool) -> str:  # noqa: ARG002 - as every PhaseOf is called
        if torch.is_grad_enabled() and model.training:
            return "train"
        named = self.client.current_phase
        return named if named in ("evaluate", "generate") else "other"

    def _decoder(self, phase: str, rows: int, length: int, past: int, named: Mapping[str, Any]) -> dict[str, int]:
        window = self._window
        found = {"tokens": rows * length}
        positions = _first(named, "position_ids")
        packed = positions is not None and tuple(positions.shape) == (1, length)
        if self._flash and rows == 1 and not past and packed:
            # Documents one behind the other, each attending to itself only: a position is its number within one.
            self.saw_documents = True
            self._add(phase, "sequences", positions.device, lambda: (positions == 0).sum())
            self._add(phase, "square_pairs", positions.device, lambda: (2 * positions + 1).sum())
            if window is not None:
                self._add(phase, "window_pairs", positions.device, lambda: (positions + 1).clamp(max=window).sum())
            return found
        whole = past + length
        found["sequences"] = 0 if past else rows
        found["square_pairs"] = rows * (whole * whole - past * past)
        if window is not None:
            found["window_pairs"] = rows * (_window_pairs(whole, window) - _window_pairs(past, window))
        return found

    def _encoder_decoder(self, ids: Any, named: Mapping[str, Any], past: int) -> dict[str, int]:
        encoded = self._encoded_length(ids, named)
        target = _first(named, "decoder_input_ids", "decoder_inputs_embeds", "labels")
        if encoded is None or target is None:
            return {}
        rows, length = target.shape[0], target.shape[1]
        whole = past + length
        found = {
            "target_tokens": rows * length,
            "target_square_pairs": rows * (whole * whole - past * past),
            "cross_pairs": rows * length * encoded,
        }
        if not past:
            found |= {"sequences": rows, "tokens": rows * encoded, "square_pairs": rows * encoded * encoded}
        return found

    def _encoded_length(self, ids: Any, named: Mapping[str, Any]) -> int | None:
        """Rows of one sequence in the encoder."""
        states = (named.get("encoder_outputs") or (None,))[0]
        features = _first(named, "input_features")
        if features is None and self._hears:
            features, ids = ids, None
        if states is None and features is not None:
            # Whisper's second convolution makes one row of two frames; of other models of sound it is not known.
            return int(features.shape[-1]) // 2 if self._hears else None
        source = states if ids is None else ids
        return None if source is None else int(source.shape[1])

    def _add(self, phase: str, counter: str, device: Any, work: Callable[[], Any]) -> None:
        # A sum that was made in inference mode could not be added to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._defer(phase, counter, device, work())

    def _defer(self, phase: str, counter: str, device: Any, value: Any) -> None:
        key = (phase, counter, device)
        with torch.no_grad():
            self._on_device[key] = self._on_device[key] + value if key in self._on_device else value


def _window_pairs(length: int, window: int) -> int:
    within = min(length, window)
    return within * (within + 1) // 2 + (length - within) * window


def _past_length(cache: Any) -> int | None:
    """Positions that a key-value cache holds already; None without one."""
    if cache is None:
        return None
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    return int(cache[0][0].shape[-2])


def _first(named: Mapping[Any, Any], *names: Any) -> Any:
    return next((named[name] for name in names if isinstance(named.get(name), torch.Tensor)), None)
