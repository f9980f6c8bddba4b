"""A model as the matrix products that a token goes through, in the order of the forward pass.

Norms, biases and positions hold parameters and no matrix product: they are counted, and cost no FLOP here.
"""

from __future__ import annotations

from enum import Enum

from flopsd.core.architecture.recurrent import Convolution, State
from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note


class Stream(str, Enum):
    """What a matrix is multiplied by: one row for each of these."""

    TOKENS = "tokens"
    TARGET = "target_tokens"  # a decoder's, beside an encoder
    SEQUENCES = "sequences"  # one row a sequence, such as a pooler
    PIXELS = "pixels"  # the patches that an image is cut into, before class tokens are added
    PATCHES = "patches"  # rows of an image tower, class tokens included
    IMAGES = "images"  # one row an image
    SOFT = "soft_tokens"  # that an image becomes
    FRAMES = "frames"  # of a spectrogram, two for each row that a convolution makes of them
    LATENTS = "latents"  # rows of an image in a sequence that image and text share
    TEXT = "text"  # rows of text in such a sequence
    CONDITIONS = "conditions"  # vectors that become the one that modulates layers, one a sequence
    LAYER_INPUTS = "layer_inputs"  # what each token gives to each layer beside its embedding
    MEMORY = "cross_tokens"  # an encoder's rows, as a decoder reads them
    KEPT = "kept"  # tokens that are not left out of the logits by the caller
    LOGITS = "logits"  # tokens that pass through the head, where it reads tokens


class Mask(str, Enum):
    """Which pairs of positions a layer's attention needs."""

    CAUSAL = "causal"
    WINDOW = "window"  # causal, and no further back than a window
    LOCAL = "local"  # no further than a window, before and behind
    CHUNK = "chunk"  # causal, within chunks that follow each other
    FULL = "full"
    CROSS = "cross"  # each position of a decoder with each of its encoder


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix of weights. Of `held` like it (the experts) a row of the stream goes through `used`. `passed`: through
    how many transformers' own class sends it, where that is more than the routing asks for.

    `adaptable`: whether PEFT puts an adapter on it when it is named. None: that depends on the version of
    transformers, since what was a module for each expert became one parameter for all.
    """

    path: str
    inputs: int
    outputs: int
    bias: bool = False
    held: int = 1
    used: int = 1
    passed: int = 0
    tied: bool = False  # its weights are those of an embedding
    stream: Stream = Stream.TOKENS
    adaptable: bool | None = True

    @property
    def weights(self) -> int:
        """Elements of its matrices, tied or not."""
        return self.inputs * self.outputs * self.held

    @property
    def parameters(self) -> int:
        """What it adds to the model's parameters."""
        return (0 if self.tied else self.weights) + (self.outputs * self.held if self.bias else 0)


@dataclass(frozen=True, slots=True)
class Attention:
    """Scores and their product with the values. `feeds`: which of q, k and v each projection makes, a letter each;
    other letters are latents, which a later projection `reads`. One that reads nothing reads the layer's input.

    `window`: positions that a query sees, or those of a chunk. `value_dim`: None is `head_dim`. The letter o is what
    the output reads beside the values. `beside`: outputs of other streams. `shared`: the name by which a layer that
    makes keys and values hands them to those behind it that make none.
    """

    mask: Mask
    heads: int
    head_dim: int
    projections: tuple[Linear, ...]
    feeds: tuple[str, ...]
    output: Linear
    window: int | None = None
    reads: tuple[str, ...] = ()  # empty: all read the layer's input
    value_dim: int | None = None
    others: int = 0  # parameters without a product: norms, sinks, relative positions
    stream: Stream = Stream.TOKENS
    beside: tuple[Linear, ...] = ()
    shared: str | None = None

    @property
    def width(self) -> int:
        """Of queries and keys, all heads together."""
        return self.heads * self.head_dim

    @property
    def value_width(self) -> int:
        return self.heads * (self.head_dim if self.value_dim is None else self.value_dim)


@dataclass(frozen=True, slots=True)
class Mlp:
    """Matrices that read the block's input, then one that reads what came of them, scaled by rows of `scaled_by`."""

    inner: tuple[Linear, ...]
    down: Linear
    router: tuple[Linear, ...] = ()
    scaled_by: Stream | None = None


@dataclass(frozen=True, slots=True)
class Similarity:
    """Scores of each text of a batch with each of its images, both as vectors of `width`. No parameters."""

    width: int


