"""The Trainer's callback with real Trainers, on the CPU, over a real socket."""

import copy
import gc
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from flopsd.client import connect
from flopsd.client.client import silent
from flopsd.core.architecture import flop, read_model, training_from
from tests.support.process import free_port, wait_until
from tests.support.session_servers import EventServer, never_reads, work_of
from tests.train.families import flop_counter
from tests.train.preloaded import Preloaded
from tests.train.pytorch import torch
from tests.train.trainers import LENGTH, LLAMA, REAL, ROWS, Declared, arguments, declared_to, llama, rows, trainer_of

pytestmark = [pytest.mark.training("accelerate"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sock"


def passed(rows_: int, passes: int, **more: int) -> dict[str, int]:
    """The counters of `rows_` padded rows in `passes` forward passes."""
    return {
        "forward_passes": passes, "sequences": rows_, "tokens": rows_ * LENGTH, "square_pairs": rows_ * LENGTH**2,
        "padding_tokens": rows_ * (LENGTH - REAL), **more,
    }  # fmt: skip


def test_training_and_evaluation_are_counted_separately(tmp_path: Path, path: Path) -> None:
    from transformers import Trainer

    options = arguments(tmp_path, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=2)
    with declared_to(path, method="pretraining") as (callback, found):
        trainer = Trainer(llama(), options, train_dataset=rows(), eval_dataset=rows(8), callbacks=[callback])
        trainer.train()
        wait_until(lambda: not callback.client._transitions, "the phases so far are sent")
        trainer.evaluate()
        trainer.predict(rows(4))
    flos = int(trainer.state.total_flos)
    assert found.work == {
        "train": passed(ROWS, 8, steps=4, framework_flop=flos),
        "evaluate": passed(8 + 8 + 8 + 4, 2 + 2 + 2 + 1),
    }
    once = ["evaluate", "train"]
    assert found.phases == ["other", "train", *once, *once, "other", "evaluate", "other", "evaluate", "other"]
    facts = found.facts
    assert facts["model_config"]["model_type"] == "llama"
    assert {name: facts[name] for name in ("method", "recomputation", "attention", "rank", "world_size")} == {
        "method": "pretraining", "recomputation": "none", "attention": "eager", "rank": 0, "world_size": 1,
    }  # fmt: skip
    assert "torch" in facts["framework"]
    assert "precision" not in facts  # float32: not a format of tensor work


def test_mixed_precision_is_counted_like_any_other(tmp_path: Path, path: Path) -> None:
    """Accelerate converts the model's outputs, so the loss is not computed from the returned logits."""
    with declared_to(path) as (callback, found):
        trainer_of(tmp_path, callback, bf16=True).train()
    flos = found.work["train"]["framework_flop"]
    assert found.work == {"train": passed(ROWS, 8, steps=8, framework_flop=flos)}
    assert {event.session for event in found.everything} == {found.session}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_declarations_suffice_for_the_flop_that_pytorch_counts(
    tmp_path: Path, path: Path, adapted: bool, checkpointing: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    model = llama()
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    with declared_to(path, method=None if adapted else "full") as (callback, found):
        trainer = trainer_of(tmp_path, callback, model=model, gradient_checkpointing=checkpointing)
        with flop_counter() as counter:
            trainer.train()
    facts = found.facts
    assert facts["method"] == ("lora" if adapted else "full")
    assert facts["recomputation"] == ("full" if checkpointing else "none")
    assert facts.get("lora") == ({"r": 4, "target_modules": ["q_proj", "v_proj"]} if adapted else None)
    ours = flop(read_model(facts["model_config"]), found.work["train"], training_from(facts)).executed
    assert ours.computed == counter.get_total_flops()


def test_only_this_processs_work_is_counted_after_a_resume(tmp_path: Path, path: Path) -> None:
    whole = {"save_strategy": "steps", "save_steps": 5, "max_steps": 8}
    trainer_of(tmp_path, **whole).train()
    with declared_to(path) as (callback, found):
        trainer = trainer_of(tmp_path, callback, **whole)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    flos = int(trainer.state.total_flos) * 3 // 8
    assert found.work == {"train": passed(6, 3, steps=3, framework_flop=flos)}
    assert "method" not in found.facts  # built from a configuration: the method may be anything


def test_loaded_and_partly_frozen_weights_are_declared(tmp_path: Path, path: Path) -> None:
    from transformers import LlamaForCausalLM

    llama().save_pretrained(tmp_path / "base")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    with declared_to(path) as (callback, found):
        trainer_of(tmp_path, callback, model=model)
    assert found.facts["method"] == "full"
    path.unlink(missing_ok=True)
    model.model.embed_tokens.weight.requires_grad = False
    with declared_to(path) as (callback, found):
        trainer_of(tmp_path, callback, model=model)
    assert found.facts["method"] == "partial"
    assert found.facts["model_name"] == str(tmp_path / "base")
    assert found.facts["parameters_total"] - found.facts["parameters_trainable"] == 64 * 32


def test_an_interrupted_step_is_not_counted_as_training(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    from flopsd.integrations.transformers import FlopsdCallback

    class Interrupt(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        on_prediction_step = on_step_end

    def work() -> dict[str, int]:
        return {
            phase: counters.get("forward_passes", 0)
            for phase, counters in client._work.changed(frozenset(), {})[0].items()
        }

    client = silent()
    trainer = trainer_of(tmp_path, Interrupt, FlopsdCallback(client=client))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.pop_callback(Interrupt)
    trainer.evaluate(rows(8))
    assert (work(), client.current_phase) == ({"train": 1, "evaluate": 2}, "other")
    trainer.add_callback(Interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate(rows(8))
    with torch.no_grad():
        trainer.model(**{name: value[None] for name, value in rows()[0].items()})
    assert client.current_phase == "other"


def test_a_deleted_callback_has_declared_everything_and_leaves_no_thread(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example that of one of a hundred Trainers of a search."""
    from flopsd.integrations.transformers import FlopsdCallback

    monkeypatch.setenv("FLOPSD_SOCKET", str(path))
    server = EventServer(path)

    def generates() -> tuple[Any, str]:
        trainer = trainer_of(tmp_path, callback := FlopsdCallback(), max_steps=1)
        wait_until(lambda: callback.client._is_served, "the client is connected")
        trainer.train()
        with torch.no_grad():
            trainer.model(**{name: value[None] for name, value in rows()[0].items()})
        return callback.client._thread, callback.client.session

    thread, session = generates()
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    work = Declared(server.all(), session).work
    assert work["train"]["padding_tokens"] == 2 * (LENGTH - REAL)
    assert work["other"] == passed(1, 1)


def test_a_second_model_inside_a_loss_is_counted(tmp_path: Path) -> None:
    from flopsd.integrations.transformers import FlopsdCallback

    client = silent()
    trainer = trainer_of(tmp_path, FlopsdCallback(client=client), max_steps=1)
    trainer.loss = torch.nn.ModuleDict({"model": trainer.model, "decoder": llama(num_hidden_layers=1)})
    trainer.compute_loss = lambda model, inputs, **_: model(**inputs).loss + trainer.loss["decoder"](**inputs).loss
    trainer.train()
    (decoder,) = client._others
    assert decoder.facts["role"] == "other"
    assert decoder._work.changed(frozenset(), {})[0]["train"]["tokens"] == 2 * LENGTH


def test_a_callback_added_late_declares_the_trainer_too(tmp_path: Path, path: Path) -> None:
    with declared_to(path) as (callback, found):
        trainer = trainer_of(tmp_path)
        trainer.add_callback(callback)
        trainer.train()
        trainer.train()  # once more: the same model is not counted twice
    assert found.work["train"]["tokens"] == 2 * ROWS * LENGTH


def test_windows_are_counted_where_a_model_has_them(tmp_path: Path, path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=4, attn_implementation="eager"))
    with declared_to(path) as (callback, found):
        trainer_of(tmp_path, callback, model=model).train()
    assert found.facts["window"] == 4
    assert found.work["train"]["window_pairs"] == ROWS * (1 + 2 + 3 + 4 * (LENGTH - 3))


def test_encoder_and_decoder_are_counted_separately(tmp_path: Path, path: Path) -> None:
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    data = [{**row, "labels": torch.ones(5, dtype=torch.long)} for row in rows()]
    options = Seq2SeqTrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, per_device_eval_batch_size=4, max_steps=4, use_cpu=True,
        predict_with_generate=True, generation_max_length=4, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    with declared_to(path, method="full") as (callback, found):
        trainer = Seq2SeqTrainer(
            T5ForConditionalGeneration(config), options, train_dataset=data, eval_dataset=data[:4], callbacks=[callback]
        )
        trainer.train()
        trainer.predict(data[:4])
    train = found.work["train"]
    assert (train["tokens"], train["padding_tokens"]) == (8 * LENGTH, 8 * (LENGTH - REAL))
    assert (train["target_tokens"], train["target_square_pairs"]) == (8 * 5, 8 * 25)
    assert (train["square_pairs"], train["cross_pairs"]) == (8 * LENGTH**2, 8 * 5 * LENGTH)
    # First generated, token by token, then passed once more for the loss.
    assert found.work["evaluate"]["tokens"] == 2 * 4 * LENGTH
    assert found.work["evaluate"]["target_tokens"] >= 4 * 5 + 4


def test_a_copied_or_pickled_model_is_not_counted(tmp_path: Path, path: Path) -> None:
    with declared_to(path) as (callback, found):
        trainer = trainer_of(tmp_path, callback)
        twin, other = copy.deepcopy(trainer.model), pickle.loads(pickle.dumps(trainer.model))
        for model in (twin, other):
            model(input_ids=rows(1)[0]["input_ids"][None])
        trainer.train()
        # As when a Trainer is passed to another process.
        again = pickle.loads(pickle.dumps((callback, callback.client, callback._counter, callback._operators)))
        assert again[0]._facts == callback._facts
        for one in again:
            getattr(one, "client", one).close(0)
    assert found.work["train"]["tokens"] == ROWS * LENGTH
    assert found.work.keys() == {"train"}


def test_a_custom_model_is_counted_without_a_configuration(tmp_path: Path, path: Path) -> None:
    class Bigram(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(64, 64)

        def forward(self, input_ids: Any, labels: Any) -> dict[str, Any]:
            logits = self.table(input_ids)
            return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}

    with declared_to(path, method="pretraining") as (callback, found):
        trainer_of(tmp_path, callback, model=Bigram()).train()
    assert found.work["train"]["tokens"] == ROWS * LENGTH
    assert found.facts["parameters_total"] == 64 * 64
    assert "model_config" not in found.facts
    assert "recomputation" not in found.facts


def test_a_compiled_model_is_counted(tmp_path: Path, path: Path) -> None:
    options = {"torch_compile": True, "torch_compile_backend": "eager", "max_steps": 3}
    with declared_to(path) as (callback, found):
        trainer_of(tmp_path, callback, model=llama("sdpa"), **options).train()
    assert found.work["train"]["tokens"] == 3 * 2 * LENGTH


def test_a_fully_compiled_graph_is_not_counted(tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = llama("sdpa")
    model.compile(backend="eager", fullgraph=True)
    with declared_to(path) as (callback, found), caplog.at_level(logging.WARNING, "flopsd.client"):
        trainer_of(tmp_path, callback, model=model, max_steps=2).train()
    assert "does not count tokens" in caplog.text
    assert "tokens" not in found.work["train"]
    assert found.work["train"]["steps"] == 2


def test_an_unreadable_fact_does_not_affect_others(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = llama()
    model.config.sliding_window = "far"
    model.config.to_dict = lambda: 1 / 0
    with declared_to(path, method="full") as (callback, found), caplog.at_level(logging.ERROR, "flopsd.client"):
        trainer_of(tmp_path, callback, model=model, max_steps=2).train()
    assert "cannot determine model_config of this model" in caplog.text
    assert found.facts["attention"] == "eager"
    assert found.work["train"]["tokens"] == 2 * 2 * LENGTH


def test_the_callback_changes_no_weight_with_any_daemon(tmp_path: Path, path: Path) -> None:
    from transformers import set_seed

    from flopsd.integrations.transformers import FlopsdCallback

    def weights(callbacks: list[Any]) -> Any:
        set_seed(1)
        trainer = trainer_of(tmp_path, *callbacks, max_steps=3)
        trainer.train()
        for callback in callbacks:
            callback.client.close(0)
        return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])

    without = weights([])
    assert torch.equal(without, weights([FlopsdCallback(client=connect(path))]))
    with never_reads(path):
        assert torch.equal(without, weights([FlopsdCallback(client=connect(path))]))


def test_an_error_in_the_callback_is_logged_once_and_the_training_continues(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flopsd.integrations.transformers import FlopsdCallback

    model = llama()
    callback = FlopsdCallback(client=connect(path))
    trainer = trainer_of(tmp_path, callback, model=model)
    del callback.client, callback._counter.sessions
    with caplog.at_level(logging.ERROR, "flopsd.client"):
        assert trainer.train().global_step == 8
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == len(set(found))
    assert any("on_step_end; the training goes on" in message for message in found)
    assert any("stops counting this model's forward passes" in message for message in found)


def test_each_rank_counts_its_own_batches(tmp_path: Path, path: Path, scripts: Preloaded) -> None:
    server, script = EventServer(path), tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom transformers import Trainer\n"
        "from flopsd.integrations.transformers import FlopsdCallback\n"
        "from tests.train.trainers import arguments, llama, rows\n"
        f"options = arguments(Path({str(tmp_path)!r}), ddp_backend='gloo')\n"
        "Trainer(llama(), options, train_dataset=rows(), callbacks=[FlopsdCallback()]).train()\n"
    )
    both = {
        "FLOPSD_SOCKET": str(path), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2",
    }  # fmt: skip
    finished = scripts.run(script, [{**both, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"], tmp_path)
    assert [rank.code for rank in finished] == [0, 0], finished
    events = server.all()
    ranks = {}
    for session in {event.session for event in events}:
        mine = [event for event in events if event.session == session]
        ranks[Declared(mine, session).facts["rank"]] = work_of(mine)["train"]
    assert ranks.keys() == {0, 1}
    assert ranks[0].pop("framework_flop") > 0  # the sum of both, declared by one
    assert ranks[0] == ranks[1] == passed(ROWS // 2, 4, steps=4)
