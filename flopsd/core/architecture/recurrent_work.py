"""How much of a recurrent layer's chunks was computed, from the counters of a process's work.

`computed` is what transformers' own code computes: whole chunks, each sequence padded to full chunks. The high end is
for kernels (mamba_ssm, flash-linear-attention): the same products, a triangular system by its inverse, chunks per
document in packed rows. They compute some products again in each tile and in the backward pass. At the low end each
token reads the state once, or a short sequence keeps no state and pairs its positions, as attention would.
"""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.architecture.attention_pairs import Level, Side
from flopsd.core.architecture.recurrent import Convolution, Product, Span, State
from flopsd.core.dataclass import dataclass
from flopsd.core.notes import note
from flopsd.core.values import ceil_div

NOTE = note("layers_with_state")


@dataclass(frozen=True, slots=True)
class StateFlop:
    """FLOP of one layer's products without weights. `again`: at most what a kernel computes more than once."""

    forward: int = 0
    gradients: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class StateWork:
    """The tokens of one phase at one level."""

    side: Side
    level: Level
    packing: bool

    def taps(self, convolution: Convolution) -> int:
        """Multiply-adds of one channel."""
        if self.level is Level.LOW:
            return self._least(convolution.kernel)
        # Both ends of a row are padded, and the result of the second padding is cut off. With a cache, its kept tokens
        # pass again.
        kept = convolution.kernel if self.level is Level.HIGH else 0
        return (self.side.tokens + self._sequences() * (kept + convolution.kernel - 1)) * convolution.kernel

    def _least(self, window: int) -> int:
        return self.side.real if self.packing else self.side.least(window)

    def products(self, state: State, graded: Mapping[str, bool]) -> StateFlop:
        """FLOP of one layer; `graded`: which operands have a gradient."""
        if self.level is Level.LOW:
            # The cheaper of the two ways, whatever the lengths: the pairs within a window are at most either.
            forward = 2 * state.pair * self._least(max(1, state.read // state.pair))
            return StateFlop(forward, 2 * forward if all(graded.values()) else 0)
        kernel, some = self.level is Level.HIGH, any(graded.values())
        found = dict.fromkeys(graded, some) if kernel else dict(graded)  # kernels compute all gradients
        spans = self._spans(state.chunk)
        forward = gradients = 0
        for product in state.products:
            forward += 0 if product.solve and not kernel else 2 * product.size * spans[product.span]
            left, right = (any(found.get(name) for name in names) for names in (product.left, product.right))
            gradients += _gradients(product, spans, left, right and (kernel or not product.solve))
            scaled = any(found.get(name) for name in product.by)
            found[product.out] = found.get(product.out, False) or left or right or scaled
        if not kernel:
            return StateFlop(forward, gradients)
        inverse = 2 * state.inverses * spans[Span.WITHIN] * state.chunk
        graded_inverse = 2 * inverse if found.get("system") else 0
        forward += inverse
        again = forward * (2 if some else 1)  # by the kernels' sources: see test_hybrids.py
        return StateFlop(forward, gradients + graded_inverse, again)

    def _sequences(self) -> int:
        """Sequences as counted; otherwise as few as their squares allow, or at the high end one per token."""
        side = self.side
        if side.sequences is not None or side.tokens == 0:
            return side.sequences or 0
        return side.tokens if self.level is Level.HIGH else ceil_div(side.tokens**2, side.square_high)

    def _spans(self, chunk: int) -> dict[Span, int]:
        tokens, sequences = self.side.tokens, self._sequences()
        if sequences == 0:
            return dict.fromkeys(Span, 0)
        if self.level is Level.COMPUTED:  # assumes sequences of equal length
            each, more = divmod(tokens, sequences)
            short, long = ceil_div(each, chunk), ceil_div(each + 1, chunk)
            count = (sequences - more) * short + more * long
            between = (sequences - more) * (short + 1) ** 2 + more * (long + 1) ** 2
            later = count - sequences
        else:
            later = count = tokens if self.packing else min(tokens, (tokens + sequences * (chunk - 1)) // chunk)
            wide = 2 * chunk - 1  # (chunks + 1) x chunk is at most a sequence's tokens plus this
            between = ceil_div(self.side.square_high + 2 * wide * tokens + sequences * wide**2, chunk**2)
        return {
            Span.WITHIN: count * chunk**2,
            Span.ROWS: count * chunk,
            Span.LATER: later * chunk,
            Span.BETWEEN: between,
        }


def _gradients(product: Product, spans: Mapping[Span, int], left: bool, right: bool) -> int:
    of_left = spans[product.left_gradient or product.span] if left else 0
    of_right = spans[product.right_gradient or product.span] if right else 0
    return 2 * product.size * (of_left + of_right)
