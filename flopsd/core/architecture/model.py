"""A model as the matrix products that a token passes, in the order of the forward pass.

Norms, biases and positions have parameters but no matrix product: their parameters are counted, at no FLOP.
"""

from __future__ import annotations

from enum import Enum

from flopsd.core.architecture.recurrent import Convolution, State
from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note


class Stream(str, Enum):
    """The kinds of rows that a matrix is multiplied by."""

    TOKENS = "tokens"
    TARGET = "target_tokens"  # of the decoder in an encoder-decoder
    SEQUENCES = "sequences"  # one row per sequence, for example for a pooler
    PIXELS = "pixels"  # patches cut from an image, before class tokens are added
    PATCHES = "patches"  # rows of an image tower, class tokens included
    IMAGES = "images"  # one row per image
    SOFT = "soft_tokens"  # that an image is converted into
    FRAMES = "frames"  # of a spectrogram, two for each row that a convolution makes of them
    LATENTS = "latents"  # image rows in sequences that image and text share
    TEXT = "text"  # text rows in such sequences
    CONDITIONS = "conditions"  # inputs of the one vector per sequence that modulates layers
    LAYER_INPUTS = "layer_inputs"  # per-layer inputs that a token has in addition to its embedding
    MEMORY = "cross_tokens"  # an encoder's rows, as read by a decoder
    KEPT = "kept"  # tokens whose logits the caller keeps
    LOGITS = "logits"  # tokens that pass the head, if the head reads tokens


class Mask(str, Enum):
    """Which pairs of positions a layer's attention needs."""

    CAUSAL = "causal"
    WINDOW = "window"  # causal, and no further back than a window
    LOCAL = "local"  # at most a window away, in both directions
    CHUNK = "chunk"  # causal, within consecutive chunks
    FULL = "full"
    CROSS = "cross"  # each position of a decoder with each of its encoder


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix of weights. A row of the stream passes `used` of `held` such matrices (experts). `passed`: the number
    that transformers' own class sends it through, if that is more than the routing selects.

    `adaptable`: whether PEFT puts an adapter on it when it is named. None: depends on the version of transformers,
    since one parameter for all experts has replaced a module per expert.
    """

    path: str
    inputs: int
    outputs: int
    bias: bool = False
    held: int = 1
    used: int = 1
    passed: int = 0
    tied: bool = False  # shares the weights of an embedding
    stream: Stream = Stream.TOKENS
    adaptable: bool | None = True

    @property
    def weights(self) -> int:
        """Elements of its matrices, tied or not."""
        return self.inputs * self.outputs * self.held

    @property
    def parameters(self) -> int:
        """The number of parameters that it adds to the model."""
        return (0 if self.tied else self.weights) + (self.outputs * self.held if self.bias else 0)


@dataclass(frozen=True, slots=True)
class Attention:
    """Scores and their product with the values. `feeds`: one letter for each of q, k and v that a projection makes;
    other letters are latents, which a later projection `reads`. A projection that reads nothing reads the layer's
    input.

    `window`: positions that a query sees, or those of a chunk. `value_dim` None means `head_dim`. The letter o is what
    the output reads in addition to the values. `beside`: outputs of other streams. `shared`: the name under which a
    layer that makes keys and values passes them to later layers that make none.
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
        """Total width of queries, and of keys, over all heads."""
        return self.heads * self.head_dim

    @property
    def value_width(self) -> int:
        return self.heads * (self.head_dim if self.value_dim is None else self.value_dim)


@dataclass(frozen=True, slots=True)
class Mlp:
    """Matrices that read the block's input, then one that reads their result, scaled by rows of `scaled_by`."""

    inner: tuple[Linear, ...]
    down: Linear
    router: tuple[Linear, ...] = ()
    scaled_by: Stream | None = None


@dataclass(frozen=True, slots=True)
class Similarity:
    """Scores of each text of a batch with each of its images, all as vectors of `width`. No parameters."""

    width: int


