"""What the client costs a training process: microseconds a call, whomever it meets, and a step with and without."""

from __future__ import annotations

import contextlib
import io
import itertools
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

CALLS, STEPS, ROUNDS = 20_000, 60, 5


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
    """Each call in each situation: the median, and the worst of all."""
    for situation, meeting in SITUATIONS.items():
        path = folder / f"{len(situation)}.sock"
        with meeting(path):
            client = connect(path)
            work: dict[str, Callable[[Client], None]] = {
                "count": lambda c: c.count("train", tokens=4096, sequences=8, steps=1),
                "set_phase": lambda c: c.set_phase("evaluate" if c.current_phase == "train" else "train"),
            }
            for name, call in work.items():
                median, worst = _cost(client, call)
                say(
                    f"client, {name}, {situation}: median, worst of {CALLS:,}",
                    f"{median:.1f} us, {worst / 1e3:.1f} ms",
                    "no wait",
                )
            say(f"client, close at the end, {situation}", f"{timed(client.close):.3f} s", "1 s")


def _cost(client: Client, call: Callable[[Client], None]) -> tuple[float, float]:
    spent = []
    for _ in range(CALLS):
        began = time.perf_counter_ns()
        call(client)
        spent.append(time.perf_counter_ns() - began)
    return statistics.median(spent) / 1e3, max(spent) / 1e3


def steps(folder: Path, say: Say) -> None:
    """A small Llama's step under the Trainer, by turns without and with the callback."""
    spent: dict[str, list[float]] = {name: [] for name in ("without", *SITUATIONS)}
    for turn in range(ROUNDS):
        spent["without"].append(_train(folder, None))
        for situation, meeting in SITUATIONS.items():
            path = folder / f"{turn}.{len(situation)}.sock"
            with meeting(path):
                client = connect(path)
                spent[situation].append(_train(folder, client))
                client.close(0)
    without = min(spent.pop("without"))
    say("training step of a small Llama, CPU of its thread, without flopsd", f"{without:.3f} ms", "none")
    for situation, found in spent.items():
        say(
            f"the same with the callback, {situation}",
            f"{min(found) - without:+.3f} ms a step",
            "not to be seen beside the noise",
        )


def own(folder: Path, say: Say) -> None:
    """What the callback itself does in a step: both events and the hooks around one forward pass."""
    import torch

    from flopsd.integrations.transformers import FlopsdCallback
    from tests.train.trainers import arguments, llama

    path = folder / "own.sock"
    with _listening(path):
        callback, model, options = FlopsdCallback(client=connect(path)), llama(), arguments(folder)
        callback.on_init_end(options, None, None, model=model)
        model.forward = lambda **_: None
        batch = {"input_ids": torch.ones(8, 512, dtype=torch.long), "attention_mask": torch.ones(8, 512)}
        bare: list[int] = []
        hooked: list[int] = []
        for spent, events in ((hooked, True), (bare, False)):
            if not events:
                callback._counter.detach()
            for _ in range(2000):
                began = time.thread_time_ns()
                if events:
                    callback.on_step_begin(options, None, None)
                model(**batch)
                if events:
                    callback.on_step_end(options, None, None)
                spent.append(time.thread_time_ns() - began)
        callback.client.close()
    figure = (statistics.median(hooked) - statistics.median(bare)) / 1e3
    say("the callback's own work in a step, 8 x 512 tokens with a mask", f"{figure:.0f} us", "100 us")


def _train(folder: Path, client: Client | None) -> float:
    """Milliseconds of this thread's CPU a step, the first ones left out."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback

    from flopsd.integrations.transformers import FlopsdCallback
    from tests.train.trainers import arguments, rows

    times: list[int] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            times.append(time.thread_time_ns())  # other processes' load is not in it

    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    callbacks = [Watch()] if client is None else [Watch(), FlopsdCallback(client=client, method="pretraining")]
    options = arguments(folder, max_steps=STEPS, num_train_epochs=1)
    trainer = Trainer(LlamaForCausalLM(config), options, train_dataset=rows(2 * STEPS), callbacks=callbacks)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return statistics.median(b - a for a, b in itertools.pairwise(times[10:])) / 1e6


def client(folder: Path, say: Say) -> None:
    """All of it; the steps only where PyTorch is."""
    logging.getLogger("flopsd.client").setLevel(logging.ERROR)
    calls(folder, say)
    try:
        import torch
    except ImportError:
        say("training step with and without the callback", "PyTorch is not installed", "not to be seen")
        return
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own(folder, say)
        steps(folder, say)


def main() -> None:
    """These figures alone: `python -m tests.bench.client`."""
    with tempfile.TemporaryDirectory() as folder:
        client(
            Path(folder), lambda what, figure, budget: print(f"{what:<74} {figure:>24}   budget {budget}", flush=True)
        )


if __name__ == "__main__":
    main()
