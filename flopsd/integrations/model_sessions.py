"""The sessions that count the passes of one model. The facts of a session hold for all of its work, so a model that is
trained otherwise from now on, such as with other layers frozen, is counted in another session."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from typing import Any

from flopsd.core.architecture import LAYERS_LEFT_OUT
from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Method, Recomputation
from flopsd.core.declared_facts import facts_from
from flopsd.integrations.describe_model import describe
from flopsd.integrations.device_sums import DeviceSums
from flopsd.integrations.phase_of import UNSETTLED, Session

MAX_KNOWN = 1024
MAX_STATES = 64
MAX_SESSIONS = 4  # each is a connection to the daemon, which serves 64
# What of a model's facts may change within a run: `describe` says what it is now.
_COUNTS = ("parameters_total", "parameters_trainable")
_CHANGING = (*_COUNTS, "method", "lora", "recomputation", "attention")
_OF_MODEL = (*_CHANGING, "model_config", "window", "packing")
_NOT_COPIED = ("device", "not_counted", "operators_not_counted")
_ALL_WEIGHTS = (Method.PRETRAINING, Method.FULL)
Deferred = list[tuple[str, Any]]  # counters, and tensors of one element to add to them
_TOO_MANY = f"training of other weights than before, more than {MAX_SESSIONS} times"


class SessionTally:
    """One session, and work that is not declared to it yet."""

    def __init__(self, client: Session) -> None:
        self.client = client
        self.on_device = DeviceSums()
        # A pass counts what another with the same names and shapes of arguments counted.
        self.known: dict[tuple[object, ...], PassCount] = {}
        self._count_step: Callable[[], None] | None = None
        self.has_counted = False
        self._unsettled: dict[str, int] = defaultdict(int)

    def count(self, phase: str, found: Mapping[str, int]) -> None:
        self.has_counted = True
        if phase == UNSETTLED:
            for name, value in found.items():
                self._unsettled[name] += value
        else:
            self.client.count(phase, **found)

    def hold(self, phase: str, found: Mapping[str, int]) -> None:
        """Count a pass when the tensors of it are read."""
        self.has_counted = True
        self.on_device.hold(phase, found)

    def count_step(self) -> None:
        if self._count_step is None:  # asked for before, it would open the session of a model that may never pass
            self._count_step = self.client.counting("train", steps=1)
        self._count_step()

    def remember(self, key: tuple[object, ...], one: PassCount) -> None:
        """Count as `one`, in one call from now on, where a pass with this key comes again."""
        if len(self.known) >= MAX_KNOWN:
            self.known.clear()
        self.known[key] = PassCount(
            self, one.phase, one.found, self.client.counting(one.phase, **one.found), one.padded
        )

    def add_tensors(self, phase: str, tokens: int, unpadded: Any, deferred: Deferred) -> None:
        """What depends on the content of tensors. `unpadded`: of how many of these tokens are no padding, if known."""
        if unpadded is not None:
            self.on_device.of(phase, "padding_tokens").add_rest(tokens, unpadded)
        for counter, value in deferred:
            self.on_device.add(phase, counter, value)

    def settle_phase(self, phase: str) -> None:
        """Assign unsettled work to `phase`, without waiting for the device."""
        unsettled, self._unsettled = self._unsettled, defaultdict(int)
        if unsettled:
            self.client.count(phase, **unsettled)
        self.on_device.move(UNSETTLED, phase)

    def settle(self) -> None:
        """Declare the sums on the device. Waits for it."""
        for phase, counters in self.on_device.take().items():
            self.client.count(phase, **counters)


@dataclass(slots=True)
class PassCount:
    """What `tally` counts of a pass, and of all like it. `count` counts `found` in `phase`; `padded`: some tokens may
    be padding."""

    tally: SessionTally
    phase: str
    found: dict[str, int]
    count: Callable[[], None]
    padded: bool

    def add(self, unpadded: Any, deferred: Deferred) -> None:
        if deferred:
            self.add_to(self.tally, self.phase, unpadded, deferred)
            return
        self.count()
        if unpadded is not None:
            self.tally.add_tensors(self.phase, self.found.get("tokens", 0), unpadded, deferred)

    def add_to(self, tally: SessionTally, phase: str, unpadded: Any, deferred: Deferred) -> None:
        count = tally.hold if deferred else tally.count
        count(phase, self.found)
        tally.add_tensors(phase, self.found.get("tokens", 0), unpadded, deferred)


class ModelSessions:
    """By the facts of the model that were declared to them."""

    def __init__(self, client: Any) -> None:
        """`client`: a Session, which opens others where it shows its `facts`."""
        self._client = client
        # Of the model as it was described last, and as it was in the last pass with gradients.
        self.now = self.trained = SessionTally(client)
        self.all = [self.now]
        self._by_facts: dict[str, SessionTally] = {}
        self._by_state: dict[object, SessionTally] = {}  # to describe a large model takes as long as some of its layers
        self._perhaps: dict[SessionTally, SessionTally] = {}

    def go_back(self, state: object, *, trains: bool) -> bool:
        """Whether the model was described in this `state` before: what passes it now belongs to that session."""
        if (known := self._by_state.get(state)) is None:
            return False
        self.now = known
        self.trained = known if trains else self.trained
        return True

    def describe_again(self, model: Any, state: object, *, trains: bool, changed: Set[str]) -> None:
        """What passes `model` from now on, in this `state`, belongs to the session of its facts now. `changed`: which
        of `recomputation` and `attention` are others than before; else they are what was declared."""
        before = _facts(self.now.client)
        described = describe(model, None)
        found = {name: value for name, value in described.items() if name in (*_CHANGING, "not_counted")}
        found |= {name: before.get(name) for name in ("recomputation", "attention") if name not in changed}
        kept = {name: value for name, value in before.items() if name not in (*_CHANGING, *_NOT_COPIED)}
        if "model_config" in kept:
            kept["model_config"] = _with_sizes(kept["model_config"], described.get("model_config") or {})
        first = _facts(self._client).get("method")
        if found.get("method") is None:  # all weights: as it was declared, if that is what it was
            found["method"] = first if first in (None, *_ALL_WEIGHTS) else Method.FULL
        elif found["method"] is Method.PARTIAL and first == Method.PRETRAINING:
            found["method"] = first  # that not all are trained follows from their number
        self._declare({**kept, **found}, trains=trains)
        if len(self._by_state) >= MAX_STATES:
            self._by_state.clear()
        self._by_state[state] = self.now

    def declare(self, facts: Mapping[str, Any]) -> None:
        """What is true of the model from now on. Parameters that cannot be counted are as many as before."""
        self._by_state.clear()
        self._declare(facts, trains=True)

    def _declare(self, facts: Mapping[str, Any], *, trains: bool) -> None:
        before = _facts(self.now.client)
        counts = {name: before[name] for name in _COUNTS if name in before}
        given = {**counts, **{name: value for name, value in facts.items() if value is not None}}
        gone = [name for name in _OF_MODEL if name in before and name not in given]
        is_other = _key(before) != _key(given)
        if is_other and (self.now.has_counted or gone):
            self._by_facts.setdefault(_key(before), self.now)
            self.now = self._opened(given)
        else:
            if is_other:  # it may have been that of another state
                self._by_state.clear()
            self.now.client.declare(**given)
            self._perhaps.clear()
        self.trained = self.now if trains else self.trained

    @property
    def has_facts(self) -> bool:
        """Whether what is declared can be seen, and other sessions be opened."""
        return hasattr(self._client, "facts")

    @property
    def has_no_recomputation(self) -> bool:
        """Whether the model is declared to compute nothing again."""
        return _facts(self.now.client).get("recomputation") == Recomputation.NONE

    def see_recomputation(self) -> None:
        """Some of it is computed again, though no session says so."""
        self._correct("recomputation", Recomputation.NONE, Recomputation.SELECTIVE)

    def see_layers_left_out(self) -> None:
        """Some pass did not run all layers that the configuration has, each once: of none is it known any more which it
        ran. A field that no reader models has no figure made of it."""
        for one in self.all:
            config = _facts(one.client).get("model_config")
            if isinstance(config, Mapping):
                one.client.declare(model_config={**config, LAYERS_LEFT_OUT: True})
        self._know_again()

    def see_window_cache(self) -> None:
        """A pass that records gradients goes on from a cache that keeps no more than the window."""
        self._correct("attention", "eager", "eager_with_window_cache")

    def _correct(self, name: str, before: str, now: str) -> None:
        for one in self.all:
            if _facts(one.client).get(name) == before:
                one.client.declare(**{name: now})
        self._know_again()

    def _know_again(self) -> None:
        """Facts were corrected."""
        self._by_facts = {key and _key(_facts(one.client)): one for key, one in self._by_facts.items()}

    def perhaps_trained(self, tally: SessionTally) -> SessionTally:
        """Where a pass belongs of which no backward pass was seen, and that `tally` would count if it had one."""
        if (found := self._perhaps.get(tally)) is not None:
            return found
        facts = _facts(tally.client)
        total, trained = (facts.get(name) for name in _COUNTS)
        uncertain = {"method", "lora", *_NOT_COPIED, *(_COUNTS[1:] if total == trained else ())}
        kept = {name: value for name, value in facts.items() if name not in uncertain}
        found = self._perhaps[tally] = self._opened({**kept, "method": Method.PARTIAL})
        return found

    def settle_phase(self, phase: str) -> None:
        for one in self.all:
            one.settle_phase(phase)

    def settle(self) -> None:
        for one in self.all:
            one.settle()

    def _opened(self, facts: Mapping[str, Any]) -> SessionTally:
        key = _key(facts)
        if key not in self._by_facts and len(self.all) >= MAX_SESSIONS:
            # One for all the rest, of which not much is certain.
            key, uncertain = "", (*_CHANGING, *_NOT_COPIED)
            facts = {name: value for name, value in facts.items() if name not in uncertain}
            facts |= {"method": Method.PARTIAL, "not_counted": {"train": [_TOO_MANY]}}
        if (found := self._by_facts.get(key)) is None:
            found = self._by_facts[key] = SessionTally(self._client.another_session())
            found.client.declare(**facts)
            self.all.append(found)
        return found


def _facts(client: Session) -> dict[str, Any]:
    return dict(getattr(client, "facts", {}))


def _with_sizes(config: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with as many layers as the model runs `now`, and its vocabulary."""
    found = dict(config)
    for name, value in config.items():
        if isinstance(value, Mapping) and isinstance(now.get(name), Mapping):
            found[name] = _with_sizes(value, now[name])
    for name in ("vocab_size", "tie_word_embeddings"):
        if isinstance(now.get(name), int) and name in found:
            found[name] = now[name]
    layers = now.get("num_hidden_layers")
    if isinstance(layers, int) and found.get("num_hidden_layers", layers) != layers:
        found["num_hidden_layers"] = layers
        if isinstance(kinds := found.get("layer_types"), list | tuple):
            found["layer_types"] = list(kinds)[:layers]
    return found


def _key(facts: Mapping[str, Any]) -> str:
    """The facts of the model as a daemon reads them."""
    found: dict[str, Any] = {}
    for name in _OF_MODEL:
        with suppress(ValueError, TypeError):
            found |= facts_from({name: facts[name]}) if facts.get(name) is not None else {}
    return json.dumps(found, sort_keys=True)
