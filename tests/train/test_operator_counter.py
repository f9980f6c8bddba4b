"""The count of operators against PyTorch's own counter, around the same steps."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flopsd.client import Client, connect
from flopsd.client.work_by_run import FORGOTTEN
from flopsd.core.session_protocol import QUEUED_NS, FactsDeclared, WorkCounted
from tests.support.process import free_port, wait_until
from tests.support.session_servers import EventServer, SkippingClock, work_of
from tests.train.families import flop_counter
from tests.train.operator_cases import BATCH, CASES, DEVICE, LENGTH, STEPS, Counters, compare, train
from tests.train.preloaded import Preloaded
from tests.train.pytorch import torch
from tests.train.trainers import LLAMA, arguments, declared_to, llama, rows, trainer_of

pytestmark = [pytest.mark.training("transformers", "peft", "accelerate"), pytest.mark.filterwarnings("ignore")]
_EQUAL = [name for name, case in CASES.items() if not case.difference]
_SAMPLED = ("LoRA", "checkpointing", "checkpointing, reentrant", "Mixtral, a loop of experts", "evaluation", "Muon", "compiled graph")  # fmt: skip
_NOT_INSPECTED = 4  # the first pass of a shape that is not


def attached(model: Any, optimizer: Any = None, **options: Any) -> tuple[Any, Counters]:
    from flopsd.integrations.operator_counter import OperatorCounter

    counters = Counters()
    counter = OperatorCounter(counters, device=DEVICE, **options)
    counter.attach(model, optimizer)
    return counter, counters


def stack_depth() -> int:
    return int(torch._C._len_torch_dispatch_stack())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _SAMPLED else pytest.mark.exhaustive) for name in _EQUAL]
)
def test_the_operator_count_equals_pytorchs(name: str) -> None:
    found = compare(name)
    assert found.ours.flop == found.theirs
    assert found.ours.facts.keys() - {"precision"} == {"device"}
    assert list(found.ours.work) == ["evaluate" if CASES[name].evaluate else "train"]


@pytest.mark.parametrize("name", ["checkpointing", "checkpointing, reentrant"])
def test_recomputation_is_the_work_added_by_checkpointing(name: str) -> None:
    found, without = compare(name).ours, compare("full").ours
    assert found.again == found.flop - without.flop > 0
    assert without.again == 0


@pytest.mark.exhaustive
def test_recomputation_in_compiled_graphs_is_declared_as_not_distinguished() -> None:
    found = compare("compiled graph, LoRA, checkpointing").ours
    (words,) = found.facts["operators_not_counted"]["train"]
    assert words.startswith("recomputation within graphs")
    assert found.again == 0


def test_experts_in_grouped_products_match_a_count_by_hand_and_a_loop() -> None:
    """Products of a layer: queries and output, keys and values, router, two experts for each token, all pairs twice."""
    by_hand = 0
    for length in (LENGTH + 2 * (step % 2) for step in range(STEPS)):
        rows_, pairs = BATCH * length, BATCH * length**2
        layer = rows_ * (2 * 32 * 32 + 2 * 32 * 16 + 32 * 4 + 2 * (32 * 96 + 48 * 32)) + 2 * pairs * 32
        by_hand += 3 * 2 * (2 * layer + rows_ * 32 * 64)  # forward, and twice as much backward
    assert compare("Mixtral, grouped").ours.flop == compare("Mixtral, a loop of experts").theirs == by_hand


def test_a_causal_attention_kernel_counts_the_pairs_that_it_cannot_skip() -> None:
    lengths = [LENGTH + 2 * (step % 2) for step in range(STEPS)]
    pair = 2 * BATCH * LLAMA["hidden_size"] * LLAMA["num_hidden_layers"]
    whole = sum(pair * 6 * length**2 for length in lengths)
    causal = sum(pair * 7 * length * (length + 1) // 2 for length in lengths)
    found = compare("attention by one kernel").ours.flop
    assert found == compare("full").theirs - whole + causal


def test_convolutions_match_a_count_by_hand() -> None:
    """Products per element of the output (of the input if transposed), by its share of the channels."""
    first = BATCH * 8 * LENGTH**2 * (3 * 9)  # without a gradient of the image
    grouped = BATCH * 8 * (LENGTH - 2) ** 2 * (2 * 9)
    transposed = BATCH * 8 * (LENGTH - 2) ** 2 * (4 * 4)
    assert compare("convolutions", 1).ours.flop == 2 * (2 * first + 3 * grouped + 3 * transposed)


def test_products_of_4_bit_weights_are_counted() -> None:
    found = compare("4-bit weights")
    passed = sum(LENGTH + 2 * (step % 2) for step in range(STEPS))
    assert found.ours.flop == found.theirs + 2 * passed * (64 * 128 + 128 * 64)


def test_products_of_8_bit_floats_are_counted() -> None:
    from flopsd.integrations.operators.mode import CountingMode, OperatorFlop

    left, right = (torch.ones(rows_, 32).to(torch.float8_e4m3fn) for rows_ in (16, 48))
    one = torch.tensor(1.0)
    with CountingMode(seen := OperatorFlop(), pytest.fail):
        torch._scaled_mm(left, right.t(), one, one, out_dtype=torch.bfloat16)
    assert dict(seen.flop) == {(left.device, "fp8"): 2 * 16 * 32 * 48}


@pytest.mark.parametrize(
    ("call", "products"),
    [
        # Shapes: 2 sequences, 4 heads, 2 of keys, 8 and 8 tokens of width 16. Products of pairs: 2 forward, 5
        # backward.
        ("sdpa, causal", 2 * 4 * 36 * 2),
        ("sdpa, whole", 2 * 4 * 64 * 2),
        ("flash, causal, window 2", 2 * 4 * (1 + 2 + 6 * 3) * 2),
        ("flash, documents", 4 * 16 * 2),
        ("flash, backward", 2 * 4 * 64 * 5),
        ("efficient, documents", 4 * 16 * 2),
        ("efficient, documents, backward", 4 * 16 * 5),
        ("efficient, causal, window 3", 2 * 4 * (1 + 2 + 6 * 3) * 2),
    ],
)
def test_attention_kernels_are_counted(call: str, products: int) -> None:
    """By their schemas, on tensors without storage: only a GPU has the kernels."""
    from flopsd.integrations.operators.formulas import formula_of

    def of(*shape: int) -> Any:
        return torch.empty(*shape, device="meta")

    aten = torch.ops.aten
    first = of(2, 4, 8, 16), of(2, 2, 8, 16), of(2, 2, 8, 16)
    last = of(2, 8, 4, 16), of(2, 8, 2, 16), of(2, 8, 2, 16)
    documents = of(16, 4, 16), of(16, 2, 16), of(16, 2, 16)
    in_a_row = of(1, 16, 4, 16), of(1, 16, 2, 16), of(1, 16, 2, 16)
    ends = of(4)
    flash, efficient = aten._flash_attention_forward.default, aten._efficient_attention_forward.default
    calls: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
        "sdpa, causal": (aten._scaled_dot_product_flash_attention.default, (*first, 0.0, True), {}),
        "sdpa, whole": (aten._scaled_dot_product_efficient_attention.default, (*first, None, True), {}),
        "flash, causal, window 2": (
            flash, (*last, None, None, 8, 8, 0.0, True, False), {"window_size_left": 2, "window_size_right": 0},
        ),
        "flash, documents": (flash, (*documents, ends, ends, 8, 8, 0.0, True, False), {}),
        "flash, backward": (
            aten._flash_attention_backward.default, (last[0], *last, last[0], ends, None, None, 8, 8, 0.0, False, ends, ends), {},
        ),
        "efficient, documents": (efficient, (*in_a_row, None, ends, ends, 8, 8, 0.0, 1), {}),
        "efficient, documents, backward": (
            aten._efficient_attention_backward.default,
            (in_a_row[0], *in_a_row, None, in_a_row[0], ends, ends, 8, 8, ends, 0.0, ends, ends, 1, False), {},
        ),
        "efficient, causal, window 3": (
            efficient, (*last, None, None, None, 8, 8, 0.0, 1), {"window_size": 3},
        ),
    }  # fmt: skip
    operator, given, named = calls[call]
    found = formula_of(operator, given, named, None)
    assert found.flop == 2 * 16 * products
    assert (found.words is not None) == ("documents" in call)


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
def test_products_of_sparse_tensors_are_declared_as_uncounted(layout: str) -> None:
    """Their shape does not show how many elements are multiplied."""

    class Graph(torch.nn.Linear):
        def forward(self, rows_: Any) -> Any:
            return torch.eye(100).to_sparse(layout=getattr(torch, layout)) @ super().forward(rows_)

    _, found = attached(model := Graph(8, 8, bias=False))
    model(torch.ones(100, 8)).sum().backward()
    assert found.flop == 2 * 2 * 100 * 8 * 8
    assert "products of sparse or nested tensors have no formula" in found.facts["operators_not_counted"]["train"]


def test_tensors_inside_an_argument_object_are_distinguished() -> None:
    """Batches of one type differ in their shapes."""

    class Batch:
        def __init__(self, *sizes: int) -> None:
            self.rows = {"of": [torch.ones(size, 4) for size in sizes]}

    class Slots:
        __slots__ = ("rows",)

        def __init__(self, size: int) -> None:
            self.rows = {"of": [torch.ones(size, 4)]}

    class Model(torch.nn.Linear):
        def forward(self, batch: Any) -> Any:
            return sum(super(Model, self).forward(one).sum() for one in batch.rows["of"])

    _, found = attached(model := Model(4, 4, bias=False))
    sizes = ((64,), (64,), (1,), (1,), (1,), (1,) * 70, (2,) * 70, (3,) * 70, (4,) * 70)
    for one in sizes:
        model(Batch(*one)).backward()
    assert found.flop == sum(2 * 2 * 4 * 4 * sum(one) for one in sizes)
    assert "operators_not_counted" not in found.facts
    before = found.flop
    model(Slots(64)).backward()
    assert found.flop == before
    assert found.facts["operators_not_counted"]["train"] == [
        "passes with arguments in which flopsd does not find the tensors"
    ]


@pytest.mark.parametrize("closure", [False, True])
def test_an_optimizer_that_multiplies_is_counted_by_the_present_gradients(*, closure: bool) -> None:
    from tests.train.families import flop_counter

    def steps(model: Any, optimizer: Any) -> None:
        def run() -> Any:
            optimizer.zero_grad()
            loss = model(torch.ones(8, 64)).sum()
            loss.backward()
            return loss

        for number in range(20):
            if number == 3:
                model[0].requires_grad_(False)
            assert optimizer.step(run if closure else run() and None) is None or closure

    models = [torch.nn.Sequential(*(torch.nn.Linear(64, n, bias=False) for n in (64, 16))) for _ in range(2)]
    optimizers = [torch.optim.Muon(model.parameters()) for model in models]
    _, found = attached(models[0], optimizers[0])
    steps(models[0], optimizers[0])
    with flop_counter() as counter:
        steps(models[1], optimizers[1])
    assert found.flop == counter.get_total_flops()
    assert "operators_not_counted" not in found.facts
    assert stack_depth() == 0


def test_optimizer_steps_and_passes_in_two_threads_are_counted() -> None:
    import threading

    class Slow(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            other = threading.Thread(target=model, args=(torch.ones(2, 4),))
            other.start()
            other.join()
            return super().step(closure)

    model = torch.nn.Linear(4, 4)
    optimizer = Slow(model.parameters())
    counter, _ = attached(model, optimizer)
    for _ in range(3):
        model(torch.ones(5, 4)).sum().backward()
        optimizer.step()
        assert stack_depth() == 0
    assert not counter.failed


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_pass_is_not_counted_as_whole(error: type[BaseException]) -> None:
    class Model(torch.nn.Linear):
        fails = False

        def forward(self, rows_: Any) -> Any:
            if self.fails:
                raise error
            return super().forward(rows_)

    counter, found = attached(model := Model(4, 4))
    for number in range(12):
        model.fails = number in (1, 3, 4, 5, 6)
        if model.fails:
            with pytest.raises(error):
                model(torch.ones(5, 4))
        else:
            model(torch.ones(5, 4)).sum().backward()
            assert stack_depth() == 0
    assert found.flop == 7 * 2 * 2 * 5 * 4 * 4
    assert found.facts["operators_not_counted"]["train"] == ["forward passes that ended with an error"]
    assert not counter.failed


def test_a_pass_of_shapes_only_is_not_counted() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = torch.nn.Linear(4, 4)
    _, counters = attached(model)
    rows_ = torch.ones(2, 4)
    for _ in range(3):
        model(rows_)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.ones(2, 4))
        model(rows_)
    assert counters.flop == 3 * 2 * 2 * 4 * 4


@pytest.mark.parametrize("hooks", ["_forward_hooks", "_forward_pre_hooks"])
def test_hooks_removed_by_the_training_are_declared_and_leave_no_state(hooks: str) -> None:
    counter, found = attached(model := torch.nn.Linear(4, 4))
    model(torch.ones(5, 4)).sum().backward()
    getattr(model, hooks).clear()
    for length in (5, 6, 7):
        model(torch.ones(length, 4)).sum().backward()
        assert stack_depth() == 0
    counter.settle()
    assert found.flop == 2 * 2 * 5 * 4 * 4
    assert found.facts["operators_not_counted"]["train"] == [
        "forward passes of a model whose hooks the training removed"
    ]


@pytest.mark.parametrize("activation", ["silu", "mish", "gelu"])
def test_gradients_are_bit_identical_to_those_without_a_count(activation: str) -> None:
    """Some operators have a kernel, and are composed of others where it is missing: with different results."""

    def gradients(count: bool) -> list[Any]:
        torch.manual_seed(1)
        model = llama(hidden_act=activation)
        if count:
            attached(model)
        ids = torch.arange(1, 25).view(2, 12)
        model(input_ids=ids, labels=ids).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    assert all(map(torch.equal, gradients(True), gradients(False)))


@pytest.mark.parametrize(
    "how",
    [
        "torch.compile, fullgraph",
        *(pytest.param(how, marks=pytest.mark.exhaustive) for how in ("torch.compile", "model.compile")),
    ],
)
def test_a_model_compiled_after_attaching_trains_on_and_is_declared(how: str) -> None:
    from flopsd.integrations.forward_counter import ForwardCounter
    from flopsd.integrations.passes.open_passes import ELSEWHERE

    counter, found = attached(model := llama())
    forward = ForwardCounter(tokens := Counters(current_phase=None))
    forward.attach(model)
    if how == "model.compile":
        model.compile(backend="aot_eager")
    used = model if how == "model.compile" else torch.compile(model, backend="aot_eager", fullgraph="full" in how)
    ids = torch.arange(1, 25).view(2, 12)
    for _ in range(3):
        used(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    counter.settle()
    forward.settle()
    assert not counter.failed
    assert not forward._hooks.failed
    words = ["forward passes of a model that was compiled after the counter was attached"]
    assert found.facts["operators_not_counted"]["train"] == words
    assert {*words} <= {*tokens.facts["not_counted"]["train"]} <= {*words, ELSEWHERE}


def test_products_of_integers_are_no_flop() -> None:
    from flopsd.integrations.operators.formulas import formula_of

    whole = torch.ones(32, 32, dtype=torch.int8)
    for operator in (torch.ops.aten._int_mm.default, torch.ops.aten.mm.default):
        assert (found := formula_of(operator, (whole, whole), {}, whole)).flop == 0
        assert found.words is None


def test_a_custom_operator_is_named() -> None:
    library = torch.library.Library("flopsd_tests", "DEF")
    library.define("product(Tensor a, Tensor b) -> Tensor")
    library.impl("product", lambda a, b: a @ b, "CPU")

    class Model(torch.nn.Linear):
        def forward(self, rows_: Any) -> Any:
            return super().forward(torch.ops.flopsd_tests.product(rows_, rows_))

    _, found = attached(model := Model(4, 4).eval())
    with torch.no_grad():
        model(torch.ones(4, 4))
    assert found.facts["operators_not_counted"] == {"evaluate": ["flopsd_tests::product has no formula"]}
    assert found.flop == 2 * 4 * 4 * 4


def test_where_content_decides_the_minimum_seen_is_counted() -> None:
    class Model(torch.nn.Linear):
        def forward(self, rows_: Any) -> Any:
            for _ in range(int(rows_.sum())):
                rows_ = super().forward(rows_)
            return rows_

    _, found = attached(model := Model(2, 2).eval())
    one = 2 * 2 * 2
    with torch.inference_mode():
        for number, times in enumerate((3, 1, 2, 5), 1):
            before = found.flop
            model(torch.tensor([[float(times), 0.0]]))
            assert found.flop - before == one * (1 if number == _NOT_INSPECTED else times)
    assert "the least that was seen" in found.facts["operators_not_counted"]["evaluate"][0]


def test_a_mask_that_masks_nothing_is_dropped_and_the_count_is_one_of_both_ways() -> None:
    """For batches of one shape, transformers gives the kernel a mask for some, and "causal" without a mask for
    others."""
    from flopsd.integrations.operators.mode import CountingMode, OperatorFlop

    _, found = attached(model := llama("sdpa"))
    ids = torch.full((2, 8), 3)
    whole, padded = torch.ones_like(ids), (torch.arange(8) < 5).long().expand(2, 8)
    pairs = (
        2 * 2 * 32 * 2 * (8 * 8 - 36) * (2 + 5)
    )  # the pairs that a mask adds: width, layers, forward and backward products
    for number, mask in enumerate((padded, whole, padded, whole, padded, padded, whole), 1):
        before = found.flop
        with CountingMode(seen := OperatorFlop(), pytest.fail):
            model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        least = seen.total - (pairs if mask is padded else 0)
        assert found.flop - before == (seen.total if number < _NOT_INSPECTED else least)
    assert "operators_not_counted" not in found.facts


def test_an_overcount_before_inspection_is_compensated_later() -> None:
    """The model skips more than its arguments show."""

    class Model(torch.nn.Module):
        layers = 8

        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(4, 4, bias=False)

        def forward(self, rows_: Any) -> Any:
            for _ in range(self.layers):
                rows_ = self.inner(rows_)
            return rows_

    _, found = attached(model := Model())
    one, truth = 2 * 5 * 4 * 4, 0
    for number in range(1, 60):
        if number == 4:
            model.layers = 2
        model(torch.ones(5, 4, requires_grad=True)).sum().backward()
        truth += 3 * model.layers * one
        if number >= 30:
            # The third pass is counted like the earlier ones, and the last skipping pass may skip more than was owed.
            assert truth - 3 * (8 - 2) * one - 3 * 2 * one <= found.flop <= truth


def test_each_third_pass_without_gradients_is_inspected_at_some_time() -> None:
    """It leaves a part out. None is the 2nd, 8th or 64th, …"""
    _, found = attached(model := torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Identity()))
    part, one, truth = torch.nn.Linear(4, 4, bias=False), 2 * 5 * 4 * 4, 0
    with torch.no_grad():
        for number in range(1, 65):
            model[1].forward = (lambda rows_: rows_) if number % 3 == 0 else part.forward
            model(torch.ones(5, 4))
            truth += one * (1 if number % 3 == 0 else 2)
    assert found.flop <= truth
    assert "the least that was seen" in found.facts["operators_not_counted"]["evaluate"][0]


def test_the_last_of_two_counters_counts() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    (_, first), (counter, second) = attached(model, optimizer), attached(model, optimizer)
    for length in (3, 3):
        model(torch.ones(length, 2)).sum().backward()
        optimizer.step()
    assert stack_depth() == 0
    assert (first.flop, second.flop) == (0, 2 * 2 * 2 * (3 + 3) * 2)
    counter.detach()
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_disabled_adapters_have_a_separate_signature() -> None:
    _, found = attached(model := CASES["LoRA"].build())
    ids = torch.full((2, 8), 3)
    by_adapters: dict[bool, set[int]] = {True: set(), False: set()}
    for on in 4 * [True, False]:
        before = found.flop
        with torch.no_grad():
            if on:
                model(input_ids=ids)
            else:
                with model.disable_adapter():
                    model(input_ids=ids)
        by_adapters[on].add(found.flop - before)
    (with_them,), (without,) = by_adapters[True], by_adapters[False]
    assert with_them > without
    assert "operators_not_counted" not in found.facts


def test_shapes_beyond_a_limit_are_no_longer_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from flopsd.integrations import operator_counter

    monkeypatch.setattr(operator_counter, "MAX_SIGNATURES", 2)
    _, found = attached(model := torch.nn.Linear(2, 2).eval())
    with torch.no_grad():
        for length in (1, 2, 3, 4, 2):
            model(torch.ones(length, 2))
    assert found.flop == 2 * 2 * 2 * (1 + 2 + 2)
    assert found.facts["operators_not_counted"]["evaluate"] == [operator_counter._TOO_MANY]


def test_errors_of_the_training_leave_no_state_behind() -> None:
    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, rows_: Any) -> Any:
            return rows_.clone()

        @staticmethod
        def backward(_: Any, *__: Any) -> Any:
            raise RuntimeError("backward")

    class Model(torch.nn.Linear):
        breaks = ""

        def forward(self, rows_: Any) -> Any:
            if self.breaks == "forward":
                raise RuntimeError("forward")
            found = super().forward(rows_)
            return super().forward(Breaks.apply(found) if self.breaks else found)

    model = Model(4, 4)
    optimizer = torch.optim.SGD(model.parameters())
    counter, found = attached(model, optimizer)
    for model.breaks in ("forward", "backward"):
        with pytest.raises(RuntimeError, match=model.breaks):
            model(torch.ones(5, 4)).sum().backward()
        assert stack_depth() == 0
    groups, optimizer.param_groups = optimizer.param_groups, None
    with pytest.raises(TypeError):
        optimizer.step()
    optimizer.param_groups = groups
    model.breaks = ""
    before = found.flop
    model(torch.ones(5, 4)).sum().backward()
    optimizer.step()
    assert found.flop - before == 2 * 5 * 4 * 4 * 5
    assert stack_depth() == 0
    assert not counter.failed


def test_an_error_in_counting_ends_the_count_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flopsd.core.declarations import Phase
    from flopsd.integrations.operators import mode as operator_mode

    def breaks(*_: Any) -> None:
        raise ValueError("a formula")

    case = CASES["checkpointing"]
    undisturbed = train(case, 2).state_dict()
    monkeypatch.setattr(operator_mode, "formula_of", breaks)
    counters: list[Any] = []

    def attach(model: Any, optimizer: Any) -> None:
        counters.append(attached(model, optimizer))

    with caplog.at_level(logging.ERROR, "flopsd.client"):
        model = train(case, 2, attach=attach)
    assert all(torch.equal(undisturbed[name], value) for name, value in model.state_dict().items())
    ((counter, found),) = counters
    assert counter.failed
    assert stack_depth() == 0
    assert found.facts["operators_not_counted"].keys() == {phase.value for phase in Phase}
    assert [record.getMessage() for record in caplog.records] == ["flopsd stops counting operators; the training goes on"]  # fmt: skip


@pytest.mark.parametrize("fails_in", ["step", "backward"])
def test_an_error_in_counting_during_a_step_or_a_node_leaves_no_state_behind(
    monkeypatch: pytest.MonkeyPatch, fails_in: str
) -> None:
    from flopsd.integrations.operators import mode as operator_mode

    model = torch.nn.Linear(4, 4)
    counter, _ = attached(model, optimizer := torch.optim.SGD(model.parameters()))
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    loss = model(torch.ones(3, 4)).sum()
    if fails_in == "step":
        loss.backward()
    monkeypatch.setattr(operator_mode, "formula_of", None)
    if fails_in == "backward":
        loss.backward()
    optimizer.step()
    assert counter.failed
    assert stack_depth() == 0


def test_each_device_has_a_separate_session(monkeypatch: pytest.MonkeyPatch) -> None:
    from flopsd.integrations.operator_counter import OperatorCounter
    from flopsd.integrations.operators import sessions as operator_sessions

    names = {"cpu": "GPU-0", "meta": "GPU-1"}
    monkeypatch.setattr(operator_sessions, "device_uuid", lambda device: names[device.type])

    class Model(torch.nn.Linear):
        def forward(self, rows_: Any) -> Any:
            torch.ones(3, 3, device="meta") @ torch.ones(3, 3, device="meta")
            return super().forward(rows_.bfloat16())

    model, found = Model(4, 4, dtype=torch.bfloat16).eval(), Counters()
    OperatorCounter(found).attach(model)
    with torch.no_grad():
        for _ in range(3):
            model(torch.ones(5, 4))
    (other,) = found.others
    assert (found.facts["device"], other.facts["device"]) == ("GPU-1", "GPU-0")
    assert (found.flop, other.flop) == (3 * 2 * 3**3, 3 * 2 * 5 * 4 * 4)
    assert other.facts["precision"] == {"bf16": 1_000_000}


@pytest.mark.parametrize(
    ("visible", "model", "uuid", "expected"),
    [
        (None, "NVIDIA A100", "12ab-34", "GPU-12ab-34"),
        ("1,0", "NVIDIA A100", "12ab-34", "GPU-12ab-34"),
        ("MIG-12ab-34,MIG-56", "NVIDIA A100 MIG 3g.40gb", "12ab-34", "MIG-12ab-34"),
        ("MIG-12", "NVIDIA A100 MIG 3g.40gb", "12ab-34", "MIG-12ab-34"),
        ("MIG-56", "NVIDIA A100 MIG 3g.40gb", "12ab-34", "MIG-56"),  # the uuid is the GPU's
        ("MIG-GPU-12ab-34/1/0", "NVIDIA A100 MIG 3g.40gb", "12ab-34", "MIG-GPU-12ab-34/1/0"),
        ("MIG-56", "NVIDIA A100 MIG 3g.40gb", None, "MIG-56"),
        (None, "NVIDIA A100", None, None),
    ],
)
def test_the_device_has_its_nvml_name(
    visible: str | None, model: str, uuid: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from flopsd.integrations.operators.sessions import device_uuid

    properties = SimpleNamespace(name=model, uuid=uuid)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.version, "hip", None)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_uuid(torch.device("cuda", 0)) == expected


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FLOPSD_DEVICE_UUID", DEVICE)
    return DEVICE


def counting(run: Callable[[], object]) -> int:
    with flop_counter() as counter:
        run()
    return int(counter.get_total_flops())


def test_operators_of_a_trainer_are_counted_in_training_evaluation_and_resumption(tmp_path: Path, device: str) -> None:
    from transformers import Trainer

    options = {
        "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "gradient_checkpointing": True,
        "save_strategy": "steps", "save_steps": 2, "max_steps": 4,
    }  # fmt: skip
    with declared_to(tmp_path / "1.sock", method="full") as (callback, found):
        trainer = Trainer(llama(), arguments(tmp_path, **options), train_dataset=rows(), eval_dataset=rows(8), callbacks=[callback])  # fmt: skip
        whole = counting(trainer.train)
    assert found.facts["device"] == device
    assert "operators_not_counted" not in found.facts
    assert found.work["train"]["operator_flop"] + found.work["evaluate"]["operator_flop"] == whole
    assert 0 < found.work["train"]["recomputed_operator_flop"] < found.work["train"]["operator_flop"]
    with declared_to(tmp_path / "2.sock", method="full") as (callback, found):
        trainer = trainer_of(tmp_path, callback, **{**options, "eval_strategy": "no"})
        whole = counting(lambda: trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2")))
    assert found.work["train"]["operator_flop"] == whole


def test_the_flag_and_the_variable_disable_the_operator_count(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, options in enumerate(({"operator_count": False}, {})):
        with declared_to(tmp_path / f"{at}.sock", **options) as (callback, found):
            trainer_of(tmp_path, callback, max_steps=1).train()
        assert "operator_flop" not in found.work["train"]
        assert "device" not in found.facts
        monkeypatch.setenv("FLOPSD_OPERATOR_COUNT", "off")
    assert device not in str(found.facts)


def layers_that_may_be_skipped() -> Any:
    class Layers(torch.nn.Sequential):
        runs = 3

        def forward(self, values: Any) -> Any:
            for layer in list(self)[: self.runs]:
                values = layer(values).relu()
            return values

    return Layers(*(torch.nn.Linear(8, 8) for _ in range(3)))


def test_a_pass_that_skips_layers_is_not_counted_like_full_ones() -> None:
    _, found = attached(model := layers_that_may_be_skipped())
    ran = 0
    for model.runs in (3, 3, 3, 3, 1, 3, 1, 1):
        with flop_counter() as counter:
            model(torch.ones(2, 8)).sum().backward()
        ran += counter.get_total_flops()
        assert found.flop <= ran
    assert found.flop > ran // 2
    assert any("fewer autograd nodes" in words for words in found.facts["operators_not_counted"]["train"])


def test_a_pass_that_runs_more_layers_than_earlier_ones_is_counted_in_full_soon_after() -> None:
    _, found = attached(model := layers_that_may_be_skipped())
    for model.runs in (1, 1, 1, 1, 3, 3):
        model(torch.ones(2, 8)).sum().backward()
    assert "the least that was seen" in found.facts["operators_not_counted"]["train"][0]


def test_each_rank_counts_its_own_operators(tmp_path: Path, scripts: Preloaded) -> None:
    import json

    script = tmp_path / "script.py"
    script.write_text("from tests.train.operator_ranks import main\nmain()\n")
    both = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2",
    }  # fmt: skip
    ranks = scripts.run(script, [{**both, "RANK": rank} for rank in "01"], tmp_path)
    assert [rank.code for rank in ranks] == [0, 0], ranks
    found = [json.loads(line) for rank in ranks for line in rank.output.splitlines() if line.startswith("{")]
    parts = {"ddp": 1, "fsdp": 1, "fsdp of one flat parameter": 1, "tensor": 2, "pipeline": 1}
    assert sorted(one["how"] for one in found) == sorted(2 * list(parts))
    for one in found:
        assert one["ours"] * parts[one["how"]] == one["alone"], one
        assert one["facts"] == {"device": DEVICE}
    for one in (one for one in found if one["how"] == "pipeline"):
        assert one["low"] <= one["alone"] <= one["high"]


def test_operators_before_the_daemon_was_met_are_not_sent_to_it(tmp_path: Path) -> None:
    clock = SkippingClock()
    client = Client((path := tmp_path / "client.sock",), clock)
    client.count("train", operator_flop=5, steps=1)
    server = EventServer(path)
    wait_until(lambda: client._is_served, "the daemon is met")
    wait_until(lambda: not client._work._sums["train"].get("operator_flop"), "nothing is left of before")
    clock.skipped_ns = QUEUED_NS
    client.count("train", operator_flop=7)
    client.another_session().count("train", operator_flop=11)
    client.close()
    events = server.all()
    sessions = {event.session for event in events}
    works = {name == client.session: work_of([one for one in events if one.session == name]) for name in sessions}
    assert works == {True: {"train": {"operator_flop": 7, "steps": 1}}, False: {"train": {"operator_flop": 11}}}


def test_a_pass_during_which_the_daemon_is_met_is_not_sent_to_it(tmp_path: Path) -> None:
    from flopsd.integrations.operator_counter import OperatorCounter

    client = Client((path := tmp_path / "client.sock",), clock := SkippingClock())
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    OperatorCounter(client, device=DEVICE).attach(model)
    servers, nothing = [], WorkCounted(client.session, {"train": {}})

    def meet(*_: object) -> None:
        servers.append(EventServer(path))
        servers[0].wait_for(FactsDeclared(client.session, {"operators_not_counted": {"train": [FORGOTTEN]}}))
        servers[0].wait_for(nothing)

    hook = model[1].register_forward_pre_hook(meet)
    model(torch.ones(1, 8))
    hook.remove()
    servers[0].wait_for(nothing)
    clock.skipped_ns = QUEUED_NS
    model(torch.ones(1, 8))
    client.close()
    assert work_of(servers[0].all()) == {"train": {"operator_flop": 2 * 2 * 8 * 8}}


def test_sums_are_limited_to_the_daemons_maximum(tmp_path: Path) -> None:
    from flopsd.core.declarations import MAX_COUNT
    from flopsd.core.declared_facts import work_from

    client = connect(tmp_path / "nobody.sock")
    for value in (MAX_COUNT, MAX_COUNT, -1, MAX_COUNT + 1, float("nan"), 1.0):
        client.count("train", operator_flop=value)  # type: ignore[arg-type]
    assert work_from(client._work.changed(frozenset(), {})[0]) == {"train": {"operator_flop": MAX_COUNT}}
    client.close(0)
