"""PEFT's adapters: LoRA adapters as facts, and the kinds of adapters whose work flopsd does not compute.

Some of these kinds multiply a new matrix in each pass, others add tokens to the model's input, so no upper bound for a
training with them follows from sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flopsd.core.declared_facts import MAX_MODULES

_COMPUTED = frozenset({"LORA", "ADALORA", "IA3", "LN_TUNING", "TRAINABLE_TOKENS"})
# PEFT modules that multiply LoRA's two matrices with each other in each pass.
_MERGING = frozenset({"ParamWrapper", "MultiheadAttention"})
# Variants of LoRA with at least all of its products. Others may have fewer: aLoRA leaves tokens out.
_WITH_ALL_PRODUCTS = ("Dora", "Monteclora", "Velora")


def not_computed(model: Any) -> dict[str, list[str]] | None:
    """The fact `not_counted` for a model's adapters; None if the work of all of them is computed."""
    kinds = sorted({*_types(model), *_variants(model)})
    return {"train": [f"adapters of the kind {kind}" for kind in kinds]} if kinds else None


def _has_lora_products(layer: Any) -> bool:
    """Whether a LoRA layer multiplies each token at least with both of its matrices."""
    variants = getattr(layer, "lora_variant", None) or {}
    return all(type(one).__name__.startswith(_WITH_ALL_PRODUCTS) for one in variants.values())


def _types(model: Any) -> Iterator[str]:
    configs = getattr(model, "peft_config", None)
    for config in configs.values() if isinstance(configs, Mapping) else ():
        kind = getattr(config, "peft_type", None)
        name = str(getattr(kind, "value", kind))
        if name not in _COMPUTED:
            yield name


def _variants(model: Any) -> Iterator[str]:
    """LoRA with more products than two matrices next to a layer's own, such as DoRA, and trained tokens of a head."""
    for module in model.modules():
        if type(module).__name__ == "TrainableTokensLayer" and hasattr(module.base_layer, "out_features"):
            yield "trained tokens of a head"  # the gradients of all the head's weights are computed
        if not hasattr(module, "lora_A"):
            continue
        if type(module).__name__ in _MERGING:
            yield f"LoRA by {type(module).__name__}"
        if (variants := getattr(module, "lora_variant", None)) is not None:
            yield from (f"LoRA by {type(variant).__name__}" for variant in variants.values())
        elif any((getattr(module, "use_dora", None) or {}).values()):  # PEFT before it had variants
            yield "LoRA by DoRA"


def lora(model: Any) -> dict[str, Any] | None:
    """The rank and target modules of the active LoRA adapters; None if there are none, if ranks differ, if some are
    frozen and other weights trained, if a module that PEFT copied is inside another one, or if they may have fewer
    products than their sizes imply. Adapters on weights of experts, which PEFT merges in each pass, are left out, since
    no module name covers them: `not_computed` reports them."""
    ranks: set[int] = set()
    targets: set[str] = set()
    others: set[str] = set()
    trained: set[bool] = set()
    saved: set[str] = set()  # existing modules only: PEFT's configuration also lists the heads of other models
    copied: set[str] = set()
    for name, module in model.named_modules():
        if _is_on_experts(module):
            continue
        if hasattr(module, "lora_A") and hasattr(module, "r"):
            if not _has_lora_products(module):
                return None
            active = _active_ranks(module)
            (targets if active else others).add(name)
            ranks |= active
            trained |= set(_are_trained(module)) if active else set()
        elif hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
            if name.rpartition(".")[0] in copied:
                return None  # the outer wrapper runs a copy of its own of the inner module, which is frozen
            copied.add(name)
            if any(parameter.dim() > 1 for parameter in module.original_module.parameters()):
                saved.add(name.rpartition(".")[2])
        elif len(getattr(weight_of(module), "shape", ())) > 1:
            others.add(name)
    is_other_trained = trained == {False} and any(parameter.requires_grad for parameter in model.parameters())
    if len(ranks) != 1 or len(trained) > 1 or is_other_trained:
        return None
    return {"r": ranks.pop(), "target_modules": _names(targets, others), "modules_to_save": sorted(saved) or None}


def _is_on_experts(module: Any) -> bool:
    """Whether a module adapts a parameter that holds the matrices of several experts."""
    get_param = getattr(module, "get_param", None) if hasattr(module, "lora_A") else None
    return get_param is not None and len(getattr(get_param(), "ds_shape", get_param().shape)) > 2


def _active_ranks(module: Any) -> set[int]:
    """The ranks of a layer's adapters with products of their own: merged or disabled adapters have none."""
    if getattr(module, "merged_adapters", None) or getattr(module, "disable_adapters", False):
        return set()
    if not isinstance(module.r, Mapping):
        return {module.r}
    active = getattr(module, "active_adapters", module.r)
    return {rank for name, rank in module.r.items() if name in active}


def _are_trained(module: Any) -> Iterator[bool]:
    """Whether each matrix of a layer's active adapters is trained."""
    active = getattr(module, "active_adapters", ())
    for name, parameter in module.named_parameters():
        parts = name.split(".")
        if parts[0].startswith("lora_") and parts[1] in active:
            yield bool(parameter.requires_grad)


def _names(targets: set[str], others: set[str]) -> list[str]:
    """For each target the shortest end of its path that no module outside the targets shares; if there are too many,
    the last part of each path."""
    # Inside an adapter's own module are its base layer and its matrices.
    apart = {path for path in others if not any(path.startswith(f"{target}.") for target in targets)}
    taken = {suffix for path in apart for suffix in _suffixes(path)}
    found = {next((suffix for suffix in _suffixes(path) if suffix not in taken), path) for path in targets}
    return sorted(found if len(found) <= MAX_MODULES else {path.rpartition(".")[2] for path in targets})


def _suffixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]


def weight_of(module: Any) -> Any:
    """The weight that the module holds; None if it has none, or if a parametrization computes it. Reading a computed
    weight would run the parametrization, and spectral normalization takes a step each time."""
    for held in (getattr(module, "_parameters", {}), getattr(module, "_buffers", {}), vars(module)):
        if (weight := held.get("weight")) is not None:
            return weight
    return None
