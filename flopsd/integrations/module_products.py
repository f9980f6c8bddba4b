"""How many multiply-adds of rows with weights a module of PyTorch makes in one call, by its kind and by shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch

Products = tuple[int, int, int]  # multiply-adds, rows, and the width of what attention may make of them
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)


def counted_as(module: Any) -> Callable[[Any, Any, Any, Any], Products] | None:
    """How the products of a known kind of module are counted; None: it is of no known kind."""
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
    # Quantized ones keep weights in buffers. One that holds modules, such as PEFT's, leaves the product to them.
    return _of_linear if whole and next(module.children(), None) is None else None


def _of_linear(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    elements, inward, outward = output.numel(), module.in_features, module.out_features
    return elements * inward, elements // outward, min(inward, outward)


def _of_conv1d(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    return output.numel() * module.weight.shape[0], output.numel() // module.nf, min(module.weight.shape)


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
    """Queries, keys, values and the output: `torch.nn.MultiheadAttention` uses its parameters without their modules."""
    given = [named.get(name) for name in ("query", "key", "value")]
    query, key, value = list(arguments[:3]) + given[len(arguments[:3]) :]
    width = module.embed_dim
    rows = query.numel() // width
    return width * (2 * rows * width + key.numel() + value.numel()), rows, width


def _of_recurrent(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    given = arguments[0] if arguments else named["input"]
    source = given if isinstance(given, torch.Tensor) else given.data
    rows = source.numel() // module.input_size
    return rows * sum(p.numel() for p in module.parameters() if p.dim() > 1), rows, 0


def tensors_in(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Iterator[Any]:
    return (one for one in (*arguments, *named.values()) if isinstance(one, torch.Tensor))
