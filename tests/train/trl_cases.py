"""Trainings by TRL's trainers on the CPU, each with PyTorch's count and the ledger's figures."""

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from flopsd.core.declarations import DEVICE_VARIABLE
from flopsd.core.model import Active, Evidence, Pipe
from tests.make_vectors.files import statement_of
from tests.support.story import H100, Story, tell
from tests.train.operator_cases import DEVICE
from tests.train.trainers import Declared, declared_to, llama

Make = Callable[[Any, Path], Any]  # a trainer, from the callback and a folder


def tokenizer() -> Any:
    """Words w0 to w59, made here without a hub."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, **{f"w{number}": number + 4 for number in range(60)}}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def options(config: Any, folder: Path, **more: Any) -> Any:
    usual = {
        "output_dir": str(folder), "per_device_train_batch_size": 2, "max_steps": 2, "report_to": [], "use_cpu": True,
        "bf16": False, "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no",
    }  # fmt: skip
    return config(**{**usual, **more})


def texts() -> Any:
    """Texts of 3 to 10 words."""
    from datasets import Dataset

    return Dataset.from_list([{"text": " ".join(f"w{n}" for n in range(3 + row % 8))} for row in range(16)])


def pairs() -> Any:
    """Answers of different lengths, so that rows are padded."""
    from datasets import Dataset

    return Dataset.from_list(
        [{"prompt": "w1 w2", "chosen": " w3 w4 w7", "rejected": " w5 w6" + " w8" * (row % 3)} for row in range(8)]
    )


def prompts() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "w1 w2 w3" + " w4" * (row % 2)} for row in range(8)])


def adapters() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"])


def reward_model(layers: int = 1) -> Any:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from tests.train.trainers import LLAMA

    config = LlamaConfig(**{**LLAMA, "num_hidden_layers": layers}, num_labels=1, attn_implementation="eager")
    return LlamaForSequenceClassification(config)


def sft(callback: Any, folder: Path, adapted: bool = False, **more: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        llama(), options(SFTConfig, folder, max_length=12, **more), train_dataset=texts(), processing_class=tokenizer(),
        callbacks=[callback], peft_config=adapters() if adapted else None,
    )  # fmt: skip


def dpo(callback: Any, folder: Path, reference: bool = True, adapted: bool = False, **more: Any) -> Any:
    from trl import DPOConfig, DPOTrainer

    evaluated = {"eval_dataset": pairs()} if "eval_strategy" in more else {}
    return DPOTrainer(
        llama(), ref_model=llama() if reference else None, args=options(DPOConfig, folder, max_length=32, **more),
        train_dataset=pairs(), processing_class=tokenizer(), callbacks=[callback],
        peft_config=adapters() if adapted else None, **evaluated,
    )  # fmt: skip


def online(name: str, callback: Any, folder: Path, adapted: bool = False, reward: bool = True, **more: Any) -> Any:
    import trl

    usual: dict[str, Any] = {"num_generations": 2, "max_completion_length": 4}
    rewards = reward_model() if reward else lambda completions, **_: [float(len(text)) for text in completions]
    named = {"reward_processing_classes": tokenizer()} if reward else {}
    evaluated = {"eval_dataset": prompts()} if "eval_strategy" in more else {}
    llama().save_pretrained(folder / "base")  # a reference is loaded from the model's folder
    usual["model_init_kwargs"] = {"attn_implementation": "eager"}
    return getattr(trl, f"{name}Trainer")(
        str(folder / "base"), reward_funcs=rewards, args=options(getattr(trl, f"{name}Config"), folder, **{**usual, **more}),
        train_dataset=prompts(), processing_class=tokenizer(), callbacks=[callback],
        peft_config=adapters() if adapted else None, **named, **evaluated,
    )  # fmt: skip


def reward(callback: Any, folder: Path) -> Any:
    from trl import RewardConfig, RewardTrainer

    return RewardTrainer(
        reward_model(2), args=options(RewardConfig, folder), train_dataset=pairs(), processing_class=tokenizer(),
        callbacks=[callback],
    )  # fmt: skip


def kto(callback: Any, folder: Path) -> Any:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    rows = [{"prompt": "w1 w2", "completion": " w3" + " w4" * (n % 3), "label": n % 2 == 0} for n in range(8)]
    return KTOTrainer(
        llama(), ref_model=llama(), args=options(KTOConfig, folder), train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(), callbacks=[callback],
    )  # fmt: skip


def without_reference(name: str, callback: Any, folder: Path) -> Any:
    import importlib

    module = importlib.import_module(f"trl.experimental.{name.lower()}")
    return getattr(module, f"{name}Trainer")(
        llama(), args=options(getattr(module, f"{name}Config"), folder), train_dataset=pairs(),
        processing_class=tokenizer(), callbacks=[callback],
    )  # fmt: skip


def gkd(callback: Any, folder: Path) -> Any:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    rows = [
        {"messages": [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3 w4"}]}
        for _ in range(8)
    ]
    words = tokenizer()
    words.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return GKDTrainer(
        llama(), teacher_model=llama(num_hidden_layers=3), args=options(GKDConfig, folder, lmbda=0.5, max_new_tokens=4),
        train_dataset=Dataset.from_list(rows), processing_class=words, callbacks=[callback],
    )  # fmt: skip


def distillation(callback: Any, folder: Path) -> Any:
    from trl import DistillationConfig, DistillationTrainer

    return DistillationTrainer(
        llama(), teacher_model=llama(num_hidden_layers=3),
        args=options(DistillationConfig, folder, max_completion_length=4), train_dataset=prompts(),
        processing_class=tokenizer(), callbacks=[callback],
    )  # fmt: skip


CASES: Mapping[str, Make] = {
    "SFT": sft,
    "SFT, LoRA, packed (bfd)": partial(sft, adapted=True, packing=True),
    "SFT, packed (wrapped)": partial(sft, packing=True, packing_strategy="wrapped"),
    "DPO, reference given": dpo,
    "DPO, LoRA": partial(dpo, reference=False, adapted=True),
    "DPO, reference before training": partial(dpo, precompute_ref_log_probs=True),
    "DPO, evaluated": partial(dpo, eval_strategy="steps", eval_steps=1),
    "GRPO, reward model, reference": partial(online, "GRPO", beta=0.1),
    "GRPO, LoRA, reference": partial(online, "GRPO", adapted=True, beta=0.1),
    "GRPO, samples used twice": partial(online, "GRPO", reward=False, num_iterations=2),
    "GRPO, evaluated": partial(online, "GRPO", eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=2),
    "RLOO, reward model, reference": partial(online, "RLOO"),
    "KTO": kto,
    "CPO": partial(without_reference, "CPO"),
    "ORPO": partial(without_reference, "ORPO"),
    "Reward model": reward,
    "GKD, teacher": gkd,
    "Distillation, teacher": distillation,
}


@dataclass(frozen=True, slots=True)
class Trained:
    """PyTorch's count of a training, its constructor included, and the architecture basis of its ledger."""

    counted: int
    basis: Mapping[str, Any]
    stated: Declared

    @property
    def operators(self) -> int:
        """The process's count of its operators, for all models."""
        return sum(work.get("operator_flop", 0) for work in self.stated.work.values())

    @property
    def executed(self) -> tuple[int, int | None, int | None]:
        low, computed, high = (self.basis["executed"][name] for name in ("low", "computed", "high"))
        return int(low), None if computed is None else int(computed), None if high is None else int(high)


def _product_flop(_: Any, one: Any, other: Any, *__: Any, **___: Any) -> int:
    return 2 * int(one[0] * one[1] * other[1])


def train(name: str) -> Trained:
    """Train for real, declare to a real server, and seal a ledger of the received messages."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # The backward pass of TRL's fused losses adds products up in place, which PyTorch's counter does not know.
    in_place = {torch.ops.aten.addmm_: _product_flop}
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder)
        with (
            mock.patch.dict(os.environ, {DEVICE_VARIABLE: DEVICE}),
            declared_to(path / "client.sock", method=None if "LoRA" in name else "full") as (callback, stated),
            FlopCounterMode(display=False, custom_mapping=in_place) as counter,
        ):
            CASES[name](callback, path).train()

        def story(folder: Path) -> bytes:
            run = Story(folder, (H100,))
            run.says(*stated.everything)
            run.during(1, {H100: lambda _: Active(Evidence.ACTIVITY, {Pipe.TENSOR_HMMA: 10**6})})
            return run.finish()

        totals = statement_of(tell(story))["predicate"]["totals"]
    assert totals["architecture"] is not None, totals["architectureAbsentReasons"]
    return Trained(counter.get_total_flops(), totals["architecture"], stated)
