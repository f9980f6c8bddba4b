"""Count the floating-point operations of the operators that a training process runs, and declare them.

    counter = OperatorCounter(client)
    counter.attach(model, optimizer)

The operators of a pass are counted once for each signature of its arguments; later passes with the same signature add
the kept counts, and are counted in full ever less often. It is software's count: a claim of the process.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from flopsd.client.client import silent
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase
from flopsd.integrations.modules.entered import COMPILED_LATER, ENDED, HOOKS_GONE, EnteredModules, has_failed
from flopsd.integrations.modules.hooks import AttachedHook, AttachedHooks
from flopsd.integrations.operators.backward import (
    COMPILED,
    GRAPHED,
    BackwardCounter,
    BackwardPasses,
    Way,
    graph_task,
    sequence_number,
)
from flopsd.integrations.operators.mode import CountingMode, OperatorFlop, is_capturing
from flopsd.integrations.operators.optimizer_steps import OptimizerSteps
from flopsd.integrations.operators.sessions import DeviceSessions
from flopsd.integrations.operators.signature import Signature, UnseenError
from flopsd.integrations.operators.totals import CAPTURED, OperatorTotals, PassCounts
from flopsd.integrations.passes.head_counter import backbone_of
from flopsd.integrations.phase_of import PhaseOf, computes_shapes_only, usual_phase

log = logging.getLogger("flopsd.client")
MAX_SIGNATURES = 2048
_AFTER_ERROR = "all that ran after an error in flopsd's counter of operators"
_TOO_MANY = f"passes of more than {MAX_SIGNATURES} different shapes"
_MIXED = "recomputation within graphs of torch.compile is not counted separately"
_FAILED = "backward passes that ended with an error"
_OTHER_WAY = "a backward pass of a kind that was not seen before"
_TWICE = "gradients of gradients are counted in part"
_WITHIN = "backward passes that begin within a model are counted in part"
_FEWER = "passes with fewer autograd nodes than earlier passes of the same shape"
_UNSEEN = "passes with arguments in which flopsd does not find the tensors"
_COMPILED = "a compiled model: PyTorch is too old to see what its graphs run"
WHOLE_GRAPH = "a model compiled as one graph, which a hook would break"


@dataclass(slots=True)
class _Root:
    """An attached model."""

    signature: Signature
    phase_of: PhaseOf
    has_threads: bool  # it makes autograd nodes in threads of its own
    by_signature: dict[object, PassCounts] = field(default_factory=dict)


@dataclass(slots=True)
class _Pass:
    """A running forward pass."""

    root: _Root
    counts: PassCounts
    phase: str
    arguments: Any
    counted: OperatorFlop | None = None
    mode: Any = None
    begin: int = 0  # the sequence number of its first autograd node


class _Inside(EnteredModules):
    current: _Pass | None = None


class OperatorCounter:
    """Declares to `client` the FLOP of attached models and optimizers. `device`: the UUID of the accelerator if PyTorch
    does not know it, by default $FLOPSD_DEVICE_UUID. `phase_of` as for `ForwardCounter`."""

    def __init__(
        self, client: Any, *, device: str | None = None, phase_of: PhaseOf | None = None,
        declares_precision: bool = True,
    ) -> None:  # fmt: skip
        self.client, self._phase_of = client, phase_of or usual_phase(client)
        self.sessions = DeviceSessions(client, device, declares_precision=declares_precision)
        self._backward = BackwardCounter(self._guarded, self._fail)
        self._inside = _Inside()
        # Weak, so that models and optimizers are freed with their owners.
        self._hooks: weakref.WeakKeyDictionary[Any, AttachedHooks] = weakref.WeakKeyDictionary()
        self._totals = OperatorTotals(self.sessions)
        self._steps = OptimizerSteps(self._totals, self._guarded, self._fail)
        self.failed = self._was_compiled = self._has_begun = False

    def attach(
        self, model: Any, optimizer: Any = None, *, compiled: bool = False, phase_of: PhaseOf | None = None
    ) -> None:
        """Also count the passes of `model` and the steps of `optimizer` from now on. The model must be on its device
        already. `compiled`: torch.compile will compile it afterwards."""
        self._guarded(self._attach)(model, compiled, phase_of or self._phase_of)
        self._guarded(self._attach_optimizer)(optimizer)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, for instance one pickled with its owner, is attached to nothing."""
        return OperatorCounter, (silent(),)

    def leave_out(self, words: str, phase: str = "train") -> None:
        """Declare work that cannot be counted."""
        self.sessions.say([words], phase)

    def detach(self) -> None:
        for one in list(self._hooks):
            self.release(one)

    def release(self, one: Any) -> None:
        """Stop counting a model or an optimizer."""
        if (hooks := self._hooks.pop(one, None)) is not None:
            hooks.remove()

    def settle(self, phase: str = "other") -> None:
        """Declare the work without a phase in `phase`, and work that the hooks could not see."""
        self.sessions.settle(phase)
        if any(hooks.any_removed for hooks in self._hooks.values()):
            self.leave_out(HOOKS_GONE)
        if self._was_compiled:
            self.leave_out(COMPILED_LATER)

    def _attach(self, model: Any, compiled: bool, phase_of: PhaseOf) -> None:
        parameter = next(model.parameters(), None)
        unknown = parameter is not None and not self.sessions.counts_on(parameter.device)
        if graph_task is None or unknown or model in self._hooks:
            return
        wrapped = hasattr(model, "_orig_mod")
        if getattr(model, "_compiled_call_impl", None) is not None:
            self.leave_out(WHOLE_GRAPH)
            return
        flex = getattr(getattr(model, "config", None), "_attn_implementation", None) == "flex_attention"
        if not hasattr(TorchDispatchMode, "ignore_compile_internals") and (wrapped or compiled or flex):
            self.leave_out(_COMPILED)
            return
        root = _Root(Signature(model), phase_of, isinstance(model, torch.nn.DataParallel))
        leave: Any = self._leave
        breaks = compiled and not wrapped  # the graph breaks before each hook and continues after it
        if breaks:
            leave = torch.compiler.disable(leave)
        outer = [model]
        if not wrapped:
            # PEFT's forward passes bypass the hooks of the inner model; its generation bypasses those of the outer one.
            inner = model.get_base_model() if hasattr(model, "get_base_model") else model
            backbone = None if compiled else backbone_of(inner)
            outer += [one for one in (inner, backbone) if one is not None and one is not model]
        _take_over([hook for one in outer for hook in one._forward_pre_hooks.values()], outer, self)
        hooks = self._hooks[model] = AttachedHooks()
        for one in outer:
            enter: Any = functools.partial(self._enter, root, hooks.after(one, leave))
            hooks.before(one, torch.compiler.disable(enter) if breaks else enter, (self, weakref.ref(model)))

    def _attach_optimizer(self, optimizer: Any) -> None:
        optimizer = getattr(optimizer, "optimizer", optimizer)  # inside Accelerate's
        if optimizer is not None and optimizer not in self._hooks:
            _take_over(getattr(optimizer, "_optimizer_step_pre_hooks", {}).values(), [optimizer], self)
            hooks = self._hooks[optimizer] = AttachedHooks()
            self._steps.attach(optimizer, hooks, (self, weakref.ref(optimizer)))

    def _enter(
        self, root: _Root, after: AttachedHook, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> None:
        if torch.compiler.is_compiling():  # `model` was compiled after it was attached
            self._was_compiled = True  # the compiled code repeats this in each pass
            return
        if after.was_removed:  # the end of the pass would not be seen
            self.sessions.say([HOOKS_GONE], "train")
            return
        inside = self._inside
        if inside.enter(model):
            self._drop(inside)
        if inside.depth == 1:
            self._guarded(self._begin)(root, model, arguments, named)

    def _leave(self, _model: Any, _arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        inside = self._inside
        inside.leave()
        if inside.depth or (one := inside.current) is None:
            return
        inside.current = None
        if one.mode is not None:
            one.mode.__exit__(None, None, None)
        self._guarded(self._end)(one, output)

    def _drop(self, inside: _Inside) -> None:
        """Drop the pass that this thread had begun, which ended without a call of its hook."""
        one, inside.current = inside.current, None
        if one is None:
            return
        if one.mode is not None and _get_current_dispatch_mode() is one.mode:
            one.mode.__exit__(None, None, None)
        self.sessions.say([ENDED], one.phase)

    def _begin(self, root: _Root, model: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        assert graph_task is not None
        if computes_shapes_only(arguments, named):
            return
        self._steps.leave()
        task = graph_task()
        if task != -1 and self._backward.is_tracked(task):
            return  # recomputation in a backward pass, which is counted as a whole
        phase = root.phase_of(model, named.get("past_key_values", named.get("cache")) is not None)
        if not self._has_begun:  # a daemon that is met during this pass has not metered all of it
            self._has_begun = True
            self.client.count(phase or "other", operator_flop=0)
        if is_capturing():
            self.sessions.say([CAPTURED], phase)
            return
        try:
            key = task != -1, root.signature.of_pass(model, arguments, named)
        except UnseenError:
            self.sessions.say([_UNSEEN], phase)
            return
        counts = root.by_signature.get(key)
        if counts is None:
            if len(root.by_signature) >= MAX_SIGNATURES:
                self.sessions.say([_TOO_MANY], phase)
                return
            counts = root.by_signature[key] = PassCounts()
        begin = 0 if root.has_threads else sequence_number()
        one = _Pass(root, counts, phase, (arguments, named), begin=begin)
        records = key[1][2]  # otherwise no autograd nodes show that a pass left layers out
        if counts.next_is_counted(often=not records) or (records and not counts.backward and counts.passes <= 8):
            one.counted = OperatorFlop()
            one.mode = CountingMode(one.counted, self._fail, again=task != -1)
            one.mode.__enter__()
        self._inside.current = one

    def _end(self, one: _Pass, output: Any) -> None:
        counts, phase = one.counts, one.phase
        if is_broken := output is None and has_failed():
            self.sessions.say([ENDED], phase)
        nodes = sequence_number() - one.begin if one.begin else 0
        if one.counted is None:
            if not is_broken and counts.may_be_more_than(nodes):
                counts.is_wanted = True
                self.sessions.say([_FEWER], phase)
                return
            counts.is_wanted = counts.is_wanted or counts.may_be_less_than(nodes)
            self._totals.add_kept(None if is_broken else counts.to_add(), phase)
        else:
            if output is not None:  # None after an error
                counts.keep_forward(one.counted, nodes)
            self._totals.add_counted(counts, counts.forward if one.counted.captured else one.counted, phase)
        if output is not None and torch.is_grad_enabled():
            ended = functools.partial(self._end_backward, counts, phase)
            passes = BackwardPasses(ended, one.counted is not None)
            graphs = self._backward.watch(passes, output, one.arguments, one.begin)
            if COMPILED in graphs and one.root.signature.checkpoints():
                counts.words.add(_MIXED)
            if GRAPHED in graphs:
                counts.words.add(CAPTURED)

    def _end_backward(
        self, counts: PassCounts, phase: str, way: Way, counted: OperatorFlop | None, failed: bool
    ) -> None:
        if failed:
            self.sessions.say([_FAILED], phase)
            self._totals.add_counted(counts, counted, phase)
            return
        if way[2]:
            self.sessions.say([_TWICE], phase)
        if not way[1]:  # for a forward pass that is not counted in full, such a backward pass would not be seen
            self.sessions.say([_WITHIN], phase)
        if counted is not None:
            counts.keep_backward(way, counted)
            self._totals.add_counted(counts, counts.backward[way] if counted.captured else counted, phase)
        elif way in counts.backward:
            self._totals.add_kept(counts.to_add(way), phase)
        else:
            counts.is_wanted = True
            self.sessions.say([_OTHER_WAY], phase)

    def _guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            if self.failed:
                return
            try:
                call(*arguments)
            except Exception:  # noqa: BLE001 (logged there)
                self._fail()

        return guarded

    def _fail(self) -> None:
        """Stop counting after an error."""
        if self.failed:
            return
        self.failed = True
        log.exception("flopsd stops counting operators; the training goes on")
        with suppress(Exception):
            self.sessions.settle("other")
            for phase in Phase:
                self.sessions.say([_AFTER_ERROR], phase.value)


def _take_over(hooks: Iterable[Any], now: Sequence[Any], by: OperatorCounter) -> None:
    """Make other counters, such as that of an earlier Trainer, release the models or optimizers with these hooks.
    `now`: the objects that `by` counts from now on."""
    for hook in list(hooks):
        other, attached = getattr(hook, "counted_by", None) or (by, lambda: None)
        if other is not by and isinstance(other, OperatorCounter) and (one := attached()) is not None:
            if all(one is not known for known in now):  # it contains what is counted now, or shares parts
                other.leave_out(HOOKS_GONE)
            other.release(one)
