"""FLOP of a model whose architecture flopsd does not read, from its process's counts of rows that passed weights.

A product of rows with weights is 2 FLOP per multiply-add. It is counted in the forward pass, for the gradient of the
weights and for that of the rows, the latter two where autograd recorded the need. Products without weights (attention
scores and their product with the values, scans of state-space layers) are not counted: `computed` leaves them out, and
the upper bound allows for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Any

from flopsd.core.architecture.bounds import ArchitectureFlop, Bounds
from flopsd.core.architecture.training import Training
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Recomputation
from flopsd.core.notes import Note, note
from flopsd.core.values import ceil_div, is_whole
from flopsd.errors import ArchitectureError

# Products of a pair of positions per layer: scores and their product with the values; relative positions add two.
PRODUCTS, RELATIVE_PRODUCTS = 2, 4
_WIDTHS = (
    "hidden_size", "d_model", "n_embd", "dim", "embed_dim", "hidden_dim", "attention_hidden_size",
    "encoder_hidden_size", "decoder_hidden_size", "hidden_sizes", "embed_dims", "embed_dim_per_stage",
)  # fmt: skip
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth")
_STAGES = ("depths", "depth", "blocks_per_stage", "stage_num_blocks")  # layers per stage
_FURTHER = re.compile(r"_num_hidden_layers$|^num_pooler_layers$")  # further layers, such as of a predictor or a decoder
_SIDES = ("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers")
# For a kind of attention with its own sizes (`swa_head_dim`), or for all. An index has its heads in addition.
_HEADS = re.compile(r"heads(_per_\w+)?$|^n_head$")
_HEAD_WIDTHS = re.compile(r"head_dim$|dim_head$|d_head$|head_size$|^kv_channels$|^d_kv$")
_QUERY_PARTS = ("qk_nope_head_dim", "qk_rope_head_dim")
_EXPANSIONS = ("expand", "mamba_expand", "ssm_expand")
_POSITIONS = ("position_buckets", "max_relative_positions")  # further positions that a token is compared with
_RELATIVE = re.compile("relative|clamp_len|lambda_std_dev")  # as in XLNet; differential attention is computed twice
_STATES = ("state_size", "mamba_d_state", "ssm_state_size", "d_state", "chunk_size", "mamba_chunk_size")


def is_counted(work: Mapping[str, int]) -> bool:
    """Whether the process counted the rows that passed its weights in this phase."""
    return "weight_passes" in work


def weights_flop(config: Mapping[str, Any], work: Mapping[str, int], training: Training) -> ArchitectureFlop:
    """FLOP of training from the counters of one phase. `config` may be anything: only its width and depth are used.
    Raises ArchitectureError unless all forward passes were counted."""
    passed = _passed(config, work)
    forward, other = passed.forward, passed.other
    weight, rows = passed.trained, passed.graded
    # Unseen products are assumed to need gradients in the same proportion as the others.
    similar = other.computed * (weight + rows) // passed.products if passed.products else 0
    required = Bounds(
        _without_padding(forward.low + 2 * (weight + rows), work),
        forward.computed + 2 * (weight + rows) + 2 * similar,
        forward.high + 2 * (weight + rows) + 4 * other.high + 2 * passed.attention,
    )
    seen = 2 * passed.recomputed
    unseen = 0
    if training.recomputation is not Recomputation.NONE:
        # If recomputation ends within a module, the computed part of it is unknown: at most all of it.
        whole = 2 * max(0, passed.products - passed.recomputed) if seen else 0
        unseen = whole + 2 * other.high + passed.attention
    terms = {
        "linear_forward": forward.computed,
        "activation_gradients": 2 * rows,
        "weight_gradients": 2 * weight,
        "other_gradients": 2 * similar,
        "recomputed_layers": seen,
    }
    executed = Bounds(
        forward.low + 2 * (weight + rows) + seen,
        sum(terms.values()),
        required.high + seen + unseen + passed.attention,  # flash kernels compute the scores twice
    )
    return ArchitectureFlop(required, executed, terms, passed.assumptions)


def weights_forward(config: Mapping[str, Any], work: Mapping[str, int]) -> Bounds:
    """FLOP of forward passes alone, such as evaluation or generation."""
    return _passed(config, work).forward


@dataclass(frozen=True, slots=True)
class _Passed:
    """Multiply-adds, except for `forward` and `attention`, which are FLOP; `attention` is an upper bound."""

    products: int
    trained: int
    graded: int
    recomputed: int
    other: Bounds
    attention: int
    assumptions: tuple[Note, ...]

    @property
    def forward(self) -> Bounds:
        known = 2 * self.products
        return Bounds(known, known + 2 * self.other.computed, known + 2 * self.other.high + self.attention)


def _passed(config: Mapping[str, Any], work: Mapping[str, int]) -> _Passed:
    whole, counted = work.get("forward_passes", 0), work.get("weight_passes", 0)
    if counted < whole:
        raise ArchitectureError(
            "weights_not_counted",
            counted=counted,
            passes=whole,
            hint="attach the counter before the first pass, and compile the model before it or not at all",
        )
    products = work.get("weight_products", 0)
    other = Bounds(0, work.get("other_weight_products", 0), work.get("other_weight_products_max", 0))
    if other.computed > other.high or products < max(work.get(f"{name}_weight_products", 0) for name in _PARTS):
        raise ArchitectureError("weights_contradict", hint="each product is counted once in weight_products")
    attention, assumption = _attention(config, work)
    return _Passed(
        products,
        work.get("trained_weight_products", 0),
        work.get("graded_weight_products", 0),
        work.get("recomputed_weight_products", 0),
        other,
        attention,
        (*_assumed(products, other), assumption),
    )


_PARTS = ("trained", "graded")


def _assumed(products: int, other: Bounds) -> Iterator[Note]:
    yield note("weights_of_the_process")
    yield note("gradients_as_recorded")
    if other.high:
        share = other.high * 1000 // max(1, products + other.high)
        yield note("other_weights", percent=f"{share // 10}.{share % 10}")


def _attention(config: Mapping[str, Any], work: Mapping[str, int]) -> tuple[int, Note]:
    """The most FLOP of all products of pairs of positions in the forward pass, and the basis of that bound."""
    known = sum(work.get(name, 0) for name in ("square_pairs", "target_square_pairs", "cross_pairs"))
    counted = work.get("weight_square_pairs", 0)
    pairs = max(known, counted)
    shapes = [shape for shape in map(_shape, _parts(config)) if shape is not None]
    relative = any(_RELATIVE.search(str(name)) for part in _parts(config) for name in part)
    products = RELATIVE_PRODUCTS if relative else PRODUCTS
    if shapes:
        tokens = max(work.get("tokens", 0) + work.get("target_tokens", 0), isqrt(pairs))
        whole = (pairs + tokens * max(more for *_, more in shapes)) * sum(width * layers for width, layers, _ in shapes)
        rests = "pairs_by_layers"
    else:
        # Queries, keys and values come from products with weights. With a cache there are more pairs than passed rows.
        whole = ceil_div(work.get("weight_pair_products", 0) * pairs, max(1, counted))
        rests = "pairs_by_products"
    return 2 * products * whole, note(rests, products=str(products))


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    yield from (part for part in config.values() if isinstance(part, Mapping))


def _shape(config: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Upper bounds of width and layers, and further positions that a token is compared with; None: not given."""

    def sizes(names: tuple[str, ...]) -> list[int]:
        return [size for name in names for size in _sizes(config.get(name))]

    stages = [sum(_sizes(config.get(name))) for name in _STAGES]
    widths, layers = sizes(_WIDTHS), max([*sizes(_LAYERS), sum(sizes(_SIDES)), *stages], default=0)
    layers += sum(sizes(tuple(filter(_FURTHER.search, map(str, config)))))
    if not widths or not layers:
        return None
    index, heads = _heads(config)
    width = index + max(*widths, heads, max(widths) * max(sizes(_EXPANSIONS), default=1))
    relative = 2 * max(sizes(_POSITIONS), default=0)
    if config.get("relative_attention") and not relative:
        relative = 2 * max(sizes(("max_position_embeddings",)), default=0)
    return width, layers, relative + 2 * sum(sizes(_STATES))


