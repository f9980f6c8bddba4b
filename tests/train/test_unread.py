"""Models whose architecture flopsd does not read: work counted by weights, against PyTorch's own FLOP counter and
through a real socket into a ledger."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.architecture import training_from
from flopsd.core.architecture.by_weights import weights_flop
from tests.second_implementation.arithmetic import payload_of
from tests.support.architectures import refused
from tests.support.runs import Run
from tests.train.families import build
from tests.train.intervals import Loop
from tests.train.operator_cases import Counters
from tests.train.pytorch import torch
from tests.train.trainers import VOCABULARY, declared_to, trainer_of
from tests.train.unread_models import MODELS, step

pytestmark = [pytest.mark.training("transformers", "peft", "accelerate"), pytest.mark.filterwarnings("ignore")]
ALBERT = {
    "vocab_size": VOCABULARY, "embedding_size": 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


# minimum computed, maximum high / low. XLNet's weights are not in known modules; DeBERTa compares positions too.
@pytest.mark.parametrize(
    ("name", "method", "checkpointing", "computed", "width"),
    [
        ("albert", "full", "none", 0.85, 1.3),
        ("albert", "lora", "none", 0.8, 1.4),
        ("deberta-v2", "full", "none", 0.8, 2.5),
        ("deberta-v2", "lora", "not reentrant", 0.8, 3),
        ("xlnet", "full", "none", 0.75, 5),
        ("zamba2", "lora", "reentrant", 0.75, 2.5),
        ("mixtral, unread", "full", "not reentrant", 0.85, 1.3),
        ("mixtral, unread", "lora", "reentrant", 0.9, 1.2),
        ("experts as modules", "full", "none", 0.9, 2),
        ("experts as modules", "full", "not reentrant", 0.9, 2),
        ("experts as modules", "full", "reentrant", 0.9, 2),
        ("convolutions", "full", "none", 1, 1.1),
    ],
)
def test_pytorchs_count_is_within_the_bounds_by_weights(
    name: str, method: str, checkpointing: str, computed: float, width: float
) -> None:
    found = step(name, method, checkpointing)
    ends = found.ours.executed
    assert ends.low <= found.counted <= ends.high
    assert computed <= found.ratio <= 1
    assert ends.high <= width * ends.low
    assert (found.work.get("recomputed_weight_products", 0) > 0) == (checkpointing != "none")


@pytest.mark.parametrize(("family", "chunk"), [("bamba", 64), ("qwen3_next, dense", None)])
def test_rows_padded_by_layers_with_a_state_are_within_the_bounds(family: str, chunk: int | None) -> None:
    """Padded to whole chunks, whose size the configuration states or not."""
    model = build(family)
    for module in model.modules():
        if chunk is not None and hasattr(module, "chunk_size"):
            module.chunk_size = model.config.mamba_chunk_size = chunk
    model.config.layers_left_out = True
    loop = Loop(model).steps()
    executed = loop.basis().counted.executed
    assert executed.high is not None
    assert executed.low <= loop.flop <= executed.high


def test_a_module_that_returns_a_bias_separately_is_counted() -> None:
    from flopsd.integrations.forward_counter import ForwardCounter

    class Beside(torch.nn.Linear):
        def forward(self, rows: Any) -> Any:
            return torch.nn.functional.linear(rows, self.weight), self.bias

    counted = Counters(current_phase=None)
    model = torch.nn.Sequential(Beside(8, 4))
    counter = ForwardCounter(counted)
    counter.attach(model)
    model(torch.ones(3, 5, 8))[0].sum().backward()
    counter.settle()
    products = 3 * 5 * 8 * 4
    assert counted.work["train"]["weight_products"] == counted.work["train"]["trained_weight_products"] == products


def test_states_changed_in_place_have_their_gradients_counted() -> None:
    """Like the masked rows of wav2vec 2.0."""

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, rows: Any) -> Any:
            states = self.first(rows)
            states[:, 0] = 0
            return self.second(states)

    loop = Loop(Masked(), labels=False)
    loop.counts(lambda: loop.model(torch.ones(3, 5, 4)).sum().backward())
    assert loop.basis().counted.executed.low == loop.flop


def test_recomputation_is_not_required_flop() -> None:
    plain, again, reentrant = (
        step("experts as modules", "full", how) for how in ("none", "not reentrant", "reentrant")
    )
    assert plain.ours.required == again.ours.required == reentrant.ours.required


def test_an_unread_familys_trainer_has_a_ledger_figure_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AlbertConfig, AlbertForMaskedLM

    model = AlbertForMaskedLM(AlbertConfig(**ALBERT, attn_implementation="eager"))
    with declared_to(tmp_path / "client.sock", method="full") as (callback, found), caplog.at_level(logging.WARNING):
        trainer_of(tmp_path, callback, model=model).train()
    assert "does not model the family 'albert'" in caplog.text
    work = found.work["train"]
    assert work["weight_passes"] == work["forward_passes"] == 8
    run = Run(tmp_path / "state")
    for event in found.events:
        run.writer.take_event(event)
    run.meter(2)
    run.finish()
    totals = payload_of(run.seal(tmp_path / "ledger.json").ledger)["predicate"]["totals"]
    basis = totals["architecture"]
    assert basis["method"] == ["weights"]
    assert basis["assumptions"][0] == {"code": "not_by_shape", "family": "albert", "why": "family_not_modelled"}
    assert totals["architectureAbsentReasons"] == []
    ours = weights_flop(found.facts["model_config"], work, training_from(found.facts))
    assert (basis["low"], basis["high"]) == (str(ours.required.low), str(ours.required.high))
    assert 0 < ours.required.low < ours.required.high


def test_a_model_that_is_compiled_later_trains_on_and_has_no_figure() -> None:
    model = MODELS["experts as modules"][0]()
    counters = Counters(current_phase=None)
    from flopsd.integrations.forward_counter import ForwardCounter

    counter = ForwardCounter(counters)
    counter.attach(model)
    ids = torch.randint(4, 128, (2, 8))
    model(input_ids=ids, labels=ids).backward()
    for layer in model.layers:
        layer.router.compile(backend="eager", fullgraph=True)
    model(input_ids=ids, labels=ids).backward()
    counter.settle()
    work = counters.work["train"]
    assert (work["forward_passes"], work["weight_passes"]) == (2, 1)
    with refused(match="counted in 1 of 2 forward passes"):
        weights_flop({}, work, training_from({}))


def test_an_error_in_the_count_is_logged_once_and_the_training_continues(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(torch.nn.Linear):
        def forward(self, rows: Any) -> Any:
            return SimpleNamespace(odd=super().forward(rows))

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Odd(4, 4)

        def forward(self, rows: Any) -> Any:
            return self.odd(self.odd(rows).odd).odd

    from flopsd.integrations.forward_counter import ForwardCounter

    model, counter = Own(), ForwardCounter(Counters(current_phase=None))
    counter.attach(model)
    with caplog.at_level(logging.ERROR, "flopsd.client"):
        model(torch.ones(2, 4)).sum().backward()
    assert caplog.text.count("stops counting the weights") == 1


def _recurrent(kind: str, *shape: int, **options: Any) -> Any:
    return getattr(torch.nn, kind)(16, 24, **options), torch.ones(*shape)


def _of_lengths() -> Any:
    model, rows = _recurrent("GRU", 4, 7, 16, num_layers=2, batch_first=True)
    return model, torch.nn.utils.rnn.pack_padded_sequence(rows, [7, 5, 3, 1], batch_first=True)


def _all(of: Any) -> Any:
    return of[0].sum() if hasattr(of[0], "sum") else of[0].data.sum()


RECURRENT: dict[str, tuple[Any, Any]] = {
    "two layers": (lambda: _recurrent("GRU", 10, 4, 16, num_layers=2), _all),
    "projected, to both sides": (lambda: _recurrent("LSTM", 10, 4, 16, proj_size=8, bidirectional=True), _all),
    "the last state alone": (lambda: _recurrent("LSTM", 10, 4, 16, proj_size=8), lambda of: of[1][0].sum()),
    "output and states": (lambda: _recurrent("RNN", 10, 16), lambda of: of[0].sum() + of[1].sum()),
    "of several lengths": (_of_lengths, _all),
}


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_gradients_go_back_through_the_steps_of_an_rnn(name: str, graded: bool) -> None:
    make, loss = RECURRENT[name]
    model, rows = make()
    rows.data.requires_grad_(graded) if name == "of several lengths" else rows.requires_grad_(graded)
    loop = Loop(model, labels=False)
    for _ in range(2):
        loop.counts(lambda: loss(model(rows)).backward())
    executed = loop.basis().counted.executed
    assert executed.low == executed.computed == loop.flop
    assert executed.high is not None
    assert loop.flop < executed.high < 1.3 * loop.flop  # some kernels compute the gradient of the first state too


@pytest.mark.parametrize("named", ["weight_norm", "spectral_norm", "orthogonal"])
@pytest.mark.parametrize("hears", [True, False])
def test_a_parametrization_is_not_run_for_the_count(named: str, hears: bool) -> None:
    """Spectral normalization takes a step each time that a weight is read, which would change the training."""
    from torch.nn.utils import parametrizations

    def train(count: bool) -> tuple[list[float], Any]:
        torch.manual_seed(1)
        inner = torch.nn.Conv1d(4, 8, 3) if hears else torch.nn.Linear(4, 8)
        model = torch.nn.Sequential(getattr(parametrizations, named)(inner), torch.nn.ReLU(), torch.nn.Flatten(1))
        loop, losses = Loop(model, labels=False) if count else None, []
        rows = torch.randn(2, 4, 12) if hears else torch.randn(2, 12, 4)
        for _ in range(4):
            loss = model(rows).pow(2).mean()
            loss.backward()
            losses.append(float(loss.detach()))
        return losses, loop

    losses, loop = train(True)
    assert losses == train(False)[0]
    loop.counter.settle()
    products = 2 * 12 * 4 * 8 if not hears else 2 * 10 * 4 * 3 * 8
    assert loop.counted.work["train"]["weight_products"] == 4 * products
    words = "weights that are computed from others in each pass (parametrizations)"
    assert loop.counted.facts.get("not_counted") == (None if named == "weight_norm" else {"train": [words]})


def test_hooks_removed_within_the_model_are_declared() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    loop = Loop(model, labels=False)
    model[0]._forward_hooks.clear()
    loop.counts(lambda: model(torch.ones(2, 3, 4)).sum().backward())
    assert loop.basis().counted.executed.high is None