@dataclass(frozen=True, slots=True)
class Modulation:
    """A matrix that reads one vector a sequence and scales, shifts and gates the rows of these streams."""

    linear: Linear
    modulates: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A layer with a state, a short convolution, or both. `feeds`: the operands that each projection makes. `fused`: a
    kernel may hold the convolution and the output too, and gives a gradient to their weights always."""

    projections: tuple[Linear, ...]
    feeds: tuple[tuple[str, ...], ...]
    output: Linear
    convolution: Convolution | None = None
    state: State | None = None
    others: int = 0  # parameters without a product: norms, decays, skips
    fused: bool = False


@dataclass(frozen=True, slots=True)
class AltUp:
    """Gemma 3n's mixing of the `streams` that a token has, of `width` each, by coefficients that a router makes. Before
    a layer it predicts them; `corrects`: afterwards, with the same router, an adapter on the coefficients left out, and
    without a product of matrices."""

    router: Linear
    coefficients: Linear
    streams: int
    width: int
    corrects: bool = False


Part = AltUp | Attention | Mlp | Linear | Similarity | Modulation | Recurrence


@dataclass(frozen=True, slots=True)
class Block:
    """One layer: what activation checkpointing keeps the input of and computes again.

    `parallel`: its parts all read the block's input. `side_by_side`: those that read what the first of them reads.
    `spare_tail`: nothing of the backward pass needs the output of its last product. None: a dropout follows it, whose
    mask is drawn again, unless the training switches it off. `source`: the stream whose rows it reads, where that is
    not its own. `checkpointed`: False for what stands between layers, such as a projection. `unused`: nothing reads
    its output, so it has no backward pass. `joins`: streams that stand one behind the other in TOKENS, and that its
    parts also read one by one. `kept_alone`: transformers may leave out tokens without logits, since no later layer and
    no cache needs them.
    """

    path: str
    parts: tuple[Part, ...]
    others: int = 0
    parallel: bool = False
    side_by_side: tuple[int, ...] = ()
    spare_tail: bool | None = True
    stream: Stream = Stream.TOKENS
    source: Stream | None = None
    checkpointed: bool = True
    unused: bool = False
    joins: tuple[Stream, ...] = ()
    kept_alone: bool = False


@dataclass(frozen=True, slots=True)
class Embedding:
    """A table that rows are looked up in: parameters, and no product."""

    path: str
    rows: int
    width: int
    stream: Stream = Stream.TOKENS

    @property
    def parameters(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True, slots=True)
class Images:
    """How images become rows: squares of `patch_size` pixels, `class_tokens` more rows an image in the tower, and of
    each `merge` patches one soft token. `patches`: rows of the tower an image, where all have the same size.
    `window_side`: patches on a side of an attention window, which holds whole squares of `merge`.
    `input_gradients`: whether transformers makes the patch embedding pass a gradient on for checkpointing."""

    patch_size: int
    patches: int | None = None
    class_tokens: int = 0
    merge: int = 1
    window_side: int | None = None
    input_gradients: bool = True


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a model without a configuration: numbers of parameters, and of its layers. `active`: parameters
    that a token goes through, embeddings and head included; `embedding`: those of them that are only looked up in a
    table. `attention_width` is heads x head size, which `layers` layers have at most. None: not known."""

    total: int
    active: int | None = None
    embedding: int | None = None
    layers: int | None = None
    attention_width: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose every matrix is known; or, with `bare`, one of which only its size is. `notes` are for the
    assumptions of whatever is computed from it."""

    family: str
    embeddings: tuple[Embedding, ...] = ()
    stem: tuple[Linear, ...] = ()  # products before the blocks, such as an image's
    blocks: tuple[Block, ...] = ()
    heads: tuple[Linear, ...] = ()
    others: int = 0
    max_positions: int | None = None
    images: Images | None = None
    bare: Size | None = None
    constants: int = 0  # parameters that no training changes, such as sinusoidal positions
    unpads: bool = False  # padding is removed before the first layer where the attention kernel allows it
    notes: tuple[Note, ...] = ()

    @property
    def two_sided(self) -> bool:
        """Whether it is a decoder beside an encoder."""
        return any(block.stream is Stream.TARGET for block in self.blocks)

    @property
    def joins(self) -> bool:
        """Whether its sequences are rows of an image and rows of text."""
        return any(block.joins for block in self.blocks)

    @property
    def embeds_tokens(self) -> bool:
        """Whether what its first layer reads are rows of an embedding."""
        return any(table.stream is Stream.TOKENS for table in self.embeddings)

    @property
    def reads_text(self) -> bool:
        """Whether tokens pass through it; otherwise images alone do."""
        return any(block.stream is Stream.TOKENS for block in self.blocks)

    @property
    def compares(self) -> bool:
        """Whether it scores texts against images."""
        return any(isinstance(part, Similarity) for block in self.blocks for part in block.parts)

    def linears(self) -> tuple[Linear, ...]:
        """Every matrix, in the order of the forward pass."""
        parts = (part for block in self.blocks for part in block.parts)
        return (*self.stem, *(linear for part in parts for linear in linears_of(part)), *self.heads)


def linears_of(part: Part) -> tuple[Linear, ...]:
    """The matrices of one part, in order."""
    if isinstance(part, Attention):
        return (*part.projections, part.output, *part.beside)
    if isinstance(part, Modulation):
        return (part.linear,)
    if isinstance(part, Mlp):
        return (*part.router, *part.inner, part.down)
    if isinstance(part, Recurrence):
        return (*part.projections, part.output)
    if isinstance(part, AltUp):
        return (part.coefficients,) if part.corrects else (part.router, part.coefficients)
    return (part,) if isinstance(part, Linear) else ()
