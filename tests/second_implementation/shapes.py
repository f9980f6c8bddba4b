"""FLOP of one model by docs/ledger-models.md, without a line of flopsd.

It knows only the family of plain Llamas, and models that declare only their size.
"""

from dataclasses import dataclass, field
from math import isqrt
from typing import Any, NamedTuple

J = dict[str, Any]
Three = tuple[int, int, int]  # low, computed, high
LEVELS = LOW, COMPUTED, HIGH = range(3)
ADAPTED = ("lora", "qlora")
ALL = ("full", "pretraining")
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
MORE_SIZES = ("num_key_value_heads", "head_dim", "max_position_embeddings")
FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings")
NO_MATTER = (
    "_name_or_path", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "hidden_act", "initializer_range",
    "pad_token_id", "pretraining_tp", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "torch_dtype",
    "transformers_version", "use_cache",
)  # fmt: skip


class NoBasis(Exception):
    """A reason for having no basis, as a note."""

    def __init__(self, code: str, **parameters: object) -> None:
        super().__init__(code)
        self.note = note(code, **parameters)


def note(code: str, **parameters: object) -> J:
    return {"code": code, **{name: str(value) for name, value in parameters.items()}}


def ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


class Trained(NamedTuple):
    required: Three
    executed: Three
    notes: list[J]


