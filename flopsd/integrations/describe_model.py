"""Facts about a Hugging Face model and its training, to declare to flopsd. Unknown facts are left out."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from flopsd.core.architecture import read_model, why_not_read
from flopsd.core.architecture.training import named, within
from flopsd.core.declarations import Method, Recomputation
from flopsd.core.declared_facts import facts_from
from flopsd.integrations.adapters import lora, not_computed

log = logging.getLogger("flopsd.client")
# Long entries that are not part of the architecture.
_LEFT_OUT = ("id2label", "label2id", "task_specific_params", "quantization_config", "transformers_version",
             "_use_default_values")  # fmt: skip


def describe(model: Any, arguments: Any) -> dict[str, Any]:
    """Facts by name, for `Client.declare`; None for an unknown fact. `arguments`: TrainingArguments, or None."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config: Any = getattr(base, "config", None)
    counts = functools.cache(lambda: count_parameters(model) or (None, None))
    finders: dict[str, Callable[[], Any]] = {
        "parameters_total": lambda: counts()[0],
        "parameters_trainable": lambda: counts()[1],
        "method": lambda: method(model, base),
        "lora": lambda: _adapters(model, base),
        "recomputation": lambda: recomputation(model, arguments),
        "not_counted": lambda: not_computed(model),
        "precision": lambda: precision(base, arguments),
        "framework": frameworks,
    }
    if hasattr(config, "to_dict") or isinstance(config, Mapping):
        finders |= {
            "model_config": lambda: config_of(base),
            "model_name": lambda: getattr(config, "_name_or_path", None) or None,
            "model_revision": lambda: getattr(config, "_commit_hash", None),
            "window": lambda: sliding_window(config),
            "attention": lambda: attention(config),
        }
    if arguments is not None:
        finders |= {
            "rank": lambda: getattr(arguments, "process_index", None),
            "local_rank": lambda: getattr(arguments, "local_process_index", None),
            "world_size": lambda: getattr(arguments, "world_size", None),
        }
    facts: dict[str, Any] = {}
    for name, find in finders.items():
        try:
            facts[name] = find()
        except Exception:  # an unusual model: the other facts are still declared
            log.exception("flopsd cannot determine %s of this model and does not declare it", name)
    return facts


def _adapters(model: Any, base: Any) -> dict[str, Any] | None:
    """The facts of LoRA, with the names of the configuration's modules alone: adapters on modules that the training
    added, such as its own head, count among the trained parameters."""
    found = lora(model)
    if found is None or cannot_be_computed(base):
        return found
    read = read_model(facts_from({"model_config": config_of(base)})["model_config"])
    paths = [*(one.path for one in read.linears()), *(one.path for one in read.embeddings)]

    def there(names: Sequence[str], matches: Callable[[str, tuple[str, ...]], bool]) -> list[str]:
        return [name for name in names if any(matches(path, (name,)) for path in paths)]

    saved = there(found["modules_to_save"] or (), within)
    return {**found, "target_modules": there(found["target_modules"], named) or None, "modules_to_save": saved or None}


def frameworks() -> str:
    """The loaded frameworks with their versions."""
    names = ("transformers", "diffusers", "torch", "accelerate", "peft", "trl", "deepspeed", "bitsandbytes")
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)


def attention(config: Any) -> str | None:
    """The attention kernel of the whole model. If parts such as text and images use several, `sdpa`: it may be any."""
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    kernels = {kernel for part in parts if (kernel := getattr(part, "_attn_implementation", None))}
    name = getattr(config, "_attn_implementation", None)
    if kernels:
        name = kernels.pop() if len(kernels) == 1 else "sdpa"
    return re.sub("[^a-z0-9_]", "_", name.lower())[:40] if name else None


def _head(base: Any, config: Any) -> dict[str, Any]:
    """The model's class and labels, which may differ from those saved in its configuration. If another module wraps the
    model and shows its configuration, the class is the inner model's: no class covers what the other module adds."""
    modules = base.modules() if hasattr(base, "modules") else (base,)
    for module in modules:
        if (found := class_of(module)) is not None and getattr(module, "config", None) is config:
            own = {"architectures": [found.__name__], "num_labels": getattr(config, "num_labels", None)}
            is_untied = getattr(config, "tie_word_embeddings", False) and _has_other_head(module)
            return {**own, "tie_word_embeddings": False} if is_untied else own
    return {}


def class_of(module: Any) -> Any:
    """The model's class in transformers; FSDP derives a class from it when it shards the model, and a training may do
    so too. None for any other model, also for a class that a training derived from a family's common base class, which
    has no forward pass."""
    classes: tuple[Any, ...] = type(module).__mro__
    ours = (one for one in classes if one.__module__.startswith("transformers.models.") and hasattr(one, "forward"))
    return next((one for one in ours if getattr(one.forward, "__name__", "") != "_forward_unimplemented"), None)


def called_within(model: Any) -> Any:
    """The transformers model, with its adapters, inside a module of another class that shows its configuration as its
    own: that module may call it more than once, or with other tokens than it gets. Otherwise `model` itself."""
    config = getattr(model, "config", None)
    for module in model.modules() if hasattr(config, "to_dict") else ():
        base = module.get_base_model() if hasattr(module, "get_base_model") else module
        if class_of(base) is not None and getattr(base, "config", None) is config:
            return module
    return model


def _has_other_head(base: Any) -> bool:
    """Whether the head differs in size from the embedding table, for instance because it was replaced."""
    try:
        parts = base.get_input_embeddings(), base.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return False
    if any(part is None or hasattr(part, "parametrizations") for part in parts):
        return False
    weights = [getattr(part, "weight", None) for part in parts]
    sizes = [0 if weight is None else size_of(weight) for weight in weights]
    return None not in sizes and sizes[0] != sizes[1]


