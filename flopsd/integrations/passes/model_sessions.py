"""The sessions that count the passes of one model. The facts of a session hold for all its work, so if the model is
trained in another way from now on, such as with other layers frozen, it is counted in another session."""

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
from flopsd.integrations.describe_model import describe, recomputation
from flopsd.integrations.passes.device_sums import DeviceSums
from flopsd.integrations.phase_of import UNSETTLED, Session

MAX_KNOWN = 1024
MAX_STATES = 64
MAX_SESSIONS = 4  # each is a connection to the daemon, which serves 64
# The facts of a model that may change within a run: `describe` returns the current ones.
_COUNTS = ("parameters_total", "parameters_trainable")
_CHANGING = (*_COUNTS, "method", "lora", "recomputation", "attention")
_OF_MODEL = (*_CHANGING, "model_config", "window", "packing")
_NOT_COPIED = ("device", "not_counted", "operators_not_counted")
_ALL_WEIGHTS = (Method.PRETRAINING, Method.FULL)
Deferred = list[tuple[str, Any]]  # counters, and tensors of one element to add to them
_TOO_MANY = f"training of other weights than before, more than {MAX_SESSIONS} times"


class SessionTally:
    """One session, and the work that is not yet declared to it."""

    def __init__(self, client: Session) -> None:
        self.client = client
        self.on_device = DeviceSums()
        # Passes by the names and shapes of their arguments: a pass with the same ones counts the same.
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
        """Add the counters of a pass when its tensors are read."""
        self.has_counted = True
        self.on_device.hold(phase, found)

    def count_step(self) -> None:
        if self._count_step is None:  # made here, since it opens the session, and a model may never be called
            self._count_step = self.client.counting("train", steps=1)
        self._count_step()

    def remember(self, key: tuple[object, ...], one: PassCount) -> None:
        """From now on, count a pass with this key like `one`, in one call."""
        if len(self.known) >= MAX_KNOWN:
            self.known.clear()
        self.known[key] = PassCount(
            self, one.phase, one.found, self.client.counting(one.phase, **one.found), one.padded
        )

    def add_tensors(self, phase: str, tokens: int, unpadded: Any, deferred: Deferred) -> None:
        """Add counters that depend on the content of tensors. `unpadded`: how many tokens are no padding."""
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
        """Declare the sums on the device. Waits for the device."""
        for phase, counters in self.on_device.take().items():
            self.client.count(phase, **counters)


