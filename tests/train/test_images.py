"""Images as counted by the forward counter and the Trainer's callback, with real models and Trainers on the CPU."""

from pathlib import Path
from typing import Any

import pytest

from flopsd.core.architecture import flop, read_model, training_from
from tests.train.families import FAMILIES, adapt, build, flop_counter
from tests.train.pytorch import torch
from tests.train.trainers import arguments, counted, declared_to
from tests.train.vision_families import BATCHES

pytestmark = [pytest.mark.training("accelerate", "peft"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sock"


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", [name for name in BATCHES if name != "clip_text_model"])
def test_a_pass_is_counted_by_its_inputs(path: Path, name: str, adapted: bool) -> None:
    inputs, work = BATCHES[name]()
    model = adapt(build(name), FAMILIES[name][2]) if adapted else build(name)
    with counted(path, model, settled="train") as (counter, declared):
        model(**inputs)
        counter.settle("train")
        counter.detach()
        model(**inputs)
    found = declared["train"]
    found.pop("window_pairs", None)  # of the text
    has_windows = name == "qwen2_5_vl"
    expected = {key: n for key, n in work.items() if key != "patch_window_pairs" or has_windows}
    assert {**found, "padding_tokens": 0} == {**expected, "forward_passes": 1, "padding_tokens": 0}


def test_text_alone_has_no_images_and_a_call_of_the_tower_alone_has(path: Path) -> None:
    inputs, _ = BATCHES["qwen2_5_vl"]()
    model = build("qwen2_5_vl")
    with counted(path, model) as (_, work):
        model(input_ids=inputs["input_ids"][1:])
        model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    assert (work["train"]["patches"], work["train"]["images"]) == (40, 2)


@pytest.mark.exhaustive  # compiling takes seconds; test_callback has a text model
def test_a_compiled_image_model_is_counted_too(path: Path) -> None:
    inputs, work = BATCHES["clip"]()
    model = build("clip")
    with counted(path, model, settled="train", compiled=True) as (_, declared):
        torch.compile(model, backend="eager")(**inputs)
    work.pop("padding_tokens", None)
    assert {name: declared["train"][name] for name in work} == work


def rows_of(name: str) -> Any:
    """A data set of two batches, and the function that makes a batch of it."""
    batches = [BATCHES[name]()[0] for _ in range(2)]
    return list(range(2)), lambda numbers: batches[numbers[0]]


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", ["vit", "qwen2_5_vl"])
def test_a_trainers_declarations_suffice_for_the_flop_that_pytorch_counts(
    tmp_path: Path, path: Path, name: str, adapted: bool
) -> None:
    from transformers import Trainer

    model = adapt(build(name), FAMILIES[name][2]) if adapted else build(name)
    data, collate = rows_of(name)
    options = arguments(
        tmp_path, per_device_train_batch_size=1, remove_unused_columns=False, gradient_checkpointing=adapted
    )
    with declared_to(path, method=None if adapted else "full") as (callback, found):
        trainer = Trainer(model, options, train_dataset=data, data_collator=collate, callbacks=[callback])
        with flop_counter() as counter:
            trainer.train()
    train, facts = found.work["train"], found.facts
    assert train["images"] == 2 * BATCHES[name]()[1]["images"]
    ours = flop(read_model(facts["model_config"]), train, training_from(facts)).executed
    assert ours.computed == counter.get_total_flops()
    assert ours.low <= ours.computed <= ours.high
