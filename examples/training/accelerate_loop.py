"""A loop with Hugging Face Accelerate and a model of transformers. The forward passes are counted by a hook.

flopsd exec -- accelerate launch accelerate_loop.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

import flopsd.client
from flopsd.integrations.describe_model import describe
from flopsd.integrations.forward_counter import ForwardCounter

LENGTH, ROWS = 32, 64
CONFIG = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": LENGTH,
}  # fmt: skip


def main() -> None:
    accelerator = Accelerator(gradient_accumulation_steps=2)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))

    client = flopsd.client.connect()
    client.declare(**{**describe(model, None), "method": "pretraining"})
    client.declare(
        rank=accelerator.process_index, local_rank=accelerator.local_process_index,
        world_size=accelerator.num_processes,
    )  # fmt: skip
    counter = ForwardCounter(client)
    counter.attach(model)  # before it is wrapped

    rows = (torch.arange(ROWS)[:, None] + torch.arange(LENGTH)) % 128
    loader = DataLoader(rows, batch_size=4, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    client.set_phase("train")
    model.train()
    for ids in loader:
        with accelerator.accumulate(model):
            loss = model(input_ids=ids, labels=ids).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            client.count("train", steps=1)

    model.eval()
    with client.phase("evaluate"), torch.no_grad():
        some = rows[:4].to(accelerator.device)
        accelerator.print(f"loss {model(input_ids=some, labels=some).loss.item():.3f}")
    counter.settle()  # what was added up on the device
    accelerator.end_training()


if __name__ == "__main__":
    main()
