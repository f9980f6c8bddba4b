"""Layers that carry a state along the sequence: state spaces (Mamba 2), the gated delta rule, short convolutions.

State spaces and delta rules are recurrences with one small update per token. Training computes them with matrix
products in chunks of positions: scores within a chunk, and the state passed from one chunk to the next.
"""

from __future__ import annotations

from enum import Enum

from flopsd.core.dataclass import dataclass


class Span(Enum):
    """How often a product of its size is computed; a chunk has Q positions."""

    WITHIN = "within"  # Q x Q in each chunk: positions with positions
    ROWS = "rows"  # Q in each chunk: positions with a state
    LATER = "later"  # as ROWS, without the first (or the last) chunk of each sequence
    BETWEEN = "between"  # (chunks + 1)^2 in each sequence: states with states


@dataclass(frozen=True, slots=True)
class Convolution:
    """A separate causal convolution of each channel. `feeds`: the operands that pass through it."""

    path: str
    channels: int
    kernel: int
    bias: bool
    feeds: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return self.channels * (self.kernel + self.bias)


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the chunked form: `size` multiply-adds for each element of its span.

    `left` and `right` are its operands; it has a gradient for each side of which any operand has one. `by`: operands
    that scale it. `left_gradient`, `right_gradient`: the span of a gradient, if different. `solve`: a triangular
    system, which transformers' own code solves by substitution and kernels by a product with the inverse.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    out: str
    size: int
    span: Span
    by: tuple[str, ...] = ()
    left_gradient: Span | None = None
    right_gradient: Span | None = None
    solve: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The state that a layer's tokens share, and the work on it. `read`: multiply-adds for a token to read the state.
    `pair`: those for two positions if no state is kept. `inverses`: triangular matrices inverted per chunk."""

    chunk: int
    products: tuple[Product, ...]
    read: int
    pair: int
    inverses: int = 0


def ssd_products(heads: int, head_dim: int, size: int, groups: int, chunk: int) -> State:
    """The state space dual of x, B and C with the step t, which also decays the state."""
    inner = heads * head_dim
    products = (
        Product(("C",), ("B",), "scores", heads * size, Span.WITHIN, by=("t",)),
        Product(("scores",), ("x", "t"), "y", inner, Span.WITHIN),
        Product(("B", "t"), ("x", "t"), "states", inner * size, Span.ROWS),
        Product(("t",), ("states",), "states", inner * size, Span.BETWEEN),
        Product(("C",), ("states",), "y", inner * size, Span.ROWS),
    )
    return State(chunk, products, read=inner * size, pair=inner + groups * size)


DELTA_CHUNK = 64  # of transformers 5.24 and of the kernels of flash-linear-attention


def delta_products(key_heads: int, value_heads: int, key: int, value: int) -> State:
    """The gated delta rule of q, k and v, with the learning rate b and the decay a: arXiv 2412.06464, section 3.3. A
    triangular system (the WY form) makes `w` and `u` from the k and v of a chunk; `new` updates the state."""
    heads = value_heads
    within, state = heads * key, heads * key * value
    products = (
        Product(("k", "b"), ("k",), "system", within, Span.WITHIN, by=("a",)),
        Product(("q",), ("k",), "scores", within, Span.WITHIN, by=("a",)),
        Product(("system",), ("v", "b"), "u", heads * value, Span.WITHIN, solve=True),
        Product(("system",), ("k", "b", "a"), "w", within, Span.WITHIN, solve=True),
        # A sequence begins with a zero state and ends with one that nothing reads: neither has a gradient.
        Product(("w",), ("k", "u", "w", "a"), "new", state, Span.ROWS, by=("u",), right_gradient=Span.LATER),
        Product(("q", "a"), ("k", "new", "a"), "y", state, Span.ROWS, right_gradient=Span.LATER),
        Product(("scores",), ("new",), "y", heads * value, Span.WITHIN),
        Product(("k", "a"), ("new",), "y", state, Span.ROWS, left_gradient=Span.LATER, right_gradient=Span.LATER),
    )
    return State(DELTA_CHUNK, products, read=state, pair=heads * value + key_heads * key, inverses=heads)
