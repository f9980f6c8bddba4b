"""Counts tokens and sequences that pass through a Hugging Face PyTorch model, by hooks on its forward pass.

    counter = ForwardCounter(client)
    counter.attach(model)

Only shapes are read, which needs no synchronisation with the device. What depends on the content of tensors, such as
padding, is summed on the device and read by `settle`.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch

from flopsd.client.client import silent
from flopsd.integrations.describe_model import class_of, is_unread
from flopsd.integrations.entered_modules import (
    COMPILED_LATER,
    ENDED,
    HOOKS_GONE,
    AttachedHook,
    EnteredModules,
    has_failed,
)
from flopsd.integrations.head_counter import backbone_of
from flopsd.integrations.image_counter import ImageCounter, tower_of
from flopsd.integrations.inert_hook import Hook
from flopsd.integrations.model_sessions import Counted, Deferred, ModelSessions
from flopsd.integrations.model_state import ModelState
from flopsd.integrations.module_products import makes_weights
from flopsd.integrations.open_passes import OpenPass, OpenPasses
from flopsd.integrations.pass_counter import PassCounter
from flopsd.integrations.phase_of import UNSETTLED, PhaseOf, Session, is_transformed, usual_phase
from flopsd.integrations.token_counter import fixed_length, past_length
from flopsd.integrations.weight_passes import WeightPasses, weight_passes_of
from flopsd.integrations.work_left_out import splits_sequences

log = logging.getLogger("flopsd.client")
_STOPS = "flopsd stops counting this model's forward passes; the training goes on"
LATENTS = "keys and values that are made anew of a cache of latents"
MADE_WEIGHTS = "weights that are made of others for each pass (parametrizations)"
FIXED = "attention to places of a cache that hold nothing yet"
AFTER_ERROR = "forward passes after an error in flopsd's counter"
TWICE = "backward passes after the first of one forward pass"
TAKEN_OVER = "forward passes of a model a part of which another counter counts"
SPLIT = "attention between the parts of a sequence that several ranks share"
TRANSFORMED = "passes within transforms of torch.func or with forward-mode gradients"
NO_BACKWARD = "passes that record gradients, of which no backward pass was seen"
# Arguments of which a pass without a cache depends by their shapes alone, or not at all.
_BY_SHAPE = frozenset(
    {"input_ids", "attention_mask", "position_ids", "labels", "num_items_in_batch", "use_cache", "return_dict"}
)


class _Inside(EnteredModules):
    """The forward pass that this thread is within: its phase, and what is counted of it when it has ended. `records`:
    it may have a backward pass, whatever its phase is."""

    phase = UNSETTLED
    open: OpenPass | None = None
    records = False


class ForwardCounter:
    """Declares the work of one model's forward passes to `client`."""

    def __init__(self, client: Session, phase_of: PhaseOf | None = None, *, guesses: bool = False) -> None:
        """`phase_of` receives the model and whether it generates, and returns a phase or UNSETTLED. By default a pass
        with gradients is training, and any other belongs to the client's current phase. `guesses`: `phase_of` does not
        know either whether a pass outside of training mode that records gradients is training."""
        self.client, self._phase_of = client, phase_of or usual_phase(client)
        self._guesses = guesses or phase_of is None
        self.sessions = ModelSessions(client)
        self._state: ModelState | None = None  # what may change between passes, where a change can be declared
        self._model: Callable[[], Any] = lambda: None  # weak, so that it is freed with its owner
        self._backbone: Callable[[], Any] = lambda: None
        self._counter = PassCounter()
        self._repeats = False  # a pass counts what another with the same names and shapes of arguments counted
        self._handles: list[AttachedHook] = []
        self._inside = _Inside()
        self._passes = OpenPasses(lambda: self._leave_out("train", TWICE), self._fail, self._count_perhaps)
        self.left_out: dict[str, list[str]] = {}  # for the fact `not_counted`
        self._was_compiled = False
        self._pairs_beyond = 0  # of caches of a fixed size, those that are not among the pairs that are counted
        self.failed = False  # after an error nothing is counted any more
        self._weights: WeightPasses | None = None  # of a model whose architecture flopsd does not read
        self._passing: dict[str, int] | None = None  # what was counted of the pass that goes on
        self._phase = self._recorded = "other"  # of the last pass, and of the last one that recorded gradients
        self._sees_backbone = False  # when it has passed alone
        self._has_head = True  # known to compute it in each pass as a whole

    def attach(self, model: Any, *, compiled: bool = False) -> None:
        """Count the passes of `model` from now on, and of no other. `compiled`: torch.compile will compile it."""
        self.detach()
        self._model = weakref.ref(model)
        enter, leave, see = self._enter, self._leave, self._see_images
        if compiled:  # the graph breaks before each hook and continues after it
            enter, leave, see = (torch.compiler.disable(hook) for hook in (enter, leave, see))
        # PEFT's forward passes bypass the hooks of the inner model, its generation those of the outer one.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        counter = self._counter
        counter.read(model, inner)
        known = class_of(inner)
        self._has_head = known is None or type(inner).forward is known.forward
        # Some losses have the head outside, and call the rest alone.
        backbone = None if compiled or counter.tokens.encodes else backbone_of(inner)
        if backbone is not None:
            self._backbone = weakref.ref(backbone)
        if any(map(makes_weights, inner.modules())):
            self._leave_out("train", MADE_WEIGHTS)
        if splits_sequences():
            self._leave_out("train", SPLIT)
        if not compiled and is_unread(inner):
            self._weights = weight_passes_of(model)
        tower = tower_of(inner) if counter.images is not None and counter.images.has_tower else None
        self._repeats = not compiled and counter.by_shape and self._weights is None
        if self._weights is None and self.sessions.has_facts:
            self._state = ModelState(model)
        outer = [model] if inner is model else [model, inner]
        for one in (*outer, backbone):
            self._take_over(one, outer)
        if backbone is not None and (tower is not None or self._weights is not None):
            outer.append(backbone)
        elif backbone is not None:  # a hook less in each pass
            self._hook(backbone, self._enter_backbone)
        for one in outer:
            self._hook(one, enter)
            self._follow(one, leave)
        if tower is not None:
            self._hook(tower, see)
        encoder = inner.get_encoder() if counter.tokens.encodes and not compiled else None
        if isinstance(encoder, torch.nn.Module):
            counter.tokens.sees_encoder = True
            self._hook(encoder, self._see_encoder)

    def _take_over(self, module: Any, counted: list[Any]) -> None:
        """Have no other counter count the passes of `module`, such as that of a Trainer before this one."""
        for hook in list(getattr(module, "_forward_pre_hooks", {}).values()):
            other, attached = getattr(hook, "counted_by", None) or (None, lambda: None)
            if isinstance(other, ForwardCounter):
                theirs = attached()
                other.detach()
                if theirs is not None and all(theirs is not one for one in counted):
                    other._hook(theirs, other._leave_out_pass)  # it is around what is counted now, or beside it

    def _hook(self, module: Any, before: Callable[..., None]) -> None:
        hook = Hook(before)
        hook.counted_by = self, self._model
        self._handles.append(AttachedHook(module, module.register_forward_pre_hook(hook, with_kwargs=True)))

    def _follow(self, module: Any, after: Callable[..., None]) -> None:
        self._handles.append(AttachedHook(module, module.register_forward_hook(Hook(after), always_call=True)))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for tally in self.sessions.all:
            tally.known.clear()
        self._state = None
        if self._weights is not None:
            self._take_weights()
            self._weights.detach()
        self._weights = None
        self._model = self._backbone = lambda: None
        self._sees_backbone = False

    @property
    def saw_documents(self) -> bool:
        """The documents within a row were seen, not only its length."""
        return self._counter.tokens.saw_documents

    def counts(self, model: Any) -> bool:
        return self._model() is model

    def modules(self) -> Iterable[Any]:
        """All modules of the counted model; none where it is gone."""
        model = self._model()
        return () if model is None else model.modules()

    def settle(self, phase: str = "other") -> None:
        """Declare the sums on the device; unsettled work belongs to `phase`. Waits for the device."""
        if any(one.was_removed for one in self._handles) or (self._weights is not None and self._weights.lost_hooks):
            self._leave_out("train", HOOKS_GONE)
        if self._was_compiled:
            self._leave_out("train", COMPILED_LATER)
        self._leave_out_pairs()
        self.settle_phase(phase)
        self.sessions.settle()

    def settle_phase(self, phase: str) -> None:
        """Assign unsettled work to `phase`, without waiting for the device."""
        self._take_weights()
        self._count_without_backward(all_of_them=True)
        if encoded := self._counter.encoded:
            self._declare(phase, dict(encoded))
            encoded.clear()
        self._phase = self._phase or phase
        self.sessions.settle_phase(phase)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, such as one that is pickled with what holds the counter, is attached to nothing."""
        return ForwardCounter, (silent(),)

    def declare(self, facts: Mapping[str, Any]) -> None:
        """Declare what the model is from now on: to another session, if passes were counted of what it was before."""
        if self._state is not None:
            self._state.keep()
        self.sessions.declare(facts)

    def count_step(self) -> None:
        """Count an optimizer step."""
        self.sessions.trained.count_step()

    def _enter(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if torch.compiler.is_compiling():  # `model` was compiled after it was attached
            self._was_compiled = True  # torch.compile repeats this for each pass
            return
        if arguments and isinstance(arguments[0], torch.nn.Module):
            return  # no pass: TRL runs a method of its trainer within the wrappers' hooks, which calls the backbone
        inside = self._inside
        if inside.enter(model):
            self._drop(inside)
        if inside.depth > 1 or self.failed or "read_index" in named:  # continuous batching: rows of many lengths in one
            return
        self._try(self._count, model, arguments, named)

    def _leave(self, _model: Any, _arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        inside = self._inside
        inside.leave()
        if inside.depth:
            return
        if output is None and has_failed():
            self._drop(inside)
        elif (one := inside.open) is not None:
            inside.open = None
            try:
                if not (inside.records and self._passes.follow(one, output)):
                    one[0].add(*one[1:])
            except Exception:  # noqa: BLE001 (logged there)
                self._fail()
        found = self._passing
        if found is None or self._weights is None or self.failed:
            return
        self._passing = None
        self._weights.end(found.get("tokens", 0) + found.get("target_tokens", 0))
        self._declare(self._phase, found)
        self._take_weights()

    def _enter_backbone(self, backbone: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """As `_enter`, of a module within which nothing is counted and no phase needed."""
        inside = self._inside
        if torch.compiler.is_compiling() or inside.depth:
            return
        self._enter(backbone, arguments, named)
        inside.depth = 0
        if inside.open is not None and not self._sees_backbone:  # a hook less, where a model is called as a whole
            self._sees_backbone = True
            self._follow(backbone, self._leave_backbone)

    def _drop(self, inside: _Inside) -> None:
        """The pass that goes on in this thread ended with an error: which part of it ran is not known."""
        one, inside.open = inside.open, None
        if one is not None:
            self._leave_out(one[0].phase or "other", ENDED)

    def _leave_backbone(self, backbone: Any, arguments: Any, output: Any) -> None:
        if not torch.compiler.is_compiling() and not self._inside.depth:
            self._leave(backbone, arguments, output)

    def _take_weights(self) -> None:
        """Declare what passed the weights, also outside of a forward pass of the model, such as in a backward pass."""
        if self._weights is None:
            return
        forward, backward = self._weights.take()
        if forward:
            self._declare(self._phase, forward)
        if backward:
            self._declare(self._recorded, backward)

    def _count_without_backward(self, *, all_of_them: bool = False) -> None:
        """Count passes that can have no backward pass any more; `all_of_them`: those too of which none was seen yet."""
        for one, can_have_one in self._passes.take_without_backward(all_of_them=all_of_them):
            if one[0].phase != "train" and not can_have_one:
                one[0].add(*one[1:])
            else:
                self._count_perhaps(one)

    def _count_perhaps(self, one: OpenPass) -> None:
        """Count a pass of which it is not known which gradients it has, if any."""
        counted, *tensors = one
        if self.sessions.has_facts:
            counted.add_to(self.sessions.perhaps_trained(counted.tally), "train", *tensors)
        else:
            counted.add_to(counted.tally, "other", *tensors)
            self._leave_out("train", NO_BACKWARD)

    def _count(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        cache = named.get("past_key_values", named.get("cache"))  # its name before transformers 5 and now
        past = past_length(cache)
        phase, records = self._phase_of(model, past is not None), torch.is_grad_enabled()
        mask, key = named.get("attention_mask"), None
        if self._passes.open:
            self._count_without_backward()
        if self._model() is None:  # the wrapper of its adapters is gone, and what was in it still passes
            self._model = weakref.ref(model)
            self._state = None if self._state is None else self._state.of(model)
        if self._state is not None:
            if self._state.has_changed(trains=records):
                changed = self._state.keep()
                self.sessions.describe_again(self._model(), trains=records, changed=changed)
                self._counter.tokens.see_kernel()
                self._repeats = self._repeats and self._counter.by_shape
            # Training without dropout, or an evaluation that records for nothing.
            if self._guesses and phase in (UNSETTLED, "other") and records and self._state.trains_any:
                phase = "train"
        tally = self.sessions.now
        if is_transformed():
            self._leave_out("train", TRANSFORMED)
        if past and self._counter.tokens.caches_latents:
            self._leave_out("train" if records else "generate", LATENTS)
        if self._repeats and not arguments:
            ids = named.get("input_ids")
            shapes = getattr(ids, "shape", None), getattr(mask, "shape", None)
            key = (model is self._backbone(), phase, *shapes, *named)
            if (known := tally.known.get(key)) is not None:
                unpadded = torch.count_nonzero(mask) if known.padded else None
                self._inside.open, self._inside.records = (known, unpadded, []), records
                return
        self._take_weights()
        self._phase = self._inside.phase = phase
        self._recorded = phase if records else self._recorded
        deferred: Deferred = []
        has_head = self._has_head and model is not self._backbone()
        found = self._counter.of_pass(arguments, named, past or 0, deferred, has_head=has_head)
        tokens = found.get("tokens", 0)
        if past is not None and (longest := fixed_length(cache)) is not None:
            if not past:
                self._leave_out_pairs()  # of the sequences before
            pairs = found.get("target_square_pairs", found.get("square_pairs", 0))
            self._pairs_beyond += found.get("target_tokens", tokens) * longest - pairs
        padded = not past and isinstance(mask, torch.Tensor) and mask.dim() == 2 and tokens == mask.numel()
        unpadded = torch.count_nonzero(mask) if padded else None
        one = Counted(tally, phase, found, functools.partial(tally.count, phase, found), padded)
        if key is not None and phase != UNSETTLED and _BY_SHAPE.issuperset(named) and isinstance(ids, torch.Tensor):
            tally.remember(key, one)
        if self._weights is not None:  # together with what passes the weights, when the pass is over
            self._passing = found
            self._weights.begin()
            tally.add_tensors(phase, tokens, unpadded, deferred)
        else:
            tally.has_counted = True
            self._inside.open, self._inside.records = (one, unpadded, deferred), records

    def _see_encoder(self, encoder: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:  # noqa: ARG002
        if not torch.compiler.is_compiling() and not self._inside.depth and not self.failed:
            self._try(self._counter.add_encoder, arguments, named)

    def _see_images(self, tower: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:  # noqa: ARG002
        if torch.compiler.is_compiling():
            return
        model, images = self._model(), self._counter.images
        if model is not None and images is not None and not self.failed:
            self._try(self._count_images, model, images, arguments, named)

    def _count_images(
        self, model: Any, images: ImageCounter, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> None:
        if (one := self._inside.open) is not None:
            counted, _, deferred = one

            def defer(counter: str, value: Any) -> None:
                deferred.append((counter, value))

            for name, value in images.of_tower(arguments, named, defer).items():
                counted.found[name] = counted.found.get(name, 0) + value
            return
        phase = self._inside.phase
        if not self._inside.depth:  # generation has images pass before the rest
            phase = self._phase_of(model, False)
        add = functools.partial(self.sessions.now.on_device.add, phase)
        self._declare(phase, images.of_tower(arguments, named, add))

    def _try(self, count: Callable[..., None], *arguments: Any) -> None:
        try:
            count(*arguments)
        except Exception:  # noqa: BLE001 (logged there)
            self._fail()

    def _leave_out(self, phase: str, what: str) -> None:
        """Declare work that is not counted, beside what is declared of that already."""
        if what not in self.left_out.get(phase, ()):
            self.left_out.setdefault(phase, []).append(what)
            known = getattr(self.client, "facts", {}).get("not_counted") or {}
            merged = {name: [*known.get(name, ()), *self.left_out.get(name, ())] for name in {*known, *self.left_out}}
            self.client.declare(not_counted=merged)

    def _leave_out_pass(self, *_: object) -> None:
        self._leave_out("train", TAKEN_OVER)

    def _leave_out_pairs(self) -> None:
        """Declare what the sequences in a cache of a fixed size left of it, once they have ended: with all of its
        places taken, as many pairs are counted as were computed."""
        if self._pairs_beyond > 0:
            self._leave_out("generate", FIXED)
        self._pairs_beyond = 0

    def _fail(self) -> None:
        """After an exception."""
        log.exception(_STOPS)
        self.failed = True
        with suppress(Exception):
            self._leave_out("other", AFTER_ERROR)

    def _declare(self, phase: str, found: Mapping[str, int]) -> None:
        self.sessions.now.count(phase, found)
