"""The counter of forward passes without a Trainer."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.operator_cases import Counters
from tests.train.pytorch import torch
from tests.train.trainers import counted, llama

pytestmark = [pytest.mark.training("peft"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.sock"


def test_generation_token_by_token_counts_as_one_pass_over_all_tokens(path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"]))
    ids = torch.full((2, 5), 3)
    with counted(path, model, lambda _, generating: "generate" if generating else "other") as (_, work):
        model.generate(input_ids=ids, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        model(input_ids=ids)
    assert work["generate"]["tokens"] == 2 * (5 + 3)  # the last new token is not passed
    assert (work["generate"]["sequences"], work["generate"]["square_pairs"]) == (2, 2 * (5 + 3) ** 2)
    assert work["other"]["tokens"] == 2 * 5  # one pass through adapters and base counts once


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("position_ids", [[0, 1, 2, 3, 0, 1, 0, 1, 2]]),
        ("position_ids", [[2, 3, 70, 71, 2, 3, 2, 3, 4]]),  # from RoBERTa's first on, and with a gap
        ("cu_seq_lens_q", [0, 4, 6, 9]),
    ],
)
def test_packed_documents_are_counted_separately_where_the_kernel_separates_them(
    path: Path, argument: str, values: list[Any]
) -> None:
    """A flash kernel's rows, without the kernel, which only a GPU has."""
    from flopsd.integrations.forward_counter import ForwardCounter

    class Config:
        _attn_implementation, sliding_window, is_encoder_decoder = "flash_attention_2", 3, False

    class Model(torch.nn.Module):
        config = Config()

        def forward(self, **_: Any) -> Any:
            return torch.ones(1, requires_grad=True) + 1

    model = Model()
    ids, documents = torch.ones(1, 9, dtype=torch.long), torch.tensor(values)
    with counted(path, model) as (counter, work):
        with torch.inference_mode():
            model(input_ids=ids, **{argument: documents.clone()})
        model(input_ids=ids, **{argument: documents}).backward()
    assert counter.saw_documents
    expected = {
        "forward_passes": 1, "tokens": 9, "sequences": 3, "square_pairs": 16 + 4 + 9,
        "window_pairs": (1 + 2 + 3 + 3) + (1 + 2) + (1 + 2 + 3),
    }  # fmt: skip
    assert work == {"train": expected, "other": expected}
    declared = Counters(current_phase=None)
    counter = ForwardCounter(declared)
    counter.attach(model)
    model(input_ids=ids, **{argument: documents}).backward()
    counter.settle()
    model(input_ids=ids, **{argument: documents}).backward()
    assert declared.work == {"train": expected}  # tokens without their pairs would contradict the earlier ones


def test_a_pass_of_known_shapes_counts_the_same_as_a_new_count() -> None:
    from flopsd.integrations.forward_counter import ForwardCounter

    def passed(repeats: bool) -> Counters:
        model, found = llama(), Counters(current_phase=None)
        counter = ForwardCounter(found, lambda model, _: "train" if model.training else "")
        counter.attach(model)
        counter._hooks.repeats = repeats
        ids = torch.full((2, 6), 3)
        passes: list[tuple[Any, dict[str, Any]]] = [
            (model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}),
            (model, {"input_ids": ids, "attention_mask": (torch.arange(6) < 4).long().expand(2, 6), "labels": ids}),
            (model, {"input_ids": ids[:, :5], "attention_mask": torch.ones(2, 5)}),
            (model, {"input_ids": ids, "attention_mask": None}),
            (model, {"input_ids": ids, "labels": ids}),
            (model, {"input_ids": ids, "logits_to_keep": 1}),
            (model, {"input_ids": ids, "logits_to_keep": 2}),
            (model, {"inputs_embeds": torch.zeros(2, 6, 32)}),
            (model, {"input_ids": None, "inputs_embeds": torch.zeros(1, 6, 32)}),
            (model.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}),
        ]
        for training in (True, False, True):
            model.train(training)
            for module, named in passes:
                result = module(**named)[0 if module is model.model else "logits"]
                if training:
                    result.sum().backward()
            cache = model(input_ids=ids, use_cache=True).past_key_values
            model(input_ids=ids, past_key_values=cache)
        assert bool(counter.sessions.now.known) == repeats, "what was seen is kept"
        counter.settle("evaluate")
        return found

    anew, again = passed(False), passed(True)
    assert again.work == anew.work
    assert again.work["train"]["padding_tokens"] == 2 * 2 * 2
    assert again.work.keys() == {"train", "evaluate"}
