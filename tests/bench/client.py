"""The client's cost in a training process: for a call, and for a step of a real Trainer, in each situation of the
daemon.

Measured in pairs, alternately with and without: three runs, with the median of their medians and their range.
"""

import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from flopsd.client import Client, connect
from tests.bench.measuring import Say, timed
from tests.support.session_servers import EventServer, foreign, never_reads

RUNS, CALLS, STEPS = 3, 20_000, 1200


@contextmanager
def _listening(path: Path) -> Iterator[None]:
    server = EventServer(path)
    yield
    server.listener.stop()


SITUATIONS: dict[str, Callable[[Path], Any]] = {
    "no daemon": lambda _: nullcontext(),
    "a daemon": _listening,
    "a peer that never reads": never_reads,
    "another version": foreign,
}


def calls(folder: Path, say: Say) -> None:
    """Each call in each situation, less the cost of an empty call."""
    work: dict[str, tuple[Callable[[Client], None], str]] = {
        "count": (lambda c: c.count("train", tokens=4096, sequences=8, steps=1), "1 us"),
        "set_phase": (lambda c: c.set_phase("evaluate" if c.current_phase == "train" else "train"), "no wait"),
    }
    for situation, meeting in SITUATIONS.items():
        path = folder / f"{len(situation)}.sock"
        with meeting(path):
            client = connect(path)
            for name, (call, budget) in work.items():
                say(f"client, {name}, {situation}", _figure([_in_pairs(client, call) for _ in range(RUNS)]), budget)
            say(f"client, close at the end, {situation}", f"{timed(client.close):.3f} s", "1 s")
    with _listening(folder / "all.sock"):
        client = connect(folder / "all.sock")
        began = time.process_time_ns()
        for _ in range(CALLS):
            work["count"][0](client)
        client.close()
        spent = time.process_time_ns() - began
    say("client, count, CPU of all threads, sent and received", f"{spent / CALLS / 1e3:.2f} us", "none")


def _in_pairs(client: Client, call: Callable[[Client], None]) -> float:
    """Microseconds."""
    spent: list[int] = []
    empty: list[int] = []
    for _ in range(CALLS):
        for one, times in ((_nothing, empty), (call, spent)):
            began = time.perf_counter_ns()
            one(client)
            times.append(time.perf_counter_ns() - began)
    return (statistics.median(spent) - statistics.median(empty)) / 1e3


def _nothing(_: Client) -> None:
    pass


def own(folder: Path, say: Say) -> None:
    """The callback's own cost in a step that does nothing else: the Trainer's events, and the hooks around one pass
    and at the start of its backward pass. For comparison the same events and hooks with nothing in them, which is
    the cost in the Trainer and PyTorch, and with one sum over the mask."""
    from flopsd.integrations.transformers import FlopsdCallback

    for layers in (2, 80):
        path = folder / f"own{layers}.sock"
        with _listening(path):
            callback = FlopsdCallback(client=connect(path), method="full")
            number, runs = _alone(folder, layers, callback)
            callback.client.close()
        say(f"callback alone, a step of 8 x 512 tokens with a mask, {number} parameters", _figure(runs), "10 us")
    for sums in (False, True):
        _, runs = _alone(folder, 2, _Idle(sums=sums))
        say(
            f"events and hooks that {'sum the mask' if sums else 'do nothing'}, in the same places",
            _figure(runs),
            "none",
        )


class _Idle:
    """A substitute for the callback: as many events, and hooks of the same kinds on the same modules."""

    def __init__(self, *, sums: bool) -> None:
        self._sums = sums

    def on_init_end(self, *_: Any, model: Any, **__: Any) -> None:
        import torch

        def before(_model: Any, _arguments: Any, named: Any) -> None:
            if self._sums:
                torch.count_nonzero(named["attention_mask"])

        def after(_model: Any, _arguments: Any, output: Any) -> None:
            output.grad_fn.register_prehook(lambda *_: None)

        model.register_forward_pre_hook(before, with_kwargs=True)
        model.model.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
        model.register_forward_hook(after, always_call=True)

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _alone(folder: Path, layers: int, callback: Any) -> tuple[int, list[float]]:
    """Parameters of a Llama with that many layers, and the microseconds that `callback` adds to a step that computes
    nothing."""
    import torch
    from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState

    from tests.train.trainers import arguments, llama

    model, options = llama(num_hidden_layers=layers), arguments(folder, max_steps=1)
    handler = CallbackHandler([callback, DefaultFlowCallback()], model, None, None, None)
    state, control = TrainerState(max_steps=1), TrainerControl()
    handler.on_init_end(options, state, control)
    backbone = model.model
    leaf = torch.zeros(1, requires_grad=True)
    backbone.forward = lambda leaf=leaf, **_: leaf + 1
    model.forward = lambda backbone=backbone, **named: backbone(input_ids=named["input_ids"])
    batch = {"input_ids": torch.ones(8, 512, dtype=torch.long), "attention_mask": torch.ones(8, 512, dtype=torch.long)}
    switch, runs = _Switch(handler, callback, model), list[float]()
    for _ in range(RUNS):
        times: list[int] = []
        while len(times) < 4000:
            switch.turn(on=len(times) % 4 in (1, 2))
            began = time.thread_time_ns()
            handler.on_step_begin(options, state, control)
            model(**batch).backward()
            handler.on_pre_optimizer_step(options, state, control)
            handler.on_optimizer_step(options, state, control)
            handler.on_step_end(options, state, control)
            times.append(time.thread_time_ns() - began)
        runs.append(_of_pairs(times)[0])
    switch.turn(on=True)
    return len(list(model.parameters())), runs


