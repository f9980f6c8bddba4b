"""Counts the models that work beside the trained one: a reference, a reward model, a teacher, a critic.

Each has a session of its own, with its role, which is opened at its first forward pass:

    counter = count_other_model(client, teacher, "teacher")
    ...
    counter.settle()

`OtherModels` finds those of a Trainer, whose callbacks are not handed them.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, ValuesView
from typing import Any

import torch

from flopsd.client import Client
from flopsd.core.declarations import Role
from flopsd.integrations.describe_model import describe
from flopsd.integrations.forward_counter import ForwardCounter
from flopsd.integrations.operator_counter import OperatorCounter
from flopsd.integrations.phase_of import PhaseOf

MAX_OTHER_MODELS = 4  # each is a connection to the daemon, which serves 64
_ROLES = (
    ("reward", Role.REWARD), ("teacher", Role.TEACHER), ("critic", Role.CRITIC), ("value", Role.CRITIC),
    ("ref", Role.REFERENCE),
)  # fmt: skip


class _ModelSession:
    """The session of another model. It opens and declares at the first pass, as the model is then."""

    def __init__(self, client: Client, model: Any, role: Role) -> None:
        self._beside, self._role = client, role
        self._model: Callable[[], Any] = weakref.ref(model)
        self._client: Client | None = None
        self._unsent: dict[str, object] = {}  # what was declared before

    @property
    def current_phase(self) -> str | None:
        return self._beside.current_phase

    def count(self, phase: str, **counters: int) -> None:
        self._opened().count(phase, **counters)

    def counting(self, phase: str, **counters: int) -> Callable[[], None]:
        return self._opened().counting(phase, **counters)

    def declare(self, **facts: object) -> None:
        if self._client is None:
            self._unsent |= facts
        else:
            self._client.declare(**facts)

    def _opened(self) -> Client:
        if self._client is None:
            self._client = self._beside.another_session()
            self._client.declare(**{**_facts(self._model(), self._role), **self._unsent, "role": self._role.value})
        return self._client


def count_other_model(client: Client, model: Any, role: str, phase_of: PhaseOf | None = None) -> ForwardCounter:
    """Count the forward passes of `model`, which has the role `role` beside the model that `client` is for. `role` is
    one of `flopsd.core.declarations.Role`; ValueError for any other. `phase_of` as for `ForwardCounter`."""
    counter = ForwardCounter(_ModelSession(client, model, Role(role)), phase_of)
    # A graph that torch.compile makes of a model calls the outer module's hooks only.
    counter.attach(model, compiled=hasattr(model, "_orig_mod"))
    return counter


class OtherModels:
    """Those that a Trainer holds, found among its attributes and among the arguments of its constructor."""

    def __init__(self, client: Client, phase_of: PhaseOf, operators: OperatorCounter | None = None) -> None:
        self._client, self._phase_of, self._operators = client, phase_of, operators
        self._counters: list[ForwardCounter] = []
        self.not_counted: list[str] = []  # those that could not be attached to

    def find(self, trained: Any) -> None:
        """Count all models that the calling Trainer holds by now, but for `trained` and its parts."""
        known = {id(module) for module in trained.modules()} if isinstance(trained, torch.nn.Module) else set()
        known |= {id(part) for counter in self._counters for part in counter.modules()}
        for name, found in _models_in(_held_by_trainer()):
            for model in _apart(_unwrapped(found), known):
                known |= {id(module) for module in model.modules()}
                self._attach(name, model)

    def settle(self, phase: str = "other") -> None:
        for counter in self._counters:
            counter.settle(phase)

    def settle_phase(self, phase: str) -> None:
        for counter in self._counters:
            counter.settle_phase(phase)

    def _attach(self, name: str, model: Any) -> None:
        if self._operators is not None:
            self._operators.attach(model, compiled=hasattr(model, "_orig_mod"), phase_of=self._phase_of)
        compiled = getattr(model, "_compiled_call_impl", None) is not None
        if len(self._counters) >= MAX_OTHER_MODELS or compiled:
            why = "a hook would break its compiled graph" if compiled else f"more than {MAX_OTHER_MODELS} models"
            self.not_counted.append(f"the trainer's {name}: {why}")
            return
        self._counters.append(count_other_model(self._client, model, _role_of(name).value, self._phase_of))


def _facts(model: Any, role: Role) -> dict[str, Any]:
    """What describes a model beside the trained one; how it is trained only where it is."""
    facts = describe(model, None)
    trained = ("method", "parameters_trainable", "recomputation", "framework")
    return {name: value for name, value in facts.items() if role is Role.CRITIC or name not in trained}


def _role_of(name: str) -> Role:
    return next((role for part, role in _ROLES if part in name.lower()), Role.OTHER)


def _held_by_trainer() -> Iterator[tuple[str, Any]]:
    """Attributes of the Trainer that called its callbacks, and local names of its methods that run now. A Trainer hands
    its callbacks neither itself nor its other models. Its constructor calls them before it has set those as attributes,
    and may use them before it calls them again."""
    frame, trainer = sys._getframe(1), None
    while frame is not None:
        names = frame.f_locals
        own = names.get("self")
        if trainer is None and hasattr(own, "callback_handler") and hasattr(own, "args"):
            trainer = own
            yield from list(vars(trainer).items())
        if trainer is not None and own is trainer:
            yield from list(names.items())
        frame = frame.f_back  # type: ignore[assignment]


def _models_in(names: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, value in names:
        several = value.values() if isinstance(value, Mapping) else value
        for one in several if isinstance(several, list | tuple | ValuesView) else (several,):
            if isinstance(one, torch.nn.Module):
                yield name, one


def _apart(model: Any, known: set[int]) -> Iterator[Any]:
    """The model, or what it holds beside `known` modules, such as a loss with a decoder of its own."""
    if id(model) in known or not any(True for _ in model.parameters()):
        return
    if known.isdisjoint(id(module) for module in model.modules()):
        yield model
        return
    for part in model.children():
        yield from _apart(part, known)


def _unwrapped(model: Any) -> Any:
    """The model within the wrappers of DeepSpeed and DDP, which call it as a module."""
    while isinstance(inner := getattr(model, "module", None), torch.nn.Module):
        model = inner
    return model
