"""The architecture basis: FLOP from a model, the counters of the work on it, and how it was trained.

Conventions. One multiply-add is 2 FLOP, in every number format. Matrix products are counted, as in 6PD; norms, softmax,
activations, look-ups and the optimizer are not, and the assumptions say so.

`required` is the forward and backward pass without anything computed a second time, which is what the Guidelines' annex
A.1 counts. Its low end takes the pairs that the result needs (the causal half, documents apart where rows are packed)
and leaves padding out; `computed` takes what the declared attention kernel computes, padding included; its high end
takes the full square. `executed` adds recomputation: the layers under activation checkpointing, and the scores in the
backward pass of flash kernels. Counters are sums, so they include gradient accumulation and epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from flopsd.core.architecture.attention_pairs import Kernel, Level
from flopsd.core.architecture.bounds import ArchitectureFlop, Bounds
from flopsd.core.architecture.image_work import NOT_COUNTED as IMAGES_NOT_COUNTED
from flopsd.core.architecture.model import Attention, Model, Similarity, Stream
from flopsd.core.architecture.parameters import adapters, parameters
from flopsd.core.architecture.parameters_only import bare_flop, bare_forward
from flopsd.core.architecture.passes import EMBEDDED, PairsOf, PassFlop, Walk
from flopsd.core.architecture.recurrent_work import StateWork
from flopsd.core.architecture.rows import notes_on_lengths, resolve
from flopsd.core.architecture.training import Trained, Training, check_names
from flopsd.core.declarations import Method, Recomputation
from flopsd.core.notes import Note, note
from flopsd.core.values import ceil_div

NOT_COUNTED = note("products_only")
_PERHAPS_FULL = (None, Recomputation.FULL)


def flop(model: Model, work: Mapping[str, int], training: Training) -> ArchitectureFlop:
    """FLOP of training with the counters of one phase (COUNTERS of core/declarations.py). Raises ArchitectureError for
    work without tokens or with contradictions, and for modules that the model lacks."""
    if model.bare is not None:
        return bare_flop(model.bare, work, training)
    case = _Case(model, work, training)
    low, computed, high = (case.required(level) for level in Level)
    terms = case.terms(computed)
    required = case.scaled(Bounds(low.total, computed.total, high.total), 3)
    executed = case.scaled(Bounds(case.executed_low(low), sum(terms.values()), case.executed_high(high)), 4)
    return ArchitectureFlop(required, executed, terms, case.assumptions())


def forward_flop(model: Model, work: Mapping[str, int], training: Training) -> Bounds:
    """FLOP of forward passes only, such as evaluation, or generation: with a cache, each token passes once."""
    if model.bare is not None:
        return bare_forward(model.bare, work, training)
    case = _Case(model, work, training, cached=True)
    low, computed, high = map(case.forward, Level)
    return case.scaled(Bounds(low.forward, computed.forward, high.forward + high.states_again), 1)


class _Case:
    """One model, one work, one training; it is walked once per level of uncertainty."""

    def __init__(self, model: Model, work: Mapping[str, int], training: Training, *, cached: bool = False) -> None:
        self.model, self.training = model, training
        self.pairs, self.images, self.rows, self.head = resolve(model, work, training, cached)
        self.parameters = parameters(model)
        if training.lora is not None:
            check_names(model, training.lora)
        self.notes: list[Note] = notes_on_lengths(model, work)
        if model.images is not None and "patches" not in work:
            self.notes.append(IMAGES_NOT_COUNTED)
        self.method = self._method()
        adapted = self.method in (Method.LORA, Method.QLORA)
        self.detailed = adapted and training.lora is not None and training.lora.target_modules is not None
        self.undetailed = adapted and not self.detailed  # adapters whose places are not declared
        if self.undetailed:
            self.notes.append(note("adapters_not_declared"))
        self.ambiguous = False
        self.surplus = 0  # adapter parameters that the process counts but the declared names do not explain
        self.fewer = False  # the opposite: some layers have no adapter, perhaps all but the last
        if self.detailed:
            self._match_adapters()
        self.kernel = self.pairs.kernel

    def required(self, level: Level) -> PassFlop:
        inputs = level is Level.HIGH or (level is Level.COMPUTED and self.undetailed)
        return self.walk(level, self.trained(level), EMBEDDED if inputs else ())

    def walk(self, level: Level, trained: Trained, input_gradients: Collection[Stream] = ()) -> PassFlop:
        def of_text(part: Attention) -> int:
            return self.pairs.of(part.mask, part.window, part.stream, level)

        reentrant = level is Level.LOW and self.training.recomputation in _PERHAPS_FULL
        done = Walk(
            self.model, self.rows[level], self._pairs(level, of_text), self._states(level), trained, level,
            input_gradients=input_gradients, reentrant=reentrant,
        )  # fmt: skip
        return self._with_surplus(done.sums, level)

    def _pairs(self, level: Level, of_text: Callable[[Attention], int]) -> PairsOf:
        def pairs(part: Attention | Similarity) -> int:
            if isinstance(part, Similarity):
                return self.pairs.cross
            if part.stream in (Stream.PATCHES, Stream.IMAGES):
                return self.images[level].pairs(part, level)
            return of_text(part)

        return pairs

    def trained(self, level: Level) -> Trained:
        """Which weights have gradients, at this level of what is not declared."""
        lora = self.training.lora
        if self.detailed and not (self.fewer and level is Level.LOW):
            ambiguous = {Level.LOW: False, Level.COMPUTED: self.ambiguous, Level.HIGH: True}[level]
            return Trained(lora=lora, ambiguous=ambiguous)
        if self.method in (Method.FULL, Method.PRETRAINING):
            return Trained(everything=True)
        if level is Level.LOW:
            return Trained()  # perhaps only the last layer, which needs next to no backward pass
        if self.undetailed and level is Level.COMPUTED:
            return Trained(lora=lora)
        return Trained(everything=True)

    def forward(self, level: Level) -> PassFlop:
        """A forward pass with its adapters. LOW is without: they may be switched off or merged at that time."""
        trained = self.trained(level)
        without = trained.everything or level is Level.LOW
        return self.walk(level, Trained() if without else trained)

    def executed_low(self, required: PassFlop) -> int:
        def of_text(part: Attention) -> int:
            return self.pairs.executed_low(part.mask, part.window, part.stream)

        level, recomputation = Level.LOW, self.training.recomputation
        rows = {**self.rows[level if self._unpadded() else Level.COMPUTED], **self.images[level].rows()}
        pairs, states, trained = self._pairs(level, of_text), self._states(level), self.trained(level)

        def sums(reentrant: bool) -> PassFlop:
            done = Walk(self.model, rows, pairs, states, trained, level, reentrant=reentrant)
            return self._with_surplus(done.sums, level)

        ways = []
        if recomputation is not Recomputation.FULL:
            ways.append(sums(reentrant=False).total)
        if recomputation in _PERHAPS_FULL:
            again = sums(reentrant=True)
            ways.append(again.total + again.layers - again.spare)
        return max(min(ways), required.total)

    def executed_high(self, required: PassFlop) -> int:
        again = 0 if self.training.recomputation is Recomputation.NONE else required.layers
        heads = self.head.flop_again(self.model, Level.HIGH)
        scores = 0 if self.kernel is Kernel.SQUARE else required.scores
        return required.total + again + heads + scores + required.states_again

    def terms(self, sums: PassFlop) -> dict[str, int]:
        """The terms of executed.computed; those before `input_gradients` make up required.computed."""
        recomputation = self.training.recomputation
        # Checkpointed layers need an input with a gradient, so frozen embeddings are made to pass one on; transformers
        # does so for text-only models.
        deep = sums
        if recomputation in (Recomputation.FULL, Recomputation.SELECTIVE) and self.model.embeds_tokens:
            deep = self.walk(Level.COMPUTED, self.trained(Level.COMPUTED), self._hooked())
        # Non-reentrant checkpointing, the default of transformers 5, stops once the backward pass has what it needs.
        again = {Recomputation.FULL: deep.layers - deep.spare, Recomputation.SELECTIVE: deep.layers_attention}
        return {
            "linear_forward": sums.linear,
            "adapter_forward": sums.adapter,
            "attention_forward": sums.attention + sums.states,
            "activation_gradients": sums.activation_gradients,
            "weight_gradients": sums.weight_gradients,
            "input_gradients": deep.total - sums.total,
            "recomputed_layers": again.get(recomputation, 0) if recomputation else 0,
            "recomputed_scores": 0 if self.kernel is Kernel.SQUARE else deep.scores,
            "recomputed_head": self.head.flop_again(self.model, Level.COMPUTED),
        }

    def scaled(self, bounds: Bounds, passes: int) -> Bounds:
        """Widened bounds if the process counted a different number of parameters than the configuration gives. Missing
        ones may be layers, of whose attention no parameter tells; each extra one may be in a product with every token
        in each of the `passes`: one forward, two backward, one recomputed."""
        ours, theirs = self.parameters.total, self.training.total
        explained = {ours}
        if self.training.lora is not None:
            extra = {adapters(self.model, self.training.lora, ambiguous=some) for some in (False, True)}
            explained |= {ours + count for count in extra | {self.training.trainable or 0}}
        if theirs is None or theirs in explained or theirs == 0:
            return bounds
        self.notes.append(note("parameters_differ", process=str(theirs), configuration=str(ours)))
        beside = 2 * passes * self._most_rows(Level.HIGH) * max(0, theirs - ours)
        high = max(ceil_div(bounds.high * max(theirs, ours), ours), bounds.high + beside)
        return Bounds(0 if theirs < max(explained) else bounds.low, bounds.computed, high)

    def assumptions(self) -> tuple[Note, ...]:
        training, notes = self.training, [NOT_COUNTED, *self.model.notes, *dict.fromkeys(self.notes)]
        if training.recomputation is None:
            notes.append(note("recomputation_not_declared"))
        if training.recomputation is Recomputation.SELECTIVE:
            notes.append(note("selective_is_attention"))
        if self.kernel is Kernel.EITHER:
            notes.append(note("kernel_not_known"))
        if self._unpadded() and self.pairs.sides[Stream.TOKENS].padding:
            notes.append(note("padding_perhaps_removed"))
        if any(linear.stream in (Stream.TOKENS, Stream.TARGET) for linear in self.model.heads):
            notes.append(self.head.assumption)
        if training.packing:
            notes.append(note("documents_packed"))
        return tuple(notes)

    def _states(self, level: Level) -> StateWork:
        return StateWork(self.pairs.sides[Stream.TOKENS], level, self.training.packing)

    def _hooked(self) -> Collection[Stream]:
        """Streams whose embeddings transformers makes pass a gradient on, for checkpointing."""
        patches = self.model.images is not None and self.model.images.input_gradients
        return EMBEDDED if patches else (Stream.TOKENS, Stream.TARGET)

    def _unpadded(self) -> bool:
        """Whether padding may have been removed before the first layer."""
        return self.model.unpads and self.kernel is not Kernel.SQUARE

    def _method(self) -> Method | None:
        method, trainable = self.training.method, self.training.trainable
        if method is None:
            self.notes.append(note("method_not_declared"))
        everything = self.parameters.total - self.model.constants
        if method is Method.PARTIAL and self.model.constants and trainable == everything:
            return Method.FULL  # a process reports that some parameters have no gradient
        if method in (Method.FULL, Method.PRETRAINING) and trainable is not None and trainable < everything:
            self.notes.append(note("full_taken_as_partial", trainable=str(trainable), total=str(self.parameters.total)))
            return Method.PARTIAL
        if method is Method.PARTIAL:
            self.notes.append(note("frozen_not_declared"))
        return method

    def _match_adapters(self) -> None:
        lora, counted = self.training.lora, self.training.trainable
        assert lora is not None
        plain, more = (adapters(self.model, lora, ambiguous=some) for some in (False, True))
        if plain != more:
            self.notes.append(note("adapters_by_version"))
        self.ambiguous = plain != more and counted == more
        if counted is not None and counted not in (plain, more):
            self.notes.append(note("adapters_differ", trainable=str(counted), named=str(plain)))
            self.surplus, self.fewer = max(0, counted - plain), counted < plain

    def _most_rows(self, level: Level) -> int:
        return max(self.rows[level][linear.stream] for linear in self.model.linears())

    def _with_surplus(self, sums: PassFlop, level: Level) -> PassFlop:
        """Add trained weights of which only the number is known: at most 2 FLOP per token in each direction."""
        trainable, tokens = self.training.trainable, self._most_rows(level)
        if self.method is Method.PARTIAL and trainable is not None and level is not Level.LOW:
            active = trainable if level is Level.HIGH else trainable * self.parameters.active // self.parameters.total
            sums.weight_gradients = min(sums.weight_gradients, 2 * tokens * active + sums.convolutions)
        known = trainable or 0 if self.undetailed else 0
        extra = {Level.LOW: 0, Level.COMPUTED: known, Level.HIGH: known + self.surplus}[level]
        sums.adapter += 2 * tokens * extra
        sums.activation_gradients += 2 * tokens * extra
        sums.weight_gradients += 2 * tokens * extra
        return sums