def matrices(say: Say) -> None:
    """The cost of a hook on each matrix in a step, for a model whose architecture flopsd does not read."""
    import torch

    from flopsd.integrations.forward_counter import ForwardCounter
    from tests.train.operator_cases import Counters
    from tests.train.trainers import llama

    model = llama(num_hidden_layers=8)
    model.config.a_field_that_flopsd_does_not_know = 1
    counter = ForwardCounter(Counters(current_phase=None))
    counter.attach(model)
    switch = _Switch(None, None, model)
    ids = torch.ones(2, 12, dtype=torch.long)
    runs = []
    for _ in range(RUNS):
        times: list[int] = []
        while len(times) < 1200:
            switch.turn(on=len(times) % 4 in (1, 2))
            began = time.thread_time_ns()
            model(input_ids=ids).logits.sum().backward()
            times.append(time.thread_time_ns() - began)
        runs.append(_of_pairs(times)[0] / switch.hooks)
    say(f"a model that is not read, each of {switch.hooks} hooks in a step", _figure(runs), "none")


def steps(folder: Path, say: Say) -> None:
    """Steps of one Trainer, alternately without and with the callback and its hooks."""
    for situation, meeting in SITUATIONS.items():
        runs = []
        for turn in range(RUNS):
            path = folder / f"{turn}.{len(situation)}.sock"
            with meeting(path):
                client = connect(path)
                runs.append(_train(folder, client))
                client.close(0)
        found = _figure([with_it for with_it, _ in runs])
        step = statistics.median(without for _, without in runs)
        say(f"callback, a step of a small Llama ({step / 1e3:.1f} ms), {situation}", found, "10 us")


def _figure(microseconds: list[float]) -> str:
    """The median and range."""
    return f"{statistics.median(microseconds):.2f} us ({min(microseconds):.2f} to {max(microseconds):.2f})"


def _train(folder: Path, client: Client) -> tuple[float, float]:
    """CPU time of its thread in microseconds: the amount that the callback adds to a step, and the step without it."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback

    from flopsd.integrations.transformers import FlopsdCallback
    from tests.train.trainers import arguments, rows

    times: list[int] = []
    began = 0

    class Begin(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            nonlocal began
            began = time.thread_time_ns()  # excludes the load of other processes

    class End(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            times.append(time.thread_time_ns() - began)
            switch.turn(on=len(times) % 4 in (1, 2))  # without, with, with, without: a drift affects both alike

    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    options = arguments(folder, max_steps=STEPS, num_train_epochs=1)
    callback = FlopsdCallback(client=client, method="pretraining")
    model = LlamaForCausalLM(config)
    trainer = Trainer(model, options, train_dataset=rows(2 * STEPS), callbacks=[Begin(), callback, End()])
    switch = _Switch(trainer.callback_handler, callback, model)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return _of_pairs(times)


def _of_pairs(times: list[int]) -> tuple[float, float]:
    """Microseconds from nanoseconds without, with, with, without, …: the median difference of a pair, and the median
    without. The first steps are left out."""
    without, added = [], []
    for at in range(40, len(times), 4):
        first, second, third, fourth = times[at : at + 4]
        without += [first, fourth]
        added += [second - first, third - fourth]
    return statistics.median(added) / 1e3, statistics.median(without) / 1e3


class _Switch:
    """Takes a callback and all hooks out of a Trainer, and puts them back."""

    def __init__(self, handler: Any, callback: Any, model: Any) -> None:
        self._handler, self._callback, self._model = handler, callback, model
        self._all: list[Any] = []
        self._hooks: list[tuple[dict[int, Any], dict[int, Any]]] = []
        self._turns = 0

    @property
    def hooks(self) -> int:
        return sum(len(hooks) for _, hooks in self._hooks)

    def turn(self, *, on: bool) -> None:
        """The first two turns change nothing."""
        self._turns += 1
        if self._turns < 3:
            return
        if self._turns == 3:  # the hooks for training are in place, and those for the first pass only are gone
            places = [
                place
                for module in self._model.modules()
                for place in (module._forward_pre_hooks, module._forward_hooks)
            ]
            self._hooks = [(place, dict(place)) for place in places if place]
            assert self._hooks
            self._all = list(self._handler.callbacks) if self._handler else []
        if self._handler:
            self._handler.callbacks = [one for one in self._all if on or one is not self._callback]
        for place, hooks in self._hooks:
            place.clear()
            place.update(hooks if on else {})


def client(folder: Path, say: Say) -> None:
    """All of these figures; the steps only where PyTorch is installed."""
    logging.getLogger("flopsd.client").setLevel(logging.ERROR)
    calls(folder, say)
    try:
        import torch
    except ImportError:
        say("training step with and without the callback", "PyTorch is not installed", "10 us")
        return
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own(folder, say)
        matrices(say)
        steps(folder, say)


def main() -> None:
    """Only these figures: `python -m tests.bench.client`."""
    with tempfile.TemporaryDirectory() as folder:
        client(
            Path(folder), lambda what, figure, budget: print(f"{what:<74} {figure:>30}   budget {budget}", flush=True)
        )


if __name__ == "__main__":
    main()