@dataclass(frozen=True, slots=True)
class Modulation:
    """A matrix that reads one vector per sequence, and scales, shifts and gates the rows of these streams."""

    linear: Linear
    modulates: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A layer with a state, a short convolution, or both. `feeds`: the operands that each projection makes. `fused`: a
    kernel may include the convolution and the output, and then always computes the gradients of their weights."""

    projections: tuple[Linear, ...]
    feeds: tuple[tuple[str, ...], ...]
    output: Linear
    convolution: Convolution | None = None
    state: State | None = None
    others: int = 0  # parameters without a product: norms, decays, skips
    fused: bool = False


@dataclass(frozen=True, slots=True)
class AltUp:
    """Gemma 3n's mixing of a token's `streams`, each of `width`, by coefficients from a router. Before a layer it
    predicts them. `corrects`: the mixing after the layer, with the same router, but without the coefficients' adapter
    and without a matrix product."""

    router: Linear
    coefficients: Linear
    streams: int
    width: int
    corrects: bool = False


Part = AltUp | Attention | Mlp | Linear | Similarity | Modulation | Recurrence


@dataclass(frozen=True, slots=True)
class Block:
    """One layer: activation checkpointing keeps its input and computes the layer again.

    `parallel`: all its parts read the block's input. `side_by_side`: parts that read the same as the first of them.
    `output_unneeded`: the backward pass does not need the output of its last product. None: a dropout follows it, whose
    mask is drawn again, unless the training switches it off. `source`: the stream whose rows it reads, if not its own.
    `checkpointed`: False for blocks between layers, such as a projection. `unused`: nothing reads its output, so it has
    no backward pass. `joins`: streams that are concatenated in TOKENS, and that its parts also read separately.
    `may_skip_unlabelled`: transformers may leave out tokens without logits: no later layer and no cache needs them.
    """

    path: str
    parts: tuple[Part, ...]
    others: int = 0
    parallel: bool = False
    side_by_side: tuple[int, ...] = ()
    output_unneeded: bool | None = True
    stream: Stream = Stream.TOKENS
    source: Stream | None = None
    checkpointed: bool = True
    unused: bool = False
    joins: tuple[Stream, ...] = ()
    may_skip_unlabelled: bool = False


@dataclass(frozen=True, slots=True)
class Embedding:
    """A look-up table of rows: parameters, but no product."""

    path: str
    rows: int
    width: int
    stream: Stream = Stream.TOKENS

    @property
    def parameters(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True, slots=True)
class Images:
    """How images become rows: squares of `patch_size` pixels, `class_tokens` further rows per image in the tower, and
    one soft token per `merge` patches. `patches`: rows of the tower per image, if all images have the same size.
    `window_side`: patches on a side of an attention window, which holds whole squares of `merge`. `input_gradients`:
    whether transformers makes the patch embedding pass a gradient on for checkpointing."""

    patch_size: int
    patches: int | None = None
    class_tokens: int = 0
    merge: int = 1
    window_side: int | None = None
    input_gradients: bool = True


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a model without a configuration: numbers of parameters and layers. `active`: parameters that a
    token passes, embeddings and head included; `embedding`: the part of them that is only looked up in a table.
    `attention_width` is heads x head size, in at most `layers` layers. None: not known."""

    total: int
    active: int | None = None
    embedding: int | None = None
    layers: int | None = None
    attention_width: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose matrices are all known; or, with `bare`, one of which only the size is known. `notes` are added to
    the assumptions of everything computed from it."""

    family: str
    embeddings: tuple[Embedding, ...] = ()
    stem: tuple[Linear, ...] = ()  # products before the blocks, such as for an image
    blocks: tuple[Block, ...] = ()
    heads: tuple[Linear, ...] = ()
    others: int = 0
    max_positions: int | None = None
    images: Images | None = None
    bare: Size | None = None
    constants: int = 0  # parameters that no training changes, such as sinusoidal positions
    unpads: bool = False  # padding is removed before the first layer if the attention kernel allows it
    notes: tuple[Note, ...] = ()

    @property
    def two_sided(self) -> bool:
        """Whether it is an encoder-decoder."""
        return any(block.stream is Stream.TARGET for block in self.blocks)

    @property
    def joins(self) -> bool:
        """Whether its sequences consist of image rows and text rows."""
        return any(block.joins for block in self.blocks)

    @property
    def embeds_tokens(self) -> bool:
        """Whether its first layer reads rows of an embedding."""
        return any(table.stream is Stream.TOKENS for table in self.embeddings)

    @property
    def reads_text(self) -> bool:
        """Whether tokens pass through it; otherwise only images do."""
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
