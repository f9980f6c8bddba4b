"""FLOP where only numbers of parameters are known: the Guidelines' 6PD (annex A.2.2), with honest bounds.

6PD holds for large dense models. The bounds allow for what it leaves out: attention, whose cost does not follow from
the parameters; embeddings that are only looked up; mixtures of experts, of which a token uses a part. They do not allow
for weights that a token uses several times, such as ALBERT's shared layers: that there are none is an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

from flopsd.core.architecture.attention_pairs import side_from
from flopsd.core.architecture.model import ArchitectureFlop, Bounds
from flopsd.core.architecture.training import Training
from flopsd.core.declarations import Method, Recomputation
from flopsd.core.values import ceil_div
from flopsd.errors import ArchitectureError

# Published mixtures of experts use a token on down to about 1/32 of their parameters (Kimi K2: 32 of 1026 billion).
LEAST_ACTIVE = 32
# A layer has some 12 d^2 parameters, so of P parameters in at most so many layers the width d is at least
# sqrt(P / (12 layers)), and layers x d at most P / (12 d). The deepest published language models have some 130.
MOST_LAYERS = 200
ASSUMED = (
    "only the number of parameters is known: 6PD, which leaves attention out of computed",
    f"at least 1/{LEAST_ACTIVE} of the parameters is used for a token; at most {MOST_LAYERS} layers",
    "each weight is used at most once a token, which shared layers, convolutions, image and audio towers do not keep",
)


@dataclass(frozen=True, slots=True)
class _Work:
    """Tokens that pass the parameters, and pairs at most. Of an encoder-decoder each side's tokens pass its own."""

    tokens: Bounds
    square: int


def bare_flop(total: int, work: Mapping[str, int], training: Training) -> ArchitectureFlop:
    """4 P D + 2 P_trained D, and its bounds."""
    passed = _passed(work)
    forward, tokens = _forward(total, passed), passed.tokens
    trained, notes = _trained(total, training)
    weight = Bounds(
        2 * tokens.low * trained.low // LEAST_ACTIVE,
        2 * tokens.computed * trained.computed,
        2 * tokens.high * trained.high,
    )
    # With everything trained gradients pass through all; else perhaps through the last layer alone.
    back = Bounds(
        forward.low if trained.low >= total else 0, forward.computed, forward.high + _attention(total, passed)
    )
    required = forward + back + weight
    full = training.recomputation is Recomputation.FULL
    again = 0 if training.recomputation is Recomputation.NONE else forward.high
    terms = {
        "linear_forward": forward.computed,
        "activation_gradients": back.computed,
        "weight_gradients": weight.computed,
        "recomputed_layers": forward.computed if full else 0,
    }
    executed = Bounds(required.low, sum(terms.values()), required.high + again + _attention(total, passed))
    return ArchitectureFlop(required, executed, terms, (*ASSUMED, *notes))


def bare_forward(total: int, work: Mapping[str, int]) -> Bounds:
    """2 P D, and its bounds."""
    return _forward(total, _passed(work, cached=True))


def _passed(work: Mapping[str, int], *, cached: bool = False) -> _Work:
    if "tokens" not in work:
        raise ArchitectureError("the work has no tokens", hint="declare the tokens that passed through the model")
    one = side_from(work, "", None, cached=cached)
    if "target_tokens" not in work:
        return _Work(Bounds(one.tokens - one.padding, one.tokens, one.tokens), one.square_high)
    other = side_from(work, "target_", None, cached=cached)
    tokens = Bounds(
        min(one.tokens - one.padding, other.tokens),
        (one.tokens + other.tokens) // 2,
        max(one.tokens, other.tokens),
    )
    return _Work(tokens, one.square_high + other.square_high + work.get("cross_pairs", one.tokens * other.tokens))


def _forward(total: int, passed: _Work) -> Bounds:
    tokens = passed.tokens
    return Bounds(
        2 * total * tokens.low // LEAST_ACTIVE,
        2 * total * tokens.computed,
        2 * total * tokens.high + _attention(total, passed),
    )


def _attention(total: int, passed: _Work) -> int:
    """Two products of every pair with every layer's width, at most."""
    width = max(1, isqrt(total // (12 * MOST_LAYERS)))
    return 4 * passed.square * ceil_div(total, 12 * width)


def _trained(total: int, training: Training) -> tuple[Bounds, tuple[str, ...]]:
    """How many parameters have gradients."""
    count, method = training.trainable, training.method
    if count is not None:
        return Bounds(count, count, count), ()
    if method in (Method.FULL, Method.PRETRAINING):
        return Bounds(total, total, total), ()
    if training.adapted:
        return Bounds(0, 0, total), ("how many parameters the adapters have is not declared",)
    return Bounds(0, total, total), ("how many parameters are trained is not declared: all in computed, none in low",)
