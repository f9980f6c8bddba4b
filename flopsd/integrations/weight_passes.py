"""Counts what passes the weights of a PyTorch model whose architecture flopsd does not read, by hooks on its modules.

    passes = weight_passes_of(model)
    passes.begin(); model(...); counters = passes.take()

A product of n rows with a matrix of weights is n x in x out multiply-adds. The shapes of what a module returns give n;
autograd's own flags tell whether the backward pass needs the gradient of the weights and of the rows. Only shapes and
flags are read: no element, no synchronisation with the device.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch

from flopsd.integrations.describe_model import size_of
from flopsd.integrations.inert_hook import Hook

log = logging.getLogger("flopsd.client")
Products = tuple[int, int, int]  # multiply-adds, rows, and the width of what attention may make of them
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
_TABLES = (torch.nn.Embedding, torch.nn.EmbeddingBag)
# The task of autograd that this thread works on: -1 outside of a backward pass.
_graph_task: Callable[[], int] | None = getattr(torch._C, "_current_graph_task_id", None)


def weight_passes_of(model: Any) -> WeightPasses | None:
    """Hooks on the modules of `model`; None where they would see nothing, or not all that passes, or break a compiled
    graph."""
    if _graph_task is None or _is_compiled(model) or int(getattr(model, "tp_size", None) or 1) > 1:
        return None
    passes = WeightPasses(model)
    return passes if passes.has_hooks else None


class WeightPasses:
    """Sums of one model's products with weights since `take` was last called. Thread-safe: a backward pass has threads
    of its own."""

    def __init__(self, model: Any) -> None:
        self.failed = False
        self._model = weakref.ref(model)  # weak, so that it is freed with its owner
        self._lock = threading.Lock()
        self._sums: dict[str, int] = defaultdict(int)
        # By module: passed without gradients in a training pass, which a reentrant checkpoint repeats with them.
        self._owed: dict[int, int] = defaultdict(int)
        self._in_training = False  # the pass of the whole model has gradients
        self._rows = self._length = self._pairs = 0  # the most of one product in this pass
        self._unplaced = 0  # elements of weights that no module which is called holds
        self._head = 0  # weights of the head
        self._head_passed = True  # by its own module; a fused loss uses its weights without it
        self._handles: list[Any] = []
        self._attach(model)

    @property
    def has_hooks(self) -> bool:
        return bool(self._handles)

    def begin(self) -> None:
        """A forward pass of the whole model begins."""
        self._in_training = torch.is_grad_enabled()
        self._rows = self._length = self._pairs = 0
        self._head_passed = False

    def end(self, tokens: int) -> None:
        """It ended; `tokens` passed, where that is known."""
        trains, self._in_training = self._in_training, False
        if self.failed or _is_compiled(self._model()):
            return
        rows = max(tokens, self._rows)
        head = 0 if self._head_passed else self._head * rows
        with self._lock:
            self._sums["weight_passes"] += 1
            self._sums["weight_square_pairs"] += self._pairs
            self._sums["other_weight_products"] += head if trains else 0
            self._sums["other_weight_products_max"] += self._unplaced * rows + 2 * head  # a fused loss has it twice

    def take(self) -> dict[str, int]:
        """The counters since the last call."""
        with self._lock:
            sums, self._sums = self._sums, defaultdict(int)
        return dict(sums)

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _attach(self, model: Any) -> None:
        held: set[int] = set()  # weights that a hooked module accounts for
        inside: set[int] = set()  # modules whose weights the one around them uses itself
        outputs: set[int] = set()
        for module in model.modules():
            if id(module) in inside:
                continue
            count = _counted_as(module)
            if count is not None:
                held |= {id(parameter) for parameter in module.parameters()}
                inside |= {id(inner) for inner in module.modules() if inner is not module}
                outputs.add(int(getattr(module, "out_features", 0)))
                self._hook(module, self._matrix(count))
        for module in model.modules():
            weights = [p for p in module.parameters(recurse=False) if id(p) not in held and _is_matrix(p)]
            sizes = {id(p): size_of(p) or 0 for p in weights}
            if not weights:
                continue
            if isinstance(module, _TABLES):
                # A table is looked up. It may be the head's matrix too, unless a module has that.
                head = int(getattr(module, "num_embeddings", 0)) in outputs
                self._unplaced += 0 if head else sum(sizes.values())
            elif isinstance(module, torch.nn.ParameterList | torch.nn.ParameterDict):
                self._unplaced += sum(sizes.values())
            else:
                self._hook(module, self._others(weights, sizes))

        self._find_head(model)

    def _find_head(self, model: Any) -> None:
        try:
            head = model.get_output_embeddings()
            size = int(head.in_features) * int(head.out_features)
        except (AttributeError, NotImplementedError, TypeError):
            return
        self._head = size
        self._hook(head, self._note_head)

    def _note_head(self, *_: object) -> None:
        self._head_passed = True

    def _hook(self, module: Any, count: Callable[..., None]) -> None:
        def guarded(*arguments: Any) -> None:
            if torch.compiler.is_compiling() or self.failed:
                return
            try:
                count(*arguments)
            except Exception:
                self.failed = True
                log.exception("flopsd stops counting the weights of this model; the training goes on")

        self._handles.append(module.register_forward_hook(Hook(guarded), with_kwargs=True, always_call=True))

    def _matrix(self, count: Callable[[Any, Any, Any, Any], Products]) -> Callable[..., None]:
        def counted(module: Any, arguments: Any, named: Any, output: Any) -> None:
            if output is None:  # an error, such as ends a recomputation early
                return
            products, rows, width = count(module, arguments, named, output)
            source = next(_tensors(arguments, named), None)
            weight = getattr(module, "weight", None)
            trains = bool(getattr(weight, "requires_grad", False)) or (
                weight is None and any(p.requires_grad for p in module.parameters())
            )
            grades = bool(
                output.requires_grad if source is None and not trains else getattr(source, "requires_grad", False)
            )
            self._add(id(module), products, trains, grades)
            if width:
                self._longest(rows, width, output if isinstance(output, torch.Tensor) else source)

        return counted

    def _others(self, weights: list[Any], sizes: Mapping[int, int]) -> Callable[..., None]:
        """Weights that a module of an unknown kind holds: experts by the rows that the router sends, of others what the
        rows of its arguments may pass."""

        def counted(module: Any, arguments: Any, named: Any, output: Any) -> None:  # noqa: ARG001
            # A recomputation may end early within the module: its last product is then not computed again.
            passed = weights if output is not None else weights[:-1]
            rows = [t for t in _tensors(arguments, named) if t.is_floating_point() and t.dim() > 1]
            routed = next((t for t in _tensors(arguments, named) if t.dim() == 2 and not t.is_floating_point()), None)
            trained = False
            for weight in passed:
                shape, size = tuple(weight.shape), sizes[id(weight)]
                fitting = [t.numel() // t.shape[-1] for t in rows if t.shape[-1] in shape]
                if (
                    len(shape) == 3
                    and routed is not None
                    and rows
                    and routed.shape[0] == rows[0].numel() // rows[0].shape[-1]
                ):
                    grades = rows[0].requires_grad or trained
                    self._add(id(weight), routed.numel() * size // shape[0], weight.requires_grad, grades)
                    trained = trained or weight.requires_grad
                elif _graph_task is not None and _graph_task() == -1:
                    with self._lock:
                        self._sums["other_weight_products"] += size * next(iter(fitting), 0)
                        self._sums["other_weight_products_max"] += size * max(sum(fitting), self._rows)

        return counted

    def _add(self, key: int, products: int, trains: bool, grades: bool) -> None:
        assert _graph_task is not None
        backward, gradients = _graph_task() != -1, torch.is_grad_enabled()
        with self._lock:
            if not backward:
                self._sums["weight_products"] += products
                if not gradients and self._in_training:  # as within a reentrant checkpoint, which has them later
                    self._owed[key] += products
            else:
                self._sums["recomputed_weight_products"] += products
                gradients = gradients and self._owed[key] >= products > 0
                self._owed[key] -= products if gradients else 0
            if gradients:
                self._sums["trained_weight_products"] += products if trains else 0
                self._sums["graded_weight_products"] += products if grades else 0

    def _longest(self, rows: int, width: int, of: Any) -> None:
        """Note the pairs of positions that attention may make of these rows."""
        if of is None or of.dim() < 3:  # no batch: of rows that were one before, the longest there
            length = self._length or rows
        else:
            batch = max(1, of.shape[0])
            length = max(batch, rows // batch)  # some have the sequence before the batch
            self._length = max(self._length, length)
        self._rows = max(self._rows, rows)
        self._pairs = max(self._pairs, rows * length)
        if _graph_task is not None and _graph_task() == -1:
            with self._lock:
                self._sums["weight_pair_products"] += rows * length * width


def _counted_as(module: Any) -> Callable[[Any, Any, Any, Any], Products] | None:
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
    width = min(module.in_features, module.out_features)
    return output.numel() * module.in_features, output.numel() // module.out_features, width


def _of_conv1d(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    return output.numel() * module.weight.shape[0], output.numel() // module.nf, min(module.weight.shape)


def _of_convolution(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    filters = module.in_channels // module.groups * prod(module.kernel_size)
    point = prod(module.kernel_size) == 1 and module.groups == 1
    width = min(module.in_channels, module.out_channels) if point else 0
    return output.numel() * filters, output.numel() // module.out_channels, width


def _of_transposed(module: Any, arguments: Any, named: Any, output: Any) -> Products:  # noqa: ARG001
    source = next(_tensors(arguments, named))
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


def _tensors(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Iterator[Any]:
    return (one for one in (*arguments, *named.values()) if isinstance(one, torch.Tensor))


def _is_matrix(parameter: Any) -> bool:
    """Whether a parameter may be the matrix of a product: vectors, and such with leading ones, are not."""
    return len([size for size in getattr(parameter, "ds_shape", parameter.shape) if size > 1]) > 1


def _is_compiled(model: Any) -> bool:
    modules = () if model is None else model.modules()
    return any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
