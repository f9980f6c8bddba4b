"""One line in a script with Hugging Face's Trainer, or one of TRL's:

    trainer = Trainer(..., callbacks=[FlopsdCallback()])

It tells flopsd's daemon which phase the process is in, what is trained and how, and how many tokens passed through
the model. It never raises into the training, and does nothing where no daemon is.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from flopsd.client import Client, connect
from flopsd.integrations.describe_model import describe
from flopsd.integrations.forward_counter import UNSETTLED, ForwardCounter

log = logging.getLogger("flopsd.client")
Event = Callable[..., None]


def _guarded(event: Event) -> Event:
    """An event of the callback that can never end the training; what went wrong is logged once."""

    @functools.wraps(event)
    def guarded(self: FlopsdCallback, *arguments: Any, **named: Any) -> None:
        try:
            event(self, *arguments, **named)
        except Exception:
            if event.__name__ not in self.failed:
                self.failed.add(event.__name__)
                log.exception("flopsd's callback failed in %s; the training goes on", event.__name__)

    return guarded


class FlopsdCallback(TrainerCallback):
    """Tells the daemon what the Trainer does.

    `method` is needed for pretraining only, which does not show; `packing` where rows hold several documents and
    the arguments of the Trainer do not say so; `facts` are any others of docs/training-process.md.
    """

    def __init__(
        self, *, method: str | None = None, packing: bool | None = None, client: Client | None = None, **facts: Any
    ) -> None:
        self.client = connect() if client is None else client
        self.failed: set[str] = set()
        self._facts = {"method": method, "packing": packing, **facts}
        self._counter = ForwardCounter(self.client, self._phase_of)
        self._training = self._in_step = self._predicting = False
        self._flop_told = 0
        self._method: str | None = None
        self._left_alone = False
        self._seen: Callable[[], Any] = lambda: None
        self._pid = os.getpid()
        at_exit = weakref.WeakMethod(self._at_exit)  # a model must not live until then only for this
        atexit.register(lambda: (call := at_exit()) and call())

    @_guarded
    def on_init_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._see(args, named.get("model"))
        self.client.set_phase("other")

    @_guarded
    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._see(args, named.get("model"), again=True)
        self._counter.settle()
        self._flop_told = int(state.total_flos)  # of the attempt before, after a resume
        self._training = True
        if self._method is None and getattr(args, "process_index", 0) == 0:
            log.warning("flopsd: say FlopsdCallback(method='pretraining'), or 'full' where weights are loaded later")
        self.client.set_phase("train")

    @_guarded
    def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._in_step = True
        self.client.set_phase("train")

    @_guarded
    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._in_step = False
        self.client.count("train", steps=1)

    @_guarded
    def on_prediction_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._predicting = True
        self._counter.settle_phase("evaluate")
        self.client.set_phase("evaluate")

    @_guarded
    def on_evaluate(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._after_evaluation()

    @_guarded
    def on_predict(self, args: Any, state: Any, control: Any, *metrics: Any, **named: Any) -> None:  # noqa: ARG002
        self._after_evaluation()

    @_guarded
    def on_log(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._read_off(args, state)

    @_guarded
    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._read_off(args, state)

    @_guarded
    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002
        self._training = self._in_step = False
        self._read_off(args, state)
        self.client.set_phase("other")

    def _see(self, arguments: Any, model: Any, *, again: bool = False) -> None:
        """Describe and count the Trainer's model, when it is another one or was prepared for training."""
        if model is None or (self._seen() is model and not again):
            return
        self._seen = weakref.ref(model)
        self._attach(arguments, model)
        facts = describe(model, arguments)
        facts["packing"] = getattr(arguments, "packing", None)
        facts.update({name: value for name, value in self._facts.items() if value is not None})
        self._method = facts.get("method")
        self.client.declare(**facts)

    def _attach(self, arguments: Any, model: Any) -> None:
        compiled = bool(getattr(arguments, "torch_compile", False))
        whole = os.environ.get("ACCELERATE_DYNAMO_USE_FULLGRAPH", "").lower() in ("1", "true", "yes")
        if getattr(model, "_compiled_call_impl", None) is not None or (compiled and whole):
            self._counter.detach()
            if not self._left_alone:
                log.warning("flopsd does not count tokens: a hook would break this model's compiled graph")
            self._left_alone = True
        elif not self._counter.counts(model) and self._is_first_of_its_group(arguments, model):
            self._counter.attach(model, compiled=compiled)

    @staticmethod
    def _is_first_of_its_group(arguments: Any, model: Any) -> bool:
        """Ranks that share a model by tensors see the same tokens: one of them counts."""
        size = getattr(model, "tp_size", None) or 1
        return int(getattr(arguments, "process_index", 0)) % int(size) == 0

    def _phase_of(self, model: Any, generating: bool) -> str:
        """Of a forward pass that begins."""
        phase = UNSETTLED
        if torch.is_grad_enabled() and model.training:
            phase = "train"
        elif self._in_step:
            # Without gradients in a step of training: it makes its data, or computes what the loss compares with.
            phase = "generate" if generating else "other"
        elif self._predicting or (self._training and not model.training):
            phase = "evaluate"
        self.client.set_phase(phase or "other")
        return phase

    def _after_evaluation(self) -> None:
        self._predicting = False
        self._counter.settle("evaluate")
        self.client.set_phase("train" if self._training else "other")

    def _read_off(self, arguments: Any, state: Any) -> None:
        self._counter.settle()
        if self._counter.told_documents:
            self.client.declare(packing=False)
        flop = int(state.total_flos)
        # It is the sum of all ranks, so one tells it.
        if flop > self._flop_told and getattr(arguments, "process_index", 0) == 0:
            self.client.count("train", framework_flop=flop - self._flop_told)
            self._flop_told = flop

    @_guarded
    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._counter.settle()
