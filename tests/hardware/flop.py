"""FLOP of the loads in closed form. One multiply-add is 2 FLOP; matrix products only, no vector work."""

from __future__ import annotations

from dataclasses import dataclass


def gemm_flop(m: int, n: int, k: int) -> int:
    """A dense product of m x k by k x n."""
    return 2 * m * n * k


def sparse_gemm_flop(m: int, n: int, k: int) -> int:
    """The same with a 2:4-sparse left side: what is executed, which is half of the dense product."""
    return m * n * k


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder-only transformer without biases; attention as two plain matrix products a layer."""

    layers: int
    width: int
    heads: int
    sequence: int
    batch: int
    hidden: int
    vocabulary: int
    rank: int  # of the LoRA matrices

    @property
    def linears(self) -> tuple[tuple[str, int, int], ...]:
        """(name, inputs, outputs) of a layer's linear maps, in order."""
        d, f = self.width, self.hidden
        return (("qkv", d, 3 * d), ("out", d, d), ("up", d, f), ("down", f, d))


def training_step_flop(shape: Shape, *, checkpointing: bool, lora: bool) -> int:
    """One step, forward and backward. With checkpointing every layer runs forward twice.

    LoRA: weights are frozen, so their gradients are not computed; nor is the gradient of the first layer's
    input, which nothing needs.
    """
    tokens, d, r = shape.batch * shape.sequence, shape.width, shape.rank
    dense = sum(gemm_flop(tokens, b, a) for _, a, b in shape.linears)
    attention = 2 * gemm_flop(tokens, shape.sequence, d)  # scores and values, over all heads
    head = gemm_flop(tokens, shape.vocabulary, d)
    low_rank = sum(gemm_flop(tokens, r, a) + gemm_flop(tokens, b, r) for _, a, b in shape.linears) if lora else 0
    forward = dense + attention + low_rank
    if lora:
        backward = dense + 2 * attention + 2 * low_rank
        unneeded = gemm_flop(tokens, d, 3 * d) + gemm_flop(tokens, d, r)
        total = shape.layers * (forward + backward) - unneeded + 2 * head
    else:
        total = 3 * (shape.layers * forward + head)
    return total + (shape.layers * forward if checkpointing else 0)
