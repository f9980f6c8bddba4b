"""Count the models that run alongside the trained one: a reference, a reward model, a teacher, a critic.

Each has its own session, with its role, which is opened at the model's first forward pass:

    counter = count_other_model(client, teacher, "teacher")
    ...
    counter.settle()

`OtherModels` finds those of a Trainer, which does not pass them to its callbacks.
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
    """The session of another model. At the first pass it opens, and declares the model as it is then."""

    def __init__(self, client: Client, model: Any, role: Role) -> None:
        self._beside, self._role = client, role
        self._model: Callable[[], Any] = weakref.ref(model)
        self._client: Client | None = None
        self._unsent: dict[str, object] = {}  # facts declared before the session opened

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
    """Count the forward passes of `model`, which runs alongside the trained model of `client`. `role`: one of
    `flopsd.core.declarations.Role`. `phase_of` as for `ForwardCounter`. Raises ValueError for an unknown role."""
    counter = ForwardCounter(_ModelSession(client, model, Role(role)), phase_of)
    # In a model that torch.compile has compiled, only the hooks of the outer module are called.
    counter.attach(model, compiled=hasattr(model, "_orig_mod"))
    return counter


class OtherModels:
    """The other models of a Trainer, found among its attributes and the arguments of its constructor."""

    def __init__(self, client: Client, phase_of: PhaseOf, operators: OperatorCounter | None = None) -> None:
        self._client, self._phase_of, self._operators = client, phase_of, operators
        self._counters: list[ForwardCounter] = []
        self.not_counted: list[str] = []  # texts about models that cannot be counted

    def find(self, trained: Any) -> None:
        """Count all models that the calling Trainer holds now, except `trained` and its parts."""
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
    """The facts of another model; those about its training only if it is trained, as a critic is."""
    facts = describe(model, None)
    trained = ("method", "parameters_trainable", "recomputation", "framework")
    return {name: value for name, value in facts.items() if role is Role.CRITIC or name not in trained}


def _role_of(name: str) -> Role:
    return next((role for part, role in _ROLES if part in name.lower()), Role.OTHER)


def _held_by_trainer() -> Iterator[tuple[str, Any]]:
    """The attributes of the Trainer that called its callbacks, and the local variables of its running methods. A
    Trainer passes its callbacks neither itself nor its other models. Its constructor calls the callbacks before it has
    set the models as attributes, and may use the models before the next callback."""
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
    """The model; if it contains `known` modules, its other parts, such as a decoder of its own in a loss."""
    if id(model) in known or not any(True for _ in model.parameters()):
        return
    if known.isdisjoint(id(module) for module in model.modules()):
        yield model
        return
    for part in model.children():
        yield from _apart(part, known)


def _unwrapped(model: Any) -> Any:
    """The model inside the wrappers of DeepSpeed and DDP, which call it as a module."""
    while isinstance(inner := getattr(model, "module", None), torch.nn.Module):
        model = inner
    return model
