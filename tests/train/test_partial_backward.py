"""Backward passes for some gradients only, and those of graphs that were cut, are told from whole ones, though graphs are
rarely looked at."""

from __future__ import annotations

import _thread
import copy
import io
import random
import threading
import types
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.train.intervals import LAYERS as LAYERS_OF_LLAMA
from tests.train.intervals import Loop
from tests.train.pytorch import torch
from tests.train.trainers import llama

pytestmark = [pytest.mark.training("torch"), pytest.mark.filterwarnings("ignore")]
LAYERS, NODES = 6, 20


class Backward:
    """Backward passes of a stack of layers, and what `PartialBackward` finds of each."""

    def __init__(self) -> None:
        from flopsd.integrations.passes.partial_backward import PartialBackward

        torch.manual_seed(0)
        self.layers = [torch.nn.Linear(4, 4) for _ in range(LAYERS)]
        self.heads = [torch.nn.Linear(4, 4) for _ in range(2)]
        self.looks = self.doubts = 0
        self.partial = PartialBackward(self._see_look, self._see_doubt)

    def _see_look(self) -> None:
        self.looks += 1

    def _see_doubt(self) -> None:
        self.doubts += 1

    def run(
        self, backward: Callable[[Any], object], head: int = 0, *, cut: bool = False, nodes: int = NODES,
        is_watched: bool = False,
    ) -> bool:  # fmt: skip
        """Whether the pass is found to be partial. `cut`: no gradient reaches the two layers before the last."""
        states = torch.ones(2, 4)
        for at, layer in enumerate([*self.layers, self.heads[head]]):
            with torch.set_grad_enabled(not (cut and at in (LAYERS - 2, LAYERS - 1))):
                more = layer(states).tanh()
            states = states + more if cut else more
        loss, found = states.sum(), list[bool]()
        groups = [list(layer.parameters()) for layer in self.layers] if is_watched else []

        def begin(*_: object) -> None:
            end = self.partial.begin((0, nodes), groups)
            if end is None:
                found.append(True)
            else:
                torch.autograd.Variable._execution_engine.queue_callback(lambda: found.append(end()))

        loss.grad_fn.register_prehook(begin)
        backward(loss)
        (partial,) = found
        return partial


def whole(loss: Any) -> None:
    loss.backward()


def test_one_graph_is_looked_at_for_all_whole_passes() -> None:
    passes = Backward()
    assert not any(passes.run(whole) for _ in range(64))
    assert passes.looks == 1
    assert passes.partial.furthest is passes.layers[0].weight


@pytest.mark.parametrize("before", [0, 1, 2, 6])
@pytest.mark.parametrize("way", ["near", "far", "middle", "all but one", "grad of both ends", "grad of all", "all"])
def test_a_pass_for_some_gradients_is_partial(way: str, before: int) -> None:
    passes = Backward()
    assert not any(passes.run(whole) for _ in range(before))
    near, far, middle = (list(layer.parameters()) for layer in (passes.heads[0], passes.layers[0], passes.layers[3]))
    every = [one for layer in [*passes.layers, passes.heads[0]] for one in layer.parameters()]
    ways: dict[str, Callable[[Any], object]] = {
        "near": lambda loss: loss.backward(inputs=near),
        "far": lambda loss: loss.backward(inputs=far),
        "middle": lambda loss: loss.backward(inputs=middle),
        "all but one": lambda loss: loss.backward(inputs=[one for one in every if one is not middle[0]]),
        "grad of both ends": lambda loss: torch.autograd.grad(loss, [*near, *far]),
        "grad of all": lambda loss: torch.autograd.grad(loss, every),
        "all": lambda loss: loss.backward(inputs=every),
    }
    assert passes.run(ways[way]) == (way not in ("grad of all", "all"))  # which run each product of a whole pass
    assert not passes.run(whole)


def test_random_passes_for_some_gradients_are_found() -> None:
    """Other heads, and frozen and replaced layers."""
    for seed in range(25):
        choose, passes = random.Random(seed), Backward()
        for _ in range(60):
            head, change = choose.choice([0, 0, 0, 1]), choose.random()
            layers = [*passes.layers, passes.heads[head]]
            one = choose.choice(layers)
            if change < 0.1:
                one.requires_grad_(choose.random() < 0.7)
            elif change < 0.15:
                one.weight = torch.nn.Parameter(one.weight.detach().clone())
            trained = [p for layer in layers for p in layer.parameters() if p.requires_grad]
            some = choose.sample(trained, min(len(trained), choose.choice([1, 2, 3, 12])))
            if trained:
                ways: list[Callable[[Any], object]] = [whole, partial(_for_some, some), partial(_returned, some)]
                (way,) = choose.choices(ways, (3, 1, 1))
                assert passes.run(way, head) == (way is not whole and len(some) < len(trained))


