"""The state of a model that, with the arguments, determines the products of a pass, and that may change between passes:
trained parameters, recomputed layers, active adapters, the number of layers, the size of the vocabulary, the attention
kernel, replaced modules. Content is not read."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from itertools import chain, cycle
from operator import attrgetter
from typing import Any

import torch
from torch.nn import ModuleList, Parameter
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flopsd.integrations.describe_model import size_of

_LAYERS, _ATTENTION, _VOCABULARY = "num_hidden_layers", "_attn_implementation_internal", "vocab_size"
_SAMPLED = 8  # parameters that each pass looks for in their modules, in turn: all would take thrice the time
_FLAT = "_params"  # of a flat parameter of FSDP 1: those in it
_is_trained, _is_checkpointed = attrgetter("requires_grad"), attrgetter("gradient_checkpointing")
_GONE = (AttributeError, ReferenceError)  # what a module or parameter that is gone raises
State = tuple[bytes, bytes, object, tuple[object, ...], int]
# Of a parameter: its holder, its name, itself, its elements if it is a matrix, and how many parameters and modules its
# holder has.
_Place = tuple[Callable[[], Any], str, Callable[[], Any], int | None, int, int]


class ModelState:
    """The state of one model: flags of its parameters and layers, in their order."""

    def __init__(self, model: Any) -> None:
        self._model: Callable[[], Any] = weakref.ref(model)
        # Weak, so that a replaced module is freed. It may live on, for instance in the adapter that replaced it.
        self._holders: list[Callable[[], Any]] = []  # of parameters
        self._parameters: list[Any] = []  # proxies, whose attributes C code reads without a call for each
        self._places: list[_Place] = []
        self._samples: Iterator[list[_Place]] = cycle([[]])
        self.saw_late = False  # that parameters had been replaced, perhaps some passes ago
        self._parents: list[Callable[[], Any]] = []
        self._scripted: list[Callable[[], Any]] = []  # parents in TorchScript, which have no dict of modules
        self._children = 0  # a hash of their identities
        self._checkpointed: list[Any] = []  # proxies
        self._adapted: list[Callable[[], Any]] = []
        self._lists: list[tuple[Callable[[], Any], str]] = []  # of layers: the module that holds a list, and its name
        self._configs: list[dict[str, Any]] = []  # with a number of layers: some models run only so many of theirs
        self._elements = 0  # of all parameters: parameters of another size may have replaced some
        self._kept: State = (b"", b"", (), (), 0)
        self._kept_names: object = None
        self.keep()

    @property
    def key(self) -> tuple[State, object]:
        """Everything that is compared, as a key."""
        return self.now(), self._names()

    def now(self) -> State:
        """The current state: trained parameters, recomputed layers, adapters, layers and number of elements."""
        for _ in range(2):
            try:
                return (
                    bytes(map(_is_trained, self._parameters)),
                    self._recomputed(),
                    self.adapters(),
                    self.layers(),
                    self._elements,
                )
            except _GONE:
                self._find()
        return b"", b"", (), (), 0

    def _recomputed(self) -> bytes:
        """Which layers recompute now."""
        layers = self._checkpointed
        if not any(map(_is_checkpointed, layers)):
            return bytes(len(layers))
        return bytes([bool(one.gradient_checkpointing and one.training) for one in layers])

    def adapters(self) -> object:
        """The adapters that the first PEFT layer uses: PEFT switches all layers together."""
        return tuple([_adapters(one()) for one in self._adapted])

    def layers(self) -> tuple[object, ...]:
        """The number of layers, how many of them the model runs, its vocabulary size and its attention kernel."""
        return (
            tuple([len(_modules_of(_modules_of(one()).get(name))) for one, name in self._lists]),
            tuple([(str(one.get(_LAYERS)), str(one.get(_VOCABULARY))) for one in self._configs]),
            tuple([str(one.get(_ATTENTION)) for one in self._configs]),
        )

    def lists(self) -> Iterator[tuple[Any, list[Any]]]:
        """The lists of layers: the module that holds each, and those of its layers that the model must run."""
        for one, name in self._lists:
            if (holder := one()) is not None and (layers := getattr(holder, name, None)):
                sizes = getattr(getattr(holder, "config", None), "__dict__", {})
                yield holder, list(layers)[: sizes.get(_LAYERS)]

    def of(self, model: Any) -> ModelState:
        """The same state for `model`, after it was that of a wrapper around `model`."""
        found = ModelState(model)
        found._kept, found._kept_names = self._kept, self._kept_names
        return found

    def has_changed(self, *, trains: bool) -> bool:
        """Whether the state differs from the kept one. For a pass without gradients only the names of the adapters, the
        layers and the sizes count: adapters may be switched off for it."""
        try:
            if self._children == _children(self._parents, self._scripted):
                self.saw_late = False
                sample = next(self._samples)
                if True in map(_is_other_size, sample):
                    self.saw_late = True
                    self._find()
                    return True
                if not trains:
                    return self._names() != self._kept_names
                # Replaced parameters may live on, for instance in the optimizer. Mostly all of a model are replaced.
                if True in map(_is_replaced, sample):
                    self.saw_late = not all(map(_is_replaced, self._places))
                    self._find_parameters()
                return self.now() != self._kept
        except _GONE:
            pass
        self._find()
        return True

    def keep(self, *, is_known: bool = False) -> frozenset[str]:
        """Keep the current state. Unless it `is_known`, the model may have new modules, such as adapters. Return
        which of `recomputation` and `attention` changed: a training may have declared other facts than it shows."""
        self.saw_late = False
        if not is_known:
            self._find()
        _, checkpointed, _, layers, _ = self._kept
        self._kept, self._kept_names = self.now(), self._names()
        changed = {"recomputation": checkpointed != self._kept[1], "attention": layers[2:] != self._kept[3][2:]}
        return frozenset(name for name, is_other in changed.items() if is_other)

    @property
    def trains_any(self) -> bool:
        """Whether any parameter was trained in the kept state."""
        return any(self._kept[0])

    @property
    def lost_some(self) -> bool:
        """Whether parameters were replaced unseen: some, not all, by trained ones for frozen ones, or the reverse, or
        any by those of another size; or whether some were added."""
        pairs: list[tuple[Any, Any]] = [
            (getattr(one(), "_parameters", {}).get(name), held()) for one, name, held, *_ in self._places
        ]
        others = [isinstance(now, Parameter) and now is not held for now, held in pairs]
        trained = zip(others, pairs, self._kept[0], strict=False)
        is_other_size = any(place[0]() is not None and _is_other_size(place) for place in self._places)
        is_trained = any(other and now.requires_grad != flag for other, (now, _), flag in trained)
        return is_other_size or (is_trained and not all(others))

    @property
    def still_trained(self) -> int:
        """Elements of the parameters that were trained in the kept state and are trained now."""
        held = [getattr(one(), "_parameters", {}).get(name) for one, name, *_ in self._places]
        pairs = zip(held, self._kept[0], strict=False)
        return sum(now.numel() for now, flag in pairs if flag and now is not None and now.requires_grad)

    @property
    def lost_elements(self) -> int:
        """How many elements fewer the parameters have than in the kept state."""
        model = self._model()
        return 0 if model is None else max(0, self._kept[4] - sum(one.numel() for one in model.parameters()))

    @property
    def is_given_weights(self) -> bool:
        """Whether other tensors stand in place of parameters now, as in `torch.func.functional_call`."""
        return any(not isinstance(held, Parameter) and not hasattr(held._base, _FLAT) for held in self._held())

    @property
    def has_mixed_flat(self) -> bool:
        """Whether FSDP 1 keeps frozen and trained weights in one flat parameter: all of them get gradients."""
        modules = () if (model := self._model()) is None else model.modules()
        flat = [*(getattr(one, "_flat_param", None) for one in modules), *(held._base for held in self._held())]
        return any(len({weight.requires_grad for weight in getattr(one, _FLAT, None) or ()}) > 1 for one in flat)

    def _held(self) -> Iterator[Any]:
        """The parameters, or what stands in their place now."""
        held = (one for module in self._holders for one in getattr(module(), "_parameters", {}).values())
        return (one for one in held if one is not None)

    def _names(self) -> object:
        return tuple([str(getattr(one(), "_active_adapter", None)) for one in self._adapted]), self.layers()

    def _find(self) -> None:
        if (model := self._model()) is None:
            return
        holders = [one for one in model.modules() if any(held is not None for held in one._parameters.values())]
        parents = [one for one in model.modules() if one._modules]
        self._holders = list(map(weakref.ref, holders))
        self._parents = [weakref.ref(one) for one in parents if isinstance(one._modules, dict)]
        self._scripted = [weakref.ref(one) for one in parents if not isinstance(one._modules, dict)]
        self._children = _children(self._parents, self._scripted)
        self._find_parameters()
        adapted = [one for one in model.modules() if hasattr(one, "_disable_adapters")]
        self._adapted = [weakref.ref(one) for one in adapted[:1]]
        self._checkpointed = [weakref.proxy(one) for one in model.modules() if hasattr(one, "gradient_checkpointing")]
        within: set[int] = set()  # modules inside layers: their lists hold parts of a layer, such as experts
        self._lists, configs = [], {}
        for one in model.modules():
            config = getattr(one, "config", None)
            if _LAYERS in getattr(config, "__dict__", ()):
                configs[id(config)] = vars(config)
            if id(one) in within:
                continue
            for name, part in one.named_children():
                if isinstance(part, ModuleList):
                    self._lists.append((weakref.ref(one), name))
                    within.update(id(inner) for inner in part.modules())
        self._configs = list(configs.values())

    def _find_parameters(self) -> None:
        places = self._places = []
        self._parameters = []
        for holder in self._holders:
            one = holder()
            counts = len(one._parameters), len(one._modules)
            for name, held in one._parameters.items():
                if held is None:
                    continue
                size = size_of(held) if held.dim() > 1 else None
                if is_plain(held):
                    places.append((holder, name, weakref.ref(held), size, *counts))
                    self._parameters.append(weakref.proxy(held))
                else:
                    places.append((holder, name, found := _Held(holder, name), size, *counts))
                    self._parameters.append(found)
        step = len(places) // _SAMPLED + 1
        self._samples = cycle([places[at::step] for at in range(step)])
        self._elements = sum(one.numel() for one in model.parameters()) if (model := self._model()) is not None else 0


def _is_replaced(place: _Place) -> bool:
    return place[0]()._parameters.get(place[1]) is not place[2]()


def _is_other_size(place: _Place) -> bool:
    """Whether a parameter has another size, or its holder further parameters or modules."""
    holder, name, _, size, parameters, modules = place
    one = holder()
    held = one._parameters.get(name)
    if len(one._parameters) > parameters or len(one._modules) > modules:
        return True
    # What is sharded has another shape.
    if held is None or size is None or held.dim() < 2 or (elements := held.numel()) == size or not elements:
        return False
    return size_of(held) != size


def is_plain(parameter: Any) -> bool:
    """Whether a parameter may have weak references: PyTorch cannot convert a module whose parameters have any, if it
    swaps them, as it does with distributed ones."""
    return not (is_traceable_wrapper_subclass(parameter) or torch.__future__.get_swap_module_params_on_conversion())


class _Held:
    """The parameter of that name that a module holds now."""

    __slots__ = ("_holder", "_name")

    def __init__(self, holder: Callable[[], Any], name: str) -> None:
        self._holder, self._name = holder, name

    def __call__(self) -> Any:
        return getattr(self._holder(), "_parameters", {}).get(self._name)

    @property
    def requires_grad(self) -> Any:
        return self().requires_grad


def _children(parents: list[Callable[[], Any]], scripted: list[Callable[[], Any]]) -> int:
    # One call lists the values of all dicts, which a training may also write to directly.
    found = gc.get_referents(*[one()._modules for one in parents])
    return hash((*found, *chain.from_iterable([one()._modules.values() for one in scripted])))


def _modules_of(module: Any) -> Any:
    return getattr(module, "_modules", {})


def _adapters(layer: Any) -> object:
    names = ("_disable_adapters", "_active_adapter", "merged_adapters")
    return tuple([str(getattr(layer, name, None)) for name in names])