def _sizes(value: Any) -> list[int]:
    """The sizes in one field, which may list one per layer."""
    several = value if isinstance(value, list | tuple) else (value,)
    return [one for one in several if is_whole(one) and 0 < one <= 10**6]


def _heads(config: Mapping[str, Any]) -> tuple[int, int]:
    """Upper bounds of the total width of an index's heads, and of the heads of attention."""

    def sizes(pattern: re.Pattern[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in filter(pattern.search, map(str, config)):
            kind = name.partition("_")[0]
            found[kind] = max([found.get(kind, 0), *_sizes(config[name])])
        return found

    heads, widths = sizes(_HEADS), sizes(_HEAD_WIDTHS)
    whole = sum(config[name] for name in _QUERY_PARTS if is_whole(config.get(name)))
    usual = max([*(width for kind, width in widths.items() if kind not in heads), whole], default=0)
    found = {kind: count * widths.get(kind, usual) for kind, count in heads.items()}
    index, attention = (
        [width for kind, width in found.items() if kind.startswith("index") is which] for which in (True, False)
    )
    return max(index, default=0), max(attention, default=0)


def _without_padding(flop: int, work: Mapping[str, int]) -> int:
    tokens, padding = work.get("tokens", 0), work.get("padding_tokens", 0)
    return flop * max(0, tokens - padding) // tokens if tokens else flop
