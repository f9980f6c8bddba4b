"""The second implementation, continued: the architecture basis of docs/model-flop.md, without a line of flopsd.

Of the families it knows Llama's alone, and models of which only the size is declared. Padding, packed rows, windows and
work without the counter of pairs it does not know: the strategies of its tests leave them out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

J = dict[str, Any]
Three = tuple[int, int, int]  # low, computed, high
M = 10**6
OF_MODEL = ("model_config", "parameters_total", "parameters_trainable", "lora", "method", "recomputation", "attention")
ADAPTED = ("lora", "qlora")


def ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def plus(one: Three, other: Three) -> Three:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


@dataclass
class Sums:
    """FLOP of one way through the layers: forward, what goes backward, and what may be computed again."""

    forward: int = 0
    backward_inputs: int = 0
    backward_weights: int = 0
    layers: int = 0  # the forward pass of the layers that have a backward pass
    layers_attention: int = 0
    spare: int = 0  # of it the last product of each: nobody needs it a second time
    scores: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward_inputs + self.backward_weights


@dataclass
class Llama:
    """One model of the family, tokens that pass it, and pairs of positions in each layer."""

    config: J
    tokens: int
    logits: int  # tokens that the head is computed for
    rank: int = 0
    targets: tuple[str, ...] = ()
    all_weights: bool = False
    sums: Sums = field(default_factory=Sums)
    adapters: int = 0

    def shapes(self) -> dict[str, tuple[int, int]]:
        c = self.config
        d, f = c["hidden_size"], c["intermediate_size"]
        size = d // c["num_attention_heads"]
        wide, narrow = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
        return {"q_proj": (d, wide), "k_proj": (d, narrow), "v_proj": (d, narrow), "o_proj": (wide, d),
                "gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d)}  # fmt: skip

    def parameters(self) -> int:
        c = self.config
        layer = sum(a * b for a, b in self.shapes().values()) + 2 * c["hidden_size"]
        return int(c["num_hidden_layers"] * layer + 2 * c["vocab_size"] * c["hidden_size"] + c["hidden_size"])

    def adapter_parameters(self) -> int:
        layers = self.config["num_hidden_layers"]
        return int(layers * sum(self.rank * (a + b) for name, (a, b) in self.shapes().items() if self._adapted(name)))

    def _adapted(self, name: str) -> bool:
        return bool(self.rank) and (name in self.targets or "all-linear" in self.targets)

    def through(self, pairs: int, graded: bool) -> Sums:
        """All layers and the head; `graded`: gradients go down to the embeddings."""
        s = self.sums = Sums()
        graded = graded or self.all_weights
        c = self.config
        width = self.shapes()["q_proj"][1]
        for _ in range(c["num_hidden_layers"]):
            before = s.forward
            q, k, v = (self._product(name, graded) for name in ("q_proj", "k_proj", "v_proj"))
            one = 2 * pairs * width  # queries with keys; the scores with the values are as much
            s.forward += 2 * one
            s.backward_inputs += one * (q + k + (q or k) + v)
            s.scores += one if q or k or v else 0
            graded = self._product("o_proj", q or k or v) or graded
            inner = [self._product(name, graded) for name in ("gate_proj", "up_proj")]
            graded = self._product("down_proj", any(inner)) or graded
            if graded:
                s.layers += s.forward - before
                s.layers_attention += 2 * one
                inputs, outputs = self.shapes()["down_proj"]
                s.spare += 2 * self.tokens * outputs * (self.rank if self._adapted("down_proj") else inputs)
        head = 2 * self.logits * c["hidden_size"] * c["vocab_size"]
        s.forward += head
        s.backward_inputs += head if graded else 0
        s.backward_weights += head if self.all_weights else 0
        return s

    def _product(self, name: str, graded: bool) -> bool:
        """One matrix, and its adapter; whether what comes out has a gradient."""
        s, (inputs, outputs) = self.sums, self.shapes()[name]
        cost = 2 * self.tokens * inputs * outputs
        s.forward += cost
        s.backward_inputs += cost if graded else 0
        s.backward_weights += cost if self.all_weights else 0
        if not self._adapted(name):
            return graded or self.all_weights
        down, up = 2 * self.tokens * inputs * self.rank, 2 * self.tokens * self.rank * outputs
        s.forward += down + up
        s.backward_inputs += up + (down if graded else 0)
        s.backward_weights += down + up
        return True


def of_llama(facts: J, work: J) -> tuple[Three, Three, dict[str, Three], int]:
    """Required, executed by training, executed in each other phase, parameters."""
    config, method, again = facts["model_config"], facts.get("method"), facts.get("recomputation")
    trainable, eager = facts.get("parameters_trainable"), facts.get("attention") == "eager"
    total = Llama(config, 0, 0).parameters()
    if method == "full" and trainable is not None and trainable < total:
        method = "partial"
    lora = facts.get("lora") or {}
    named = tuple(lora.get("target_modules") or ())
    detailed = method in ADAPTED and bool(named)
    vague = method in ADAPTED and not detailed

    def logits(counters: J, level: int) -> int:
        left_out = counters.get("headless_tokens", 0) + (counters.get("unlabelled_tokens", 0) if level < 2 else 0)
        return int(counters["tokens"] - left_out)

    def model(tokens: int, level: int) -> Llama:
        if detailed:
            return Llama(config, tokens, logits(train, level), lora["r"], named)
        everything = method in ("full", "pretraining") or (level > 0 and not (vague and level == 1))
        return Llama(config, tokens, logits(train, level), all_weights=everything)

    def walk(level: int, tokens: int, pairs: int, graded: bool) -> Sums:
        sums = model(tokens, level).through(pairs, graded)
        if method == "partial" and trainable is not None and level > 0:
            sums.backward_weights = min(sums.backward_weights, 2 * tokens * trainable)
        extra = 2 * tokens * (trainable or 0) if vague and level > 0 else 0
        sums.forward += extra
        sums.backward_inputs += extra
        sums.backward_weights += extra
        return sums

    required = executed = (0, 0, 0)
    train = work.get("train", {})
    if tokens := train.get("tokens"):
        square, causal = train["square_pairs"], (train["square_pairs"] + tokens) // 2
        low = walk(0, tokens, causal, False)
        computed = walk(1, tokens, square if eager else causal, vague)
        high = walk(2, tokens, square, True)
        required = (low.total, computed.total, high.total)
        least = walk(0, tokens, square if eager else causal, False)
        once_more = least.layers - least.spare if again == "full" else 0
        deep = walk(1, tokens, square if eager else causal, True) if again in ("full", "selective") else computed
        parts = {"full": deep.layers - deep.spare, "selective": deep.layers_attention}.get(str(again), 0)
        head, twice = 2 * config["hidden_size"] * config["vocab_size"], train.get("fused_head_tokens", 0)
        executed = (
            max(low.total, least.total + once_more),
            deep.total + parts + (0 if eager else deep.scores) + head * twice,
            high.total
            + (0 if again == "none" else high.layers)
            + (0 if eager else high.scores)
            + head * (twice + train.get("unlabelled_tokens", 0)),
        )
    passes = {}
    for phase, counters in work.items():
        if phase != "train" and (tokens := counters.get("tokens")):
            square, causal = counters["square_pairs"], (counters["square_pairs"] + tokens) // 2
            forward = [Llama(config, tokens, logits(counters, level), lora["r"] if detailed else 0, named)
                       .through(pairs, False).forward
                       for level, pairs in enumerate((causal, square if eager else causal, square))]  # fmt: skip
            counted = (forward[0], forward[1], forward[2])
            passes[phase] = _widened(counted, facts, config)
    return _widened(required, facts, config), _widened(executed, facts, config), passes, total


def _widened(bounds: Three, facts: J, config: J) -> Three:
    """A process that counts other parameters than its configuration has."""
    ours, theirs = Llama(config, 0, 0).parameters(), facts.get("parameters_total")
    explained = {ours}
    if lora := facts.get("lora"):
        targets = tuple(lora.get("target_modules") or ())
        with_adapters = Llama(config, 0, 0, lora["r"], targets).adapter_parameters()
        explained |= {ours + with_adapters, ours + facts.get("parameters_trainable", 0)}
    if not theirs or theirs in explained:
        return bounds
    return bounds[0] * min(ours, theirs) // ours, bounds[1], ceil(bounds[2] * max(ours, theirs), ours)


def of_size(facts: J, work: J) -> tuple[Three, Three, dict[str, Three], int]:
    """Only a size: 6PD with wide bounds."""
    total, method, again = facts["parameters_total"], facts.get("method"), facts.get("recomputation")
    trainable = facts.get("parameters_trainable")
    width = max(1, isqrt(total // (12 * 200)))

    def attention(square: int) -> int:
        return 4 * square * ceil(total, 12 * width)

    def forward(counters: J) -> Three:
        tokens = counters["tokens"]
        each, adapters = 2 * total * tokens, 2 * tokens * (trainable or 0) if method in ADAPTED else 0
        return each // 64, each, each + attention(counters["square_pairs"]) + adapters

    required = executed = (0, 0, 0)
    train = work.get("train", {})
    if tokens := train.get("tokens"):
        f = forward(train)
        if trainable is not None:
            trained = (trainable if trainable >= total else 0, trainable, trainable)
        elif method in ("full", "pretraining"):
            trained = (total,) * 3
        else:
            trained = (0, 0, total) if method in ADAPTED else (0, total, total)
        weights = (2 * tokens * trained[0] // 64, 2 * tokens * trained[1], 2 * tokens * trained[2])
        inputs = (f[0] if trained[0] >= total else 0, f[1], f[2] + attention(train["square_pairs"]))
        required = plus(plus(f, inputs), weights)
        executed = (
            required[0],
            required[1] + (f[1] if again == "full" else 0),
            required[2] + (0 if again == "none" else f[2]) + attention(train["square_pairs"]),
        )
    passes = {
        phase: forward(counters) for phase, counters in work.items() if phase != "train" and counters.get("tokens")
    }
    return required, executed, passes, total


def agreed(sessions: list[J], fact: str) -> str | None:
    declared = {session["facts"][fact] for session in sessions if fact in session["facts"]}
    return declared.pop() if len(declared) == 1 else None


def declared(settings: J, sessions: list[J]) -> tuple[str | None, str | None, J | None, tuple[Three, Three] | None]:
    """Method and recomputation that count, the architecture basis, and what training required and executed."""
    beside = [session for session in sessions if session["work"] and "role" in session["facts"]]
    left_out = {phase for session in sessions for phase in session["facts"].get("not_counted", {})}
    sessions = [session for session in sessions if "role" not in session["facts"]]
    working = [session for session in sessions if session["work"]]
    method = settings.get("method") or agreed(sessions, "method")
    recomputation = settings.get("recomputation") or agreed(sessions, "recomputation")
    sizes = [(s["facts"].get("parameters_total"), s["facts"].get("parameters_trainable")) for s in working]
    if method is None and sizes and all(total and total == trained for total, trained in sizes):
        method = "full"
    groups: dict[str, tuple[J, J]] = {}
    for session in working:
        facts = {name: session["facts"][name] for name in OF_MODEL if name in session["facts"]}
        facts |= {"method": method} if method else {}
        facts |= {"recomputation": recomputation} if recomputation else {}
        _, work = groups.setdefault(json.dumps(facts, sort_keys=True), (facts, {}))
        for phase, counters in session["work"].items():
            for name, value in counters.items():
                work.setdefault(phase, {})[name] = work.get(phase, {}).get(name, 0) + value
    if not groups or any(not ({"model_config", "parameters_total"} & facts.keys()) for facts, _ in groups.values()):
        return method, recomputation, None, None
    required = trained = executed = (0, 0, 0)
    tokens, largest = 0, 0
    for facts, work in groups.values():
        needed, training, passes, total = (of_llama if "model_config" in facts else of_size)(facts, work)
        aside = (0, *passes.get("other", (0, 0, 0))[1:])
        required, trained = plus(plus(required, needed), aside), plus(plus(trained, training), aside)
        executed = plus(executed, training)
        for counted in passes.values():
            executed = plus(executed, counted)
        tokens, largest = tokens + work.get("train", {}).get("tokens", 0), max(largest, total)
    for session in beside:
        facts, work = session["facts"], session["work"]
        needed, training, passes, _ = (of_llama if "model_config" in facts else of_size)(facts, work)
        aside = (0, passes.get("other", (0, 0, 0))[1], passes.get("other", (0, 0, 0))[2] + needed[2])
        required, trained, executed = plus(required, aside), plus(trained, aside), plus(executed, training)
        for counted in passes.values():
            executed = plus(executed, counted)
    required_open, executed_open = bool(left_out & {"train", "other"}), bool(left_out)
    alone = next(iter(groups.values()))[0].get("parameters_trainable") if len(groups) == 1 else None
    basis = {
        **_said(required, required_open), "executed": _said(executed, executed_open), "tokens": str(tokens),
        "parameters": {"total": str(largest), "active": str(largest), "trainable": None if alone is None else str(alone)},
    }  # fmt: skip
    return method, recomputation, basis, None if required_open else (required, trained)


def _said(bounds: Three, is_open: bool) -> J:
    found = dict(zip(("low", "computed", "high"), map(str, bounds), strict=True))
    return {**found, "computed": None, "high": None} if is_open else found
