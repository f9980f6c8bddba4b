"""Tiny models and real Trainers on the CPU, and the declarations of their callback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flopsd.client import connect
from flopsd.core.session_protocol import Event, FactsDeclared, PhaseChanged, WorkCounted
from tests.support.process import wait_until
from tests.support.session_servers import EventServer, work_of

VOCABULARY, LENGTH, REAL, ROWS = 64, 12, 10, 16
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def llama(attention: str = "eager", **config: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, **config}, attn_implementation=attention))


def rows(count: int = ROWS) -> list[dict[str, Any]]:
    """Rows of LENGTH tokens, of which REAL are not padding."""
    import torch

    ids = torch.tensor([1 + number % (VOCABULARY - 1) for number in range(REAL)] + [0] * (LENGTH - REAL))
    mask = (torch.arange(LENGTH) < REAL).long()
    return [{"input_ids": ids, "attention_mask": mask, "labels": ids} for _ in range(count)]


def arguments(folder: Path, **more: Any) -> Any:
    from transformers import TrainingArguments

    usual = {
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 4, "num_train_epochs": 1, "report_to": [],
        "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_strategy": "no",
    }  # fmt: skip
    return TrainingArguments(str(folder), **{**usual, **more})


def trainer_of(folder: Path, *callbacks: Any, model: Any = None, **options: Any) -> Any:
    """A Trainer of `model`, or of a new llama, on the usual rows."""
    from transformers import Trainer

    used = llama() if model is None else model
    return Trainer(used, arguments(folder, **options), train_dataset=rows(), callbacks=list(callbacks))


@dataclass
class Declared:
    """The declarations of a finished session, and the sessions of other models."""

    everything: list[Event] = field(default_factory=list)
    session: str = ""

    @property
    def events(self) -> list[Event]:
        return [event for event in self.everything if event.session == self.session]

    @property
    def others(self) -> dict[str, Declared]:
        """The other sessions by role."""
        names = {event.session for event in self.everything} - {self.session}
        found = [Declared(self.everything, name) for name in names]
        return {one.facts["role"]: one for one in found}

    @property
    def facts(self) -> dict[str, Any]:
        return {n: v for event in self.events if isinstance(event, FactsDeclared) for n, v in event.facts.items()}

    @property
    def work(self) -> dict[str, dict[str, int]]:
        return work_of(self.events)

    @property
    def phases(self) -> list[str]:
        return [event.phase for event in self.events if isinstance(event, PhaseChanged)]


@contextmanager
def counted(
    path: Path, model: Any, phase_of: Any = None, *, settled: str = "other", **options: Any
) -> Iterator[tuple[Any, dict[str, dict[str, int]]]]:
    """A ForwardCounter of `model` whose daemon listens here; the work by phase is available after the block."""
    from flopsd.integrations.forward_counter import ForwardCounter

    server, client = EventServer(path), connect(path)
    counter = ForwardCounter(client, phase_of)
    counter.attach(model, **options)
    work: dict[str, dict[str, int]] = {}
    yield counter, work
    counter.settle(settled)
    client.close()
    events = server.all()
    own: list[Event] = [event for event in events if isinstance(event, WorkCounted) and event.session == client.session]
    work |= work_of(own or events)  # all work may be in another session


@contextmanager
def declared_to(path: Path, **options: Any) -> Iterator[tuple[Any, Declared]]:
    """A callback whose daemon listens here; its declarations are available after the block."""
    from flopsd.integrations.transformers import FlopsdCallback

    server = EventServer(path)
    callback = FlopsdCallback(client=connect(path), **options)
    found = Declared(session=callback.client.session)
    wait_until(lambda: callback.client._is_served, "the client is connected")
    try:
        yield callback, found
    finally:
        callback.client.close()
        found.everything += server.all()
    assert callback.failed == set()
