"""Parts that families share: attention with separate matrices for q, k and v, and the two kinds of MLP."""

from __future__ import annotations

from flopsd.core.architecture.model import Attention, Linear, Mask, Mlp, Stream


def attention_of(
    path: str, names: tuple[str, str, str, str], hidden: int, heads: tuple[int, int], mask: Mask,
    stream: Stream = Stream.TOKENS, *, biases: tuple[bool, bool, bool, bool] = (True, True, True, True),
    others: int = 0,
) -> Attention:  # fmt: skip
    """Attention with separate matrices for q, k, v and the output, with these `names` and `biases`; `heads`: their
    number and width. In cross-attention k and v read the encoder."""
    width, source = heads[0] * heads[1], Stream.MEMORY if mask is Mask.CROSS else stream
    read = zip(names, biases, (stream, source, source), strict=False)
    projections = tuple(Linear(f"{path}.{name}", hidden, width, bias, stream=of) for name, bias, of in read)
    output = Linear(f"{path}.{names[3]}", width, hidden, biases[3], stream=stream)
    return Attention(mask, *heads, projections, ("q", "k", "v"), output, others=others, stream=stream)


def plain_mlp(
    path: str, hidden: int, size: int, bias: bool = True, *, names: tuple[str, str] = ("fc1", "fc2"),
    stream: Stream = Stream.TOKENS,
) -> Mlp:  # fmt: skip
    inner = Linear(f"{path}.{names[0]}", hidden, size, bias, stream=stream)
    return Mlp((inner,), Linear(f"{path}.{names[1]}", size, hidden, bias, stream=stream))


def gated_mlp(path: str, hidden: int, size: int, bias: bool = False, *, stream: Stream = Stream.TOKENS) -> Mlp:
    inner = tuple(Linear(f"{path}.{name}_proj", hidden, size, bias, stream=stream) for name in ("gate", "up"))
    return Mlp(inner, Linear(f"{path}.down_proj", size, hidden, bias, stream=stream))
