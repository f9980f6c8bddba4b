"""Count the multiply-adds of rows with weights in one call of a PyTorch module, by its kind and by shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch

PARAMETRIZATIONS = "parametrizations"  # the name of the submodule by which PyTorch computes a module's weights
Products = tuple[int, int, int]  # multiply-adds, rows, and the width of attention products of the rows
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)


def counted_as(module: Any) -> Callable[[Any, Any, Any, Any], Products] | None:
    """The function that counts the products of a module; None for an unknown kind of module."""
    if isinstance(module, torch.nn.MultiheadAttention):
        return _of_multihead_attention
    if isinstance(module, torch.nn.RNNBase):
        return _of_recurrent
    if isinstance(module, _CONVOLUTIONS):
        return _of_convolution
    if isinstance(module, _TRANSPOSED):
        return _of_transposed
    if type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int):
        return _of_conv1d
    sizes = [getattr(module, name, None) for name in ("in_features", "out_features")]
    whole = all(isinstance(size, int) and size > 0 for size in sizes)
    # Quantized modules keep weights in buffers. A module that holds others, such as PEFT's, leaves the product to them.
    parts = any(name != PARAMETRIZATIONS for name, _ in module.named_children())
    return _of_linear if whole and not parts else None


def makes_weights(module: Any) -> bool:
    """Whether a module's weights are computed from others in each pass, with products that are not counted here."""
    parametrized = getattr(module, PARAMETRIZATIONS, {})
    made = {type(one).__name__ for of in parametrized.values() for one in of}
    by_hooks = any(type(hook).__name__ == "SpectralNorm" for hook in module._forward_pre_hooks.values())
    return by_hooks or bool(made - {"_WeightNorm"})


def ungraded_of_recurrent(module: Any, arguments: Any, named: Any) -> tuple[int, int]:
    """Products of an RNN whose rows get no gradient: those of the first layer with the input, if the input needs none;
    and those with the initial state, for which only some kernels compute a gradient."""
    source, rows = _input_of_recurrent(module, arguments, named)
    batch = int(source.batch_sizes[0]) if hasattr(source, "batch_sizes") else 1 if source.dim() < 3 else None
    if batch is None:
        batch = source.shape[0 if module.batch_first else 1]
    sizes = {name: p.numel() for name, p in module.named_parameters() if p.dim() > 1}
    first = sum(size for name, size in sizes.items() if name.startswith("weight_ih_l0"))
    return rows * first, batch * sum(size for name, size in sizes.items() if name.startswith("weight_hh"))


def _of_linear(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    elements, inward, outward = output.numel(), module.in_features, module.out_features
    return elements * inward, elements // outward, min(inward, outward)


def _of_conv1d(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    inward = getattr(module, "nx", None) or module.weight.shape[0]
    return output.numel() * inward, output.numel() // module.nf, min(inward, module.nf)


def _of_convolution(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    filters = module.in_channels // module.groups * prod(module.kernel_size)
    point = prod(module.kernel_size) == 1 and module.groups == 1
    width = min(module.in_channels, module.out_channels) if point else 0
    return output.numel() * filters, output.numel() // module.out_channels, width


def _of_transposed(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    source = next(tensors_in(arguments, named))
    filters = module.out_channels // module.groups * prod(module.kernel_size)
    return source.numel() * filters, source.numel() // module.in_channels, 0


def _of_multihead_attention(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    """Queries, keys, values and output: `torch.nn.MultiheadAttention` does not call the modules of its parameters."""
    given = [named.get(name) for name in ("query", "key", "value")]
    query, key, value = list(arguments[:3]) + given[len(arguments[:3]) :]
    width = module.embed_dim
    rows = query.numel() // width
    return width * (2 * rows * width + key.numel() + value.numel()), rows, width


def _of_recurrent(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    _, rows = _input_of_recurrent(module, arguments, named)
    return rows * sum(p.numel() for p in module.parameters() if p.dim() > 1), rows, 0


def _input_of_recurrent(module: Any, arguments: Any, named: Any) -> tuple[Any, int]:
    """The input of an RNN, a tensor or a packed sequence, and its number of rows."""
    given = arguments[0] if arguments else named["input"]
    source = given if isinstance(given, torch.Tensor) else given.data
    return given, source.numel() // module.input_size


def tensors_in(arguments: Sequence[Any], named: Mapping[str, Any]) -> Iterator[Any]:
    """The tensors among the arguments of a call."""
    return (one for one in (*arguments, *named.values()) if isinstance(one, torch.Tensor))


def tensors_of(value: Any, depth: int = 3) -> Iterator[Any]:
    """The tensors in a value, including those in containers up to `depth`."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_of(one, depth - 1)
