"""Small real training loops whose operators are counted twice: by flopsd, and by PyTorch's own FlopCounterMode.

`python -m tests.train.operator_cases` prints the table; `… NAME` one row of it.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from tests.train.families import adapt, flop_counter
from tests.train.pytorch import torch
from tests.train.trainers import llama

DEVICE = "GPU-of-the-tests"
STEPS, BATCH, LENGTH = 4, 2, 12
_MOE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 48,
}  # fmt: skip


@dataclass
class Counters:
    """Replaces a client: records the declarations."""

    work: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    facts: dict[str, Any] = field(default_factory=dict)
    others: list[Counters] = field(default_factory=list)
    current_phase: str | None = "evaluate"

    def count(self, phase: str, **counters: int) -> None:
        for name, value in counters.items():
            self.work[phase][name] += value

    def counting(self, phase: str, **counters: int) -> Callable[[], None]:
        return lambda: self.count(phase, **counters)

    def declare(self, **facts: object) -> None:
        self.facts.update({name: value for name, value in facts.items() if value is not None})

    def another_session(self) -> Counters:
        self.others.append(Counters())
        return self.others[-1]

    @property
    def flop(self) -> int:
        return sum(counters["operator_flop"] for counters in self.work.values())

    @property
    def again(self) -> int:
        return sum(counters["recomputed_operator_flop"] for counters in self.work.values())


def _moe(kind: str, experts: str, **more: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        config = transformers.AutoConfig.for_model(kind, **{**_MOE, **more})
        how = {"attn_implementation": "eager", "experts_implementation": experts}
        return transformers.AutoModelForCausalLM.from_config(config, **how).train()

    return build


def _lora(**more: Any) -> Any:
    return adapt(llama(**more), ["q_proj", "v_proj"])


def _checkpointed(model: Any, *, reentrant: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.enable_input_require_grads()
    return model


def _qlora() -> Any:
    import bitsandbytes

    model = torch.nn.Sequential(
        bitsandbytes.nn.Linear4bit(64, 128, bias=False), torch.nn.GELU(), bitsandbytes.nn.Linear4bit(128, 64)
    )
    return torch.nn.Sequential(torch.nn.Linear(64, 64), model.to("cpu"), torch.nn.Linear(64, 64))


def _images() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=4), nn.ConvTranspose2d(8, 4, 2, stride=2)
    )


def _linear() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 32, bias=False), nn.GELU(), nn.Linear(32, 16, bias=False))


@dataclass(frozen=True)
class Case:
    build: Callable[[], Any]
    batch: str = "text"
    backend: str | None = None  # of torch.compile
    optimizer: str = "SGD"
    accumulate: int = 1
    evaluate: bool = False
    padded: bool = False
    # Why PyTorch's count differs.
    difference: str = ""


CASES: Mapping[str, Case] = {
    "full": Case(llama),
    "LoRA": Case(_lora),
    "checkpointing": Case(lambda: _checkpointed(llama(), reentrant=False)),
    "checkpointing, reentrant": Case(lambda: _checkpointed(llama(), reentrant=True)),
    "LoRA, checkpointing": Case(lambda: _checkpointed(_lora(), reentrant=False)),
    "accumulation": Case(llama, accumulate=3),
    "evaluation": Case(llama, evaluate=True),
    "Mixtral, a loop of experts": Case(_moe("mixtral", "eager", num_local_experts=4)),
    "Mixtral, batched": Case(_moe("mixtral", "batched_mm", num_local_experts=4)),
    "Qwen2-MoE, a loop of experts": Case(_moe("qwen2_moe", "eager", num_experts=6)),
    "Mixtral, grouped": Case(
        _moe("mixtral", "grouped_mm", num_local_experts=4), difference="grouped_mm has no formula in PyTorch"
    ),
    "attention by one kernel": Case(
        lambda: llama("sdpa"), difference="the CPU's kernel has no formula in PyTorch; causal: s(s+1)/2 pairs"
    ),
    "convolutions": Case(_images, "images", difference="PyTorch leaves the groups out of a gradient's formula"),
    "4-bit weights": Case(_qlora, "rows", difference="products of 4-bit weights in one kernel have no formula in PyTorch"),
    "Muon": Case(_linear, "rows", optimizer="Muon"),
    "compiled graph": Case(_linear, "rows", backend="aot_eager"),
    "compiled graph of a Llama": Case(llama, backend="aot_eager"),
    "compiled graph, LoRA, checkpointing": Case(
        lambda: _checkpointed(_lora(), reentrant=False), backend="aot_eager",
        difference="the compiled graph computes the whole layer again, and PyTorch's eager pass stops early",
    ),
    "compiled by inductor": Case(llama, backend="inductor"),
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    ours: Counters
    theirs: int

    @property
    def ratio(self) -> float:
        return self.ours.flop / self.theirs


def compare(name: str, steps: int = STEPS) -> Compared:
    """Count `steps` steps both ways, with two equal models: PyTorch's counter would keep torch.compile from
    compiling."""
    from flopsd.integrations.operator_counter import OperatorCounter

    case, ours = CASES[name], Counters()

    def attach(model: Any, optimizer: Any) -> None:
        OperatorCounter(ours, device=DEVICE).attach(model, optimizer)

    train(case, steps, attach=attach)
    with flop_counter() if not case.difference else _torch_counter() as counter:
        train(case, steps, compiled=False)
    return Compared(ours, counter.get_total_flops())


def _torch_counter() -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)


def train(case: Case, steps: int, *, attach: Callable[[Any, Any], None] | None = None, compiled: bool = True) -> Any:
    """The model after `steps` steps, with two sequence lengths in turn."""
    torch.manual_seed(1)
    model = case.build()
    used = torch.compile(model, backend=case.backend) if case.backend and compiled else model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = getattr(torch.optim, case.optimizer)(trained, lr=1e-3)
    if attach is not None:
        attach(used, optimizer)
    for step in range(steps):
        model.train(not case.evaluate)
        for _ in range(case.accumulate):
            with torch.no_grad() if case.evaluate else nullcontext():
                loss = _loss(used, case, LENGTH + 2 * (step % 2))
            if not case.evaluate:
                loss.backward()
        if not case.evaluate:
            optimizer.step()
            optimizer.zero_grad()
    return model


def _loss(model: Any, case: Case, length: int) -> Any:
    if case.batch == "images":
        return model(torch.randn(BATCH, 3, length, length)).sum()
    if case.batch == "rows":
        return model(torch.randn(length, 64)).sum()
    ids = torch.randint(4, 64, (BATCH, length))
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def lines(names: list[str]) -> Iterator[str]:
    yield "| training | PyTorch's FlopCounterMode | operator_flop | ratio | of them recomputed | |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        one = compare(name)
        yield (
            f"| {name} | {one.theirs:,} | {one.ours.flop:,} | {one.ratio:.3f} | {one.ours.again:,} "
            f"| {CASES[name].difference} |"
        )
        if words := one.ours.facts.get("operators_not_counted"):
            yield f"  {words}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in lines(sys.argv[1:] or list(CASES)):
        print(line, flush=True)
