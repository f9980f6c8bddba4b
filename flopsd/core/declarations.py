"""What people and training processes declare: words that no counter tells. Pure.

A declaration is never a measurement. Each is kept beside the figures with who made it, and what is not declared
stays an interval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flopsd.core.model import PPM, UNDECLARED_PHASE, Precision

MAX_TEXT = 200
MAX_CONFIG_ENTRIES = 400
MAX_CONFIG_DEPTH = 4
MAX_COUNT = 10**30
FORMATS = ("bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8")


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


# Counters of a process's work in one phase; they only grow. `tokens` are all positions that passed through the
# model, padding included. Pairs are summed over sequences: of s tokens there are s*s square pairs, and
# sum(min(i, w)) for i = 1..s pairs within a causal window of w. `target_` is a decoder beside an encoder.
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
    "cross_pairs",
    "framework_flop",  # the framework's own count, such as the Trainer's total_flos
)
Work = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Base:
    """The model that was modified. `flop` is None where its compute is asserted unknown and not estimable.

    `kind` is known, estimated (by `method`) or unknown; `systemic` is None where nobody says.
    """

    name: str | None
    kind: str
    flop: int | None
    method: str | None
    systemic: bool | None


@dataclass(frozen=True, slots=True)
class OperatorDeclarations:
    """What the settings of a run declare. None: not declared."""

    phase: Phase | None = None  # what the whole job does where no process says otherwise
    method: Method | None = None
    recomputation: Recomputation | None = None
    base: Base | None = None

    def for_journal(self) -> dict[str, Any]:
        """As the journal's `begin` has it; FLOP are text there, as in ledgers."""
        base = self.base
        return {
            "phase": None if self.phase is None else self.phase.value,
            "method": None if self.method is None else self.method.value,
            "recomputation": None if self.recomputation is None else self.recomputation.value,
            "base": None
            if base is None
            else {
                "name": base.name,
                "kind": base.kind,
                "flop": None if base.flop is None else str(base.flop),
                "method": base.method,
                "systemic": base.systemic,
            },
        }


NOTHING_DECLARED = OperatorDeclarations()


def declared_from(raw: Mapping[str, Any] | None) -> OperatorDeclarations:
    """The inverse of `Declared.for_journal`. Raises KeyError, TypeError or ValueError on anything else."""
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
    told = (flop is None) == (kind == "unknown") and (method is not None) == (kind == "estimated")
    if kind not in ("known", "estimated", "unknown") or not told:
        raise ValueError(f"{raw!r:.200} is no base model")
    if flop is not None and not (isinstance(flop, str) and re.fullmatch("0|[1-9][0-9]{0,59}", flop)):
        raise ValueError(f"{flop!r:.80} is no count")
    if not (systemic is None or isinstance(systemic, bool)):
        raise ValueError(f"{systemic!r:.80} does not say whether the base model is of systemic risk")
    for words in (name, method):
        if words is not None:
            _text(words)
    return Base(name, kind, None if flop is None else int(flop), method, systemic)


def facts_from(raw: object) -> dict[str, Any]:
    """The facts that a process declares, checked: a closed set, small. Raises ValueError naming the fact."""
    if not isinstance(raw, Mapping):
        raise ValueError("facts are not a mapping")
    found: dict[str, Any] = {}
    for name, value in raw.items():
        check = _FACTS.get(name)
        if check is None:
            raise ValueError(f"{str(name)[:40]!r} is no fact that flopsd knows; it knows {', '.join(_FACTS)}")
        try:
            found[name] = check(value)
        except ValueError as fault:
            raise ValueError(f"{name}: {fault}") from None
    return found


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


def _precision(value: object) -> object:
    precision_from(value, "")
    return dict(value) if isinstance(value, Mapping) else value


def _counter(name: object) -> str:
    if name not in COUNTERS:
        raise ValueError(f"{str(name)[:40]!r} is no counter that flopsd knows; it knows {', '.join(COUNTERS)}")
    return str(name)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"expected at most {MAX_TEXT} printable characters")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _lora(value: object) -> dict[str, Any]:
    """Adapters as PEFT names them: r, and the modules that they sit on."""
    if not isinstance(value, Mapping) or set(value) - {"r", "target_modules", "modules_to_save"}:
        raise ValueError("expected r, target_modules, modules_to_save")
    found: dict[str, Any] = {"r": _count(value.get("r"))}
    for name in ("target_modules", "modules_to_save"):
        if value.get(name) is not None:
            modules = value[name]
            if not isinstance(modules, list | tuple) or len(modules) > 256:
                raise ValueError(f"{name}: expected a list of module names")
            found[name] = sorted(_text(module) for module in modules)
    return found


def _config(value: object) -> dict[str, Any]:
    """A model's config.json: JSON of bounded size, with floats as text, since no ledger holds floats."""
    if not isinstance(value, Mapping):
        raise ValueError("expected the content of a config.json")
    found = _plain(value, MAX_CONFIG_DEPTH)
    if _entries(found) > MAX_CONFIG_ENTRIES:
        raise ValueError(f"more than {MAX_CONFIG_ENTRIES} entries: leave out what is not architecture")
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
    if isinstance(value, Mapping):
        return sum(1 + _entries(item) for item in value.values())
    if isinstance(value, list):
        return sum(1 + _entries(item) for item in value)
    return 0


def _attention(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9_]{1,40}", value):
        raise ValueError("expected a name such as eager, sdpa or flash_attention_2")
    return value


_FACTS = {
    "model_config": _config,
    "model_name": _text,
    "model_revision": _text,
    "parameters_total": _count,
    "parameters_trainable": _count,
    "method": lambda value: Method(value).value,
    "lora": _lora,
    "recomputation": lambda value: Recomputation(value).value,
    "attention": _attention,
    "precision": _precision,
    "packing": _flag,
    "window": _count,  # the causal window that window_pairs were counted with
    "rank": _count,
    "local_rank": _count,
    "world_size": _count,
    "framework": _text,
}
