"""Backward passes of all kinds: all of their work is counted, and nothing that they skip."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.train.families import flop_counter
from tests.train.pytorch import torch
from tests.train.test_operator_counter import attached
from tests.train.trainers import llama

pytestmark = [pytest.mark.training("transformers", "peft", "accelerate"), pytest.mark.filterwarnings("ignore")]
OTHER = "a backward pass of a kind that was not seen before"


def test_backward_passes_of_all_kinds() -> None:
    _, found = attached(model := torch.nn.Linear(4, 4, bias=False))
    one = 2 * 3 * 4 * 4
    for times in (1, 2, 1):
        before = found.flop
        loss = model(torch.ones(3, 4)).sum()
        for _ in range(times):
            loss.backward(retain_graph=True)
        assert found.flop - before == one * (1 + times)
    first, second = model(torch.ones(5, 4)), model(torch.ones(5, 4))  # two passes before one backward pass
    before = found.flop
    (first + second).sum().backward()
    assert found.flop - before == 2 * 2 * 5 * 4 * 4
    assert "operators_not_counted" not in found.facts


def _all(_: Any, loss: Any) -> None:
    loss.backward()


def _grad_of_all(model: Any, loss: Any) -> None:
    torch.autograd.grad(loss, list(model.parameters()))


def _grad_of_the_last(model: Any, loss: Any) -> None:
    torch.autograd.grad(loss, [model[-1].weight])


def _inputs(model: Any, loss: Any) -> None:
    loss.backward(inputs=[model[-1].weight])


Ways = list[Callable[[Any, Any], None]]
WHOLE, LAST = 2 * 5 * (8 * 4 + 4 * 2) + 2 * 5 * (8 * 4 + 2 * 4 * 2), 2 * 5 * (8 * 4 + 4 * 2) + 2 * 5 * 4 * 2


@pytest.mark.parametrize("some", [_grad_of_the_last, _inputs])
@pytest.mark.parametrize("whole", [_all, _grad_of_all])
def test_a_backward_pass_for_some_gradients_counts_only_these(whole: Any, some: Any) -> None:
    """Two layers, 8 to 4 to 2; in turn from the first step on, and only after many full ones."""
    assert _counted([whole, some] * 4) == ([WHOLE, LAST] * 4, None)
    assert _counted([some, whole] * 4) == ([LAST, WHOLE] * 4, None)
    counted, words = _counted([whole] * 4 + [some] * 4)
    assert counted == [WHOLE] * 4 + [2 * 5 * (8 * 4 + 4 * 2)] + [LAST] * 3, "the first of a kind may not have been seen"
    assert words == [OTHER]


def test_a_backward_pass_that_skips_only_the_far_end_counts_less() -> None:
    """Its start looks like that of a whole one: the first of 12 layers has no gradient."""
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(12)))
    _, found = attached(model)
    one, steps = 2 * 5 * 4 * 4, []
    for inputs in [None] * 4 + [[layer.weight for layer in model[6:]]] * 2:
        before = found.flop
        model(torch.ones(5, 4)).sum().backward(inputs=inputs)
        steps.append(found.flop - before)
    assert steps == [one * (12 + 12 + 11)] * 4 + [one * 12, one * (12 + 6 + 5)]
    assert found.facts["operators_not_counted"]["train"] == [OTHER]


def test_a_backward_pass_that_skips_one_weight_in_the_middle_counts_less() -> None:
    """Its start and its end look like those of a whole one."""
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(40)))
    _, found = attached(model)
    one, steps = 2 * 5 * 4 * 4, []
    for inputs in [None] * 4 + [[layer.weight for layer in model if layer is not model[5]]] * 2:
        before = found.flop
        model(torch.ones(5, 4)).sum().backward(inputs=inputs)
        steps.append(found.flop - before)
    assert steps == [one * (40 + 40 + 39)] * 4 + [one * 40, one * (40 + 39 + 39)]
    assert found.facts["operators_not_counted"]["train"] == [OTHER]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_backward_pass_that_ends_with_an_error_is_declared(error: type[BaseException]) -> None:
    def fails(_: Any) -> None:
        raise error

    counter, found = attached(model := torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)))
    one = 2 * 5 * 4 * 4
    for products in (2 + 2, 5, 5, 2, 5):  # the fourth pass is not inspected
        before = found.flop
        loss = model(torch.ones(5, 4)).sum()
        if products == 5:
            loss.backward()
        else:
            hook = (loss if products == 2 else model[1].bias).register_hook(fails)
            with pytest.raises(error):
                loss.backward()
            hook.remove()
        assert found.flop - before == one * products
    assert found.facts["operators_not_counted"]["train"] == ["backward passes that ended with an error"]
    assert not counter.failed


def test_only_outputs_used_by_a_loss_are_counted() -> None:
    class Three(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(torch.nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, rows: Any) -> Any:
            return tuple(part(rows) for part in self.parts)

    _, found = attached(model := Three())
    one = 2 * 5 * 4 * 4
    for used in ((0, 1, 2), (1, 2), (0, 1, 2), (1, 2), (1, 2), (0, 1, 2)):
        before, outputs = found.flop, model(torch.ones(5, 4))
        sum(outputs[at].sum() for at in used).backward()
        assert found.flop - before == one * (3 + len(used))
    assert "operators_not_counted" not in found.facts


def test_a_pass_that_continues_from_anothers_states_counts_its_own_part() -> None:
    """Chunks of one document, the first of which have been seen often and are not inspected any more."""
    ids = torch.full((2, 6), 3)

    def steps(model: Any) -> None:
        for _ in range(2):
            model(input_ids=ids, labels=ids).loss.backward()
        for _ in range(6):
            first = model(input_ids=ids, labels=ids)
            (first.loss + model(input_ids=ids, labels=ids, past_key_values=first.past_key_values).loss).backward()

    _, found = attached(model := llama())
    steps(model)
    with flop_counter() as counter:
        steps(llama())
    assert found.flop == counter.get_total_flops()


def test_gradients_of_gradients_are_declared_as_partly_counted() -> None:
    _, found = attached(model := torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh()))
    for _ in range(3):
        rows = torch.ones(5, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(rows).sum(), [rows], create_graph=True)
        gradient.norm().backward()
    assert found.facts["operators_not_counted"] == {"train": ["gradients of gradients are counted in part"]}


def test_replays_of_a_cuda_graph_are_declared_as_unseen() -> None:
    """The function of torch.cuda.make_graphed_callables, by its name; here it computes nothing."""

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, rows: Any) -> Any:
            return rows.clone()

        @staticmethod
        def backward(_: Any, *gradients: Any) -> Any:
            return gradients

    class Model(torch.nn.Linear):
        def forward(self, rows: Any) -> Any:
            return Graphed.apply(super().forward(rows))

    _, found = attached(model := Model(4, 4))
    model(torch.ones(3, 4)).sum().backward()
    (words,) = found.facts["operators_not_counted"]["train"]
    assert "CUDA graph" in words


@pytest.mark.parametrize("captured_at", [0, 1, None])
def test_replays_of_a_graph_captured_by_torch_compile_repeat_the_previous_count(
    monkeypatch: pytest.MonkeyPatch, captured_at: int | None
) -> None:
    """The 8th pass would be inspected again, but a replay shows no operator. Without an earlier pass, that is
    declared."""
    from flopsd.integrations.operators import mode as operator_mode

    _, found = attached(model := torch.nn.Linear(4, 4, bias=False))
    for number in range(9):
        before = found.flop
        monkeypatch.setattr(operator_mode, "is_capturing", lambda number=number: number == captured_at)
        model(torch.ones(3, 4)).sum().backward()
        assert found.flop - before == (0 if captured_at == 0 else 2 * 2 * 3 * 4 * 4)
    words = found.facts.get("operators_not_counted", {}).get("train", [])
    assert [("CUDA graph" in one) for one in words] == ([True] if captured_at == 0 else [])


def test_the_operator_probe_of_the_hardware_suite_counts_steps_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.hardware import operators
    from tests.hardware.probe_answers import operators as answer

    monkeypatch.setattr(operators, "ROWS", 64)
    monkeypatch.setattr(operators, "STEP_FLOP", 5 * 2 * 64 * operators.WIDTH**2)
    monkeypatch.delitem(operators.WAYS, "torch.compile with CUDA graphs")  # compiles for the CPU here
    found = operators.counted("cpu")
    assert found["eager"]["flop"] == found["eager"]["known"]
    said = answer({"probes": {"operators": found}}, {})
    assert said.startswith("eager: 1.0000 of the products; many steps: ")
    assert all(found[way]["fault"] for way in found.keys() - {"eager"})


def _counted(ways: Ways) -> tuple[list[int], Any]:
    """The count of each step, and the declaration of uncounted work."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 4, bias=False), torch.nn.Tanh(), torch.nn.Linear(4, 2, bias=False))
    _, found = attached(model)
    steps = []
    for way in ways:
        before = found.flop
        way(model, model(torch.ones(5, 8)).sum())
        steps.append(found.flop - before)
    return steps, found.facts.get("operators_not_counted", {}).get("train")
