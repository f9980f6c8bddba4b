"""The mixer of Mamba 2, which Mamba 2 and several hybrids have."""

from __future__ import annotations

from flopsd.core.architecture.model import Linear, Recurrence
from flopsd.core.architecture.recurrent import Convolution, ssd_products


def mamba2(
    path: str, hidden: int, *, heads: int, head_dim: int, size: int, groups: int, kernel: int, chunk: int,
    bias: bool = False, convolution_bias: bool = True, gated_norm: bool = True, out_bias: bool | None = None,
) -> Recurrence:  # fmt: skip
    """Mamba 2 as transformers builds it: x, B, C, the gate z and the step t come of one matrix; x, B and C pass a
    convolution. `size`: of the state, for each of heads x head_dim channels. arXiv 2405.21060, section 6."""
    inner = heads * head_dim
    channels = inner + 2 * groups * size
    return Recurrence(
        (Linear(f"{path}.in_proj", hidden, inner + channels + heads, bias),),
        (("z", "x", "B", "C", "t"),),
        Linear(f"{path}.out_proj", inner, hidden, bias if out_bias is None else out_bias),
        Convolution(f"{path}.conv1d", channels, kernel, convolution_bias, ("x", "B", "C")),
        ssd_products(heads, head_dim, size, groups, chunk),
        others=3 * heads + (inner if gated_norm else 0),  # A, D and the step's bias
        fused=True,
    )
