"""A training loop in plain PyTorch that declares its work to flopsd.

    flopsd exec -- python plain_pytorch.py

Without a daemon it runs just the same.
"""

from __future__ import annotations

import torch
from torch import nn

import flopsd.client

VOCABULARY, LENGTH, BATCH, STEPS = 128, 32, 4, 20


def main() -> None:
    model = nn.Sequential(nn.Embedding(VOCABULARY, 64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, VOCABULARY))
    optimizer = torch.optim.AdamW(model.parameters())
    size = sum(parameter.numel() for parameter in model.parameters())

    client = flopsd.client.connect()
    client.declare(
        method="pretraining", recomputation="none", parameters_total=size, parameters_trainable=size,
        framework=f"torch {torch.__version__}",
    )  # fmt: skip

    client.set_phase("train")
    for step in range(1, STEPS + 1):
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        client.count("train", steps=1, forward_passes=1, sequences=BATCH, tokens=BATCH * LENGTH)

        if step % 10 == 0:
            with client.phase("evaluate"), torch.no_grad():
                print(f"step {step}: loss {loss_of(model).item():.3f}")
                client.count("evaluate", forward_passes=1, sequences=BATCH, tokens=BATCH * LENGTH)


def loss_of(model: nn.Module) -> torch.Tensor:
    """Of a batch in which each token follows from the one before."""
    ids = (torch.randint(VOCABULARY, (BATCH, 1)) + torch.arange(LENGTH + 1)) % VOCABULARY
    return nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


if __name__ == "__main__":
    main()
