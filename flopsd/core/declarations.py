"""What operators and training processes declare, since no counter measures it. Pure.

A declaration is never a measurement. Each is kept beside the figures with who made it, and what is not declared
stays an interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.field_reader import FieldReader, raising
from flopsd.core.kernel_windows import KERNEL_COUNTERS
from flopsd.core.model import PPM, UNDECLARED_PHASE, Precision
from flopsd.core.values import is_whole, text_or_none

MAX_TEXT = 200
MAX_COUNT = 10**30
FORMATS = ("bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8")
# What a training process reads of its environment, which is the daemon's too under `flopsd exec`.
OPERATOR_COUNT_VARIABLE, DEVICE_VARIABLE = "FLOPSD_OPERATOR_COUNT", "FLOPSD_DEVICE_UUID"
KERNEL_WINDOWS_VARIABLE = "FLOPSD_KERNEL_WINDOWS"
_FLOP = re.compile("0|[1-9][0-9]{0,59}")


class Phase(str, Enum):
    """What a training process does. A closed set: it is a metric label."""

    TRAIN = "train"
    EVALUATE = "evaluate"  # purely diagnostic: trains nothing, makes no training data
    GENERATE = "generate"  # makes training data: rollouts, synthetic data
    OTHER = "other"


class Method(str, Enum):
    """How weights are trained."""

    PRETRAINING = "pretraining"  # no base model
    FULL = "full"
    PARTIAL = "partial"  # some weights frozen, such as Spectrum
    LORA = "lora"
    QLORA = "qlora"


class Recomputation(str, Enum):
    """Activation checkpointing: what the backward pass computes a second time."""

    NONE = "none"
    FULL = "full"
    SELECTIVE = "selective"


class Role(str, Enum):
    """What a model beside the trained one is for; the trained one has none."""

    REFERENCE = "reference"  # its outputs are in the loss, or a penalty for leaving them
    REWARD = "reward"  # scores samples
    TEACHER = "teacher"  # its outputs are the target, as in distillation
    CRITIC = "critic"  # estimates values, and is trained beside
    OTHER = "other"


# Counters of a process's work in one phase; they only grow. `tokens` are all positions that passed through the
# model, padding included. Pairs are summed over sequences: of s tokens there are s*s square pairs, and
# sum(min(i, w)) for i = 1..s pairs within a causal window of w. `target_` is a decoder beside an encoder. `patches` are
# all rows that pass an image tower, class tokens included; their pairs are of one image, or of one window in it.
COUNTERS = (
    "steps",  # optimizer steps
    "forward_passes",
    "sequences",
    "tokens",
    "padding_tokens",
    "square_pairs",
    "window_pairs",
    "target_tokens",
    "target_square_pairs",
    "cross_pairs",  # of both sides; of a model that compares texts with images, every text with every image
    "cross_tokens",  # an encoder's rows of which a decoder made keys and values; not declared: all rows, once
    "images",  # tiles and frames too: whatever attends to itself alone
    "patches",
    "patch_square_pairs",
    "patch_window_pairs",
    "headless_tokens",  # of which no logits were computed
    "unlabelled_tokens",  # of which logits may have been left out: no label, or a head that is outside of the model
    "fused_head_tokens",  # whose logits a fused loss computes, and computes again in its backward pass
    # Of a model that flopsd does not read: multiply-adds of rows with weights, as the process counted them.
    "weight_passes",  # forward passes in which they were counted
    "weight_products",  # in forward passes, each once
    "trained_weight_products",  # those whose weights have gradients
    "graded_weight_products",  # those whose rows have gradients
    "recomputed_weight_products",  # computed again in a backward pass
    "other_weight_products",  # of weights whose products the process does not see: what the rows nearby come to
    "other_weight_products_max",
    "weight_square_pairs",  # as square_pairs, of the longest rows that passed any weights
    "weight_pair_products",  # what one product of pairs for each product with weights came to, at its narrower side
    "framework_flop",  # the framework's own count, such as the Trainer's total_flos
    "operator_flop",  # of all operators that ran on the session's device, a multiply-add being 2
    "recomputed_operator_flop",  # of these, forward operators computed again in a backward pass
    *KERNEL_COUNTERS,  # of kernels seen in sampled windows
)
Work = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Base:
    """The model that was modified. `flop` is None where its compute is asserted unknown and not estimable. `kind` is
    known, estimated (by `method`) or unknown; `systemic` is None where it is not declared. `reason` is why it is none
    of systemic risk where the law presumes that it is."""

    name: str | None
    kind: str
    flop: int | None
    method: str | None
    systemic: bool | None
    reason: str | None = None

    def for_journal(self) -> dict[str, Any]:
        """As journal and ledger have it; without the reason, which few have, where there is none."""
        fields = {**asdict(self), "flop": text_or_none(self.flop)}
        return fields if self.reason is not None else {name: fields[name] for name in fields if name != "reason"}


@dataclass(frozen=True, slots=True)
class OperatorDeclarations:
    """What the settings of a run declare. None: not declared."""

    phase: Phase | None = None  # what the whole job does, whatever a process says
    method: Method | None = None
    recomputation: Recomputation | None = None
    base: Base | None = None

    def for_journal(self) -> dict[str, Any]:
        """As the journal's `begin` has it; FLOP are text there, as in ledgers."""
        return {
            "phase": None if self.phase is None else self.phase.value,
            "method": None if self.method is None else self.method.value,
            "recomputation": None if self.recomputation is None else self.recomputation.value,
            "base": None if self.base is None else self.base.for_journal(),
        }


