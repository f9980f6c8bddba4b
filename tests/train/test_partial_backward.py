"""Backward passes for some gradients only are told from whole ones, though autograd is rarely asked about a node."""

from __future__ import annotations

import copy
import io
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.train.pytorch import torch

pytestmark = [pytest.mark.training("torch"), pytest.mark.filterwarnings("ignore")]
LAYERS = 6


class Backward:
    """Backward passes of a stack of layers, and what `PartialBackward` finds of each."""

    def __init__(self, *, asks_always: bool = False) -> None:
        from flopsd.integrations.passes.partial_backward import PartialBackward, _Watched

        class Unwatched(_Watched):
            is_watched = False

        torch.manual_seed(0)
        self.layers = [torch.nn.Linear(4, 4) for _ in range(LAYERS)]
        self.heads = [torch.nn.Linear(4, 4) for _ in range(2)]
        self.asked = self.changes = 0
        self.found_beside = False
        self.partial = PartialBackward(self._see_change)
        check = self.partial._check

        def counted(*arguments: Any, **named: Any) -> Any:
            self.asked += 1
            return check(*arguments, **named)

        self.partial._check = counted  # type: ignore[method-assign]
        if asks_always:
            self.partial._near, self.partial._furthest = Unwatched(), Unwatched()

    def _see_change(self) -> None:
        self.changes += 1

    def run(self, backward: Callable[[Any], object], head: int = 0, beside: Any = None) -> bool:
        """Whether the pass is found to be partial; what `beside` finds is kept in `found_beside`."""
        states = torch.ones(2, 4)
        for layer in [*self.layers, self.heads[head]]:
            states = layer(states).tanh()
        loss, found = states.sum(), dict[int, bool]()

        def begin(*_: object) -> None:
            for at, one in enumerate((self.partial, beside)):
                end = None if one is None else one.begin()
                if end is None:
                    found[at] = True
                else:
                    torch.autograd.Variable._execution_engine.queue_callback(partial(_found, found, at, end))

        loss.grad_fn.register_prehook(begin)
        backward(loss)
        self.found_beside = found[1]
        return found[0]


def _found(found: dict[int, bool], at: int, end: Callable[[], bool]) -> None:
    found[at] = end()


def whole(loss: Any) -> None:
    loss.backward()


def test_a_whole_pass_like_those_before_it_asks_nothing() -> None:
    passes = Backward()
    assert not any(passes.run(whole) for _ in range(64))
    assert passes.asked == passes.changes == 7  # passes 1, 2, 4, …, 64
    assert passes.partial.furthest is passes.layers[0].weight


@pytest.mark.parametrize("before", [1, 2, 4, 6])
@pytest.mark.parametrize("way", ["near", "far", "middle", "grad of near", "grad of both ends", "grad of all"])
def test_a_pass_for_some_gradients_is_partial_between_whole_ones(way: str, before: int) -> None:
    passes = Backward()
    assert not any(passes.run(whole) for _ in range(before))
    near, far, middle = (list(layer.parameters()) for layer in (passes.heads[0], passes.layers[0], passes.layers[3]))
    every = [one for layer in [*passes.layers, passes.heads[0]] for one in layer.parameters()]
    ways: dict[str, Callable[[Any], object]] = {
        "near": lambda loss: loss.backward(inputs=near),
        "far": lambda loss: loss.backward(inputs=far),
        "middle": lambda loss: loss.backward(inputs=middle),
        "grad of near": lambda loss: torch.autograd.grad(loss, near),
        "grad of both ends": lambda loss: torch.autograd.grad(loss, [*near, *far]),
        "grad of all": lambda loss: torch.autograd.grad(loss, every),
    }
    assert passes.run(ways[way]) == (way != "grad of all")  # which runs each product of a whole pass
    assert not passes.run(whole)


def test_random_passes_are_found_as_if_autograd_had_been_asked_when_each_began() -> None:
    """Other heads, frozen and replaced layers, hooks that the training removes, passes for some gradients."""
    for seed in range(25):
        choose, passes = random.Random(seed), Backward()
        asking = Backward(asks_always=True).partial
        for _ in range(60):
            head, change = choose.choice([0, 0, 0, 1]), choose.random()
            layers = [*passes.layers, passes.heads[head]]
            one = choose.choice(layers)
            if change < 0.1:
                one.requires_grad_(choose.random() < 0.7)
            elif change < 0.15:
                one.weight = torch.nn.Parameter(one.weight.detach().clone())
            elif change < 0.2:
                for parameter in one.parameters():
                    (parameter._post_accumulate_grad_hooks or {}).clear()
            trained = [p for layer in layers for p in layer.parameters() if p.requires_grad]
            some = choose.sample(trained, min(len(trained), choose.choice([1, 2, 3, 12])))
            if trained:
                ways: list[Callable[[Any], object]] = [whole, partial(_for_some, some), partial(_returned, some)]
                (way,) = choose.choices(ways, (3, 1, 1))
                assert passes.run(way, head, beside=asking) == passes.found_beside


def _for_some(parameters: list[Any], loss: Any) -> None:
    loss.backward(inputs=parameters)


def _returned(parameters: list[Any], loss: Any) -> None:
    torch.autograd.grad(loss, parameters)


def test_a_weight_that_is_frozen_between_its_passes_can_be_at_either_end() -> None:
    for layer in (0, -1):
        for before in (0, 1, 2, 3):
            passes = Backward()
            layers = [*passes.layers, passes.heads[0]]
            assert not any(passes.run(whole) for _ in range(before))

            def freeze(loss: Any, frozen: Any = layers[layer]) -> None:
                frozen.requires_grad_(False)
                loss.backward()
                frozen.requires_grad_(True)

            assert not passes.run(freeze)
            assert not passes.run(whole)


def test_a_pass_that_fails_leaves_nothing_to_the_next_one() -> None:
    passes = Backward()
    assert not any(passes.run(whole) for _ in range(4))

    def failing(loss: Any) -> None:
        def fail(_: Any) -> None:
            raise RuntimeError

        handle = passes.layers[3].weight.register_hook(fail)
        try:
            with pytest.raises(RuntimeError):
                loss.backward()
        finally:
            handle.remove()

    with pytest.raises(KeyError):  # its end is never called
        passes.run(failing)
    assert not passes.run(whole)
    assert passes.run(lambda loss: loss.backward(inputs=[passes.layers[3].weight]))


def test_the_hooks_are_in_no_copy_and_no_checkpoint_and_go_with_the_counter() -> None:
    passes = Backward()
    assert not any(passes.run(whole) for _ in range(4))
    hooked = [one for layer in [*passes.layers, *passes.heads] for one in layer.parameters()]
    count = sum(len(one._post_accumulate_grad_hooks or ()) for one in hooked)
    assert count == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in [*passes.layers, *passes.heads]:
            assert not any(one._post_accumulate_grad_hooks for one in copy.deepcopy(layer).parameters())
            torch.save(layer.state_dict(), io.BytesIO())
            torch.save(layer, saved := io.BytesIO())
            saved.seek(0)
            loaded = torch.load(saved, weights_only=False)
            assert not any(one._post_accumulate_grad_hooks for one in loaded.parameters())
    passes.partial.forget()
    assert not any(one._post_accumulate_grad_hooks for one in hooked)
