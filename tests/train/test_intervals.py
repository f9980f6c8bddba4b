"""PyTorch's count of a training lies within flopsd's interval, also where the training changes midway."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.train.families import build, flop_counter
from tests.train.intervals import (
    CASES,
    KINDS,
    LAYERS,
    LENGTH,
    Loop,
    adapted,
    alternating,
    basis_of,
    left_out_at_times,
    skipping,
)
from tests.train.operator_cases import Counters
from tests.train.pytorch import torch
from tests.train.random_trainings import Training
from tests.train.trainers import llama, rows, trainer_of
from tests.train.vision_families import BATCHES

pytestmark = [pytest.mark.training("peft"), pytest.mark.filterwarnings("ignore")]


def _is_within(flop: int, basis: Any) -> bool:
    executed = basis.counted.executed
    return bool(executed.low <= flop and (executed.high is None or flop <= executed.high))


@pytest.mark.parametrize("name", CASES)
def test_a_training_that_changes_midway_is_within_the_interval(name: str) -> None:
    loop = CASES[name]()
    assert _is_within(loop.flop, loop.basis())


def test_a_repeated_state_is_not_described_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describing a large model with adapters takes longer than some of its layers."""
    import peft

    from flopsd.integrations.describe_model import describe

    described: list[dict[str, Any]] = []

    def describe_again(*of: Any) -> dict[str, Any]:
        described.append(describe(*of))
        return described[-1]

    monkeypatch.setattr("flopsd.integrations.passes.model_sessions.describe", describe_again)
    model = adapted("LoraConfig", r=4, target_modules=["q_proj"])
    model.add_adapter("reference", peft.LoraConfig(r=4, target_modules=["q_proj"]))
    loop = Loop(model)
    for _ in range(4):
        model.set_adapter("reference")
        loop.passes(1)
        model.set_adapter("default")
        loop.steps()
    assert len(described) == 2
    assert loop.counted.others == []  # the facts are the same
    assert _is_within(loop.flop, loop.basis())


def test_the_first_rank_counts_for_ranks_that_share_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted_by(rank: int) -> Counters:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        model = llama()
        model._tp_size = 2
        loop = Loop(model).passes(1)
        return loop.counted

    assert [bool(counted_by(rank).work) for rank in range(4)] == [True, False, True, False]


def test_positions_that_restart_within_a_row_are_declared_as_packing() -> None:
    """transformers masks documents from each other where there is no mask."""
    loop, mask = Loop(llama()), torch.ones(2, LENGTH, dtype=torch.long)
    positions = (torch.arange(LENGTH) % 7).expand(2, LENGTH)
    loop._counted(lambda **inputs: loop.model(**inputs, position_ids=positions, attention_mask=mask).loss.backward())
    loop.counter.settle()
    assert "packing" not in loop.counted.facts
    loop._counted(lambda **inputs: loop.model(**inputs, position_ids=positions).loss.backward())
    assert _is_within(loop.flop, loop.basis())
    assert loop.counted.facts["packing"] is True


def test_a_pass_without_found_tokens_leaves_no_upper_bound() -> None:
    loop = Loop(llama()).steps()
    loop.model.forward = lambda batch: type(loop.model).forward(loop.model, **batch)
    loop._counted(lambda **inputs: loop.model(inputs).loss.backward())
    executed = loop.basis().counted.executed
    assert (executed.computed, executed.high) == (None, None)
    assert executed.low <= loop.flop


def test_steps_are_counted_beside_passes_of_which_no_whole_backward_pass_was_seen() -> None:
    """Steps alone leave no figure."""
    loop = Loop(llama())
    loop._counted(lambda **inputs: loop.model(**inputs, output_hidden_states=True).hidden_states[1].sum().backward())
    loop.counter.count_step()
    assert _is_within(loop.flop, loop.basis())


