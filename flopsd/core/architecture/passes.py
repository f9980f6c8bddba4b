"""One walk through a model: the FLOP of its forward pass, and of the gradients that the trained weights need.

A product y = xW of n rows costs 2 n in out FLOP forward. Backward it costs the same again for the gradient of W, if W
is trained, and the same again for the gradient of x, if anything before it is trained. So frozen layers above a trained
one still pass gradients on, and those below the first trained one cost nothing backward.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from flopsd.core.architecture.attention_pairs import Level
from flopsd.core.architecture.model import (
    AltUp,
    Attention,
    Block,
    Linear,
    Mlp,
    Model,
    Modulation,
    Part,
    Recurrence,
    Similarity,
    Stream,
)
from flopsd.core.architecture.recurrent_work import StateWork
from flopsd.core.architecture.training import Trained
from flopsd.core.dataclass import dataclass

PairsOf = Callable[[Attention | Similarity], int]
# Streams whose first rows may be made to pass a gradient on: outputs of embeddings, patch embeddings included.
EMBEDDED = (Stream.TOKENS, Stream.TARGET, Stream.PATCHES)
# The streams that a stem's rows become.
_READ_AS = {Stream.PIXELS: Stream.PATCHES, Stream.FRAMES: Stream.TOKENS}


@dataclass(slots=True)
class PassFlop:
    """FLOP of a walk. `layers` is the forward pass of the blocks with a backward pass, `spare` the last product of each
    block whose output is not needed again; `scores` is what flash kernels compute a second time, `states_again` at most
    what kernels of recurrent layers do; `convolutions` is the cost of short ones, whose weights also meet rows beyond
    the tokens."""

    linear: int = 0
    adapter: int = 0
    attention: int = 0
    states: int = 0
    activation_gradients: int = 0
    weight_gradients: int = 0
    layers: int = 0
    layers_attention: int = 0
    spare: int = 0
    scores: int = 0
    states_again: int = 0
    convolutions: int = 0

    @property
    def forward(self) -> int:
        return self.linear + self.adapter + self.attention + self.states

    @property
    def total(self) -> int:
        return self.forward + self.activation_gradients + self.weight_gradients


class Walk:
    """All passes of `rows` through a model; `sums` has their FLOP.

    LOW: no dropout, only experts that the routing selects, and text rows are together with images in some sequences
    only, so they need not pass gradients down to them. COMPUTED: the experts that transformers' class computes. HIGH:
    also values that a flash kernel pads to the width of the keys.
    """

    _last: int  # FLOP of the product counted last

    def __init__(
        self, model: Model, rows: Mapping[Stream, int], pairs: PairsOf, states: StateWork, trained: Trained,
        level: Level, *, input_gradients: Collection[Stream] = (), reentrant: bool = False,
    ) -> None:  # fmt: skip
        """`input_gradients`: streams with gradients down to the output of frozen embeddings, as in checkpointing with
        adapters. `reentrant`: checkpointing may be reentrant, which gives no gradient to a layer whose rows had none,
        nor to further tensors that one layer passes to others."""
        self._rows, self._pairs, self._states = rows, pairs, states
        self._trained, self._level, self._reentrant = trained, level, reentrant
        self.sums, self._in_head = PassFlop(), False
        self._keys_and_values: dict[str, dict[str, bool]] = {}
        self._images_reach_text = level is not Level.LOW and rows[Stream.SOFT] > 0
        self._graded = {stream: stream in input_gradients for stream in Stream}
        for table in model.embeddings:
            self._mark_graded(trained.weight(table), table.stream)
        for linear in model.stem:
            out = self._linear(linear, self._graded[linear.stream])
            self._mark_graded(out, _READ_AS.get(linear.stream, linear.stream))
        if model.embeds_tokens:  # in an encoder-decoder, the decoder reads the same table
            self._mark_graded(self._graded[Stream.TOKENS], Stream.TARGET)
        for block in model.blocks:
            before = replace(self.sums)
            self._block(block)
            if block.may_skip_unlabelled and level is not Level.HIGH:
                self._scale_to_kept_tokens(before)
            is_pooler = block.stream is Stream.IMAGES and block is model.blocks[-1] and not model.heads
            if is_pooler and level is Level.LOW:  # a loss need not read it
                self._without_gradients_since(before)
        self._in_head = True
        if model.heads:
            graded = any(self._graded[stream] for stream in _head_sources(model.heads[-1].stream))
            for linear in model.heads:
                before = replace(self.sums)
                graded = self._linear(linear, graded)
            if level is Level.LOW and model.heads[-1].path.endswith("pooler.dense"):  # a loss need not read it
                self._without_gradients_since(before)

    def _block(self, block: Block) -> None:
        sums, stream = self.sums, block.stream
        before = replace(sums)
        source = graded = self._graded[block.source or stream]
        if block.joins:
            graded = self._joined(block)
        else:
            alike, common = range(len(block.parts)) if block.parallel else block.side_by_side, graded
            for index, part in enumerate(block.parts):
                common = graded if index in alike[:1] else common
                graded = self._part(part, common if index in alike else graded) or graded
        if block.unused or (self._reentrant and block.checkpointed and stream is Stream.PATCHES and not source):
            self._without_gradients_since(before)
            return
        self._mark_graded(graded, stream)
        if stream is Stream.SOFT and self._images_reach_text:
            self._mark_graded(graded, Stream.TOKENS)
        if graded and block.checkpointed:
            sums.layers += sums.forward - before.forward - self._idle_stream_flop(block)
            sums.layers_attention += sums.attention - before.attention
            spare = self._level is Level.LOW if block.output_unneeded is None else block.output_unneeded
            sums.spare += self._last if spare else 0

    def _idle_stream_flop(self, block: Block) -> int:
        """FLOP of the streams without gradients in a recomputed layer: recomputation may end before them."""
        if self._level is not Level.LOW or not block.joins:
            return 0
        linears: list[Linear] = []
        for part in block.parts:
            if isinstance(part, Mlp):
                linears += [*part.inner, part.down]
            elif isinstance(part, Attention):
                linears += [part.output, *part.beside]
        idle = [one for one in linears if one.stream in block.joins and not self._graded[one.stream]]
        return sum(2 * self._rows[one.stream] * one.inputs * one.outputs for one in idle)

    def _scale_to_kept_tokens(self, before: PassFlop) -> None:
        """Scale everything added since `before` to the tokens with logits. These are the last ones, so their share of
        the pairs is no smaller."""
        kept, tokens = self._rows[Stream.KEPT], max(1, self._rows[Stream.TOKENS])
        for name in PassFlop.__slots__:
            was = getattr(before, name)
            setattr(self.sums, name, was + (getattr(self.sums, name) - was) * min(kept, tokens) // tokens)

    def _without_gradients_since(self, before: PassFlop) -> None:
        sums = self.sums
        sums.activation_gradients, sums.weight_gradients = before.activation_gradients, before.weight_gradients
        sums.scores, sums.states_again = before.scores, before.states_again

    def _joined(self, block: Block) -> bool:
        """A layer whose parts read several streams. Return whether its output has a gradient."""
        for part in block.parts:
            if isinstance(part, Modulation):
                self._mark_graded(self._part(part, self._graded[Stream.SEQUENCES]), *part.modulates)
        entry = dict(self._graded)  # what each attention reads, even if there are several
        for part in block.parts:
            if isinstance(part, Attention):
                streams = block.joins if part.stream is Stream.TOKENS else (part.stream,)
                for stream, graded in self._attention(part, any(entry[stream] for stream in streams)).items():
                    self._mark_graded(graded, *(block.joins if stream is Stream.TOKENS else (stream,)))
            elif isinstance(part, Mlp):
                self._mark_graded(self._part(part, self._graded[part.down.stream]), part.down.stream)
        return any(self._graded[stream] for stream in block.joins)

    def _mark_graded(self, graded: bool, *streams: Stream) -> None:
        for stream in streams:
            self._graded[stream] = self._graded[stream] or graded

    def _part(self, part: Part, source: bool) -> bool:
        if isinstance(part, Attention):
            return any(self._attention(part, source).values())
        if isinstance(part, Modulation):
            return self._linear(part.linear, source)
        if isinstance(part, Mlp):
            return self._mlp(part, source)
        if isinstance(part, AltUp):
            return self._altup(part, source)
        if isinstance(part, Recurrence):
            return self._recurrence(part, source)
        return self._linear(part, source) if isinstance(part, Linear) else self._similarity(part)

    def _similarity(self, part: Similarity) -> bool:
        product, sums = 2 * self._pairs(part) * part.width, self.sums
        sums.linear += product
        texts, images = self._graded[Stream.SEQUENCES], self._graded[Stream.IMAGES]
        sums.activation_gradients += product * (texts + images)
        return texts or images

    def _recurrence(self, part: Recurrence, source: bool) -> bool:
        sums, graded = self.sums, {}
        for linear, feeds in zip(part.projections, part.feeds, strict=True):
            graded.update(dict.fromkeys(feeds, self._linear(linear, source)))
        convolution = part.convolution
        if convolution is not None:
            product = 2 * convolution.channels * self._states.taps(convolution)
            inside = any(graded[name] for name in convolution.feeds)
            sums.linear += product
            sums.convolutions += product
            sums.activation_gradients += product if inside else 0
            sums.weight_gradients += product if self._trained.everything else 0
            sums.states_again += 2 * product if part.fused else 0  # once forward, once for frozen weights
            graded.update(dict.fromkeys(convolution.feeds, inside or self._trained.everything))
        if part.state is not None:
            found = self._states.products(part.state, graded)
            sums.states += found.forward
            sums.activation_gradients += found.gradients
            sums.states_again += found.again
        some, output = any(graded.values()), part.output
        if part.fused and some:
            sums.states_again += 2 * self._rows[output.stream] * output.inputs * output.outputs
        return self._linear(output, some)

    def _attention(self, part: Attention, source: bool) -> dict[Stream, bool]:
        """For each stream, whether the output of the attention has a gradient."""
        graded: dict[str, bool] = {}
        reads = part.reads or ("",) * len(part.projections)
        for linear, feeds, read in zip(part.projections, part.feeds, reads, strict=True):
            origin = Stream.TOKENS if linear.stream is Stream.MEMORY else linear.stream
            layer = source if origin is part.stream else self._graded[origin]
            out = self._linear(linear, graded[read] if read else layer)
            for letter in feeds:
                graded[letter] = graded.get(letter, False) or out
        if part.shared is not None and "k" in graded:
            self._keys_and_values[part.shared] = {letter: graded[letter] for letter in "kv"}
        elif part.shared is not None:
            shared = self._keys_and_values[part.shared]
            graded |= dict.fromkeys(shared, False) if self._reentrant else shared
        pairs, value_width = self._pairs(part), part.value_width
        if self._level is Level.HIGH:
            value_width = max(value_width, part.width)
        keys, values = 2 * pairs * part.width, 2 * pairs * value_width  # queries with keys; scores with values
        sums = self.sums
        sums.attention += keys + values
        scores = graded["q"] or graded["k"]
        # Gradients of queries and keys; then of the scores and of the values.
        sums.activation_gradients += keys * (graded["q"] + graded["k"]) + values * (scores + graded["v"])
        out = scores or graded["v"]
        sums.scores += keys if out else 0
        out = out or graded.get("o", False)
        return {linear.stream: self._linear(linear, out) for linear in (*part.beside, part.output)}

    def _mlp(self, part: Mlp, source: bool) -> bool:
        routed = [self._linear(linear, source) for linear in part.router]
        inner = [self._linear(linear, source) for linear in part.inner]
        scaled = part.scaled_by is not None and self._graded[part.scaled_by]
        return self._linear(part.down, any(inner) or scaled) or any(routed)

    def _altup(self, part: AltUp, source: bool) -> bool:
        routed = self._linear(part.router, source)
        mixed = self._linear(part.coefficients, routed, adapted=not part.corrects)
        if not part.corrects:
            product = 2 * self._rows[part.router.stream] * part.width * part.streams**2
            self.sums.linear += product
            self.sums.activation_gradients += product * (source + mixed)
        return source or mixed

    def _linear(self, linear: Linear, source: bool, *, adapted: bool = True) -> bool:
        """Count one product and return whether its output has a gradient. `adapted`: with its adapter, if any."""
        passed = linear.used if self._level is Level.LOW else max(linear.used, linear.passed)
        sums, each = self.sums, 2 * self._rows[self._stream(linear)] * passed
        product = each * linear.inputs * linear.outputs
        weight, rank = self._trained.weight(linear), self._trained.rank(linear, self._in_head) if adapted else 0
        sums.linear += product
        sums.activation_gradients += product if source else 0
        sums.weight_gradients += product if weight else 0
        self._last = product
        if rank:
            into, out_of = each * linear.inputs * rank, each * rank * linear.outputs
            sums.adapter += into + out_of
            sums.activation_gradients += out_of + (into if source else 0)
            sums.weight_gradients += into + out_of
            self._last = out_of
        return source or weight or rank > 0

    def _stream(self, linear: Linear) -> Stream:
        return Stream.LOGITS if self._in_head and linear.stream in (Stream.TOKENS, Stream.TARGET) else linear.stream


def _head_sources(stream: Stream) -> tuple[Stream, ...]:
    """The streams from which a head's rows are taken."""
    return {Stream.IMAGES: (Stream.IMAGES, Stream.PATCHES), Stream.SEQUENCES: (Stream.SEQUENCES, Stream.TOKENS)}.get(
        stream, (stream,)
    )
