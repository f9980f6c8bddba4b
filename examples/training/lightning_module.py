"""A Lightning module whose callback declares its work to flopsd.

flopsd exec -- python lightning_module.py
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

import flopsd.client
from flopsd.integrations.describe_model import describe
from flopsd.integrations.forward_counter import ForwardCounter

LENGTH, ROWS = 32, 32
CONFIG = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": LENGTH,
}  # fmt: skip


class Flopsd(lightning.Callback):
    """Phases from Lightning's events, tokens from the forward passes of the module's `model`."""

    def __init__(self, **facts: Any) -> None:
        self.client = flopsd.client.connect()
        self.counter = ForwardCounter(self.client)
        self.facts = facts

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        self.client.declare(**{**describe(pl_module.model, None), **self.facts})
        self.client.declare(rank=trainer.global_rank, local_rank=trainer.local_rank, world_size=trainer.world_size)
        self.counter.attach(pl_module.model)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.client.set_phase("train")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ARG002
        self.client.count("train", steps=1)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.client.set_phase("evaluate")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.counter.settle()
        self.client.set_phase("other" if trainer.sanity_checking else "train")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.counter.settle()
        self.client.set_phase("other")


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = LlamaForCausalLM(LlamaConfig(**CONFIG))

    def training_step(self, ids: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.model(input_ids=ids, labels=ids).loss
        return loss

    def validation_step(self, ids: torch.Tensor) -> None:
        self.model(input_ids=ids, labels=ids)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    rows = (torch.arange(ROWS)[:, None] + torch.arange(LENGTH)) % 128
    loader = DataLoader(rows, batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="auto", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[Flopsd(method="pretraining")],
    )  # fmt: skip
    trainer.fit(Module(), loader, loader)


if __name__ == "__main__":
    main()
