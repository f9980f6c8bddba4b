"""A small real fine-tune, which the end-to-end test runs under `flopsd exec`. Prints the result of PyTorch's own
counter.

python -m tests.train.finetune FOLDER METHOD      METHOD: full or lora
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.train.preloaded import load_less
from tests.train.pytorch import torch

STEPS = 6


def model_of(method: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model.enable_input_require_grads()
        return get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    return model


def rows(count: int, length: int = 64) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        ids = torch.randint(1, 512, (length,), generator=generator)
        found.append({"input_ids": ids, "labels": ids, "attention_mask": torch.ones(length, dtype=torch.long)})
    return found


def main(folder: Path, method: str) -> None:
    load_less()
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from flopsd.integrations.transformers import FlopsdCallback
    from tests.support.process import wait_until

    state = folder.parent / "state"  # of the daemon, which writes to pending.jsonl after each reading

    class Metered(TrainerCallback):
        """Makes an evaluation last a whole reading: the first reading began before it, and a checkpoint writes to
        the file too."""

        def __init__(self) -> None:
            self.written = set[int]()

        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            wait_until(self.is_metered, "readings of the evaluation")

        def is_metered(self) -> bool:
            self.written.add((state / "pending.jsonl").stat().st_mtime_ns)
            return len(self.written) > 3

        def on_evaluate(self, *_: Any, **__: Any) -> None:
            self.written.clear()

    torch.set_num_threads(1)
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=4, per_device_eval_batch_size=8, gradient_accumulation_steps=2,
        max_steps=STEPS, eval_strategy="steps", eval_steps=STEPS // 2, logging_steps=STEPS // 2, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
    )  # fmt: skip
    shown = None if method == "lora" else method  # a model does not show that it was not pretrained before
    trainer = Trainer(
        model_of(method),
        arguments,
        train_dataset=rows(96),
        eval_dataset=rows(16),
        callbacks=[FlopsdCallback(method=shown), Metered()],
    )
    counter = FlopCounterMode(display=False)
    with counter:
        trainer.train()
    print(json.dumps({"flopCounter": counter.get_total_flops(), "steps": trainer.state.global_step}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
