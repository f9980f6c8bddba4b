"""How many pairs of positions attention computes, from the counters of a process's work.

For a sequence of s tokens the full square is s x s pairs; the causal half, each position with itself and earlier ones,
is s(s + 1)/2; a window of w leaves min(i, w) for the i-th; chunks of c leave the causal half of each chunk. Which of
these are computed depends on the kernel: `eager` computes the whole square and masks it, flash kernels skip masked
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from math import isqrt

from flopsd.core.architecture.model import Mask, Model, Stream
from flopsd.core.dataclass import dataclass
from flopsd.core.values import ceil_div
from flopsd.errors import ArchitectureError

_LATENTS = "tokens are rows of image and text, patches those of the image among them, as ForwardCounter counts them"


def causal_pairs(s: int) -> int:
    """Pairs of a causal sequence of s tokens."""
    return s * (s + 1) // 2


def window_pairs(s: int, w: int) -> int:
    """Pairs of a causal sequence of s tokens, each of which sees at most w, itself included."""
    return causal_pairs(s) if s <= w else causal_pairs(w) + (s - w) * w


def local_pairs(s: int, w: int) -> int:
    """Pairs of a sequence of s tokens, each of which sees itself and at most w on either side."""
    return 2 * window_pairs(s, w + 1) - s


def chunk_pairs(s: int, c: int) -> int:
    """Pairs of a causal sequence of s tokens, each of which sees only its own chunk of c tokens."""
    return s // c * causal_pairs(c) + causal_pairs(s % c)


class Kernel(Enum):
    """What an attention kernel computes of a masked square."""

    SQUARE = "square"
    SKIPS = "skips"
    EITHER = "either"  # PyTorch's own choice: skips masked pairs, unless it is given a mask

    @classmethod
    def of(cls, attention: str | None) -> Kernel:
        if attention == "eager":
            return cls.SQUARE
        skips = attention is not None and any(word in attention for word in ("flash", "flex"))
        return cls.SKIPS if skips else cls.EITHER


class Level(Enum):
    LOW = "low"
    COMPUTED = "computed"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Side:
    """Tokens of one stack, in sequences whose squared lengths add up to between `square_low` and `square_high`."""

    tokens: int
    padding: int
    sequences: int | None
    square_low: int
    square_high: int

    @property
    def real(self) -> int:
        """Tokens that are not padding. With packed rows this is also the least number of pairs: document lengths are
        not known, and each token sees itself."""
        return self.tokens - self.padding

    def least(self, window: int | None) -> int:
        """The least number of causal pairs of the real tokens, within a window if there is one."""
        # A sum of convex terms is least if all sequences have the same length.
        alike = self._alike(self.real, lambda s: causal_pairs(s) if window is None else window_pairs(s, window))
        if window is not None:
            return alike
        lost = self.padding * isqrt(self.square_high)  # a padding position removes at most its own row of pairs
        return max(alike, (self.square_low + self.tokens) // 2 - lost)

    def least_chunked(self, chunk: int) -> int:
        """As `least`, within chunks."""

        # chunk_pairs is not convex: for s = qc + r tokens it is r(c - r)/2 below the line s(c + 1)/2, so at most c^2/8
        # below. A convex lower bound: causal pairs up to half a chunk, then that line less c^2/8.
        def fewest(s: int) -> int:
            return causal_pairs(s) if 2 * s <= chunk else (4 * s * (chunk + 1) - chunk**2) // 8

        return self._alike(self.real, fewest)

    def length(self) -> int | None:
        """The length of every sequence, if the counters show that all have the same; otherwise None."""
        if not self.sequences or self.padding or self.square_high * self.sequences != self.tokens**2:
            return None
        return self.tokens // self.sequences

    def least_square(self) -> int:
        """The least number of pairs of the real tokens under a mask that hides nothing."""
        lost = 2 * self.padding * isqrt(self.square_high)
        return max(self._alike(self.real, lambda s: s * s), self.square_low - lost)

    def least_local(self, window: int) -> int:
        """The least number of pairs of the real tokens that are at most `window` apart."""
        return self._alike(self.real, lambda s: local_pairs(s, window))

    def most_local(self, window: int) -> int:
        """The most pairs within `window`; exact if all sequences have the same length."""
        if self.sequences and self.square_low * self.sequences == self.tokens**2:
            return self._alike(self.tokens, lambda s: local_pairs(s, window))
        return self.tokens * (2 * window + 1)

    def _alike(self, tokens: int, pairs: Callable[[int], int]) -> int:
        count = min(self.sequences if self.sequences is not None else tokens, tokens)
        if count == 0:
            return 0
        each, more = divmod(tokens, count)
        return (count - more) * pairs(each) + more * pairs(each + 1)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of each mask at each level."""

    sides: Mapping[Stream, Side]
    cross: int
    kernel: Kernel
    packing: bool
    window_pairs: int | None
    window: int | None  # the window that window_pairs were counted with

    def of(self, mask: Mask, window: int | None, stream: Stream, level: Level) -> int:
        """Pairs of one layer. LOW: needed for the result, without padding; COMPUTED: assumed to be computed by the
        kernel; HIGH: the full square."""
        if mask is Mask.CROSS:
            return self.cross
        side = self.sides[stream]
        if level is Level.HIGH:
            return side.square_high
        if level is Level.LOW and self.packing:
            return side.real
        if mask is Mask.FULL:
            return side.least_square() if level is Level.LOW else side.square_low
        if mask is Mask.LOCAL and window is not None:
            return self._local(side, window, level)
        masked = side.padding or self.packing
        if level is Level.COMPUTED and (self.kernel is Kernel.SQUARE or (self.kernel is Kernel.EITHER and masked)):
            return side.square_low
        if mask is Mask.WINDOW and window is not None:
            return self._windowed(side, window, level)
        if mask is Mask.CHUNK and window is not None:
            return self._chunked(side, window, level)
        return side.least(None) if level is Level.LOW else (side.square_low + side.tokens) // 2

    def executed_low(self, mask: Mask, window: int | None, stream: Stream) -> int:
        """The least number of pairs computed: a kernel that masks a square has computed it."""
        if self.kernel is Kernel.SQUARE and mask is not Mask.CROSS:
            return self.sides[stream].square_low
        return self.of(mask, window, stream, Level.LOW)

    def _local(self, side: Side, window: int, level: Level) -> int:
        if level is Level.LOW:
            return side.least_local(window)
        # Only flash kernels skip pairs outside the window: PyTorch's own kernels are given the window as a mask.
        skips = self.kernel is Kernel.SKIPS
        return min(side.square_low, side.most_local(window)) if skips else side.square_low

    def _chunked(self, side: Side, chunk: int, level: Level) -> int:
        length = None if self.packing else side.length()
        if length is not None and side.sequences is not None:
            return side.sequences * chunk_pairs(length, chunk)
        if level is Level.LOW:
            return side.least_chunked(chunk)
        return min((side.square_low + side.tokens) // 2, side.tokens * (chunk + 1) // 2)

    def _windowed(self, side: Side, window: int, level: Level) -> int:
        counted = self.window_pairs if self.window == window else None
        if level is Level.COMPUTED:
            most = min((side.square_low + side.tokens) // 2, side.tokens * window)
            return most if counted is None else min(counted, side.square_high)
        least = side.least(window)
        return least if counted is None else max(least, counted - side.padding * window)


def side_from(work: Mapping[str, int], prefix: str, max_positions: int | None, *, cached: bool = False) -> Side:
    """One stack's tokens. Raises ArchitectureError if the counters contradict each other. `cached`: positions of
    earlier passes may be attended to, so a token can have more pairs than there are tokens, and its sequence may have
    begun in another phase."""
    tokens, square = work.get(f"{prefix}tokens", 0), work.get(f"{prefix}square_pairs")
    padding = 0 if prefix else work.get("padding_tokens", 0)
    sequences = None if cached else work.get("sequences") or None
    if padding > tokens:
        raise _contradiction("padding_contradicts", padding=padding, tokens=tokens)
    least = ceil_div(tokens**2, sequences) if sequences else tokens
    if sequences is not None and sequences > tokens > 0:
        raise _contradiction("sequences_contradict", sequences=sequences, tokens=tokens, counter=f"{prefix}tokens")
    if square is None:
        return Side(tokens, padding, sequences, least, max(least, tokens * min(tokens, max_positions or tokens)))
    if square < least or (square > tokens**2 and not cached):
        counter = f"{prefix}square_pairs"
        if sequences is None:
            raise _contradiction("pairs_contradict", pairs=square, counter=counter, tokens=tokens)
        code = "pairs_of_sequences_contradict"
        raise _contradiction(code, pairs=square, counter=counter, tokens=tokens, sequences=sequences)
    return Side(tokens, padding, sequences, square, square)


def latent_side(model: Model, work: Mapping[str, int], tokens: int) -> Side:
    """The image rows of sequences that consist of image rows and text rows: see diffusion.py. Raises ArchitectureError
    if the counters lack them, or contradict each other."""
    patches = work.get("patches")
    if patches is None or "sequences" not in work:
        raise ArchitectureError("no_patches_or_sequences", family=model.family, hint=_LATENTS)
    if patches > tokens:
        raise ArchitectureError("patches_contradict", patches=patches, tokens=tokens, hint=_LATENTS)
    names = {"tokens": "patches", "square_pairs": "patch_square_pairs", "sequences": "sequences"}
    return side_from({to: work[name] for to, name in names.items() if name in work}, "", None)


def _contradiction(code: str, **parameters: str | int) -> ArchitectureError:
    hint = "square_pairs are summed over the same sequences as tokens: s tokens have s x s"
    return ArchitectureError(code, hint=hint, **parameters)