def test_random_trainings_are_within_the_interval() -> None:
    """`make random-trainings` has more."""
    found = [Training(seed) for seed in range(8)]
    assert [one.what for one in found if not one.is_within] == []
    assert sum(one.basis is not None for one in found) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_uncomputed_adapters_leave_no_upper_bound(kind: str) -> None:
    loop = KINDS[kind]()
    assert loop.counted.facts["not_counted"] == {"train": [f"adapters of the kind {kind}"]}
    executed = loop.basis().counted.executed
    assert executed.low <= loop.flop
    assert executed.computed is None
    assert executed.high is None


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("LoraConfig", {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
        ("AdaLoraConfig", {"init_r": 6, "target_r": 4, "target_modules": ["q_proj"], "total_step": 20}),
        ("IA3Config", {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
        ("LNTuningConfig", {"target_modules": ["input_layernorm"]}),
    ],
)
def test_computed_adapters_have_an_upper_bound(config: str, options: dict[str, Any]) -> None:
    loop = Loop(adapted(config, **options)).steps()
    assert loop.counted.facts.get("not_counted") is None
    assert loop.basis().counted.executed.high is not None
    assert _is_within(loop.flop, loop.basis())


def test_a_failed_backward_pass_leaves_no_hooks_on_parameters() -> None:
    """Its layers are recomputed in a graph of their own, so hooks watch whether gradients arrive there."""

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, states: Any) -> Any:
            return states.clone()

        @staticmethod
        def backward(_ctx: Any, _gradient: Any) -> Any:
            raise ValueError("this gradient fails")

    def hooks() -> int:
        return sum(len(one._backward_hooks or ()) for one in model.parameters())

    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    loop, layer = Loop(model), model.model.layers[0]
    forward = layer.forward
    layer.forward = lambda states, **named: forward(Fails.apply(states), **named)
    with pytest.raises(ValueError, match="this gradient fails"):
        (model(**loop.inputs).loss + model(**loop.inputs).loss).backward()
    assert hooks() > 1
    layer.forward = forward
    loop.steps()
    assert hooks() == 1  # on the furthest parameter


def test_a_repeated_state_continues_in_its_session() -> None:
    loop = CASES["checkpointed by turns"]()
    executed = loop.basis().counted.executed
    assert executed.low == executed.computed == loop.flop  # each session is exact
    passes = [one.work["train"]["forward_passes"] for one in (loop.counted, *loop.counted.others)]
    assert passes == [1 + 2 * 2, 2 * 2]
    assert [one.facts["recomputation"] for one in (loop.counted, *loop.counted.others)] == ["none", "full"]


def test_an_encoder_is_counted_once_per_pass() -> None:
    loop = CASES["T5, beams"]()
    work = loop.counted.work["other"]
    assert (work["tokens"], work["cross_tokens"]) == (2 * LENGTH, 4 * 2 * LENGTH)


def test_images_passed_before_a_generation_are_counted_with_it() -> None:
    """Not in the session of the previous pass, which may or may not train."""
    loop = Loop(build("idefics3"))
    inputs, _ = BATCHES["idefics3"]()
    loop.model.eval()(**inputs)
    del inputs["labels"]
    loop.model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert loop.basis().counted.executed.high is not None
    whole, perhaps = (one.work for one in (loop.counted, *loop.counted.others))
    assert whole["other"]["images"] == perhaps["train"]["images"] > 0


def test_fsdp_checkpointing_is_declared_only_where_it_is_applied() -> None:
    """Without FSDP, as on a CPU, it is not applied."""
    from types import SimpleNamespace

    from flopsd.integrations.describe_model import recomputation

    asked = SimpleNamespace(fsdp_config={"activation_checkpointing": True})
    assert recomputation(llama(), asked) is None
    assert recomputation(CASES["all layers wrapped"]().model, asked) == "full"


def test_layers_left_out_by_the_configuration_are_counted_as_such() -> None:
    loop = CASES["layers left out"]()
    assert loop.basis().counted.executed.computed == loop.flop


def test_empty_places_of_a_cache_leave_no_upper_bound() -> None:
    names = ("a cache of a fixed size", "a cache of a fixed size that is filled")
    part, whole = (CASES[name]().basis().counted.executed for name in names)
    assert (part.computed, part.high) == (None, None)
    assert whole.high is not None


def test_a_flat_parameter_that_is_trained_as_a_whole_keeps_the_upper_bound() -> None:
    mixed, whole = (
        CASES[name]().basis().counted.executed for name in ("adapters in a flat parameter", "a flat parameter")
    )
    assert (mixed.computed, mixed.high) == (None, None)
    assert whole.high is not None


class OutOfMemory(Exception):
    pass


class Interrupt(BaseException):
    """Like a KeyboardInterrupt, after which PyTorch calls no hook."""


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("error", [OutOfMemory, Interrupt])
def test_a_failed_pass_is_not_counted_as_whole_and_leaves_no_upper_bound(
    error: type[BaseException], gradients: bool
) -> None:
    def fails(*_: Any) -> None:
        raise error

    loop = Loop(llama(num_hidden_layers=3)).steps()
    hook = loop.model.model.layers[0].register_forward_pre_hook(fails)
    for _ in range(4):
        with pytest.raises(error), torch.set_grad_enabled(gradients):
            loop.model(torch.ones(2, LENGTH, dtype=torch.long))
    hook.remove()
    executed = loop.steps().basis().counted.executed
    assert (executed.low, executed.computed, executed.high) == (loop.flop, None, None)
    (words,) = loop.counted.facts["not_counted"].values()
    assert words == ["forward passes that ended with an error"]


@pytest.mark.parametrize("hooks", ["_forward_hooks", "_forward_pre_hooks"])
def test_hooks_removed_by_the_training_are_declared(hooks: str) -> None:
    loop = Loop(llama(num_hidden_layers=3)).steps()
    before = loop.flop
    for module in loop.model.modules():
        getattr(module, hooks).clear()
    executed = loop.steps(2).basis().counted.executed
    assert (executed.low, executed.computed, executed.high) == (before, None, None)
    assert "forward passes of a model whose hooks the training removed" in loop.counted.facts["not_counted"]["train"]


def test_a_model_may_call_itself() -> None:
    """Its inner pass is part of the outer one, and not a finished pass of its own."""

    class Recursive(torch.nn.Linear):
        def forward(self, rows: Any, again: bool = True) -> Any:
            return self(super().forward(rows), False) if again else super().forward(rows)

    from flopsd.integrations.forward_counter import ForwardCounter

    counted = Counters()
    ForwardCounter(counted).attach(model := Recursive(4, 4))
    with torch.no_grad():
        model(torch.ones(2, 3, 4))
    assert counted.work["evaluate"]["forward_passes"] == 1


def test_only_the_active_adapter_is_declared() -> None:
    import peft

    model = adapted("LoraConfig", r=4, target_modules=["q_proj"])
    model.add_adapter("other", peft.LoraConfig(r=8, target_modules=["down_proj"]))
    model.set_adapter("other")
    loop = Loop(model).steps()
    assert loop.counted.facts["lora"] == {"r": 8, "target_modules": ["down_proj"], "modules_to_save": None}
    assert loop.basis().counted.executed.computed == loop.flop


def test_attention_by_another_kernel_is_counted_in_a_separate_session() -> None:
    loop = Loop(llama()).steps()
    loop.model.set_attn_implementation("sdpa")
    loop.steps(2)
    sessions = [loop.counted, *loop.counted.others]
    assert [(one.facts["attention"], one.work["train"]["forward_passes"]) for one in sessions] == [
        ("eager", 1),
        ("sdpa", 2),
    ]


def test_parts_with_different_attention_kernels_have_no_common_kernel() -> None:
    from flopsd.integrations.describe_model import attention
    from flopsd.integrations.passes.token_counter import TokenCounter

    config = build("gemma3").config
    assert attention(config) == "eager"
    config.text_config._attn_implementation = "flash_attention_2"
    assert attention(config) == "sdpa"
    assert not TokenCounter(config).by_shape
    config.vision_config._attn_implementation = "flash_attention_2"
    assert attention(config) == "flash_attention_2"


def test_a_counter_whose_part_another_counter_took_says_so_when_the_rest_passes() -> None:
    from flopsd.integrations.forward_counter import TAKEN_OVER

    model = adapted("LoraConfig", r=4, target_modules=["q_proj"])
    outer = Loop(model).steps()
    inner = Loop(model.get_base_model()).steps()
    inner.counter.settle()
    assert "not_counted" not in outer.counted.facts
    outer.steps()
    assert outer.counted.facts["not_counted"] == {"train": [TAKEN_OVER]}


def test_sequences_shared_by_ranks_leave_no_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank sees its own tokens, and computes their attention to those of all ranks."""
    import accelerate
    from accelerate.state import AcceleratorState

    from flopsd.integrations.forward_counter import SPLIT

    shared = {"parallelism_config": accelerate.ParallelismConfig(cp_size=2)}
    monkeypatch.setattr(AcceleratorState, "_shared_state", shared)
    loop = Loop(llama()).steps()
    assert loop.basis().counted.executed.high is None
    assert loop.counted.facts["not_counted"] == {"train": [SPLIT]}


def test_uncounted_work_of_another_model_is_declared_from_its_first_pass_on() -> None:
    from flopsd.integrations.forward_counter import MADE_WEIGHTS
    from flopsd.integrations.other_models import count_other_model

    teacher, counted = llama(), Counters(current_phase=None)
    torch.nn.utils.parametrizations.orthogonal(teacher.lm_head)
    count_other_model(counted, teacher, "teacher")  # type: ignore[arg-type]
    assert counted.others == []
    with torch.no_grad():
        teacher(input_ids=torch.ones(1, 3, dtype=torch.long))
    assert counted.others[0].facts["not_counted"] == {"train": [MADE_WEIGHTS]}


def test_trainers_that_share_a_callback_have_separate_sessions(tmp_path: Path) -> None:
    from flopsd.integrations.transformers import FlopsdCallback

    class Client(Counters):
        def set_phase(self, phase: str | None) -> None:
            self.current_phase = phase

        def now_ns(self) -> int:
            return 0

    counted = Client(current_phase=None)
    callback = FlopsdCallback(client=counted, method="full", operator_count=False)  # type: ignore[arg-type]
    with flop_counter() as counter:
        trainers = [
            trainer_of(tmp_path, callback, model=llama(num_hidden_layers=count), max_steps=steps)
            for count, steps in ((1, 2), (3, 5))
        ]
        for trainer in trainers:
            trainer.train()
    assert not callback.failed
    assert [one.work["train"]["steps"] for one in (counted, *counted.others)] == [2, 5]
    assert basis_of(counted).counted.executed.computed == counter.get_total_flops()
    trainers[0].evaluate(rows(4))  # passes before the callback saw the model are not counted
    assert basis_of(counted).counted.executed.high is None


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_layers_skipped_by_a_pass_leave_no_figure(inside: bool, gradients: bool) -> None:
    """It is unknown which of them other passes ran."""
    from flopsd.integrations.passes.model_watch import LAYERS as WORDS

    loop = skipping(inside=inside, gradients=gradients)
    with pytest.raises(AssertionError, match="layers_left_out"):
        loop.basis()
    assert loop.counted.facts["not_counted"] == {"train": [WORDS]}


def test_layers_left_out_by_each_sixth_pass_leave_no_figure() -> None:
    """The first is not watched. It shows by its number of autograd nodes, and passes are watched until the next."""
    loop = alternating(left_out_at_times, 6)
    assert loop.basis().counted.executed.high is not None
    with pytest.raises(AssertionError, match="layers_left_out"):
        alternating(left_out_at_times).basis()


def test_a_model_declared_to_skip_layers_is_counted_by_its_weights() -> None:
    loop = skipping(inside=True, declared=True)
    executed = loop.basis().counted.executed
    assert _is_within(loop.flop, loop.basis())
    assert executed.high is not None
    assert executed.high < executed.low * 1.2


def test_recomputed_layers_are_no_second_backward_pass() -> None:
    """With a reentrant checkpoint, which has its own tasks."""
    model = adapted("LoraConfig", r=4, target_modules=["q_proj"])
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    loop = Loop(model).steps(2)
    assert loop.basis().counted.executed.high is not None
    assert _is_within(loop.flop, loop.basis())


@pytest.mark.parametrize("by_flag", [True, False])
def test_a_counted_model_whose_parameters_pytorch_swaps_is_converted(by_flag: bool) -> None:
    """As PyTorch does for distributed and quantized parameters, and for all by a flag."""
    from torch.testing._internal.two_tensor import TwoTensor

    from flopsd.integrations.operator_counter import OperatorCounter

    future = importlib.import_module("torch.__future__")
    future.set_swap_module_params_on_conversion(by_flag)
    try:
        loop = Loop(llama())
        if not by_flag:
            weight = loop.model.lm_head.weight.detach()
            loop.model.lm_head.weight = torch.nn.Parameter(TwoTensor(weight, weight.clone()))
        OperatorCounter(Counters(), device="GPU-of-the-tests").attach(loop.model)
        loop.steps(2)
        loop.model.zero_grad()
        loop.model.to(torch.bfloat16)
        loop.steps().counter.settle()
    finally:
        future.set_swap_module_params_on_conversion(False)
    assert loop.counted.work["train"]["forward_passes"] == 3
