"""FLOP from a model's size alone: the Guidelines' 6PD (annex A.2.2), with honest bounds.

6PD holds for large dense models. The bounds allow for what it leaves out: attention, whose cost does not follow from
the parameters; embeddings that are only looked up; mixtures of experts, of which a token uses an unknown part. They do
not allow for weights that a token uses several times, such as ALBERT's shared layers, nor for layers with a state,
whose chunks may be longer than the sequences: that there are none is an assumption.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import isqrt

from flopsd.core.architecture.attention_pairs import side_from
from flopsd.core.architecture.bounds import ArchitectureFlop, Bounds
from flopsd.core.architecture.model import Size
from flopsd.core.architecture.training import Training
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method, Recomputation
from flopsd.core.notes import Note, note
from flopsd.core.values import ceil_div
from flopsd.errors import ArchitectureError

# Published mixtures of experts multiply a token by at least 1/32.4 of their parameters (Kimi K2: 31.7 of 1026 billion).
LEAST_ACTIVE = 64
# A layer of width d has at least about 12 d^2 parameters, so P >= 12 layers d^2, and layers x d is at most sqrt(layers
# x P / 12). The deepest published language models have about 130 layers; if attention is k times as wide as the layer
# (2 in small models of Qwen3), the bound holds for 200 / k^2 layers.
MOST_LAYERS = 200
# Rows of the tables of tokens and positions have width d. Published vocabularies have up to 262,208 tokens (Gemma 3).
MOST_ROWS = 300_000
# Published widths are up to 205 times the number of layers (Gopher, BLOOM, Command R), and a token passes at least 8
# d^2 parameters of a layer. So A active parameters satisfy A >= 8 d^2 d / 256, and d^3 is at most 32 A.
_WIDTH_CUBED_TO_ACTIVE = 32
# Norms and biases: a dozen vectors of width d in addition to the 12 d^2 of a layer.
_VECTORS = Fraction(1, 100)
_ONCE = note("weights_used_once")


@dataclass(frozen=True, slots=True)
class _Work:
    """Tokens that pass the parameters, and the most pairs. In an encoder-decoder each side's tokens pass its own."""

    tokens: Bounds
    square: int


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights that a token is multiplied by. `low` may be a fraction; counts made from it are rounded."""

    low: Fraction
    computed: int
    high: int

    def products(self, tokens: Bounds) -> Bounds:
        """FLOP of one product with each weight."""
        return Bounds(
            2 * tokens.low * self.low.numerator // self.low.denominator,
            2 * tokens.computed * self.computed,
            2 * tokens.high * self.high,
        )


def bare_flop(size: Size, work: Mapping[str, int], training: Training) -> ArchitectureFlop:
    """4 P D + 2 P_trained D of active parameters, with its bounds."""
    passed = _passed(work)
    attention = _attention(size, passed)
    forward = _forward(size, passed, training)
    trained, notes = _trained(size, training)
    weight = trained.products(passed.tokens)
    # If everything is trained, gradients pass through all layers; otherwise perhaps only through the last.
    back = Bounds(forward.low if _everything(size, training) else 0, forward.computed, forward.high + attention)
    required = forward + back + weight
    full = training.recomputation is Recomputation.FULL
    again = 0 if training.recomputation is Recomputation.NONE else forward.high
    terms = {
        "linear_forward": forward.computed,
        "activation_gradients": back.computed,
        "weight_gradients": weight.computed,
        "recomputed_layers": forward.computed if full else 0,
    }
    executed = Bounds(required.low, sum(terms.values()), required.high + again + attention)
    return ArchitectureFlop(required, executed, terms, (*_assumed(size), *notes))


def bare_forward(size: Size, work: Mapping[str, int], training: Training) -> Bounds:
    """2 P D of active parameters, with its bounds."""
    return _forward(size, _passed(work, cached=True), training)


def most_looked_up(active: int) -> int:
    """The most parameters of tables that a token only looks up, without a product: a language model's head multiplies
    as many as are looked up."""
    width = bisect_left(range(active), _WIDTH_CUBED_TO_ACTIVE * active, key=lambda d: d**3)
    return min(active // 2, MOST_ROWS * width)


def _assumed(size: Size) -> Iterator[Note]:
    if size.active is None:
        yield note("only_total_known")
        yield note("least_active", part=str(LEAST_ACTIVE))
    else:
        yield note("only_size_known")
        yield note("head_for_all_tokens")
        if size.active < size.total:
            yield note("experts_as_sent")
        if size.embedding is None:
            yield note("looked_up_at_most", rows=str(MOST_ROWS))
    if size.layers is None:
        yield note("layers_at_most", layers=str(MOST_LAYERS))
    else:
        yield note("attention_at_most", width=str(size.attention_width), layers=str(size.layers))
    yield _ONCE


def _passed(work: Mapping[str, int], *, cached: bool = False) -> _Work:
    if "tokens" not in work:
        raise ArchitectureError("no_tokens", hint="declare the tokens that passed through the model")
    one = side_from(work, "", None, cached=cached)
    if "target_tokens" not in work:
        return _Work(Bounds(one.tokens - one.padding, one.tokens, one.tokens), one.square_high)
    other = side_from(work, "target_", None, cached=cached)
    tokens = Bounds(
        min(one.tokens - one.padding, other.tokens), (one.tokens + other.tokens) // 2, max(one.tokens, other.tokens)
    )
    return _Work(tokens, one.square_high + other.square_high + work.get("cross_pairs", one.tokens * other.tokens))


def _passed_weights(size: Size) -> _Weights:
    """The weights of the model itself."""
    if size.active is None:
        return _Weights(Fraction(size.total, LEAST_ACTIVE), size.total, size.total)
    looked_up = most_looked_up(size.active) if size.embedding is None else size.embedding
    return _Weights((size.active - looked_up) * (1 - _VECTORS), size.active, size.active)


def _forward(size: Size, passed: _Work, training: Training) -> Bounds:
    """FLOP of a forward pass through the model, and at most through every weight of its adapters."""
    products = _passed_weights(size).products(passed.tokens)
    adapters = training.trainable or 0 if training.adapted else 0
    more = 2 * passed.tokens.high * adapters + _attention(size, passed)
    return Bounds(products.low, products.computed, products.high + more)


def _attention(size: Size, passed: _Work) -> int:
    """An upper bound: two products of every pair with every layer's width."""
    if size.layers is not None and size.attention_width is not None:
        return 4 * passed.square * size.layers * size.attention_width
    width = max(1, isqrt(size.total // (12 * MOST_LAYERS)))
    return 4 * passed.square * ceil_div(size.total, 12 * width)


def _everything(size: Size, training: Training) -> bool:
    if training.trainable is not None:
        return training.trainable >= size.total
    return training.method in (Method.FULL, Method.PRETRAINING)


def _trained(size: Size, training: Training) -> tuple[_Weights, tuple[Note, ...]]:
    """Weights with gradients, among those that a token is multiplied by."""
    count, passed = training.trainable, _passed_weights(size)
    if _everything(size, training):
        return passed, ()
    if count is None and training.adapted:
        return _Weights(Fraction(0), 0, passed.high), (note("adapters_size_not_declared"),)
    if count is None:
        return _Weights(Fraction(0), passed.computed, passed.high), (note("trainable_not_declared"),)
    # The trained weights may be ones that few tokens use: experts, or tables.
    if training.adapted or size.active is None:
        return _Weights(Fraction(0), count, count), ()
    return _Weights(Fraction(0), count * size.active // size.total, min(count, size.active)), ()