def config_of(base: Any) -> dict[str, Any]:
    """The configuration of a model to declare, with the model's actual class."""
    config = base.config
    if isinstance(config, Mapping):  # diffusers' configuration, which names the class only when a model is saved
        return architecture_of({**config, "_class_name": type(base).__name__})
    return architecture_of({**config.to_dict(), **_head(base, config)})


def architecture_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without long entries that are not part of the architecture, at any depth."""
    return {
        name: architecture_of(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _LEFT_OUT
    }


def cannot_be_computed(base: Any) -> bool:
    """Whether flopsd cannot compute the FLOP of a model from its configuration."""
    config: Any = getattr(base, "config", None)
    if not (hasattr(config, "to_dict") or isinstance(config, Mapping)):
        return True
    try:
        return why_not_read(facts_from({"model_config": config_of(base)})["model_config"]) is not None
    except Exception:  # noqa: BLE001 (whatever an unusual configuration raises)
        return True


def method(model: Any, base: Any) -> Method | None:
    """The training method as far as the model shows it. None if all weights are trained and the model was not loaded
    from anywhere, which may be pretraining."""
    if any(hasattr(module, "lora_A") for module in model.modules()):
        marks = ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit")
        quantized = any(getattr(base, mark, False) for mark in marks)
        return Method.QLORA if quantized else Method.LORA
    if not all(parameter.requires_grad for parameter in model.parameters()):
        return Method.PARTIAL
    return Method.FULL if getattr(getattr(base, "config", None), "_name_or_path", None) else None


def recomputation(model: Any, arguments: Any, *, now: bool = False) -> Recomputation | None:
    """Which activations are recomputed in the backward pass, by the current settings of the modules. `now`: in their
    current mode, since layers outside of training mode recompute nothing."""
    if any(map(_is_wrapper, model.modules())):
        return _of_wrappers(model)
    if (getattr(arguments, "fsdp_config", None) or {}).get("activation_checkpointing"):
        return None  # requested, but not applied yet, or never: without FSDP, such as on a CPU, it has no effect
    switches = {name: m for name, m in model.named_modules() if hasattr(m, "gradient_checkpointing")}
    # If a model's layers have the attribute, the model has it too; then the layers decide.
    within = {name: f"{name}." if name else "" for name in switches}
    layers = [m for n, m in switches.items() if not any(o != n and o.startswith(within[n]) for o in switches)]
    if not layers:
        return None
    on = [layer for layer in layers if layer.gradient_checkpointing and (layer.training or not now)]
    if not on:
        return Recomputation.NONE
    functions = (getattr(layer, "_gradient_checkpointing_func", None) for layer in on)
    chosen = any("context_fn" in getattr(function, "keywords", ()) for function in functions)
    return Recomputation.SELECTIVE if chosen or len(on) < len(layers) else Recomputation.FULL


def _is_wrapper(module: Any) -> bool:
    return type(module).__name__ == "CheckpointWrapper"


def _of_wrappers(model: Any) -> Recomputation:
    """The recomputation by PyTorch's own wrappers, which may wrap some layers only, or parts of layers."""
    lists = [list(m.children()) for m in model.modules() if type(m).__name__ == "ModuleList"]
    lists = [layers for layers in lists if any(map(_is_wrapper, layers))]
    whole = bool(lists) and all(_is_wrapper(layer) for layers in lists for layer in layers)
    wrappers = [module for module in model.modules() if _is_wrapper(module)]
    chosen = any("context_fn" in getattr(getattr(one, "checkpoint_fn", None), "keywords", ()) for one in wrappers)
    return Recomputation.FULL if whole and not chosen else Recomputation.SELECTIVE


def precision(base: Any, arguments: Any) -> str | None:
    """The number format of matrix products: autocast's, else that of the weights."""
    import torch

    if getattr(arguments, "bf16", False):
        return "bf16"
    if getattr(arguments, "fp16", False):
        return "fp16"
    dtype = getattr(base, "dtype", None)
    if dtype is torch.float32:
        return None if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}.get(dtype)


def count_parameters(model: Any) -> tuple[int, int] | None:
    """How many parameters a model has and how many are trained, before packing and sharding, tied weights counted once;
    None if they cannot be counted.

    Element counts are wrong in two common cases. bitsandbytes packs two 4-bit weights in a byte, and several bytes in
    an element (`bnb_4bit_quant_storage=bfloat16`: four weights per element). DeepSpeed ZeRO-3 leaves an empty tensor
    on each rank. Both store the true size with the tensor. Reads no element, so nothing is transferred and no shard is
    gathered. Does not import torch.
    """
    if not _countable(model):
        return None
    total = trainable = 0
    for parameter in model.parameters():
        size = size_of(parameter)
        if size is None:
            return None
        total += size
        trainable += size if parameter.requires_grad else 0
    return (total, trainable) if total else None


def size_of(parameter: Any) -> int | None:
    """The number of elements of a parameter before it was packed or sharded; None if unknown."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    if shape is not None:
        return int(prod(shape))
    elements = int(parameter.numel())
    if elements == 0:
        # A parameter that is really empty keeps its shape; what is left of a sharded one is flat.
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


def sliding_window(config: Any) -> int | None:
    """The causal window in tokens of the layers that have one, by the names in Hugging Face's configurations."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    window = getattr(text, "sliding_window", None)
    if hasattr(text, "local_attention"):
        return None  # ModernBERT's reaches to both sides
    if getattr(text, "use_sliding_window", True) is False or isinstance(window, bool) or not isinstance(window, int):
        return None
    return window if window > 0 else None
