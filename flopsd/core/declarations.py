"""What operators and training processes declare because no counter measures it. Pure.

A declaration is never a measurement. It is kept next to the figures together with its author; anything undeclared stays
an interval.
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
from flopsd.core.values import is_whole, shown, text_or_none

MAX_TEXT = 200
MAX_COUNT = 10**30
FORMATS = ("bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8")
# Environment variables that a training process reads. Under `flopsd exec` the daemon has them too.
OPERATOR_COUNT_VARIABLE, DEVICE_VARIABLE = "FLOPSD_OPERATOR_COUNT", "FLOPSD_DEVICE_UUID"
KERNEL_WINDOWS_VARIABLE = "FLOPSD_KERNEL_WINDOWS"
_FLOP = re.compile("[1-9][0-9]{0,38}")


class Phase(str, Enum):
    """What a training process is doing. A closed set, since it is a metric label."""

    TRAIN = "train"
    EVALUATE = "evaluate"  # purely diagnostic: trains nothing, makes no training data
    GENERATE = "generate"  # makes training data: rollouts, synthetic data
    OTHER = "other"


class Method(str, Enum):
    """How the weights are trained."""

    PRETRAINING = "pretraining"  # no base model
    FULL = "full"
    PARTIAL = "partial"  # some weights frozen, such as Spectrum
    LORA = "lora"
    QLORA = "qlora"


class Recomputation(str, Enum):
    """Activation checkpointing: how much of the forward pass is computed again during the backward pass."""

    NONE = "none"
    FULL = "full"
    SELECTIVE = "selective"


class Role(str, Enum):
    """The purpose of a model that runs next to the trained one; the trained model has no role."""

    REFERENCE = "reference"  # its outputs enter the loss, or a penalty for departing from them
    REWARD = "reward"  # scores samples
    TEACHER = "teacher"  # its outputs are the target, as in distillation
    CRITIC = "critic"  # estimates values, and is trained too
    OTHER = "other"


# Counters of a process's work in one phase; they only grow. `tokens` are all positions that passed through the model,
# padding included. Pairs are summed over sequences: a sequence of s tokens has s*s square pairs, and sum(min(i, w)) for
# i = 1..s pairs within a causal window of w. `target_` is the decoder of an encoder-decoder. `patches` are all rows
# that pass an image tower, class tokens included; their pairs are within one image or window.
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
    "cross_pairs",  # of both sides; for a model that compares texts with images, every text with every image
    "cross_tokens",  # encoder rows that a decoder made keys and values of; undeclared: all rows, once
    "images",  # tiles and frames too: each unit that attends only to itself
    "patches",
    "patch_square_pairs",
    "patch_window_pairs",
    "headless_tokens",  # for which no logits were computed
    "unlabelled_tokens",  # whose logits may have been left out: no label, or a head outside the model
    "fused_head_tokens",  # whose logits a fused loss computes, and again in its backward pass
    # For a model that flopsd does not read: multiply-adds of rows with weights, as the process counted them.
    "weight_passes",  # forward passes in which these were counted
    "weight_products",  # in forward passes, each once
    "trained_weight_products",  # those whose weights have gradients
    "graded_weight_products",  # those whose rows (activations) have gradients
    "recomputed_weight_products",  # computed again in a backward pass
    "other_weight_products",  # of weights whose products the process does not see: computed from the rows nearby
    "other_weight_products_max",
    "weight_square_pairs",  # as square_pairs, for the longest rows that passed any weights
    "weight_pair_products",  # cost of one product of pairs for each product with weights, at its narrower side
    "framework_flop",  # the framework's own count, such as the Trainer's total_flos
    "operator_flop",  # of all operators that ran on the session's device; a multiply-add counts 2
    "recomputed_operator_flop",  # the part of operator_flop from forward operators computed again in a backward pass
    *KERNEL_COUNTERS,  # of kernels seen in sampled windows
)
Work = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Base:
    """The model that was modified. `kind` is known, estimated (by `method`) or unknown. `flop` is None where its
    compute is asserted to be neither known nor estimable; `systemic` is None where undeclared. `reason` says why the
    model is not one of systemic risk although the law presumes it."""

    name: str | None
    kind: str
    flop: int | None
    method: str | None
    systemic: bool | None
    reason: str | None = None

    def for_journal(self) -> dict[str, Any]:
        """As in journal and ledger. `reason`, which few have, is omitted if None."""
        fields = {**asdict(self), "flop": text_or_none(self.flop)}
        return fields if self.reason is not None else {name: fields[name] for name in fields if name != "reason"}


@dataclass(frozen=True, slots=True)
class OperatorDeclarations:
    """The declarations in the settings of a run. None: not declared."""

    phase: Phase | None = None  # what the whole job does, whatever a process declares
    method: Method | None = None
    recomputation: Recomputation | None = None
    base: Base | None = None

    def for_journal(self) -> dict[str, Any]:
        """As in the journal's `begin` record; FLOP are text there, as in ledgers."""
        return {
            "phase": None if self.phase is None else self.phase.value,
            "method": None if self.method is None else self.method.value,
            "recomputation": None if self.recomputation is None else self.recomputation.value,
            "base": None if self.base is None else self.base.for_journal(),
        }


NOTHING_DECLARED = OperatorDeclarations()


def run_declarations(each: Sequence[OperatorDeclarations]) -> OperatorDeclarations:
    """The declarations of a run from those of its daemon starts, in order: the last one holds. Each start may be right
    about its own work, but one share and one verdict apply to all of it. So recomputation is unknown unless all starts
    declare it alike, and method and base model are unknown if two starts declare different ones. A base model counts
    even if a later start declares none; that is no pretraining, then."""
    last, bases = each[-1], bases_of(each)
    is_open = len(bases) > 1 and last.method is Method.PRETRAINING
    return replace(
        last,
        method=None if is_open or not {last.method, None} >= {one.method for one in each} else last.method,
        recomputation=last.recomputation if {last.recomputation} == {one.recomputation for one in each} else None,
        base=bases[0] if len(bases) == 1 else None,
    )


def bases_of(each: Iterable[OperatorDeclarations]) -> list[Base]:
    """The distinct base models that daemon starts declare."""
    return list(dict.fromkeys(one.base for one in each if one.base is not None))


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
    """A base model from its form in journal and ledger. Raises KeyError, TypeError or ValueError on anything else."""
    if raw is None:
        return None
    name, kind, flop, method, systemic = (raw[key] for key in ("name", "kind", "flop", "method", "systemic"))
    whole = (flop is None) == (kind == "unknown") and (method is not None) == (kind == "estimated")
    if kind not in ("known", "estimated", "unknown") or not whole:
        raise ValueError("a base model is known or estimated, with its FLOP, or unknown")
    base = FieldReader(raw, "base", raising(ValueError))
    base.flag("systemic")
    if flop is not None:
        base.matching("flop", _FLOP, "a count")
    for key in ("name", "method"):
        base.maybe_text(key)
    if "reason" in raw:
        base.text("reason")
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
        raise ValueError(f"{shown(value)} is not a count")
    return value