def _for_some(parameters: list[Any], loss: Any) -> None:
    loss.backward(inputs=parameters)


def _returned(parameters: list[Any], loss: Any) -> None:
    torch.autograd.grad(loss, parameters)


def test_passes_with_as_many_nodes_as_one_whose_graph_was_cut_are_partial() -> None:
    passes = Backward()
    assert not passes.run(whole, is_watched=True)
    assert passes.run(whole, nodes=NODES - 2, cut=True, is_watched=True)
    assert passes.run(whole, nodes=NODES - 2, cut=True)
    assert not passes.run(whole)
    assert passes.doubts == 0


def test_passes_that_were_not_looked_at_are_doubted_if_a_graph_like_theirs_was_cut() -> None:
    passes = Backward()
    assert not passes.run(whole, is_watched=True)
    assert passes.run(whole, nodes=NODES - 2, cut=True)  # it is the first with as many nodes
    assert not passes.run(whole, nodes=NODES - 2, cut=True)
    assert not passes.run(whole, nodes=NODES + 1, is_watched=True)
    assert passes.doubts == 0
    assert passes.run(whole, nodes=NODES - 2, cut=True, is_watched=True)
    assert passes.doubts == 1
    assert passes.run(whole, nodes=NODES - 2, cut=True)


@pytest.mark.parametrize("way", ["backward", "inputs", "none"])
def test_the_caller_is_found_from_a_thread_of_autograds_own(way: str) -> None:
    """As with a GPU, where hooks run in a thread without a caller in Python."""
    from flopsd.integrations.operators.backward import is_for_all_gradients as ask

    answers, answered = list[bool](), threading.Event()

    def answer() -> None:
        answers.append(ask())
        answered.set()

    free = types.CellType(answered), types.CellType(answers), types.CellType(ask)
    assert answer.__code__.co_freevars == ("answered", "answers", "ask")
    hook = types.FunctionType(answer.__code__, {"__name__": "flopsd.hook"}, closure=free)

    def asked(_: object = None) -> None:
        _thread.start_new_thread(hook, ())
        assert answered.wait(60)

    weight = torch.ones(2, requires_grad=True)
    loss = weight.sum()
    loss.register_hook(asked)
    if way == "none":
        asked()
    else:
        loss.backward(inputs=[weight] if way == "inputs" else None)
    assert answers == [way == "backward"]


def test_a_pass_whose_call_is_not_found_is_looked_at() -> None:
    """A training may call autograd's engine itself."""
    passes = Backward()
    engine = torch.autograd.Variable._execution_engine.run_backward
    how = {"keep_graph": False, "create_graph": False, "allow_unreachable": True, "accumulate_grad": True}
    assert not passes.run(lambda loss: engine((loss,), (torch.ones(()),), inputs=(), **how))
    assert not passes.run(lambda loss: engine((loss,), (torch.ones(()),), inputs=(), **how))
    assert passes.looks == 2
    some = (passes.layers[0].weight,)
    assert passes.run(lambda loss: engine((loss,), (torch.ones(()),), inputs=some, **how))


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

    with pytest.raises(ValueError, match="not enough values"):  # its end is never called
        passes.run(failing)
    assert not passes.run(whole)
    assert passes.run(lambda loss: loss.backward(inputs=[passes.layers[3].weight]))


def test_the_hooks_are_in_no_copy_and_no_checkpoint_and_go_with_the_counter() -> None:
    loop = Loop(llama(num_hidden_layers=LAYERS_OF_LLAMA)).steps()
    assert _hooks(loop.model) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _hooks(copy.deepcopy(loop.model)) == 0
        torch.save(loop.model.model.embed_tokens, saved := io.BytesIO())
        saved.seek(0)
        assert _hooks(torch.load(saved, weights_only=False)) == 0
    loop.counter.detach()
    assert _hooks(loop.model) == 0


def _hooks(model: Any) -> int:
    return sum(len(one._backward_hooks or ()) for one in model.parameters())
