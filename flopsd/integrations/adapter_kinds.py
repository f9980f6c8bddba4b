"""Adapters that flopsd does not compute: those of PEFT beside plain LoRA and what only scales.

Some multiply a new matrix for each pass, some have the model pass more tokens than it is given, so what a training
needs with them at most does not follow from sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COMPUTED = frozenset({"LORA", "ADALORA", "IA3", "LN_TUNING", "TRAINABLE_TOKENS"})
# Modules of PEFT with the matrices of LoRA that multiply these with each other in each pass.
_MERGING = frozenset({"ParamWrapper", "MultiheadAttention"})
# Variants of LoRA with all of its products, and more. Others may have fewer: that of aLoRA leaves tokens out.
_WITH_ALL_PRODUCTS = ("Dora", "Monteclora", "Velora")


def not_computed(model: Any) -> dict[str, list[str]] | None:
    """For the fact `not_counted`; None where all adapters of the model are computed."""
    kinds = sorted({*_types(model), *_variants(model)})
    return {"train": [f"adapters of the kind {kind}" for kind in kinds]} if kinds else None


def has_lora_products(layer: Any) -> bool:
    """Whether a layer of LoRA multiplies each token with both of its matrices at least."""
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
    """LoRA that is more than two matrices beside one, such as DoRA, and what makes the weights of a head."""
    for module in model.modules():
        if type(module).__name__ == "TrainableTokensLayer" and hasattr(module.base_layer, "out_features"):
            yield "trained tokens of a head"  # of which the gradient of all its weights is computed
        if not hasattr(module, "lora_A"):
            continue
        if type(module).__name__ in _MERGING:
            yield f"LoRA by {type(module).__name__}"
        if (variants := getattr(module, "lora_variant", None)) is not None:
            yield from (f"LoRA by {type(variant).__name__}" for variant in variants.values())
        elif any((getattr(module, "use_dora", None) or {}).values()):  # of PEFT before it had variants
            yield "LoRA by DoRA"
