"""One line in a script with Hugging Face's Trainer or a TRL trainer:

    trainer = Trainer(..., callbacks=[FlopsdCallback()])

It declares to flopsd's daemon the phase of the process, what is trained and how, and how many tokens pass through the
model. It never raises an error in the training, and without a daemon it has no effect.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from transformers import TrainerCallback

from flopsd.client import Client, connect
from flopsd.core.declarations import KERNEL_WINDOWS_VARIABLE, OPERATOR_COUNT_VARIABLE
from flopsd.integrations.describe_model import describe
from flopsd.integrations.forward_counter import ForwardCounter
from flopsd.integrations.kernel_windows import KernelWindows
from flopsd.integrations.operator_counter import WHOLE_GRAPH, OperatorCounter
from flopsd.integrations.other_models import OtherModels
from flopsd.integrations.phase_of import UNSETTLED
from flopsd.integrations.work_left_out import left_out

log = logging.getLogger("flopsd.client")
SETTLE_NS = 60 * 10**9  # after so long, a step's end waits for sums on the device, even if the Trainer logs rarely
Event = Callable[..., None]
_METHODS = frozenset({"train", "evaluate", "predict"})
_BEFORE = "passes of another Trainer's model before the callback was attached to it"


def _guarded(event: Event) -> Event:
    """Turn a method that takes the Trainer's arguments, state and model into an event of the Trainer. An error in the
    method is logged once and never ends the training."""

    @functools.wraps(event)
    def guarded(
        self: FlopsdCallback, args: Any = None, state: Any = None, *_: Any, model: Any = None, **named: Any
    ) -> None:
        try:
            self._optimizer = named.get("optimizer")
            event(self, args, state, model)
        except Exception:  # noqa: BLE001 (logged there)
            self._log_failure(event.__name__)

    return guarded


class FlopsdCallback(TrainerCallback):
    """Declares the work of a Trainer.

    `method`: needed for pretraining, which the model does not show. `packing`: needed if rows hold several documents
    and the Trainer's arguments do not show it. `operator_count`: count the operators that run, unless
    FLOPSD_OPERATOR_COUNT=off. `kernel_windows`: record the kernels in sampled windows; FLOPSD_KERNEL_WINDOWS=on does
    the same. `facts`: any other facts of docs/training-process.md.
    """

    def __init__(
        self,
        *,
        method: str | None = None,
        packing: bool | None = None,
        operator_count: bool = True,
        kernel_windows: bool = False,
        client: Client | None = None,
        **facts: Any,
    ) -> None:
        self._is_own, self.client = client is None, connect() if client is None else client
        self.failed: set[str] = set()
        self._given = {
            "method": method, "packing": packing, "operator_count": operator_count, "kernel_windows": kernel_windows,
            **facts,
        }  # fmt: skip
        self._facts = {"method": method, "packing": packing, **facts}
        self._counter = ForwardCounter(self.client, self._phase_of, guesses=True)
        self._operators: OperatorCounter | None = None
        if operator_count and os.environ.get(OPERATOR_COUNT_VARIABLE, "").lower() not in ("off", "0", "false"):
            shown = facts.get("precision") is None
            self._operators = OperatorCounter(self.client, phase_of=self._phase_of, declares_precision=shown)
        self._windows: KernelWindows | None = None
        if kernel_windows or os.environ.get(KERNEL_WINDOWS_VARIABLE, "").lower() in ("on", "1", "true"):
            sessions = None if self._operators is None else self._operators.sessions
            self._windows = KernelWindows(self.client, sessions=sessions)
        self._others = OtherModels(self.client, self._phase_of_other, self._operators)
        self._optimizer: Any = None
        self._left_out: dict[str, list[str]] = {}
        self._of_adapters: dict[str, list[str]] = {}
        self._training = self._in_step = self._predicting = False
        self._flop_declared = 0
        self._method: str | None = None
        self._logged_compiled = False
        self._model_ref: Callable[[], Any] = lambda: None
        self._settles_at_ns = 0
        self._pid = os.getpid()
        end = weakref.WeakMethod(self._at_exit)  # weak, so that it does not keep the model alive
        self._end: Callable[[], object] = lambda: (call := end()) and call()
        atexit.register(self._end)

    def __del__(self) -> None:
        """Declare work without a phase, and leave no thread behind: a process may make hundreds of Trainers."""
        with suppress(Exception):  # errors while the interpreter ends
            atexit.unregister(self._end)
            self._at_exit()
            if self._is_own:
                self.client.close(0)

    def __reduce__(self) -> tuple[Callable[[], FlopsdCallback], tuple[()]]:
        """A copy, such as one pickled with its Trainer for another process, opens its own session."""
        return functools.partial(FlopsdCallback, **self._given), ()

    @_guarded
    def on_init_end(self, args: Any, _state: Any, model: Any) -> None:
        self._declare_model(args, model)
        self.client.set_phase("other")

    @_guarded
    def on_train_begin(self, args: Any, state: Any, model: Any) -> None:
        self._declare_model(args, model, again=True)
        self._settle()
        self._flop_declared = int(state.total_flos)  # includes the earlier attempt after a resume
        self._training = True
        if self._method is None and getattr(args, "process_index", 0) == 0:
            log.warning(
                "flopsd cannot tell pretraining from fine-tuning here: pass FlopsdCallback(method='pretraining'), or "
                "method='full' if weights are loaded later"
            )
        self.client.set_phase("train")

    # These two are called in each step, and `_guarded` would take longer than they do.

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        try:
            self._in_step = True
            self.client.set_phase("train")
            if self._windows is not None:
                self._windows.begin_step()
        except Exception:  # noqa: BLE001 (logged there)
            self._log_failure("on_step_begin")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        try:
            self._in_step = False
            self._counter.count_step()
            if self.client.now_ns() >= self._settles_at_ns:
                self._settle()
                self._settles_at_ns = self.client.now_ns() + SETTLE_NS
            if self._windows is not None:
                self._windows.end_step()
        except Exception:  # noqa: BLE001 (logged there)
            self._log_failure("on_step_end")

    @_guarded
    def on_substep_end(self, *_: Any) -> None:
        if self._windows is not None:
            self._windows.end_part()

    @_guarded
    def on_prediction_step(self, args: Any, _state: Any, model: Any) -> None:
        if model is not None and self._model_ref() is not model:  # another Trainer's, which shares the callback
            self._declare_model(args, model)
            self._counter.leave_out("evaluate", _BEFORE)
        self._predicting = True
        self._counter.settle_phase("evaluate")
        self._others.settle_phase("evaluate")
        if self._operators is not None:
            self._operators.settle("evaluate")
        self.client.set_phase("evaluate")

    @_guarded
    def on_evaluate(self, *_: Any) -> None:
        self._predicting = False
        self._settle("evaluate")
        self.client.set_phase("train" if self._training and "train" in _running() else "other")

    on_predict = on_evaluate

    @_guarded
    def on_log(self, args: Any, state: Any, _model: Any) -> None:
        self._declare_progress(args, state)

    on_save = on_log

    @_guarded
    def on_train_end(self, args: Any, state: Any, _model: Any) -> None:
        self._training = self._in_step = False
        if self._windows is not None:
            self._windows.close()
        self._declare_progress(args, state)
        self.client.set_phase("other")

    def _log_failure(self, event: str) -> None:
        if event not in self.failed:
            self.failed.add(event)
            log.exception("flopsd's callback failed in %s; the training goes on", event)

    def _declare_model(self, arguments: Any, model: Any, *, again: bool = False) -> None:
        """Declare and count the Trainer's model if it is new or was prepared for training."""
        self._others.find(model)
        if model is None or (self._model_ref() is model and not again):
            self._declare_left_out(arguments)
            return
        self._model_ref = weakref.ref(model)
        self._attach(arguments, model)
        facts = describe(model, arguments)
        self._of_adapters = facts.pop("not_counted", None) or {}
        self._declare_left_out(arguments)
        facts["packing"] = getattr(arguments, "packing", None)
        facts.update({name: value for name, value in self._facts.items() if value is not None})
        self._method = facts.get("method")
        self._counter.declare(facts)

    def _attach(self, arguments: Any, model: Any) -> None:
        compiled = bool(getattr(arguments, "torch_compile", False))
        whole = os.environ.get("ACCELERATE_DYNAMO_USE_FULLGRAPH", "").lower() in ("1", "true", "yes")
        if getattr(model, "_compiled_call_impl", None) is not None or (compiled and whole):
            self._counter.detach()
            if not self._logged_compiled:
                log.warning(
                    "flopsd does not count tokens: a hook would break this model's compiled graph; declare them with "
                    "`flopsd.client` if they are needed"
                )
            self._logged_compiled = True
            if self._operators is not None:
                self._operators.leave_out(WHOLE_GRAPH)
            self._declare_left_out(arguments)
            return
        if self._operators is not None:
            self._operators.attach(model, self._optimizer, compiled=compiled)
        if not self._counter.counts(model):
            self._counter.attach(model, compiled=compiled)

    def _phase_of(self, model: Any, generating: bool) -> str:
        if model.training and torch.is_grad_enabled():
            self.client.set_phase("train")
            return "train"
        phase = UNSETTLED
        trains, predicts = self._goes_on()
        if trains and self._in_step:
            # Without gradients in a training step: generation of data, or a reference for the loss.
            phase = "generate" if generating else "other"
        elif predicts or (trains and not model.training):
            phase = "evaluate"
        # Passes without gradients in a step are part of that step and do not end its phase.
        self.client.set_phase("train" if phase == "other" else phase or "other")
        return phase

    def _phase_of_other(self, model: Any, generating: bool) -> str:
        """The phase of a pass of another model. Only the trained model changes the phase of the process."""
        if torch.is_grad_enabled() and model.training and any(p.requires_grad for p in model.parameters()):
            return "train"
        trains, predicts = self._goes_on()
        if trains and self._in_step:
            return "generate" if generating else "other"
        trained = self._model_ref()
        evaluates = trains and trained is not None and not trained.training
        return "evaluate" if predicts or evaluates else UNSETTLED

    def _goes_on(self) -> tuple[bool, bool]:
        """Whether a training is running, and an evaluation. An interrupt ends both without an event."""
        if not (self._training or self._predicting):
            return False, False
        running = _running()
        return self._training and "train" in running, self._predicting and bool(running)

    def _settle(self, phase: str = "other") -> None:
        self._counter.settle(phase)
        self._others.settle(phase)
        if self._operators is not None:
            self._operators.settle(phase)

    def _declare_left_out(self, arguments: Any) -> None:
        found = left_out(arguments, self._others.not_counted)
        for more in (self._of_adapters, self._counter.left_out):
            for phase, texts in more.items():
                found[phase] = [*found.get(phase, []), *texts]
        if self._logged_compiled:
            found.setdefault("train", []).append("the trained model: a hook would break its compiled graph")
        if found and found != self._left_out:
            self._left_out = found
            self.client.declare(not_counted=found)
            if getattr(arguments, "process_index", 0) == 0:
                log.warning("flopsd does not count: %s", "; ".join(text for phase in found.values() for text in phase))

    def _declare_progress(self, arguments: Any, state: Any) -> None:
        self._settle()
        self._declare_left_out(arguments)
        if self._counter.saw_documents:
            for tally in self._counter.sessions.all:
                tally.client.declare(packing=False)
        flop = int(state.total_flos)
        # This is the sum of all ranks, so only one rank declares it.
        if flop > self._flop_declared and getattr(arguments, "process_index", 0) == 0:
            self.client.count("train", framework_flop=flop - self._flop_declared)
            self._flop_declared = flop

    @_guarded
    def _at_exit(self, *_: Any) -> None:
        if os.getpid() == self._pid:
            self._settle()


def _running() -> set[str]:
    """The methods of a Trainer that train or evaluate and that this thread is inside."""
    frame: Any = sys._getframe(1)
    found = set[str]()
    while frame is not None:
        if frame.f_code.co_name in _METHODS and hasattr(frame.f_locals.get("self"), "callback_handler"):
            found.add(frame.f_code.co_name)
        frame = frame.f_back
    return found
