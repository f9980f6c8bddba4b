"""What operators and training processes declare, since no counter measures it. Pure.

A declaration is never a measurement. Each is kept beside the figures with who made it, and what is not declared
stays an interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from flopsd.core.kernel_windows import KERNEL_COUNTERS
from flopsd.core.model import PPM, UNDECLARED_PHASE, Precision
from flopsd.core.untrusted import FieldReader, raising
from flopsd.core.values import is_whole, text_or_none

MAX_TEXT = 200
MAX_CONFIG_ENTRIES = 400
MAX_CONFIG_DEPTH = 4
MAX_COUNT = 10**30
MAX_MODULES = 256
MAX_LEFT_OUT = 16
FORMATS = ("bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8")
# What a training process reads of its environment, which is the daemon's too under `flopsd exec`.
OPERATOR_COUNT_VARIABLE, DEVICE_VARIABLE = "FLOPSD_OPERATOR_COUNT", "FLOPSD_DEVICE_UUID"
KERNEL_WINDOWS_VARIABLE = "FLOPSD_KERNEL_WINDOWS"
_FLOP = re.compile("0|[1-9][0-9]{0,59}")
_DEVICE = re.compile("[!-~]{1,100}")
_ATTENTION = re.compile("[a-z0-9_]{1,40}")


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
    """The model that was modified. `flop` is None where its compute is asserted unknown and not estimable.

    `kind` is known, estimated (by `method`) or unknown; `systemic` is None where it is not declared. `reason` is why it
    is none of systemic risk where the law presumes that it is.
    """

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


def facts_from(raw: object) -> dict[str, Any]:
    """The facts that a process declares, checked: a closed set, small. Raises ValueError naming the fact."""
    facts = FieldReader(raw, "", raising(ValueError))
    facts.only(*_FACTS)
    return {name: _FACTS[name](facts, name) for name in facts.mapping}


def work_from(raw: object) -> dict[str, dict[str, int]]:
    """Counters by phase, checked. Raises ValueError."""
    if not isinstance(raw, Mapping):
        raise ValueError("work is not a mapping of phases")
    found: dict[str, dict[str, int]] = {}
    for phase, counters in raw.items():
        if not isinstance(counters, Mapping):
            raise ValueError(f"the work of phase {str(phase)[:40]!r} is not a mapping of counters")
        found[Phase(phase).value] = {_counter(name): _count(value) for name, value in counters.items()}
    return found


def phase_from(raw: object) -> str:
    """A phase by name, or `undeclared`. Raises ValueError."""
    return UNDECLARED_PHASE if raw in (None, UNDECLARED_PHASE) else Phase(raw).value


def precision_from(value: object, declared_by: str) -> Precision:
    """`bf16`, or shares of tensor-pipe cycles such as {"bf16": 900000, "fp8": 100000} in ppm. Raises ValueError."""
    shares = {value: PPM} if isinstance(value, str) else value
    if not isinstance(shares, Mapping) or not shares or any(name not in FORMATS for name in shares):
        raise ValueError(f"expected one of {', '.join(FORMATS)}, or shares of them in parts per million")
    if any(_count(ppm) == 0 for ppm in shares.values()) or sum(shares.values()) != PPM:
        raise ValueError("shares must be positive and add up to a million")
    return Precision(tuple(sorted((str(name), int(ppm)) for name, ppm in shares.items())), declared_by)


def _counter(name: object) -> str:
    if name not in COUNTERS:
        raise ValueError(f"{str(name)[:40]!r} is not a known counter; known: {', '.join(COUNTERS)}")
    return str(name)


def _count(value: object) -> int:
    if not is_whole(value) or value > MAX_COUNT:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def _count_fact(facts: FieldReader, name: str) -> int:
    return facts.whole(name, 0, MAX_COUNT)


def _text_fact(facts: FieldReader, name: str) -> str:
    return facts.line(name, MAX_TEXT)


def _device(facts: FieldReader, name: str) -> str:
    return facts.matching(name, _DEVICE, "an accelerator's UUID as its driver names it, such as GPU-… or MIG-…")


def _precision_fact(facts: FieldReader, name: str) -> object:
    value = facts.raw(name)
    try:
        precision_from(value, "")
    except ValueError as fault:
        facts.problem(name, str(fault))
    return dict(value) if isinstance(value, Mapping) else value


def _lora(facts: FieldReader, name: str) -> dict[str, Any]:
    """Adapters as PEFT names them: r, and the modules that they are attached to."""
    lora = facts.object(name)
    lora.only("r", "target_modules", "modules_to_save", null=True)
    found: dict[str, Any] = {"r": lora.whole("r", 0, MAX_COUNT)}
    for key in ("target_modules", "modules_to_save"):
        if key in lora:
            modules = lora.texts(key)
            named = all(0 < len(text) <= MAX_TEXT and text.isprintable() for text in modules)
            if not named or len(modules) > MAX_MODULES:
                lora.wrong(key, f"a list of at most {MAX_MODULES} module names")
            found[key] = sorted(modules)
    return found


def _not_counted(facts: FieldReader, name: str) -> dict[str, list[str]]:
    """What a process does and cannot count, in words, by phase."""
    work = facts.object(name)
    work.only(*(phase.value for phase in Phase))
    found = {phase: work.texts(phase) for phase in work.mapping}
    for phase, texts in found.items():
        if len(texts) > MAX_LEFT_OUT or not all(0 < len(text) <= MAX_TEXT and text.isprintable() for text in texts):
            work.wrong(phase, f"a list of at most {MAX_LEFT_OUT} texts")
    return {phase: sorted(set(texts)) for phase, texts in found.items() if texts}


def _config(facts: FieldReader, name: str) -> dict[str, Any]:
    """A model's config.json: JSON of bounded size, with floats as text, since no ledger holds floats."""
    try:
        found = _plain(facts.object(name).mapping, MAX_CONFIG_DEPTH)
    except ValueError as fault:
        facts.problem(name, str(fault))
    if _entries(found) > MAX_CONFIG_ENTRIES:
        facts.problem(name, f"more than {MAX_CONFIG_ENTRIES} entries: leave out what is not architecture")
    assert isinstance(found, dict)
    return found


def _plain(value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, Mapping):
        return {str(key)[:MAX_TEXT]: _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    raise ValueError(f"{type(value).__name__} is not JSON")


def _entries(value: object) -> int:
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(1 + _entries(item) for item in items)


_FACTS: Mapping[str, Callable[[FieldReader, str], Any]] = {
    "model_config": _config,
    "model_name": _text_fact,
    "model_revision": _text_fact,
    "parameters_total": _count_fact,
    "parameters_trainable": _count_fact,
    "method": lambda facts, name: facts.one_of(name, [method.value for method in Method]),
    "lora": _lora,
    "recomputation": lambda facts, name: facts.one_of(name, [value.value for value in Recomputation]),
    "attention": lambda facts, name: facts.matching(name, _ATTENTION, "a name such as eager, sdpa, flash_attention_2"),
    "precision": _precision_fact,
    "packing": FieldReader.flag,
    "role": lambda facts, name: facts.one_of(name, [role.value for role in Role]),
    "not_counted": _not_counted,
    "window": _count_fact,  # the causal window that window_pairs were counted with
    "rank": _count_fact,
    "local_rank": _count_fact,
    "world_size": _count_fact,
    "framework": _text_fact,
    "operators_not_counted": _not_counted,  # as not_counted, of operator_flop
    "device": _device,  # the accelerator that operator_flop are of; it never changes
}