NOTHING_DECLARED = OperatorDeclarations()


def of_starts(
    each: Sequence[OperatorDeclarations], before: Iterable[Recomputation | None] = ()
) -> OperatorDeclarations:
    """Of a run whose daemon starts declare this, one after the other: what the last one does. Recomputation that not
    all of them declare alike, nor those of the segments `before`, is not known: each may be right of its own work, and
    one share is taken of all of it."""
    last = each[-1]
    return replace(last, recomputation=None) if len(recomputations_of(each, before)) > 1 else last


def recomputations_of(
    each: Iterable[OperatorDeclarations], before: Iterable[Recomputation | None] = ()
) -> tuple[Recomputation | None, ...]:
    """The different ones that are declared; None where it was not."""
    declared = {*before, *(one.recomputation for one in each)}
    return tuple(one for one in (None, *Recomputation) if one in declared)


def declared_from(raw: Mapping[str, Any] | None) -> OperatorDeclarations:
    """The inverse of `OperatorDeclarations.for_journal`. Raises KeyError, TypeError or ValueError on anything else."""
    if raw is None:
        return NOTHING_DECLARED
    phase, method, recomputation = raw["phase"], raw["method"], raw["recomputation"]
    return OperatorDeclarations(
        None if phase is None else Phase(phase),
        None if method is None else Method(method),
        None if recomputation is None else Recomputation(recomputation),
        base_from(raw["base"]),
    )


def base_from(raw: Mapping[str, Any] | None) -> Base | None:
    """A base model as journal and ledger have it. Raises KeyError, TypeError or ValueError on anything else."""
    if raw is None:
        return None
    name, kind, flop, method, systemic = (raw[key] for key in ("name", "kind", "flop", "method", "systemic"))
    whole = (flop is None) == (kind == "unknown") and (method is not None) == (kind == "estimated")
    if kind not in ("known", "estimated", "unknown") or not whole:
        raise ValueError(f"{raw!r:.200} does not describe a base model")
    base = FieldReader(raw, "base", raising(ValueError))
    base.flag("systemic")
    if flop is not None:
        base.matching("flop", _FLOP, "a count")
    for key in ("name", "method", "reason"):
        if key in base:
            base.line(key, MAX_TEXT)
    return Base(name, kind, None if flop is None else int(flop), method, systemic, raw.get("reason"))


def phase_from(raw: object) -> str:
    """A phase by name, or `undeclared`. Raises ValueError."""
    return UNDECLARED_PHASE if raw in (None, UNDECLARED_PHASE) else Phase(raw).value


def precision_from(value: object, declared_by: str) -> Precision:
    """`bf16`, or shares of tensor-pipe cycles such as {"bf16": 900000, "fp8": 100000} in ppm. Raises ValueError."""
    shares = {value: PPM} if isinstance(value, str) else value
    if not isinstance(shares, Mapping) or not shares or any(name not in FORMATS for name in shares):
        raise ValueError(f"expected one of {', '.join(FORMATS)}, or shares of them in parts per million")
    if any(count_from(ppm) == 0 for ppm in shares.values()) or sum(shares.values()) != PPM:
        raise ValueError("shares must be positive and add up to a million")
    return Precision(tuple(sorted((str(name), int(ppm)) for name, ppm in shares.items())), declared_by)


def count_from(value: object) -> int:
    if not is_whole(value) or value > MAX_COUNT:
        raise ValueError(f"{value!r:.40} is not a count")
    return value
