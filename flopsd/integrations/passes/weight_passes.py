"""Count the products with weights in a PyTorch model whose architecture flopsd does not read, by hooks on its modules.

    passes = weight_passes_of(model)
    passes.begin(); model(...); passes.end(tokens); forward, backward = passes.take()

A product of n rows with a matrix of weights is n x in x out multiply-adds. The shape of a module's output gives n;
autograd's flags show whether the gradients of the weights and of the rows are needed; a hook on the node that made the
output shows whether the backward pass reaches it. Only shapes and flags are read: no element, no synchronisation with
the device.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from flopsd.core.values import ceil_div
from flopsd.integrations.adapters import weight_of
from flopsd.integrations.describe_model import size_of
from flopsd.integrations.modules.hooks import AttachedHooks
from flopsd.integrations.modules.products import Products, counted_as, tensors_in, tensors_of, ungraded_of_recurrent
from flopsd.integrations.operators.backward import computes_all_gradients, graph_task
from flopsd.integrations.passes.open_passes import is_in_backward
from flopsd.integrations.phase_of import computes_shapes_only

log = logging.getLogger("flopsd.client")
_CHUNKS = ("chunk_size", "mamba_chunk_size", "attention_window", "block_size")
# The chunk of transformers' gated delta rule, which is in no configuration: 64 positions, enlarged for the products of
# each pair that "at most" does not count.
_DELTA_CHUNK = 512
_TABLES = (torch.nn.Embedding, torch.nn.EmbeddingBag)


def weight_passes_of(model: Any) -> WeightPasses | None:
    """Hook the modules of `model`. None if hooks would see nothing, or not all products, or break a compiled graph."""
    if graph_task is None or _is_compiled(model) or int(getattr(model, "tp_size", None) or 1) > 1:
        return None
    passes = WeightPasses(model)
    return passes if passes.hooks else None


class WeightPasses:
    """Sums of one model's products with weights since the last call of `take`. Thread-safe: a backward pass has its own
    threads."""

    def __init__(self, model: Any) -> None:
        self.failed = False
        self._model = weakref.ref(model)  # weak, so that the model is freed with its owner
        self._lock = threading.Lock()
        self._sums: dict[str, int] = defaultdict(int)
        self._backward: dict[str, int] = defaultdict(int)  # sums of backward passes
        self._chunk = _chunk_of(model)
        self._in_training = False  # the pass of the whole model records gradients
        self._rows = self._length = self._pairs = 0  # the maxima over the products of this pass
        self._unplaced = 0  # elements of weights that no called module holds
        self._head = 0  # elements of the head's weights
        self._head_passed = True  # the head's module was called; a fused loss uses its weights without calling it
        self.hooks = AttachedHooks()
        self._attach(model)

    def begin(self) -> None:
        """A forward pass of the whole model begins."""
        self._in_training = torch.is_grad_enabled()
        self._rows = self._length = self._pairs = 0
        self._head_passed = False

    def end(self, tokens: int) -> None:
        """The pass ended. `tokens`: how many passed; 0 if not known."""
        trains, self._in_training = self._in_training, False
        if self.failed or _is_compiled(self._model()):
            return
        rows = max(tokens, self._rows)
        head = 0 if self._head_passed else self._head * rows
        with self._lock:
            self._sums["weight_passes"] += 1
            self._sums["weight_square_pairs"] += self._pairs
            self._sums["other_weight_products"] += head if trains else 0
            self._sums["other_weight_products_max"] += self._unplaced * rows + 2 * head  # twice in a fused loss

    def take(self) -> tuple[dict[str, int], dict[str, int]]:
        """The counters of forward and of backward passes since the last call."""
        with self._lock:
            forward, self._sums = self._sums, defaultdict(int)
            backward, self._backward = self._backward, defaultdict(int)
        return dict(forward), dict(backward)

    def _attach(self, model: Any) -> None:
        held: set[int] = set()  # ids of weights whose products a hooked module counts
        inside: set[int] = set()  # ids of modules whose weights the enclosing module uses itself
        outputs: set[int] = set()
        for module in model.modules():
            if id(module) in inside:
                continue
            count = counted_as(module)
            if count is not None:
                held |= {id(parameter) for parameter in module.parameters()}
                inside |= {id(inner) for inner in module.modules() if inner is not module}
                outputs.add(int(getattr(module, "out_features", 0)))
                self._hook(module, functools.partial(self._count_matrix, count))
        for module in model.modules():
            weights = [p for p in module.parameters(recurse=False) if id(p) not in held and _is_matrix(p)]
            sizes = {id(p): size_of(p) or 0 for p in weights}
            if not weights:
                continue
            if isinstance(module, _TABLES):
                # An embedding is a lookup. Its matrix may also be the head's, unless a module has that.
                head = int(getattr(module, "num_embeddings", 0)) in outputs
                self._unplaced += 0 if head else sum(sizes.values())
            elif isinstance(module, torch.nn.ParameterList | torch.nn.ParameterDict):
                self._unplaced += sum(sizes.values())
            else:
                self._hook(module, functools.partial(self._count_others, weights, sizes))

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
                if not computes_shapes_only(*arguments[1:3]):
                    count(*arguments)
            except Exception:
                self.failed = True
                log.exception("flopsd stops counting the weights of this model; the training goes on")

        self.hooks.after(module, guarded, with_named=True)

    def _count_matrix(
        self, count: Callable[[Any, Any, Any, Any], Products], module: Any, arguments: Any, named: Any, output: Any
    ) -> None:
        if output is None:  # an error, such as the one that ends a recomputation early
            return
        is_recurrent = isinstance(module, torch.nn.RNNBase)
        if not isinstance(output, torch.Tensor) and not is_recurrent:
            output = next(tensors_of(output))  # the others are a bias that is added later, or a scale
        products, rows, width = count(module, arguments, named, output)
        source = arguments[0] if arguments else None
        if not isinstance(source, torch.Tensor):
            source = next(tensors_of((*arguments, *named.values())), None)
        weight = weight_of(module)
        trains = bool(getattr(weight, "requires_grad", False)) or (
            weight is None and any(p.requires_grad for p in module.parameters())
        )
        grades = bool(
            output.requires_grad if source is None and not trains else getattr(source, "requires_grad", False)
        )
        pairs = self._longest(rows, output if isinstance(output, torch.Tensor) else source) if width else 0
        self._add(products, pairs * width)
        graded = products if grades else 0
        if is_recurrent and (grades or all(p.requires_grad for p in module.parameters())):
            without, perhaps = ungraded_of_recurrent(module, arguments, named)
            graded = products - perhaps - (0 if grades else without)
            with self._lock:
                self._sums["other_weight_products_max"] += perhaps
        # A loss may use any of an RNN's states.
        self._follow(output, products if trains else 0, graded, any_result=is_recurrent)

    def _count_others(
        self, weights: list[Any], sizes: Mapping[int, int], _module: Any, arguments: Any, named: Any, output: Any
    ) -> None:
        """Count the weights of a module of an unknown kind: experts by the rows that the router sends to them, other
        weights by the rows of the module's arguments that may be multiplied with them."""
        # A recomputation may end early inside the module: then its last product is not recomputed.
        passed = weights if output is not None else weights[:-1]
        rows = [t for t in tensors_in(arguments, named) if t.is_floating_point() and t.dim() > 1]
        routed = next((t for t in tensors_in(arguments, named) if t.dim() == 2 and not t.is_floating_point()), None)
        trained = graded = 0
        for weight in passed:
            shape, size = tuple(weight.shape), sizes[id(weight)]
            if len(shape) == 3 and routed is not None and rows and len(routed) == rows[0].numel() // rows[0].shape[-1]:
                products = routed.numel() * size // shape[0]
                self._add(products)
                graded += products if rows[0].requires_grad or trained else 0
                trained += products if weight.requires_grad else 0
            elif not is_in_backward():
                fitting = [t.numel() // t.shape[-1] for t in rows if t.shape[-1] in shape]
                with self._lock:
                    self._sums["other_weight_products"] += size * next(iter(fitting), 0)
                    self._sums["other_weight_products_max"] += size * max(sum(fitting), self._rows)
        self._follow(output, trained, graded)

    def _add(self, products: int, pair_products: int = 0) -> None:
        again = is_in_backward()
        with self._lock:
            if again:
                self._backward["recomputed_weight_products"] += products
                return
            self._sums["weight_products"] += products
            if pair_products:
                self._sums["weight_pair_products"] += pair_products

    def _follow(self, output: Any, trained: int, graded: int, *, any_result: bool = False) -> None:
        """Count the gradients of these products when the backward pass reaches the node of `output`: of its first
        tensor, or of any. A backward pass shows that the forward pass was training."""
        if output is None:
            return
        nodes = list(dict.fromkeys(_made_by(one.grad_fn) for one in tensors_of(output) if one.grad_fn is not None))
        nodes = nodes if any_result else nodes[:1]
        last: list[int] | None = [] if len(nodes) > 1 else None
        for node in nodes:
            node.register_prehook(functools.partial(self._add_gradients, trained, graded, last))

    def _add_gradients(
        self, trained: int, graded: int, last: list[int] | None, gradients: Sequence[Any], *_: object
    ) -> None:
        assert graph_task is not None
        if all(one is None for one in gradients):  # a function returned none
            return
        is_whole = computes_all_gradients()
        with self._lock:
            if last is not None:
                if last == (tasks := [graph_task()]):
                    return
                last[:] = tasks
            if not is_whole:  # such as backward(inputs=…) with some weights
                self._backward["other_weight_products_max"] += max(trained, graded)
                return
            self._backward["trained_weight_products"] += trained
            self._backward["graded_weight_products"] += graded

    def _longest(self, rows: int, of: Any) -> int:
        """The pairs of positions that attention may make of these rows; updates the maxima of this pass."""
        shape: Sequence[int] = () if of is None else of.shape
        if len(shape) < 3:  # no batch dimension: the greatest length seen in this pass
            length = self._length or rows
        else:
            batch = shape[0] or 1
            length = max(batch, rows // batch)  # in some models the sequence dimension comes first
            if length > self._length:
                self._length = length
        whole = length
        if length > 1 or self._in_training:  # otherwise it may be a new token with a cached state
            whole = ceil_div(length, self._chunk) * self._chunk  # layers with a state pad each row to whole chunks
        pairs = rows * length if whole == length else ceil_div(rows, length) * whole**2
        if rows > self._rows:
            self._rows = rows
        if pairs > self._pairs:
            self._pairs = pairs
        return pairs


def _made_by(node: Any) -> Any:
    """The node that made the base of a view: an in-place operation, such as a mask, gives the view another node."""
    while "View" in type(node).__name__ and (before := node.next_functions[0][0]) is not None:
        node = before
    return node


def _chunk_of(model: Any) -> int:
    """The number of positions that layers with a state, or with attention to blocks, process at once: they pad rows."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    values = [getattr(text, name, None) for name in _CHUNKS]
    found = [size for of in values for size in (of if isinstance(of, list | tuple) else (of,)) if isinstance(size, int)]
    if isinstance(radius := getattr(text, "local_radius", None), int):
        found.append(3 * (radius + 1))  # a block and its neighbours
    found += [_DELTA_CHUNK for one in model.modules() if "Delta" in type(one).__name__]
    return max(found, default=1) or 1


def _is_matrix(parameter: Any) -> bool:
    """Whether a parameter may be the matrix of a product: vectors, even with extra dimensions of 1, are not."""
    return len([size for size in getattr(parameter, "ds_shape", parameter.shape) if size > 1]) > 1


def _is_compiled(model: Any) -> bool:
    modules = () if model is None else model.modules()
    return any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
