"""How a model was trained, as declared, and which weights have gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.model import Embedding, Linear, Model
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method, Recomputation
from flopsd.errors import ArchitectureError

ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer except the head


@dataclass(frozen=True, slots=True)
class Lora:
    """Adapters in PEFT's terms. `target_modules` None: PEFT's default, which differs by family and version."""

    r: int
    target_modules: tuple[str, ...] | None
    modules_to_save: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """The declarations of a training. None: not declared, which leaves an interval. `packing`: a row holds several
    documents whose lengths are not counted. `window`: the one that window_pairs were counted with. `total` and
    `trainable` are numbers of parameters as counted by the process."""

    method: Method | None = None
    recomputation: Recomputation | None = None
    lora: Lora | None = None
    attention: str | None = None
    packing: bool = False
    window: int | None = None
    total: int | None = None
    trainable: int | None = None

    @property
    def adapted(self) -> bool:
        """LoRA of any kind: a quantized base has the same products as an unquantized one."""
        return self.method in (Method.LORA, Method.QLORA)


def training_from(facts: Mapping[str, Any]) -> Training:
    """From declared facts, as checked by `facts_from` of core/declared_facts.py."""
    raw = facts.get("lora")
    lora = None
    if raw is not None:
        targets = raw.get("target_modules")
        lora = Lora(raw["r"], None if targets is None else tuple(targets), tuple(raw.get("modules_to_save") or ()))
    method = facts.get("method")
    recomputation = facts.get("recomputation")
    return Training(
        method=None if method is None else Method(method),
        recomputation=None if recomputation is None else Recomputation(recomputation),
        lora=lora,
        attention=facts.get("attention"),
        packing=bool(facts.get("packing", False)),
        window=facts.get("window"),
        total=facts.get("parameters_total"),
        trainable=facts.get("parameters_trainable"),
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """Which weights have gradients. `ambiguous`: adapters also on modules that only older transformers have."""

    everything: bool = False
    lora: Lora | None = None
    ambiguous: bool = False

    def weight(self, matrix: Linear | Embedding) -> bool:
        return self.everything or (self.lora is not None and within(matrix.path, self.lora.modules_to_save))

    def rank(self, linear: Linear, head: bool) -> int:
        """The rank of the adapter on a matrix; 0: none."""
        lora = self.lora
        if lora is None or lora.target_modules is None or self.weight(linear):
            return 0
        if linear.adaptable is False or (linear.adaptable is None and not self.ambiguous):
            return 0
        hit = named(linear.path, lora.target_modules) or (ALL_LINEAR in lora.target_modules and not head)
        return lora.r if hit else 0


def named(path: str, names: tuple[str, ...]) -> bool:
    """PEFT's rule: a name matches the whole path or its last parts."""
    return any(path == name or path.endswith(f".{name}") for name in names)


def within(path: str, names: tuple[str, ...]) -> bool:
    """Whether a name is that of the module or of an enclosing one."""
    return any(f".{name}." in f".{path}." for name in names)


def check_names(model: Model, lora: Lora) -> None:
    """Raise ArchitectureError for a declared module that the model does not have."""
    paths = [linear.path for linear in model.linears()] + [table.path for table in model.embeddings]
    wanted = [(name, named) for name in lora.target_modules or ()] + [(name, within) for name in lora.modules_to_save]
    for name, matches in wanted:
        if name != ALL_LINEAR and not any(matches(path, (name,)) for path in paths):
            known = sorted({path.rsplit(".", 1)[-1] for path in paths})
            raise ArchitectureError(
                "no_such_module", family=model.family, name=f"{name:.60}", hint=f"it has {', '.join(known)}"
            )
