"""The state of a model between two passes: each way in which PyTorch lets a training change it is noticed."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from tests.train.pytorch import torch

pytestmark = [pytest.mark.training("torch"), pytest.mark.filterwarnings("ignore")]


def _model() -> Any:
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(OrderedDict(a=torch.nn.Linear(3, 3), b=torch.nn.ReLU())) for _ in range(3)]
    model = torch.nn.Module()
    model.layers, model.named = torch.nn.ModuleList(layers), torch.nn.ModuleDict({"x": torch.nn.Linear(3, 3)})
    model.head, model.leaf = torch.nn.Linear(3, 3), torch.nn.Parameter(torch.ones(3))
    model.scripted = _scripted()
    return model


def _scripted() -> Any:
    return torch.jit.script(torch.nn.Sequential(torch.nn.Sequential(torch.nn.ReLU())))


def _linear() -> Any:
    return torch.nn.Linear(3, 3)


def _reassigned(model: Any) -> None:
    model.layers._modules = {**model.layers._modules, "1": torch.nn.Sequential(_linear())}


MODULES: dict[str, Callable[[Any], object]] = {
    "attribute": lambda model: setattr(model, "head", _linear()),
    "attribute within": lambda model: setattr(model.layers[1], "a", _linear()),
    "register_module": lambda model: model.register_module("head", _linear()),
    "add_module": lambda model: model.layers[0].add_module("a", _linear()),
    "set_submodule": lambda model: model.set_submodule("layers.1.a", _linear()),
    "None": lambda model: setattr(model, "head", None),
    "deleted": lambda model: delattr(model, "head"),
    "put in": lambda model: setattr(model, "more", _linear()),
    "item of a dict": lambda model: model._modules.__setitem__("head", _linear()),
    "item of a dict within": lambda model: model.layers[2]._modules.update(a=_linear()),
    "item of a dict of another order": lambda model: model._modules.__setitem__("head", model._modules.pop("head")),
    "popped from a dict": lambda model: model._modules.pop("head"),
    "another dict": _reassigned,
    "another dict of the instance": lambda model: vars(model).update(_modules={**model._modules, "head": _linear()}),
    "item of a list": lambda model: model.layers.__setitem__(1, _linear()),
    "appended": lambda model: model.layers.append(_linear()),
    "inserted": lambda model: model.layers.insert(0, _linear()),
    "popped": lambda model: model.layers.pop(1),
    "deleted from a list": lambda model: model.layers.__delitem__(slice(1, 3)),
    "swapped in a list": lambda model: model.layers._modules.update({"0": model.layers[1], "1": model.layers[0]}),
    "item of a sequence": lambda model: model.layers[1].__setitem__(0, _linear()),
    "deleted from a sequence": lambda model: model.layers[1].__delitem__(1),
    "item of a ModuleDict": lambda model: model.named.update({"x": _linear()}),
    "popped from a ModuleDict": lambda model: model.named.pop("x"),
    "another scripted": lambda model: setattr(model, "scripted", _scripted()),
}


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("way", MODULES)
def test_a_module_put_in_place_of_another_is_noticed_in_the_next_pass(way: str, *, trains: bool) -> None:
    from flopsd.integrations.modules.state import ModelState

    model = _model()
    before = dict(model.named_modules())  # none may be gone: another could have its address
    state = ModelState(model)
    assert not state.has_changed(trains=trains)
    MODULES[way](model)
    assert state.has_changed(trains=trains)
    assert before
    state.keep()
    assert not state.has_changed(trains=trains)


def _frozen() -> Any:
    return torch.nn.Parameter(torch.ones(3, 3), requires_grad=False)


FLAGS: dict[str, Callable[[Any], object]] = {
    "requires_grad": lambda model: setattr(model.head.weight, "requires_grad", False),
    "requires_grad_": lambda model: model.layers[2].a.bias.requires_grad_(False),
    "of a module": lambda model: model.layers[0].requires_grad_(False),
    "detach_": lambda model: model.leaf.detach_(),
}
PARAMETERS: dict[str, Callable[[Any], object]] = {
    "attribute": lambda model: setattr(model.head, "weight", _frozen()),
    "register_parameter": lambda model: model.head.register_parameter("weight", _frozen()),
    "item of a dict": lambda model: model.head._parameters.__setitem__("weight", _frozen()),
    "another dict": lambda model: setattr(model.head, "_parameters", {"weight": _frozen()}),
    "deleted": lambda model: delattr(model.head, "weight"),
    "None": lambda model: setattr(model.head, "weight", None),
    "parametrized": lambda model: torch.nn.utils.parametrize.register_parametrization(
        model.head, "weight", torch.nn.Identity()
    ),
    "assigned": lambda model: model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True),
}


@pytest.mark.parametrize("swaps", [False, True])
@pytest.mark.parametrize("way", FLAGS)
def test_a_parameter_that_is_frozen_is_noticed_in_the_next_pass(way: str, *, swaps: bool) -> None:
    """`swaps`: parameters may have no weak references."""
    import torch

    from flopsd.integrations.modules.state import ModelState

    model = _model()
    torch.__future__.set_swap_module_params_on_conversion(swaps)
    try:
        state = ModelState(model)
        assert not state.has_changed(trains=True)
        FLAGS[way](model)
        assert state.has_changed(trains=True)
        assert not any(map(weakref.getweakrefcount, model.parameters())) or not swaps
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_data_put_in_place_of_a_parameters_is_no_change() -> None:
    from flopsd.integrations.modules.state import ModelState

    model = _model()
    state = ModelState(model)
    for one in model.parameters():
        one.data = one.data.clone()
    assert not state.has_changed(trains=True)
    model.head.weight.data = model.head.weight.data.clone()
    model.head.weight.requires_grad = False
    assert state.has_changed(trains=True)


@pytest.mark.parametrize("lives_on", [True, False])
@pytest.mark.parametrize("way", PARAMETERS)
def test_a_parameter_put_in_place_of_another_is_noticed_within_a_round_of_samples(way: str, *, lives_on: bool) -> None:
    from flopsd.integrations.modules.state import _SAMPLED, ModelState

    model = _model()
    kept = list(model.parameters()) if lives_on else []  # as in the optimizer
    state = ModelState(model)
    passes = len(list(model.parameters())) // _SAMPLED + 1
    assert not any(state.has_changed(trains=True) for _ in range(passes))
    first = state._parameters
    PARAMETERS[way](model)
    found = [state.has_changed(trains=True) or state._parameters is not first for _ in range(passes)]
    assert found[-1]
    assert found[0] or lives_on or way == "parametrized"  # which puts the parameter itself elsewhere
    assert kept or not lives_on


def test_parameters_of_one_later_sample_were_replaced_perhaps_some_passes_ago() -> None:
    """As the same projection of each layer may be."""
    from flopsd.integrations.modules.state import _SAMPLED, ModelState

    layers = torch.nn.ModuleList([_linear() for _ in range(_SAMPLED)])
    state, before = ModelState(layers), list(layers.parameters())
    step = len(before) // _SAMPLED + 1
    for number, (module, name) in enumerate([(one, name) for one in layers for name in ("weight", "bias")]):
        if number % step == 1:
            setattr(module, name, torch.nn.Parameter(torch.ones_like(getattr(module, name)), requires_grad=False))
    assert not state.has_changed(trains=True)
    assert state.has_changed(trains=True)
    assert state.saw_late


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.layers[1], "gradient_checkpointing", True),
        lambda model: model.eval(),  # the first layer, which recomputes
        lambda model: setattr(model.layers[0], "gradient_checkpointing", False),
    ],
)
def test_a_layer_that_recomputes_or_no_longer_does_is_noticed(change: Callable[[Any], object]) -> None:
    from flopsd.integrations.modules.state import ModelState

    model = _model()
    for at, layer in enumerate(model.layers):
        layer.gradient_checkpointing = at == 0
    state = ModelState(model)
    assert not state.has_changed(trains=True)
    change(model)
    assert state.has_changed(trains=True)


def test_the_state_keeps_no_model_module_or_parameter_alive() -> None:
    from flopsd.integrations.modules.state import ModelState

    model = _model()
    state = ModelState(model)
    gone = [weakref.ref(model.head), weakref.ref(model.head.weight), weakref.ref(model), weakref.ref(model.leaf)]
    gc.disable()
    try:
        model.head = None
        assert gone[0]() is gone[1]() is None
        assert state.has_changed(trains=True)
        del model
        assert [one() for one in gone] == [None] * 4
    finally:
        gc.enable()
    assert state.has_changed(trains=True)