@dataclass(slots=True)
class PassCount:
    """The counters `found` of a pass, and of all passes like it, in `tally`. `count` adds them in `phase`; `padded`:
    some tokens may be padding."""

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
    """The sessions of one model, by the facts declared to each."""

    def __init__(self, client: Any) -> None:
        """`client`: a Session; if it has `facts`, it can open other sessions."""
        self._client = client
        # The sessions of the model as last described, and as of the last pass with gradients.
        self.now = self.trained = SessionTally(client)
        self.all = [self.now]
        self._by_facts: dict[str, SessionTally] = {}
        self._by_state: dict[object, SessionTally] = {}  # describing a large model takes as long as some of its layers
        self._perhaps: dict[SessionTally, SessionTally] = {}

    def go_back(self, state: object, *, trains: bool) -> bool:
        """Return to the session in which the model was described in this `state`; False if it never was."""
        if (known := self._by_state.get(state)) is None:
            return False
        self.now = known
        self.trained = known if trains else self.trained
        return True

    def describe_again(self, model: Any, state: object, *, trains: bool, changed: Set[str]) -> None:
        """Describe `model` in its new `state`; from now on its passes belong to the session of these facts. `changed`:
        which of `recomputation` and `attention` differ from before; the others stay as declared."""
        before = _facts(self.now.client)
        described = describe(model, None)
        found = {name: value for name, value in described.items() if name in (*_CHANGING, "not_counted")}
        found |= {name: before.get(name) for name in ("recomputation", "attention") if name not in changed}
        if "recomputation" in changed:
            found["recomputation"] = recomputation(model, None, now=True)
        kept = {name: value for name, value in before.items() if name not in (*_CHANGING, *_NOT_COPIED)}
        if "model_config" in kept:
            kept["model_config"] = _with_sizes(kept["model_config"], described.get("model_config") or {})
        first = _facts(self._client).get("method")
        if found.get("method") is None:  # all weights are trained: keep a declared method that trains all
            found["method"] = first if first in (None, *_ALL_WEIGHTS) else Method.FULL
        elif found["method"] is Method.PARTIAL and first == Method.PRETRAINING:
            found["method"] = first  # the number of trained parameters shows that not all are trained
        self._declare({**kept, **found}, trains=trains)
        if len(self._by_state) >= MAX_STATES:
            self._by_state.clear()
        self._by_state[state] = self.now

    def declare(self, facts: Mapping[str, Any]) -> None:
        """Declare the facts of the model from now on. Parameter counts that are not known stay as before."""
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
            if is_other:  # the session may have been that of another state
                self._by_state.clear()
            self.now.client.declare(**given)
            self._perhaps.clear()
        self.trained = self.now if trains else self.trained

    @property
    def has_facts(self) -> bool:
        """Whether the declared facts can be read, and other sessions opened."""
        return hasattr(self._client, "facts")

    @property
    def has_no_recomputation(self) -> bool:
        """Whether the model is declared not to recompute anything."""
        return _facts(self.now.client).get("recomputation") == Recomputation.NONE

    def see_recomputation(self) -> None:
        """Correct sessions that declare no recomputation: part of the model is recomputed."""
        self._correct("recomputation", Recomputation.NONE, Recomputation.SELECTIVE)

    def see_layers_left_out(self) -> None:
        """Some pass did not run each layer of the configuration once, so it is no longer known of any pass which layers
        it ran. Add a field to the configurations that no reader knows, so that no figure is made from them."""
        for one in self.all:
            config = _facts(one.client).get("model_config")
            if isinstance(config, Mapping):
                one.client.declare(model_config={**config, LAYERS_LEFT_OUT: True})
        self._know_again()

    def see_window_cache(self) -> None:
        """Correct the kernel: a pass that records gradients continues from a cache that keeps only the window."""
        self._correct("attention", "eager", "eager_with_window_cache")

    def see_replaced(self, trained: int, lost: int = 0) -> None:
        """Correct the numbers of parameters: some passes had gradients of `trained` ones only, and `lost` ones were in
        none of their products. With fewer trained ones than by the method, "at least" has no gradients; with fewer in
        all, it is 0."""
        total, of_those = _COUNTS
        for one in self.all:
            facts = _facts(one.client)
            if trained < facts.get(of_those, trained + 1):
                one.client.declare(**{of_those: trained})
            if lost and facts.get(total):
                one.client.declare(**{total: max(1, facts[total] - lost)})
        self._know_again()

    def _correct(self, name: str, before: str, now: str) -> None:
        for one in self.all:
            if _facts(one.client).get(name) == before:
                one.client.declare(**{name: now})
        self._know_again()

    def _know_again(self) -> None:
        """Rebuild the keys of the sessions after facts were corrected."""
        self._by_facts = {key and _key(_facts(one.client)): one for key, one in self._by_facts.items()}

    def perhaps_trained(self, tally: SessionTally) -> SessionTally:
        """The tally for a pass without a visible backward pass that `tally` would count if it had one."""
        if (found := self._perhaps.get(tally)) is not None:
            return found
        facts = _facts(tally.client)
        # The number may be that of all weights that can be trained: "at least" would have gradients.
        is_some = facts.get("lora") and facts.get(_COUNTS[0]) != facts.get(_COUNTS[1])
        uncertain = {"method", "lora", *_NOT_COPIED, *(() if is_some else _COUNTS[1:])}
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
            # One session for all other facts, which declares little.
            key, uncertain = "", {*_CHANGING, *_NOT_COPIED} - {_COUNTS[0]}
            facts = {name: value for name, value in facts.items() if name not in uncertain}
            facts |= {"method": Method.PARTIAL, "not_counted": {"train": [_TOO_MANY]}}
        if (found := self._by_facts.get(key)) is None:
            found = self._by_facts[key] = SessionTally(self._client.another_session())
            found.client.declare(**facts)
            self.all.append(found)
        elif not key:
            self._share(found.client, facts)
        return found

    def _share(self, client: Session, facts: Mapping[str, Any]) -> None:
        """Declare also of a model with these facts only what holds for all models of the session."""
        before, config, total = _facts(client), facts.get("model_config"), _COUNTS[0]
        if isinstance(config, Mapping) and config != before.get("model_config"):
            client.declare(model_config={**config, LAYERS_LEFT_OUT: True})
        if total in facts and total in before:
            client.declare(**{total: min(facts[total], before[total])})


def _facts(client: Session) -> dict[str, Any]:
    return dict(getattr(client, "facts", {}))


def _with_sizes(config: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the number of layers that the model runs `now`, and its current vocabulary."""
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
    """A key of the model's facts, as a daemon reads them."""
    found: dict[str, Any] = {}
    for name in _OF_MODEL:
        with suppress(ValueError, TypeError):
            found |= facts_from({name: facts[name]}) if facts.get(name) is not None else {}
    return json.dumps(found, sort_keys=True)
