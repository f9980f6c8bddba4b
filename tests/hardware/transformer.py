"""A small decoder-only transformer in plain tensor functions, with LoRA and activation checkpointing.

Functions and not modules, so that this file needs no PyTorch until it runs. Attention is two explicit matrix
products: fused kernels recompute within themselves and skip masked blocks, and their FLOP could not be stated.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tests.hardware.flop import Shape

LEARNING_RATE = 1e-4


def training_step(torch: Any, shape: Shape, device: str, *, checkpointing: bool, lora: bool) -> Callable[[], None]:
    """A function that does one training step in BF16, the loss in FP32."""
    model = _Model(torch, shape, device, checkpointing=checkpointing, lora=lora)
    optimizer = torch.optim.SGD(model.trained, lr=LEARNING_RATE)
    place = {"device": device, "dtype": torch.int64}
    tokens = torch.randint(0, shape.vocabulary, (shape.batch, shape.sequence), **place)
    targets = torch.randint(0, shape.vocabulary, (shape.batch * shape.sequence,), **place)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model.forward(tokens).float().view(-1, shape.vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        # Early stop would leave out a checkpointed layer's last product: the closed form counts whole layers.
        with torch.utils.checkpoint.set_checkpoint_early_stop(False):
            loss.backward()
        optimizer.step()

    return step


class _Model:
    def __init__(self, torch: Any, shape: Shape, device: str, *, checkpointing: bool, lora: bool) -> None:
        importlib.import_module("torch.utils.checkpoint")  # `import torch` does not load it in every version
        self._torch, self._shape, self._checkpointing = torch, shape, checkpointing
        self.trained: list[Any] = []

        def weight(rows: int, columns: int, *, trained: bool, zero: bool = False) -> Any:
            scale = 0.0 if zero else 0.02
            values = (torch.randn(rows, columns, device=device) * scale).to(torch.bfloat16)
            values.requires_grad_(trained)
            if trained:
                self.trained.append(values)
            return values

        self._embedding = weight(shape.vocabulary, shape.width, trained=not lora)
        self._head = weight(shape.vocabulary, shape.width, trained=not lora)
        self._layers = []
        for _ in range(shape.layers):
            layer = {name: weight(outputs, inputs, trained=not lora) for name, inputs, outputs in shape.linears}
            if lora:
                for name, inputs, outputs in shape.linears:
                    layer[f"{name}.down"] = weight(shape.rank, inputs, trained=True)
                    layer[f"{name}.up"] = weight(outputs, shape.rank, trained=True, zero=True)
            self._layers.append(layer)

    def forward(self, tokens: Any) -> Any:
        torch = self._torch
        x = torch.nn.functional.embedding(tokens, self._embedding)
        for layer in self._layers:
            if self._checkpointing:
                with torch.utils.checkpoint.set_checkpoint_early_stop(False):
                    x = torch.utils.checkpoint.checkpoint(self._layer, x, layer, use_reentrant=False)
            else:
                x = self._layer(x, layer)
        return torch.nn.functional.linear(self._norm(x), self._head)

    def _layer(self, x: Any, layer: dict[str, Any]) -> Any:
        torch, shape = self._torch, self._shape
        wide = (shape.batch, shape.sequence, shape.heads, shape.width // shape.heads)
        q, k, v = (part.view(wide).transpose(1, 2) for part in self._linear(self._norm(x), layer, "qkv").chunk(3, -1))
        scores = q @ k.transpose(-1, -2) * wide[3] ** -0.5
        ahead = torch.ones(shape.sequence, shape.sequence, dtype=torch.bool, device=x.device).triu(1)
        mixed = torch.softmax(scores.masked_fill(ahead, float("-inf")), -1) @ v
        x = x + self._linear(mixed.transpose(1, 2).reshape(x.shape), layer, "out")
        up = torch.nn.functional.gelu(self._linear(self._norm(x), layer, "up"))
        return x + self._linear(up, layer, "down")

    def _linear(self, x: Any, layer: dict[str, Any], name: str) -> Any:
        linear = self._torch.nn.functional.linear
        y = linear(x, layer[name])
        if f"{name}.down" in layer:
            y = y + linear(linear(x, layer[f"{name}.down"]), layer[f"{name}.up"])
        return y

    def _norm(self, x: Any) -> Any:
        return x * (x.float().pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt().to(x.dtype)
