"""What decides which products a pass of a model has beside its arguments, and may change between two passes: which
parameters are trained, which layers are computed again, which adapters are active, how many layers there are, how large
the vocabulary is, which kernel computes attention, whether modules were replaced. Content is not read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from torch.nn import ModuleList, Parameter

_LAYERS, _ATTENTION, _VOCABULARY = "num_hidden_layers", "_attn_implementation_internal", "vocab_size"
State = tuple[bytes, bytes, object, tuple[object, ...], int]


class ModelState:
    """Of one model. Flags of parameters and layers, in their order."""

    def __init__(self, model: Any) -> None:
        self._model: Callable[[], Any] = weakref.ref(model)
        # Weak, so that a parameter that was replaced, such as by a shard of it, is freed.
        self._parameters: list[Callable[[], Any]] = []
        self._checkpointed: list[Callable[[], Any]] = []
        # Modules in whose place others came: their parameters may live on, such as in the optimizer.
        self._holders: list[Callable[[], Any]] = []
        self._gone: list[object] = []
        self._adapted: list[Callable[[], Any]] = []
        self._lists: list[tuple[Callable[[], Any], str]] = []  # of layers: the module that holds one, and its name
        self._configs: list[dict[str, Any]] = []  # with a number of layers, of which some models run so many alone
        self._elements = 0  # of all parameters: others than before may have come in the place of some that are gone
        self._kept: State = (b"", b"", (), (), 0)
        self._kept_names: object = None
        self.keep()

    @property
    def key(self) -> tuple[State, object]:
        """All that is compared, to know it again."""
        return self.now(), self._names()

    def now(self) -> State:
        """Parameters that are trained, layers that are computed again in the backward pass, and adapters."""
        if self._gone:
            self._find()
        for _ in range(2):
            with suppress(AttributeError):  # one is gone
                return (
                    bytes([one().requires_grad for one in self._parameters]),
                    bytes([bool(one().gradient_checkpointing) for one in self._checkpointed]),
                    self.adapters(),
                    self.layers(),
                    self._elements,
                )
            self._find()
        return b"", b"", (), (), 0

    def adapters(self) -> object:
        """Which adapters the first layer of PEFT uses: PEFT switches all of them together."""
        return tuple([_adapters(one()) for one in self._adapted])

    def layers(self) -> tuple[object, ...]:
        """How many layers there are, how many of them the model runs, the size of its vocabulary, and by which kernel
        attention is computed."""
        return (
            tuple([len(getattr(one(), "_modules", {}).get(name) or ()) for one, name in self._lists]),
            tuple([(str(one.get(_LAYERS)), str(one.get(_VOCABULARY))) for one in self._configs]),
            tuple([str(one.get(_ATTENTION)) for one in self._configs]),
        )

    def lists(self) -> Iterator[tuple[Any, list[Any]]]:
        """Those of layers: the module that holds one, and of its layers those that the model runs for certain."""
        for one, name in self._lists:
            if (holder := one()) is not None and (layers := getattr(holder, name, None)):
                sizes = getattr(getattr(holder, "config", None), "__dict__", {})
                yield holder, list(layers)[: sizes.get(_LAYERS)]

    def of(self, model: Any) -> ModelState:
        """The same of `model`, of which it was so far that of a wrapper."""
        found = ModelState(model)
        found._kept, found._kept_names = self._kept, self._kept_names
        return found

    def has_changed(self, *, trains: bool) -> bool:
        """Whether it is other than what was kept. A pass without gradients differs by the names of the adapters alone,
        which may be switched off meanwhile."""
        return bool(self._gone) or (self.now() != self._kept if trains else self._names() != self._kept_names)

    def keep(self, *, is_known: bool = False) -> frozenset[str]:
        """Keep what it is now. The model may have other modules now, such as adapters, unless it `is_known`. Which
        facts have changed, of those that a training may have declared otherwise than the model shows them."""
        if not is_known:
            self._find()
        _, checkpointed, _, layers, _ = self._kept
        self._kept, self._kept_names = self.now(), self._names()
        changed = {"recomputation": checkpointed != self._kept[1], "attention": layers[2:] != self._kept[3][2:]}
        return frozenset(name for name, is_other in changed.items() if is_other)

    @property
    def trains_any(self) -> bool:
        """Whether any parameter was trained when it was kept."""
        return any(self._kept[0])

    @property
    def is_given_weights(self) -> bool:
        """Whether a pass has others in the place of parameters, as `torch.func.functional_call` puts them there."""
        held = (one for module in self._holders for one in getattr(module(), "_parameters", {}).values())
        return any(one is not None and not isinstance(one, Parameter) for one in held)

    def _names(self) -> object:
        return tuple([str(getattr(one(), "_active_adapter", None)) for one in self._adapted]), self.layers()

    def _find(self) -> None:
        if (model := self._model()) is None:
            return
        self._gone = []
        holders = [one for one in model.modules() if any(one is not None for one in one._parameters.values())]
        self._holders = [weakref.ref(one, self._gone.append) for one in holders]
        self._parameters = [weakref.ref(one) for one in model.parameters()]
        self._elements = sum(one.numel() for one in model.parameters())
        adapted = [one for one in model.modules() if hasattr(one, "_disable_adapters")]
        self._adapted = [weakref.ref(one) for one in adapted[:1]]
        self._checkpointed = [weakref.ref(one) for one in model.modules() if hasattr(one, "gradient_checkpointing")]
        within: set[int] = set()  # lists in these are of parts of a layer, such as of experts
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


def _adapters(layer: Any) -> object:
    names = ("_disable_adapters", "_active_adapter", "merged_adapters")
    return tuple([str(getattr(layer, name, None)) for name in names])
