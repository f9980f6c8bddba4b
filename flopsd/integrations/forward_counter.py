"""Count the tokens and sequences that pass through a Hugging Face PyTorch model, by hooks on its forward pass.

counter = ForwardCounter(client)
counter.attach(model)
...
counter.settle()
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from flopsd.client.client import silent
from flopsd.integrations.describe_model import called_within, cannot_be_computed, class_of
from flopsd.integrations.modules.products import makes_weights
from flopsd.integrations.modules.state import ModelState
from flopsd.integrations.passes.forward_hooks import ForwardHooks
from flopsd.integrations.passes.head_counter import backbone_of
from flopsd.integrations.passes.image_counter import tower_of
from flopsd.integrations.passes.layer_watch import LayerWatch
from flopsd.integrations.passes.model_sessions import ModelSessions
from flopsd.integrations.passes.model_watch import ModelWatch
from flopsd.integrations.passes.weight_passes import weight_passes_of
from flopsd.integrations.phase_of import PhaseOf, Session, usual_phase
from flopsd.integrations.work_left_out import WorkLeftOut, is_first_of_its_group, splits_sequences

MADE_WEIGHTS = "weights that are computed from others in each pass (parametrizations)"
TAKEN_OVER = "forward passes of a model of which another counter counts a part"
# Packages whose replacements for a model's forward pass compute the head once, or show how often.
_WITH_HEAD = ("transformers.", "trl.", "accelerate.", "peft.", "liger_kernel.")
SPLIT = "attention between the parts of a sequence that is split over several ranks"


class ForwardCounter:
    """Declares the work of one model's forward passes to `client`."""

    def __init__(self, client: Session, phase_of: PhaseOf | None = None, *, guesses: bool = False) -> None:
        """`phase_of` receives the model and whether it generates, and returns a phase or UNSETTLED. By default a pass
        with gradients is training, and any other belongs to the client's current phase. `guesses`: `phase_of` too
        cannot tell whether a pass outside training mode that records gradients is training."""
        self.client, self.sessions = client, ModelSessions(client)
        self._left_out = WorkLeftOut(client)
        self._hooks = ForwardHooks(
            phase_of or usual_phase(client), self.sessions, self._left_out.add, guesses=guesses or phase_of is None
        )

    def attach(self, model: Any, *, compiled: bool = False) -> None:
        """Count the passes of `model` from now on, and of no other model. `compiled`: torch.compile will compile it. In
        a tensor-parallel group only the first rank counts."""
        hooks = self._hooks
        before = hooks.watch
        self.detach()
        if not is_first_of_its_group(model):
            return
        hooks.model = weakref.ref(model)
        enter, leave, see = hooks.enter, hooks.leave, hooks.see_images
        if compiled:  # the graph breaks before each hook and continues after it
            enter, leave, see = (torch.compiler.disable(hook) for hook in (enter, leave, see))
        called = model if compiled or hasattr(model, "_orig_mod") else called_within(model)
        # PEFT's forward passes bypass the hooks of the inner model; its generation bypasses those of the outer one.
        inner = called.get_base_model() if hasattr(called, "get_base_model") else called
        counter = hooks.counter
        counter.read(model, inner)
        known = class_of(inner)
        # Other replacements, such as fused losses, may compute the head twice, or not for all tokens.
        hooks.has_head = known is None or str(getattr(inner.forward, "__module__", None)).startswith(_WITH_HEAD)
        # Some losses compute the head themselves and call only the rest of the model.
        backbone = None if compiled or counter.tokens.encodes else backbone_of(inner)
        if backbone is not None:
            hooks.backbone = weakref.ref(backbone)
        if any(map(makes_weights, inner.modules())):
            self._left_out.add("train", MADE_WEIGHTS)
        if splits_sequences():
            self._left_out.add("train", SPLIT)
        if not compiled and cannot_be_computed(inner):
            hooks.weights = weight_passes_of(model)
        elif not compiled:
            hooks.passes.begin(model)
        tower = tower_of(inner) if counter.images is not None and counter.images.has_tower else None
        hooks.repeats = not compiled and counter.by_shape and hooks.weights is None
        if hooks.weights is None and self.sessions.has_facts:
            state = ModelState(model) if before is None else before.state.of(model)
            unread = 0 if counter.images is None else counter.images.unread
            layers = None if compiled or hasattr(model, "_orig_mod") else LayerWatch(tower, unread)
            leave_out = functools.partial(self._left_out.add, "train")
            hooks.watch = ModelWatch(
                state, layers, self.sessions, hooks.passes, leave_out, hooks.is_inside, hooks.guarded
            )
        outer = [called] if inner is called else [called, inner]
        for one in (*outer, backbone):
            self._take_over(one, outer)
        by_us, attached = (self, hooks.model), hooks.attached
        if backbone is not None and not hooks.has_head and hooks.weights is None:
            outer = [backbone]  # the training's own forward pass may call it any number of times
        elif backbone is not None and (tower is not None or hooks.weights is not None):
            outer.append(backbone)
        elif backbone is not None:  # saves a hook in each pass
            attached.before(backbone, hooks.enter_backbone, by_us)
        for one in outer:
            attached.before(one, enter, by_us)
            attached.after(one, leave)
        if tower is not None:
            attached.before(tower, see, by_us)
        encoder = inner.get_encoder() if counter.tokens.encodes and not compiled else None
        if isinstance(encoder, torch.nn.Module):
            counter.tokens.sees_encoder = True
            attached.before(encoder, hooks.see_encoder, by_us)

    def _take_over(self, module: Any, counted: list[Any]) -> None:
        """Detach other counters from `module`, such as that of an earlier Trainer."""
        for hook in list(getattr(module, "_forward_pre_hooks", {}).values()):
            other, attached = getattr(hook, "counted_by", None) or (None, lambda: None)
            if isinstance(other, ForwardCounter):
                theirs = attached()
                other.detach()
                if theirs is not None and all(theirs is not one for one in counted):
                    # The other's model contains what is counted now, or shares parts with it.
                    other._hooks.attached.before(theirs, other._leave_out_pass, (other, other._hooks.model))

    def detach(self) -> None:
        for tally in self.sessions.all:
            tally.known.clear()
        self._hooks.forget()

    def leave_out(self, phase: str, words: str) -> None:
        """Declare work of `phase` that is not counted, in words."""
        self._left_out.add(phase, words)

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The fact `not_counted`: texts by phase."""
        return self._left_out.by_phase

    @property
    def saw_documents(self) -> bool:
        """Whether the documents within rows were seen, not only the length of rows."""
        return self._hooks.counter.tokens.saw_documents

    def counts(self, model: Any) -> bool:
        return self._hooks.model() is model

    def modules(self) -> Iterable[Any]:
        """All modules of the counted model; none if the model is gone."""
        model = self._hooks.model()
        return () if model is None else model.modules()

    def settle(self, phase: str = "other") -> None:
        """Declare the sums on the device, and unsettled work in `phase`. Waits for the device."""
        self._hooks.guarded(self._settle, phase)

    def _settle(self, phase: str) -> None:
        self._hooks.leave_out_unseen()
        self.settle_phase(phase)
        self.sessions.settle()
        if self._hooks.counter.tokens.saw_restarts():
            for tally in self.sessions.all:
                tally.client.declare(packing=True)

    def settle_phase(self, phase: str) -> None:
        """Assign unsettled work to `phase`, without waiting for the device."""
        self._hooks.settle_phase(phase)
        self.sessions.settle_phase(phase)

    def declare(self, facts: Mapping[str, Any]) -> None:
        """Declare the facts of the model from now on, in another session if passes were counted under other facts."""
        if self._hooks.watch is not None:
            self._hooks.watch.see_declared()
        self.sessions.declare(facts)

    def count_step(self) -> None:
        """Count an optimizer step."""
        self.sessions.trained.count_step()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, for instance one pickled with its owner, is attached to nothing."""
        return ForwardCounter, (silent(),)

    def _leave_out_pass(self, *_: object) -> None:
        self._left_out.add("train", TAKEN_OVER)
