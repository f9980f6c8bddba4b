"""Count the forward passes of one model in the hooks on its modules.

Only shapes are read, which needs no synchronisation with the device. Counters that depend on the content of tensors,
such as padding, are summed on the device and read later.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from flopsd.integrations.modules.entered import COMPILED_LATER, ENDED, HOOKS_GONE, EnteredModules, has_failed
from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.modules.key_value_cache import fixed_length, past_length
from flopsd.integrations.operators.backward import sequence_number
from flopsd.integrations.passes.model_sessions import Deferred, ModelSessions, PassCount
from flopsd.integrations.passes.model_watch import ModelWatch
from flopsd.integrations.passes.open_passes import OpenPass, OpenPasses
from flopsd.integrations.passes.pass_counter import PassCounter
from flopsd.integrations.passes.token_counter import names_of
from flopsd.integrations.passes.weight_passes import WeightPasses
from flopsd.integrations.phase_of import UNSETTLED, PhaseOf, computes_shapes_only, is_transformed

log = logging.getLogger("flopsd.client")
_STOPS = "flopsd stops counting this model's forward passes; the training goes on"
_LATENTS = "keys and values that are recomputed from a cache of latents"
_FIXED = "attention to empty places of a cache"
_AFTER_ERROR = "forward passes after an error in flopsd's counter"
_TRANSFORMED = "passes within transforms of torch.func or with forward-mode gradients"
_NO_TOKENS = "passes with arguments in which flopsd does not find the tokens"
_CUT_BEFORE = "backward passes that left layers out before flopsd found it"
_NO_BACKWARD = "passes that record gradients, of which no backward pass was seen"
# Arguments that affect a pass without a cache only by their shapes, or not at all; `_MASKED`: if there is a mask.
_BY_SHAPE = frozenset({"input_ids", "attention_mask", "labels", "num_items_in_batch", "use_cache", "return_dict"})
_MASKED = _BY_SHAPE | {"position_ids"}


class _Inside(EnteredModules):
    """The forward pass that this thread is inside: its phase, and the counters to add when it has ended. `records`: it
    may have a backward pass, in whatever phase. `begin`: the number of its first autograd node."""

    phase = UNSETTLED
    open: OpenPass | None = None
    records = False
    begin = 0


class ForwardHooks:
    """The hooks of one model, and the facts about it that a pass needs; whoever attaches the hooks sets these."""

    def __init__(
        self, phase_of: PhaseOf, sessions: ModelSessions, leave_out: Callable[[str, str], None], *, guesses: bool
    ) -> None:
        """`leave_out` takes a phase and a text on its uncounted work; the others are as in `ForwardCounter`."""
        self._phase_of, self._sessions, self._leave_out, self._guesses = phase_of, sessions, leave_out, guesses
        self.attached = AttachedHooks()
        self.counter = PassCounter()
        self.model: Callable[[], Any] = lambda: None  # weak, so that the model is freed with its owner
        self.backbone: Callable[[], Any] = lambda: None
        self.watch: ModelWatch | None = None  # of the model, if a change can be declared
        self.weights: WeightPasses | None = None  # for a model whose architecture flopsd does not read
        self.has_head = True  # each pass of the whole model computes the head once
        self.repeats = False  # passes with the same names and shapes of arguments count the same
        self._was_compiled = False  # the model was compiled after it was attached
        self.failed = False  # nothing is counted after an error
        self._inside = _Inside()
        self.passes = OpenPasses(
            functools.partial(leave_out, "train"), self._fail, self._count_perhaps, self._doubt_gradients
        )
        self._pairs_beyond = 0  # uncounted pairs with empty places of caches of a fixed size
        self._passing: dict[str, int] | None = None  # counters of the current pass
        self._of_device: tuple[Any, Deferred] = (None, [])  # and its counters that depend on the content of tensors
        self._phase = self._recorded = "other"  # phase of the last pass, and of the last that recorded gradients
        # A pass outside training mode, counted by weights, was training if a backward pass follows it.
        self._perhaps_trains = False
        self._waiting: Callable[[str], None] | None = None
        self._sees_backbone = False  # the backbone was called on its own
        self._has_encoded = False  # the current pass uses the result of an earlier call of the encoder

    def forget(self) -> None:
        """Remove the hooks. The counters are kept."""
        self.attached.remove()
        self.passes.forget()
        if self.watch is not None:
            self.watch.end()
        self.watch = None
        if self.weights is not None:
            self._take_weights()
            self.weights.hooks.remove()
        self.weights = None
        self.model = self.backbone = lambda: None
        self._sees_backbone = False

    def leave_out_unseen(self) -> None:
        """Declare the work that the hooks could not see."""
        if self.attached.any_removed or (self.weights is not None and self.weights.hooks.any_removed):
            self._leave_out("train", HOOKS_GONE)
        if self._was_compiled:
            self._leave_out("train", COMPILED_LATER)
        if self.watch is not None:
            self.watch.leave_out_unseen()
        self._leave_out_pairs()

    def settle_phase(self, phase: str) -> None:
        """Count the work that waits for the rest of its pass. `phase`: for work that has no phase yet."""
        self._take_weights()
        self._count_without_backward(all_of_them=True)
        if encoded := self.counter.encoded:
            self._declare(phase, dict(encoded))
            encoded.clear()
        self._phase = self._phase or phase

    def enter(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if torch.compiler.is_compiling():  # `model` was compiled after it was attached
            self._was_compiled = True  # the compiled code repeats this in each pass
            return
        if arguments and isinstance(arguments[0], torch.nn.Module):
            return  # not a pass: TRL runs a method of its trainer inside the wrapper's hooks; it calls the backbone
        inside = self._inside
        if inside.enter(model):
            self._drop(inside)
        # Continuous batching has sequences of many lengths in one row.
        if inside.depth > 1 or self.failed or "read_index" in named:
            return
        try:
            self._count(model, arguments, named)
        except Exception:  # noqa: BLE001 (logged there)
            self._fail()

    def leave(self, _model: Any, _arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        inside = self._inside
        inside.leave()
        if inside.depth:
            return
        failed = output is None and has_failed()
        watch = self.watch
        if watch is not None:
            watch.end_pass(failed=failed)
        if failed:
            self._drop(inside)
        elif (one := inside.open) is not None:
            inside.open = None
            try:
                if not (inside.records and self._follow(one, output, inside.begin)):
                    one[0].add(*one[1:])
            except Exception:  # noqa: BLE001 (logged there)
                self._fail()
        found = self._passing
        if found is None or self.weights is None or self.failed:
            return
        self._passing = None
        self.weights.end(found.get("tokens", 0) + found.get("target_tokens", 0))
        if self._perhaps_trains:
            self._waiting = functools.partial(self._declare_passed, {**found, **self.weights.take()[0]})
            return
        self._declare_passed(found, self._phase)
        self._take_weights()

    def _follow(self, one: OpenPass, output: Any, begin: int) -> bool:
        watch, nodes = self.watch, sequence_number() - begin if begin else 0
        trained = () if watch is None else watch.take_trained(nodes, ran_before=self._has_encoded)
        return self.passes.follow(one, output, (begin, nodes), trained)

    def _declare_passed(self, found: Mapping[str, int], phase: str) -> None:
        self._declare(phase, found)
        unpadded, deferred = self._of_device
        self._sessions.now.add_tensors(phase, found.get("tokens", 0), unpadded, deferred)

    def enter_backbone(self, backbone: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Like `enter`, for a module inside which nothing is counted and no phase is needed."""
        inside = self._inside
        if torch.compiler.is_compiling() or inside.depth:
            return
        self.enter(backbone, arguments, named)
        inside.depth = 0
        if inside.open is not None and not self._sees_backbone:  # saves a hook if only the whole model is called
            self._sees_backbone = True
            self.attached.after(backbone, self._leave_backbone)

    def _drop(self, inside: _Inside) -> None:
        """Drop the pass of this thread, which ended with an error: it is not known which part of it ran."""
        one, inside.open = inside.open, None
        if one is not None:
            self._leave_out(one[0].phase or "other", ENDED)

    def _leave_backbone(self, backbone: Any, arguments: Any, output: Any) -> None:
        if not torch.compiler.is_compiling() and not self._inside.depth:
            self.leave(backbone, arguments, output)

    def _take_weights(self) -> None:
        """Declare the products with weights, also those outside a forward pass of the model, as in a backward pass."""
        if self.weights is None:
            return
        forward, backward = self.weights.take()
        if (waiting := self._waiting) is not None:
            self._waiting = None
            self._recorded = "train" if backward else self._recorded
            waiting("train" if backward else self._phase)
        for phase, found in ((self._phase, forward), (self._recorded, backward)):
            if found:
                self._declare(phase, found)

    def _count_without_backward(self, *, all_of_them: bool = False) -> None:
        """Count the passes that can no longer have a backward pass; `all_of_them`: also those that may still have
        one."""
        for one, can_have_one in self.passes.take_without_backward(all_of_them=all_of_them):
            # A frozen model may pass gradients to other modules: a backward pass may have begun at an inner state.
            passes = self.watch is not None and not self.watch.state.trains_any and one[0].phase in (UNSETTLED, "other")
            if one[0].phase != "train" and not can_have_one and not passes:
                one[0].add(*one[1:])
            else:
                self._count_perhaps(one)

    def _count_perhaps(self, one: OpenPass) -> None:
        """Count a pass that has unknown gradients, or none."""
        counted, *tensors = one
        if self._sessions.has_facts:
            # Steps are counted beside the passes: a session with steps alone leaves no figure.
            self._sessions.trained = perhaps = self._sessions.perhaps_trained(counted.tally)
            counted.add_to(perhaps, "train", *tensors)
        else:
            counted.add_to(counted.tally, "other", *tensors)
            self._leave_out("train", _NO_BACKWARD)

    def _doubt_gradients(self) -> None:
        """Some backward passes that were counted as whole may not have been."""
        if self._sessions.has_facts:
            self._sessions.see_replaced(0)
        self._leave_out("train", _CUT_BEFORE)

    def _count(self, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if computes_shapes_only(arguments, named):
            return
        if arguments:
            named = {**dict(zip(names_of(model.__class__), arguments, strict=False)), **named}
        cache = named.get("past_key_values", named.get("cache"))  # its names before transformers 5 and since
        past = past_length(cache)
        phase, records = self._phase_of(model, past is not None), torch.is_grad_enabled()
        # The threads of replicas number their autograd nodes themselves.
        self._inside.begin = 0 if isinstance(model, torch.nn.DataParallel) else sequence_number()
        mask, key = named.get("attention_mask"), None
        if self.passes.open:
            self._count_without_backward()
        if self.model() is None:  # the wrapper of its adapters is gone, and the inner model is still called
            self.model = weakref.ref(model)
            if self.watch is not None:
                self.watch.state = self.watch.state.of(model)
        if (watch := self.watch) is not None:
            if watch.begin_pass(self.model(), records=records):
                self.counter.tokens.see_kernel()
                self.repeats = self.repeats and self.counter.by_shape
            # Training without dropout, or an evaluation that records gradients needlessly.
            if self._guesses and phase in (UNSETTLED, "other") and records and watch.state.trains_any:
                phase = "train"
        tally = self._sessions.now
        if is_transformed():
            self._leave_out("train", _TRANSFORMED)
        if past and records and self.counter.tokens.keeps_window:
            self._sessions.see_window_cache()
        if past and self.counter.tokens.caches_latents:
            self._leave_out("train" if records else "generate", _LATENTS)
        if self.repeats and not arguments:
            ids = named.get("input_ids")
            shapes = getattr(ids, "shape", None), getattr(mask, "shape", None)
            key = (model is self.backbone(), phase, *shapes, *named)
            if (known := tally.known.get(key)) is not None:
                unpadded = torch.count_nonzero(mask) if known.padded else None
                self._inside.open, self._inside.records = (known, unpadded, []), records
                return
        self._take_weights()
        self._phase = self._inside.phase = phase
        self._recorded = phase if records else self._recorded
        deferred: Deferred = []
        self._has_encoded = bool(self.counter.encoded)
        has_head = self.has_head and model is not self.backbone()
        found = self.counter.of_pass(arguments, named, past or 0, deferred, has_head=has_head)
        if self.weights is None and self.counter.reads_tokens and not found.keys() & {"tokens", "target_tokens"}:
            self._leave_out(phase or "other", _NO_TOKENS)
        tokens = found.get("tokens", 0)
        if past is not None and (longest := fixed_length(cache)) is not None:
            if not past:
                self._leave_out_pairs()  # those of earlier sequences
            pairs = found.get("target_square_pairs", found.get("square_pairs", 0))
            self._pairs_beyond += found.get("target_tokens", tokens) * longest - pairs
        padded = not past and isinstance(mask, torch.Tensor) and mask.dim() == 2 and tokens == mask.numel()
        unpadded = torch.count_nonzero(mask) if padded else None
        one = PassCount(tally, phase, found, functools.partial(tally.count, phase, found), padded)
        by_shape = _BY_SHAPE if mask is None else _MASKED
        if key is not None and phase != UNSETTLED and by_shape.issuperset(named) and isinstance(ids, torch.Tensor):
            tally.remember(key, one)
        if self.weights is not None:  # counted with the products of weights, when the pass is over
            self._passing, self._of_device = found, (unpadded, deferred)
            self._perhaps_trains = self._guesses and records and phase in (UNSETTLED, "other")
            self.weights.begin()
        else:
            tally.has_counted = True
            self._inside.open, self._inside.records = (one, unpadded, deferred), records

    def is_inside(self) -> bool:
        """Whether this thread is inside a pass of the whole model."""
        return self._inside.depth > 0 or self._inside.open is not None

    def see_encoder(self, encoder: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:  # noqa: ARG002
        if not torch.compiler.is_compiling() and not self._inside.depth and not self.failed:
            self.guarded(self._count_encoder, arguments, named)

    def see_images(self, tower: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:  # noqa: ARG002
        if not torch.compiler.is_compiling() and not self.failed:
            self.guarded(self._count_images, arguments, named)

    def _count_encoder(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if not computes_shapes_only(arguments, named):
            self.counter.add_encoder(arguments, named)

    def _count_images(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        model, images = self.model(), self.counter.images
        if model is None or images is None or computes_shapes_only(arguments, named):
            return
        one, deferred = self._inside.open, list[tuple[str, Any]]()
        found = images.of_tower(arguments, named, lambda counter, value: deferred.append((counter, value)))
        if one is not None:
            for name, value in found.items():
                one[0].found[name] = one[0].found.get(name, 0) + value
            one[2].extend(deferred)
            return
        phase = self._inside.phase
        if not self._inside.depth:  # generation runs the tower before the rest
            phase = self._phase_of(model, False)
        tally = self._sessions.now
        count = tally.hold if deferred else tally.count
        count(phase, found)
        tally.add_tensors(phase, 0, None, deferred)

    def guarded(self, count: Callable[..., None], *arguments: Any) -> None:
        """Call `count`. After an error, which is logged, nothing is counted any more."""
        try:
            count(*arguments)
        except Exception:  # noqa: BLE001 (logged there)
            self._fail()

    def _leave_out_pairs(self) -> None:
        """After the sequences in a cache of a fixed size have ended, declare that pairs with its empty places were not
        counted. If the sequences filled the cache, as many pairs were counted as computed."""
        if self._pairs_beyond > 0:
            self._leave_out("generate", _FIXED)
        self._pairs_beyond = 0

    def _fail(self) -> None:
        """Stop counting after an exception."""
        if self.failed:
            return
        log.exception(_STOPS)
        self.failed = True
        with suppress(Exception):
            self._leave_out("other", _AFTER_ERROR)

    def _declare(self, phase: str, found: Mapping[str, int]) -> None:
        self._sessions.now.count(phase, found)
