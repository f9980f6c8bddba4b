"""The number of parameters of a live PyTorch model, packed or sharded ones included. Does not import torch.

Element counts are wrong in two common cases. bitsandbytes packs two 4-bit weights in a byte, and several bytes in an
element (`bnb_4bit_quant_storage=bfloat16`: four weights per element). DeepSpeed ZeRO-3 leaves an empty tensor on each
rank. Both store the true size beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class LiveParameters:
    """Numbers of elements before packing and sharding, tied weights once. `base` leaves out adapters and PEFT's copies
    of modules to save; `total` includes everything."""

    total: int
    trainable: int
    base: int


def count_parameters(model: Any) -> LiveParameters | None:
    """The parameters of a model, or None if they cannot be counted.

    Reads no element, so nothing is transferred and no shard is gathered.
    """
    if not _countable(model):
        return None
    prefix = getattr(getattr(model, "base_model", None), "prefix", None) or "lora_"
    total = trainable = base = 0
    for name, parameter in model.named_parameters():
        size = size_of(parameter)
        if size is None:
            return None
        total += size
        trainable += size if parameter.requires_grad else 0
        base += 0 if _added(name, prefix) else size
    return LiveParameters(total, trainable, base) if total else None


def size_of(parameter: Any) -> int | None:
    """Elements of one parameter before it was packed or sharded; None if unknown."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    if shape is not None:
        return int(prod(shape))
    elements = int(parameter.numel())
    if elements == 0:
        # A parameter that is really empty keeps its shape; the rest of a sharded one is flat.
        whole = getattr(parameter, "ds_numel", None if len(parameter.shape) == 1 else 0)
        if whole is None:
            return None
        elements = int(whole)
    if getattr(parameter, "bnb_quantized", False) and type(parameter).__name__ == "Params4bit":
        elements *= 2 * int(parameter.element_size())
    return elements


def _countable(model: Any) -> bool:
    config = getattr(model, "config", None)
    packing = getattr(config, "quantization_config", None)
    method = packing.get("quant_method") if isinstance(packing, dict) else getattr(packing, "quant_method", None)
    if packing is not None and str(getattr(method, "value", method)) != "bitsandbytes":
        return False  # others keep weights in buffers
    # FSDP 1 shows slices of a flat tensor; FSDP 2 (DTensor) shows full sizes.
    return not any(hasattr(module, "_fsdp_wrapped_module") for module in model.modules())


def _added(name: str, prefix: str) -> bool:
    parts = name.split(".")
    return "modules_to_save" in parts or any(part.startswith(prefix) for part in parts)
