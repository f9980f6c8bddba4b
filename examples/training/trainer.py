"""Hugging Face's Trainer: one line declares its work to flopsd. TRL's trainers take the same line.

flopsd exec -- python trainer.py
"""

from __future__ import annotations

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from flopsd.integrations.transformers import FlopsdCallback

LENGTH, ROWS = 32, 32
CONFIG = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": LENGTH,
}  # fmt: skip


def main() -> None:
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    rows = [{"input_ids": ids, "labels": ids} for ids in (torch.arange(ROWS)[:, None] + torch.arange(LENGTH)) % 128]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=4, num_train_epochs=1, eval_strategy="epoch", save_strategy="no",
            report_to=[],
        )  # fmt: skip
        trainer = Trainer(
            model,
            arguments,
            train_dataset=rows,
            eval_dataset=rows,
            callbacks=[FlopsdCallback(method="pretraining")],  # this one; method only where no weights were loaded
        )
        trainer.train()


if __name__ == "__main__":
    main()