def is_plain_llama(config: Any) -> bool:
    if not isinstance(config, dict) or config.get("model_type") != "llama":
        return False
    if set(config) - {"model_type", "architectures", *SIZES, *MORE_SIZES, *FLAGS, *NO_MATTER}:
        return False
    if not all(_is_size(config.get(name)) for name in SIZES) or config["num_hidden_layers"] > 2000:
        return False
    if not all(_is_size(config[name]) for name in MORE_SIZES if name in config):
        return False
    if not all(isinstance(config[name], bool) for name in FLAGS if name in config):
        return False
    named = config.get("architectures", ["ForCausalLM"])
    if not isinstance(named, list) or not named or not all(isinstance(one, str) for one in named):
        return False
    heads = config["num_attention_heads"]
    divides = "head_dim" in config or config["hidden_size"] % heads == 0
    return (
        bool(named[0].endswith("ForCausalLM"))
        and divides
        and bool(heads % config.get("num_key_value_heads", heads) == 0)
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9


@dataclass
class Counts:
    """The work of one phase."""

    work: J
    facts: J
    positions: int | None = None
    cached: bool = False
    n: int = field(init=False)
    p: int = field(init=False)
    s: int = field(init=False)  # squares at least, and at most
    most: int = field(init=False)

    def __post_init__(self) -> None:
        self.n, self.p = self.of("tokens"), self.of("padding_tokens")
        q = self.q
        if self.p > self.n:
            raise NoBasis("padding_contradicts", padding=self.p, tokens=self.n)
        if 0 < self.n < q:
            raise NoBasis("sequences_contradict", sequences=q, tokens=self.n, counter="tokens")
        least = ceil(self.n**2, q) if q else self.n
        pairs = self.work.get("square_pairs")
        if pairs is None:
            self.s, self.most = least, max(least, self.n * min(self.n, self.positions or self.n))
            return
        if pairs < least or (pairs > self.n**2 and not self.cached):
            said = {"pairs": pairs, "counter": "square_pairs", "tokens": self.n}
            raise (
                NoBasis("pairs_of_sequences_contradict", **said, sequences=q)
                if q
                else NoBasis("pairs_contradict", **said)
            )
        self.s = self.most = pairs

    def of(self, name: str) -> int:
        return int(self.work.get(name, 0))

    @property
    def q(self) -> int:
        return 0 if self.cached else self.of("sequences")

    @property
    def rows(self) -> Three:
        return self.n - self.p, self.n, self.n

    @property
    def head(self) -> Three:
        """The rows of the head. Raises NoBasis."""
        h, u, f = (self.of(f"{name}_tokens") for name in ("headless", "unlabelled", "fused_head"))
        if h + u + f > self.n:
            raise NoBasis("head_tokens_contradict", headless=h, unlabelled=u, fused=f, tokens=self.n)
        return max(0, self.n - h - u - self.p), self.n - h - u, self.n - h

    @property
    def kernel(self) -> str:
        named = self.facts.get("attention", "")
        return "square" if named == "eager" else "skips" if "flash" in named or "flex" in named else "either"

    @property
    def pairs(self) -> Three:
        half, real, packed = (self.s + self.n) // 2, self.n - self.p, self.facts.get("packing", False)
        least = real if packed else max(half - self.p * isqrt(self.most), _alike(real, self.q))
        masks = self.kernel == "square" or (self.kernel == "either" and (self.p or packed))
        return least, self.s if masks else half, self.most

    @property
    def executed_pairs(self) -> int:
        return self.s if self.kernel == "square" else self.pairs[LOW]


def _alike(tokens: int, sequences: int) -> int:
    """Causal pairs of sequences whose lengths differ by at most one."""
    count = min(sequences, tokens) if sequences else tokens
    if not count:
        return 0
    each, more = divmod(tokens, count)
    return ((count - more) * each * (each + 1) + more * (each + 1) * (each + 2)) // 2


class OfSize:
    """A model that declares only its size."""

    def __init__(self, facts: J) -> None:
        self.facts, self.total = facts, int(facts["parameters_total"])
        if self.total < 1:
            raise NoBasis("total_is_zero")
        self.trainable, self.adapted = facts.get("parameters_trainable"), facts.get("method") in ADAPTED

    def attention(self, counts: Counts) -> int:
        return 4 * counts.most * ceil(self.total, 12 * max(1, isqrt(self.total // 2400)))

    def through(self, counts: Counts) -> Three:
        n, adapters = counts.n, self.trainable or 0 if self.adapted else 0
        high = 2 * n * (self.total + adapters) + self.attention(counts)
        return 2 * (n - counts.p) * self.total // 64, 2 * n * self.total, high

    def forward(self, work: J) -> Three:
        return self.through(Counts(work, self.facts, cached=True))

    def train(self, work: J) -> Trained:
        counts, t, p = Counts(work, self.facts), self.trainable, self.total
        f, more, method, again = (
            self.through(counts),
            self.attention(counts),
            self.facts.get("method"),
            self.facts.get("recomputation"),
        )
        everything = t >= p if t is not None else method in ALL
        notes = [
            note("only_total_known"),
            note("least_active", part=64),
            note("layers_at_most", layers=200),
            note("weights_used_once"),
        ]
        weights = (p, p) if everything else (t, t) if t is not None else (0, p) if self.adapted else (p, p)
        if not everything and t is None:
            notes.append(note("adapters_size_not_declared" if self.adapted else "trainable_not_declared"))
        low = f[LOW] if everything else 0
        n = counts.n
        required = (f[LOW] + 2 * low, 2 * f[COMPUTED] + 2 * n * weights[0], 2 * f[HIGH] + more + 2 * n * weights[1])
        executed = (
            required[LOW],
            required[COMPUTED] + (f[COMPUTED] if again == "full" else 0),
            required[HIGH] + more + (0 if again == "none" else f[HIGH]),
        )
        return Trained(required, executed, notes)


@dataclass
class Sums:
    """The sums of one walk."""

    forward: int = 0
    inputs: int = 0
    weights: int = 0
    scores: int = 0
    layers: int = 0
    layers_attention: int = 0
    spare: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.inputs + self.weights


@dataclass
class Llama:
    """A plain Llama."""

    facts: J
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        c = self.config = self.facts["model_config"]
        d, e, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
        size = c.get("head_dim", d // heads)
        a, k = heads * size, c.get("num_key_value_heads", heads) * size
        self.width, self.layers, table = a, c["num_hidden_layers"], c["vocab_size"] * d
        self.shapes = dict(zip(MATRICES, ((d, a), (d, k), (d, k), (a, d), (d, e), (d, e), (e, d)), strict=True))
        layer = sum(i * o for i, o in self.shapes.values()) + 2 * d
        layer += (a + 2 * k + d if c.get("attention_bias") else 0) + (2 * e + d if c.get("mlp_bias") else 0)
        self.total = self.layers * layer + table * (1 if c.get("tie_word_embeddings") else 2) + d
        self.head = table
        lora = self.facts.get("lora") or {}
        named = lora.get("target_modules") or ()
        self.ranks = {n: lora["r"] for n in MATRICES if (n in named or "all-linear" in named) and lora["r"]}
        self.adapters = self.layers * sum(rank * sum(self.shapes[name]) for name, rank in self.ranks.items())
        self._how(lora)

    def _how(self, lora: J) -> None:
        method, t = self.facts.get("method"), self.facts.get("parameters_trainable")
        self.notes, self.surplus, self.fewer = list[J](), 0, False
        if method is None:
            self.notes.append(note("method_not_declared"))
        elif method in ("full", "pretraining") and t is not None and t < self.total:
            method = "partial"
            self.notes.append(note("full_taken_as_partial", trainable=t, total=self.total))
        elif method == "partial":
            self.notes.append(note("frozen_not_declared"))
        self.method, self.trainable = method, t
        self.detailed = method in ADAPTED and lora.get("target_modules") is not None
        self.vague = method in ADAPTED and not self.detailed
        if self.vague:
            self.notes.append(note("adapters_not_declared"))
        if self.detailed and t is not None and t != self.adapters:
            self.notes.append(note("adapters_differ", trainable=t, named=self.adapters))
            self.surplus = max(0, t - self.adapters)
            self.fewer = not self.surplus
        theirs = self.facts.get("parameters_total")
        explained = {self.total, *((self.total + self.adapters, self.total + (t or 0)) if lora else ())}
        self.theirs = None if theirs in {None, 0, *explained} else theirs
        self.lacks_some = (theirs or 0) < max(explained)

    def trained(self, level: int) -> str:
        if self.detailed and not (self.fewer and level == LOW):
            return "adapters"
        if self.method in ALL:
            return "all"
        return "none" if level == LOW or (level == COMPUTED and self.vague) else "all"

    def walk(self, rows: int, head: int, pairs: int, trained: str, *, graded: bool) -> Sums:
        s, everything, ranks = Sums(), trained == "all", self.ranks if trained == "adapters" else {}
        last = 0

        def product(cost: int, *, reads: bool) -> None:
            s.forward += cost
            s.inputs += cost if reads else 0
            s.weights += cost if everything else 0

        def matrix(name: str, reads: bool) -> bool:
            nonlocal last
            inputs, outputs = self.shapes[name]
            last = 2 * rows * inputs * outputs
            product(last, reads=reads)
            if rank := ranks.get(name):
                into, last = 2 * rows * inputs * rank, 2 * rows * rank * outputs
                s.forward += into + last
                s.inputs += last + (into if reads else 0)
                s.weights += into + last
            return reads or everything or bool(rank)

        x = graded or everything
        for _ in range(self.layers):
            before = s.forward
            q, k, v = (matrix(name, x) for name in MATRICES[:3])
            one = 2 * pairs * self.width
            s.forward += 2 * one
            s.inputs += one * (q + k + v + (q or k))
            s.scores += one if q or k or v else 0
            middle = matrix("o_proj", q or k or v) or x
            inner = [matrix(name, middle) for name in MATRICES[4:6]]
            x = matrix("down_proj", any(inner)) or middle
            if x:
                s.layers += s.forward - before
                s.layers_attention += 2 * one
                s.spare += last
        product(2 * head * self.head, reads=x)
        return s

    def through(self, counts: Counts, level: int, *, graded: bool) -> Sums:
        """One walk of training."""
        s = self.walk(counts.rows[level], counts.head[level], counts.pairs[level], self.trained(level), graded=graded)
        return self.settled(s, counts.rows[level], level)

    def settled(self, s: Sums, rows: int, level: int) -> Sums:
        if self.method == "partial" and self.trainable is not None and level != LOW:
            s.weights = min(s.weights, 2 * rows * self.trainable)
        known = (self.trainable or 0) if self.vague else 0
        more = 2 * rows * (0, known, known + self.surplus)[level]
        s.forward, s.inputs, s.weights = s.forward + more, s.inputs + more, s.weights + more
        return s

    def train(self, work: J) -> Trained:
        counts = Counts(work, self.facts, self.config.get("max_position_embeddings"))
        again, rows, head = self.facts.get("recomputation"), counts.rows, counts.head
        low, computed, high = (
            self.through(counts, n, graded=n == HIGH or (n == COMPUTED and self.vague)) for n in LEVELS
        )
        least = self.walk(rows[COMPUTED], head[COMPUTED], counts.executed_pairs, self.trained(LOW), graded=False)
        deep = self.through(counts, COMPUTED, graded=True) if again in ("full", "selective") else computed
        parts = {"full": deep.layers - deep.spare, "selective": deep.layers_attention}.get(str(again), 0)
        twice, f, u = counts.kernel != "square", counts.of("fused_head_tokens"), counts.of("unlabelled_tokens")
        executed = (
            max(low.total, least.total + (least.layers - least.spare if again == "full" else 0)),
            deep.total + parts + (deep.scores if twice else 0) + 2 * self.head * f,
            high.total
            + (0 if again == "none" else high.layers)
            + (high.scores if twice else 0)
            + 2 * self.head * (f + u),
        )
        required = (low.total, computed.total, high.total)
        return Trained(
            self.widened(required, rows[HIGH], 3), self.widened(executed, rows[HIGH], 4), self.assumed(counts)
        )

    def forward(self, work: J) -> Three:
        counts = Counts(work, self.facts, self.config.get("max_position_embeddings"), cached=True)
        kinds = ["none" if n == LOW or self.trained(n) == "all" else self.trained(n) for n in LEVELS]
        walks = [self.walk(counts.rows[n], counts.head[n], counts.pairs[n], kinds[n], graded=False) for n in LEVELS]
        low, computed, high = (self.settled(walks[n], counts.rows[n], n).forward for n in LEVELS)
        return self.widened((low, computed, high), counts.rows[HIGH], 1)

    def widened(self, bounds: Three, rows: int, passes: int) -> Three:
        if self.theirs is None:
            return bounds
        more = max(self.theirs, self.total)
        beside = bounds[HIGH] + 2 * rows * passes * max(0, self.theirs - self.total)
        low = 0 if self.lacks_some else bounds[LOW]
        return low, bounds[COMPUTED], max(ceil(bounds[HIGH] * more, self.total), beside)

    def assumed(self, counts: Counts) -> list[J]:
        again, most = self.facts.get("recomputation"), counts.positions
        found = [note("products_only")]
        if most is not None and "square_pairs" not in counts.work and counts.n > most:
            found.append(note("lengths_not_counted", most=most))
        found += self.notes
        if self.theirs is not None:
            found.append(note("parameters_differ", process=self.theirs, configuration=self.total))
        of_recomputation = {None: "recomputation_not_declared", "selective": "selective_is_attention"}
        found += [note(of_recomputation[again])] if again in of_recomputation else []
        found += [note("kernel_not_known")] if counts.kernel == "either" else []
        counted = any(counts.of(f"{name}_tokens") for name in ("headless", "unlabelled", "fused_head"))
        found.append(note("head_as_counted" if counted else "head_taken_for_all"))
        return found + ([note("documents_packed")] if self.facts.get("packing") else [])
