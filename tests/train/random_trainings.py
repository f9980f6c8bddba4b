"""Random trainings of small models of every family, compared with PyTorch's own count: the trained part (a random
part, or adapters on random matrices), checkpointing of either kind, padding, odd lengths, dropped layers, passes
without gradients in between, passes that record gradients without need, for two backward passes, for a loss of an inner
state, for some gradients, or with a cache, and changes of the model between the steps.

`python -m tests.train.random_trainings [FIRST [COUNT]]` prints each training whose count is outside the interval.
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flopsd.core.policy.reconcile import Architecture
from tests.train.families import FAMILIES, build, flop_counter, text_batch
from tests.train.intervals import basis_of
from tests.train.operator_cases import Counters
from tests.train.unread_models import MODELS
from tests.train.vision_families import BATCHES, loss_of

BUILDERS: Mapping[str, Callable[[], Any]] = {
    **{name: partial(build, name) for name in FAMILIES},
    **{name: builder for name, (builder, targets) in MODELS.items() if targets is not None},
}


class Training:
    """One training, by its seed. `basis` is None where there was nothing to train, or flopsd states no figure."""

    def __init__(self, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        self._random = random.Random(seed)
        self.name = self._random.choice(list(BUILDERS))
        self.what = [self.name]
        self.flop = 0
        self.basis: Architecture | None = None
        model = BUILDERS[self.name]().train()
        if hasattr(model.config, "decoder_layerdrop") and self._random.random() < 0.4:
            model.config.decoder_layerdrop = 0.5
            for module in model.modules():
                if hasattr(module, "layerdrop"):
                    module.layerdrop = 0.5
            self.what.append("layers dropped")
        model = self._checkpointed(self._trained(model))
        if self._random.random() < 0.25:
            self._checkpoint_parts(model)
        if self._random.random() < 0.15:
            self._cut(model)
        if any(parameter.requires_grad for parameter in model.parameters()):
            self._run(model)

    @property
    def is_within(self) -> bool:
        if self.basis is None:
            return True
        executed = self.basis.counted.executed
        return executed.low <= self.flop and (executed.high is None or self.flop <= executed.high)

    def _trained(self, model: Any) -> Any:
        """The model with a part of it frozen, or with adapters."""
        draw = self._random
        way = draw.choice(["all", "some", "first", "last", "vectors", "adapters", "adapters", "adapters and more"])
        if way.startswith("adapters"):
            self.what.append(way)
            return self._adapted(model, more=way != "adapters")
        self._freeze(model, way)
        return model

    def _freeze(self, model: Any, way: str) -> None:
        self.what.append(way)
        draw, parameters = self._random, list(model.parameters())
        share, at = draw.random(), draw.randrange(1, len(parameters))
        for index, parameter in enumerate(parameters):
            parameter.requires_grad_(
                {
                    "all": True, "some": draw.random() < share, "first": index < at, "last": index >= at,
                    "vectors": parameter.dim() == 1,
                }[way]
            )  # fmt: skip

    def _changed(self, model: Any) -> Any:
        """The model as it is changed between two steps, if it is."""
        import torch

        change = self._random.choice(["", "freeze", "checkpoint", "mode", "remove"])
        if change == "freeze":
            self._freeze(model, self._random.choice(["all", "some", "first", "last", "vectors"]))
        elif change == "checkpoint":
            return self._checkpointed(model)
        elif change == "mode":
            self.what.append("another mode")
            model.train(not model.training)
        elif change == "remove":
            lists = [m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and n.endswith("layers")]
            if lists and len(lists[0]) > 1:
                self.what.append("a layer removed")
                del lists[0][self._random.randrange(len(lists[0]))]
        return model

    def _adapted(self, model: Any, *, more: bool) -> Any:
        import peft
        import torch

        draw, named = self._random, list(model.named_modules())
        matrices = [name for name, module in named if isinstance(module, torch.nn.Linear)]
        targets = draw.sample(matrices, min(len(matrices), draw.choice([1, 2, 3, 5, len(matrices)])))
        self.what += targets[:3]
        saved = {"modules_to_save": [draw.choice(named)[0].rpartition(".")[2]]} if draw.random() < 0.2 else {}
        config = peft.LoraConfig(r=draw.choice([1, 3, 8]), target_modules=targets, **saved)
        try:
            model = peft.get_peft_model(model, config)
        except (AttributeError, NotImplementedError, TypeError, ValueError):  # PEFT refuses it
            model.requires_grad_(False)
            return model
        for parameter in model.parameters() if more else ():
            parameter.requires_grad_(parameter.requires_grad or draw.random() < 0.1)
        return model

    def _checkpointed(self, model: Any) -> Any:
        if (reentrant := self._random.choice([None, None, False, True])) is None:
            return model
        try:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        except (AttributeError, ValueError):  # it has no checkpointing
            return model
        self.what.append(f"checkpointing, reentrant={reentrant}")
        return model

    def _checkpoint_parts(self, model: Any) -> None:
        """The loop recomputes all modules of one name, perhaps within layers that are recomputed."""
        from torch.utils.checkpoint import checkpoint

        parts = {name for layer in model.modules() for name, one in layer.named_children() if any(one.children())}
        name = self._random.choice(sorted(parts))
        for place, module in model.named_modules():
            if place.endswith(f".{name}") and not hasattr(module, "__len__"):
                module.forward = partial(checkpoint, module.forward, use_reentrant=False)
        self.what.append(f"checkpointed {name}")

    def _cut(self, model: Any) -> None:
        """A layer that passes no gradients on, or runs without any; perhaps only in some passes, or with a path around."""
        import torch

        layers = [one for m in model.modules() if isinstance(m, torch.nn.ModuleList) for one in m]
        if not layers:
            return
        draw, module = self._random, self._random.choice(layers)
        forward, share, way = module.forward, draw.choice([0.3, 1]), draw.choice(["run", "cut", "around"])

        def call(*of: Any, **named: Any) -> Any:
            if draw.random() > share:
                return forward(*of, **named)
            if way == "cut":
                return forward(*map(_detached, of), **{n: _detached(v) for n, v in named.items()})
            with torch.no_grad():
                found = forward(*of, **named)
            same = way == "around" and of and getattr(found, "shape", None) == of[0].shape
            return of[0] + (found - of[0]) if same else found

        module.forward = call
        self.what.append(f"a layer without gradients, {way}, {share}")

    def _run(self, model: Any) -> None:
        from flopsd.integrations.describe_model import describe
        from flopsd.integrations.forward_counter import ForwardCounter

        counted = Counters(current_phase=None)
        counted.declare(method=self._random.choice([None, "full"]))
        counted.declare(**describe(model, None))
        counter = ForwardCounter(counted)
        counter.attach(model)
        for number in range(self._random.choice([1, 2, 2, 6, 10])):
            try:
                with flop_counter() as flop:
                    model = self._changed(model) if number else model
                    self._step(model)
            except Exception as fault:  # noqa: BLE001 (whatever model, PEFT and PyTorch's counter refuse)
                self.what.append(str(fault)[:60])
            self.flop += flop.get_total_flops()
        assert not counter._hooks.failed
        counter.settle()
        try:
            self.basis = basis_of(counted)
        except AssertionError:  # a module whose matrices flopsd does not know
            self.what.append("no figure")

    def _step(self, model: Any) -> None:
        import torch

        draw, base = self._random, model.get_base_model() if hasattr(model, "get_base_model") else model
        inputs, _ = BATCHES[self.name]() if self.name in BATCHES else text_batch(base, draw.choice([7, 13, 24, 30]))
        if self.name not in BATCHES and "input_ids" in inputs and draw.random() < 0.4:
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            inputs["attention_mask"][0, -draw.randrange(1, 6) :] = 0
        way = draw.choice(["", "", "", "no backward pass", "cut off", "twice", "beside a cache", "inner state", "some"])
        self.what += [way] if way else []
        if way == "beside a cache":
            first = model(**inputs, use_cache=True)
            loss = loss_of(model(**inputs, past_key_values=first.past_key_values)) + loss_of(first)
        elif way == "inner state":
            loss = draw.choice(model(**inputs, output_hidden_states=True).hidden_states).sum()
        else:
            loss = loss_of(model(**inputs))
        if way == "cut off":
            loss.detach()
        elif way == "some":
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            loss.backward(inputs=draw.sample(trained, draw.randint(1, len(trained))))
        elif way != "no backward pass":
            loss.backward(retain_graph=way == "twice")
        if way == "twice":
            loss.backward()
        if draw.random() < 0.3:
            with torch.no_grad():
                model(**inputs)


def _detached(value: Any) -> Any:
    return value.detach() if hasattr(value, "detach") else value


def main(first: int, count: int) -> None:
    outside = figures = 0
    for seed in range(first, first + count):
        found = Training(seed)
        figures += found.basis is not None
        if not found.is_within:
            assert found.basis is not None
            outside += 1
            print(seed, found.what, found.flop, found.basis.counted.executed)
    print(f"{count} trainings, {figures} with a figure, {outside} outside of their interval")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("first", type=int, nargs="?", default=0, help="the seed of the first training")
    options.add_argument("count", type=int, nargs="?", default=300, help="how many trainings")
    given = options.parse_args()
    main(given.first, given.count)
