"""The floating-point operations of one PyTorch operator, by its schema and the shapes of its arguments.

Matrix products, convolutions and attention count, with 2 for a multiply-add, as in `torch.utils.flop_counter`.
Everything else, such as sums, norms and activations, counts nothing, so the result is a lower bound. If a kernel may
skip work, only the work that it cannot skip counts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import conv_flop_count, flop_registry

from flopsd.integrations.modules.products import tensors_in

Named = Mapping[str, Any]  # the arguments of a call by the names of its schema
Product = Callable[[Named, Any], int]
_Call = Callable[[Sequence[Any], Named, Any], "Formula"]
# Namespaces whose operators have no products, or call other operators that are seen on their own.
_WITHOUT_PRODUCTS = frozenset(
    {"aten", "prim", "prims", "profiler", "c10d", "_c10d_functional", "c10d_functional", "_dtensor", "fsdp", "inductor",
     "rngprims", "debugprims", "streams", "bitsandbytes"}
)  # fmt: skip
# Beginnings of names in aten: operators that have products, but no formula here.
_UNKNOWN = (
    "linalg_", "_linalg_", "fft_", "_fft_", "cholesky", "lu_", "triangular_solve", "_trilinear", "_cdist_", "_sparse_",
    "sparse_", "_transformer_encoder", "_native_multi_head", "mkldnn_rnn", "_cudnn_rnn", "miopen_", "_thnn_conv",
    "_convolution_double", "_dyn_quant_matmul", "_cslt_sparse_mm", "_foreach_mm", "_mixed_dtypes_linear", "_spsolve",
    "hspmm", "sspaddmm", "vdot", "ormqr", "geqrf", "conv_tbc", "conv_depthwise", "_conv_depthwise", "slow_conv",
    "_slow_conv2d_backward", "_nnpack_", "cudnn_convolution_", "mkldnn_convolution",
)  # fmt: skip
_NORMS = frozenset({"linalg_vector_norm", "linalg_cross", "_linalg_check_errors"})
_CONVOLUTIONS = frozenset(
    {"convolution", "_convolution", "cudnn_convolution", "_slow_conv2d_forward", "convolution_overrideable"}
)
_SPARSE = frozenset(
    {torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
)  # the shape does not show how many elements are multiplied
_VARLEN = "attention between documents of several lengths is counted at one pair a token"
# Tensor arguments of attention kernels that hold the ends of documents, or the filled length of a cache.
_LENGTHS = re.compile("seqlen|seq_len|seqstart|seqused|cum_seq|leftpad|block_table|page_table")
_FAST = "convolutions are not counted, since cuDNN may compute them with fewer operations"


class Formula:
    """The count of one call: its `flop`, a text on uncounted work, and `spare`, the part of `flop` that a call with the
    same shapes but without a mask would not count."""

    __slots__ = ("flop", "spare", "words")

    def __init__(self, flop: int, words: str | None = None, spare: int = 0) -> None:
        self.flop, self.words, self.spare = flop, words, spare


NOTHING = Formula(0)


def formula_of(operator: Any, arguments: Sequence[Any], named: Named, output: Any) -> Formula:
    """The count of a call of `operator`, an OpOverload."""
    found = _formula(operator)
    return found if isinstance(found, Formula) else found(arguments, named, output)


@functools.cache  # called for every operator of a pass, a few hundred different ones
def _formula(operator: Any) -> Formula | _Call:
    """The count of any call of `operator`, or a function that computes it from the arguments of a call."""
    schema = operator._schema
    space, _, name = schema.name.partition("::")
    name = name.rstrip("_")  # in place
    if name in _PRODUCTS:
        return functools.partial(_product, _PRODUCTS[name], schema)
    if name in _CONVOLUTIONS or name == "convolution_backward":
        return lambda arguments, named, output: _convolution(name, _by_name(schema, arguments, named), output)
    unknown = Formula(0, f"{space}::{name} has no formula")
    if space == "aten" and name.startswith(_UNKNOWN) and name not in _NORMS:
        return unknown
    if "attention" in name or "flash_attn" in space:
        names = {argument.name for argument in schema.arguments}
        of = [next((one for one in (word, word[0]) if one in names), "") for word in ("query", "key", "value")]
        if all(of):
            return functools.partial(_attention_of, name, schema, of)
    if (registered := flop_registry.get(operator._overloadpacket)) is not None:  # newer PyTorch registers more
        return lambda arguments, named, output: Formula(int(registered(*arguments, **named, out_val=output)))
    return NOTHING if space in _WITHOUT_PRODUCTS else unknown


def _product(product: Product, schema: Any, arguments: Sequence[Any], named: Named, output: Any) -> Formula:
    tensors = list(tensors_in(arguments, named))
    if any(tensor.is_nested or tensor.layout in _SPARSE for tensor in tensors):
        return Formula(0, "products of sparse or nested tensors have no formula")
    if any(tensor.dtype.is_floating_point or tensor.dtype.is_complex for tensor in tensors):
        return Formula(product(_by_name(schema, arguments, named), output))
    return NOTHING  # products of integers are not FLOP


def _attention_of(name: str, schema: Any, of: Sequence[str], arguments: Sequence[Any], named: Named, _: Any) -> Formula:
    by_name = _by_name(schema, arguments, named)
    return _attention(name, by_name, *(by_name[one] for one in of))


def _by_name(schema: Any, arguments: Sequence[Any], named: Named) -> dict[str, Any]:
    found = {argument.name: value for argument, value in zip(schema.arguments, arguments, strict=False)}
    for argument in schema.arguments[len(found) :]:
        default = argument.default_value if argument.has_default_value() else None
        found[argument.name] = named.get(argument.name, default)
    return found


def _two(first: str, second: str) -> Product:
    def product(of: Named, _: Any) -> int:
        shape = of[second].shape
        return 2 * int(of[first].numel()) * int(shape[-1] if len(shape) > 1 else 1)

    return product


def _grouped(of: Named, _: Any) -> int:
    """Concatenated rows of several matrices: `offs` has the end of each; rows after the last end are not computed."""
    ends = of["offs"]
    left, right = ([int(size) for size in of[name].shape] for name in ("self", "mat2"))
    if ends is None:
        return 2 * prod(left) * right[-1]
    rows = int(ends[-1].item()) if ends.numel() else 0
    if len(left) == 2 and len(right) == 3:  # tokens by experts
        return 2 * min(rows, left[0]) * left[1] * right[2]
    if len(left) == 2:  # the gradient of the experts: the sum is over tokens
        return 2 * left[0] * min(rows, left[1]) * right[1]
    return 2 * left[1] * left[2] * min(rows, right[-1])


def _of_output(of: Named, output: Any) -> int:
    """A product with a packed matrix, whose shape does not show its size."""
    return 2 * int(output.numel()) * int(next(iter(of.values())).shape[-1])


def _four_bits(of: Named, _: Any) -> int:
    return 2 * int(of["A"].numel()) * int(of["shapeB"][0])


_PRODUCTS: Mapping[str, Product] = {
    "mm": _two("self", "mat2"),
    "addmm": _two("mat1", "mat2"),
    "_addmm_activation": _two("mat1", "mat2"),
    "bmm": _two("self", "mat2"),
    "baddbmm": _two("batch1", "batch2"),
    "addbmm": _two("batch1", "batch2"),
    "mv": _two("self", "vec"),
    "addmv": _two("mat", "vec"),
    "dot": _two("self", "tensor"),
    "_scaled_mm": _two("self", "mat2"),
    "_scaled_mm_v2": _two("self", "mat2"),
    "_grouped_mm": _grouped,
    "_scaled_grouped_mm": _grouped,
    "_scaled_grouped_mm_v2": _grouped,
    "_weight_int4pack_mm": _of_output,
    "_weight_int4pack_mm_for_cpu": _of_output,
    "_weight_int4pack_mm_with_scales_and_zeros": _of_output,
    "_weight_int8pack_mm": _of_output,
    "_linear_pointwise": _of_output,  # mkldnn
    "gemv_4bit": _four_bits,  # bitsandbytes: its products with 4-bit weights are products of floats
    "gemm_4bit": _four_bits,
}


def _convolution(name: str, of: Named, output: Any) -> Formula:
    source, weight, transposed = of.get("input", of.get("self")), of["weight"], bool(of.get("transposed"))
    filters, steps = weight.shape[2:], of.get("stride") or (1,)
    if source.device.type != "cpu" and prod(filters) > 1 and all(step == 1 for step in steps):
        return Formula(0, _FAST)  # Winograd's and Fourier's algorithms need a stride of 1
    if name != "convolution_backward":
        return Formula(conv_flop_count(source.shape, weight.shape, output.shape, transposed))
    # Each of the two gradients has as many products as the forward pass: each element of a filter at each position.
    forward = conv_flop_count(source.shape, weight.shape, of["grad_output"].shape, transposed)
    return Formula(forward * sum(of["output_mask"][:2]))


def _attention(name: str, of: Named, query: Any, key: Any, value: Any) -> Formula:
    """Attention in one kernel: queries with keys, and weights with values. Its backward pass computes the first product
    again, and two products of gradients for each of the two."""
    first_heads = name.startswith("_scaled_dot_product")
    words: str | None = None
    lengths = [value for name_, value in of.items() if _LENGTHS.search(name_) and isinstance(value, torch.Tensor)]
    if query.dim() == 3 or (lengths and not first_heads):
        heads, pairs = query.shape[-2], min(prod(query.shape[:-2]), prod(key.shape[:-2]))
        words, spare = _VARLEN, 0
    else:
        heads = query.shape[1] if first_heads else query.shape[2]
        length, others = (tensor.shape[2 if first_heads else 1] for tensor in (query, key))
        pairs = query.shape[0] * _pairs(of, length, others)
        masked = any(of.get(mask) is not None for mask in ("attn_mask", "attn_bias", "bias"))
        spare = pairs - query.shape[0] * _causal(min(length, others)) if masked else 0
    width, value_width = query.shape[-1], value.shape[-1]
    if not any(one in of for one in ("grad_out", "grad_out_", "dout", "grad_output")):
        return Formula(2 * heads * pairs * (width + value_width), words, 2 * heads * spare * (width + value_width))
    wanted = of.get("grad_input_mask") or (True, True, True)
    products = width + value_width + width * sum(wanted[:2]) + value_width * wanted[2]
    return Formula(2 * heads * pairs * products, words, 2 * heads * spare * products)


def _pairs(of: Named, length: int, others: int) -> int:
    """The pairs of a query and a key that no kernel can skip. If there are more keys than queries or fewer, causal
    masks may be aligned at either end: the fewer pairs of both count."""
    causal = bool(of.get("is_causal") or of.get("causal") or of.get("custom_mask_type"))
    sides = [of.get("window_size_left"), None if causal else of.get("window_size_right")]
    reach = [side + 1 for side in sides if side is not None and side >= 0]
    reach += [of["window_size"]] if of.get("window_size") else []  # this one includes the query's own position
    if not causal and not reach:
        return length * others
    rows = min(length, others)
    return _causal(rows, min([rows, *reach]))


def _causal(rows: int, window: int | None = None) -> int:
    window = rows if window is None else window
    return window * (window + 1) // 2 + (rows - window) * window
