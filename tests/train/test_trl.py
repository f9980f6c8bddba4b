"""The callback in TRL's trainers, on the CPU."""

from pathlib import Path

import pytest

from tests.train.trainers import declared_to, llama
from tests.train.trl_cases import options, tokenizer, train

pytestmark = [pytest.mark.training("trl", "datasets"), pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("DPO, reference given", {"reference": "other"}),
        ("DPO, reference before training", {"reference": "other"}),
        ("GRPO, reward model, reference", {"reference": "other", "reward": "other"}),
        ("KTO", {"reference": "other"}),
        ("DPO, LoRA", {}),
    ],
)
def test_all_models_of_a_trainer_are_counted(name: str, roles: dict[str, str]) -> None:
    """PyTorch's count of the training and its constructor lies within the ledger's executed FLOP."""
    found = train(name)
    assert found.operators == found.counted
    low, computed, high = found.executed
    assert computed is not None
    assert high is not None
    assert low <= found.counted <= high < 1.1 * found.counted
    assert abs(computed - found.counted) < 0.02 * found.counted
    others = found.stated.others
    assert others.keys() == roles.keys()
    assert all(set(others[role].work) == {phase} for role, phase in roles.items())
    required = {end: int(found.basis[end]) for end in ("low", "computed", "high")}
    alone = int(found.basis["executed"]["low"])
    assert required["low"] < required["computed"] <= required["high"] < found.counted
    assert required["low"] < alone
    assert sum(words == {"code": "passes_without_gradients"} for words in found.basis["assumptions"]) == 1


def test_passes_of_a_model_without_its_head_are_within_the_bounds() -> None:
    found = train("Distillation, teacher")
    assert found.operators == found.counted
    low, _, high = found.executed
    assert high is not None
    assert low <= found.counted <= high
    assert found.stated.others.keys() == {"teacher"}
    assert found.stated.work["train"]["unlabelled_tokens"] == found.stated.work["train"]["tokens"]


def test_reference_passes_of_an_evaluation_are_evaluation() -> None:
    found = train("DPO, evaluated")
    low, _, high = found.executed
    assert high is not None
    assert low <= found.counted <= high
    assert found.operators == found.counted
    work = found.stated.others["reference"].work
    of_model = found.stated.work["evaluate"].keys() - {"operator_flop"}  # of all models, in the session of the device
    assert work["evaluate"] == {name: work["evaluate"][name] for name in of_model}
    assert work["evaluate"]["tokens"] == found.stated.work["evaluate"]["tokens"]


def test_supervised_fine_tuning_with_adapters_is_counted(tmp_path: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    text = Dataset.from_list([{"text": " ".join(f"w{number}" for number in range(9))} for _ in range(8)])
    with declared_to(tmp_path / "client.sock") as (callback, found):
        SFTTrainer(
            llama(), options(SFTConfig, tmp_path, max_length=32, gradient_checkpointing=True), train_dataset=text,
            eval_dataset=text, processing_class=tokenizer(), callbacks=[callback],
            peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        ).train()  # fmt: skip
    assert found.work["train"]["tokens"] == 2 * 2 * (9 + 1)  # the end of each text is a token
    assert found.work["train"]["steps"] == 2
    facts = found.facts
    assert facts["method"] == "lora"
    assert facts["lora"] == {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    assert facts["recomputation"] == "full"
    assert facts["packing"] is False
    assert "trl" in facts["framework"]


def test_packed_rows_are_declared(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    text = Dataset.from_list([{"text": " ".join(f"w{number}" for number in range(9))} for _ in range(16)])
    with declared_to(tmp_path / "client.sock", method="full") as (callback, found):
        SFTTrainer(
            llama(), options(SFTConfig, tmp_path, max_length=20, packing=True, packing_strategy="wrapped"),
            train_dataset=text, processing_class=tokenizer(), callbacks=[callback],
        ).train()  # fmt: skip
    assert found.facts["packing"] is True
    assert found.work["train"]["tokens"] == 2 * 2 * 20


def test_rollouts_are_generation_and_not_training(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompts = Dataset.from_list([{"prompt": "w1 w2 w3"} for _ in range(8)])
    config = options(
        GRPOConfig, tmp_path, num_generations=2, max_completion_length=4, beta=0.0, num_iterations=1,
        gradient_accumulation_steps=1, steps_per_generation=1,
    )  # fmt: skip
    with declared_to(tmp_path / "client.sock", method="full") as (callback, found):
        GRPOTrainer(
            llama(), reward_funcs=lambda completions, **_: [float(len(text)) for text in completions], args=config,
            train_dataset=prompts, processing_class=tokenizer(), callbacks=[callback],
        ).train()  # fmt: skip
    assert found.work["train"]["steps"] == 2
    assert found.work["generate"]["sequences"] == 2 * 2
    assert found.work["generate"]["tokens"] >= 2 * 2 * 3
    assert 0 < found.work["train"]["forward_passes"] < found.work["generate"]["forward_passes"]
    assert {"train", "generate"} <= set(found.phases)
    assert "evaluate" not in found.phases


def test_preferences_count_both_answers(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pairs = Dataset.from_list([{"prompt": "w1 w2", "chosen": "w3 w4", "rejected": "w5 w6"} for _ in range(8)])
    with declared_to(tmp_path / "client.sock", method="full") as (callback, found):
        DPOTrainer(
            llama(), ref_model=llama(), args=options(DPOConfig, tmp_path, max_length=32), train_dataset=pairs,
            processing_class=tokenizer(), callbacks=[callback],
        ).train()  # fmt: skip
    assert found.work["train"]["sequences"] == 2 * 2 * 2
    assert found.work["train"]["tokens"] % (2 * 2 * 2) == 0
