"""For how many tokens a model's head was computed, and how often, from the counters of a process's work.

A plain loss has logits of all tokens. Generation needs those of the last token, a preference loss those of the answers.
A fused loss computes them tile by tile, only for labelled tokens where that is faster, and a second time in its
backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.architecture.attention_pairs import Level
from flopsd.core.architecture.model import Model, Stream
from flopsd.core.dataclass import dataclass
from flopsd.core.notes import Note, note
from flopsd.errors import ArchitectureError

_FOR_ALL = note("head_taken_for_all")
_FOR_SOME = note("head_as_counted")
_TOKENS = (Stream.TOKENS, Stream.TARGET)


@dataclass(frozen=True, slots=True)
class HeadWork:
    """Tokens of the stream that the head reads. `certain` tokens have logits, `possible` further ones may have them;
    for `again` tokens a fused loss computes the logits twice. All of these include `padding`."""

    certain: int
    possible: int
    again: int
    padding: int
    is_counted: bool

    @classmethod
    def of(cls, model: Model, work: Mapping[str, int]) -> HeadWork:
        """From the counters. Raises ArchitectureError if they contradict each other."""
        decodes = bool(model.heads) and model.heads[-1].stream is Stream.TARGET
        tokens = work.get("target_tokens" if decodes else "tokens", 0)
        without, unlabelled = work.get("headless_tokens", 0), work.get("unlabelled_tokens", 0)
        again = work.get("fused_head_tokens", 0)
        if without + unlabelled + again > tokens:
            raise ArchitectureError(
                "head_tokens_contradict", headless=without, unlabelled=unlabelled, fused=again, tokens=tokens,
                hint="a token is one of these at most",
            )  # fmt: skip
        padding = 0 if decodes else work.get("padding_tokens", 0)
        return cls(tokens - without - unlabelled, unlabelled, again, padding, bool(without or unlabelled or again))

    def rows(self, level: Level) -> int:
        """Rows of the head's matrix. LOW is without padding, which may also be among the tokens without logits."""
        if level is Level.LOW:
            return max(0, self.certain - self.padding)
        return self.certain + (self.possible if level is Level.HIGH else 0)

    def kept(self, level: Level) -> int:
        """Tokens for which logits were requested, however a loss computes them."""
        return max(0, self.certain + self.possible - (self.padding if level is Level.LOW else 0))

    def flop_again(self, model: Model, level: Level) -> int:
        """FLOP that a fused loss computes a second time."""
        weights = sum(
            linear.inputs * linear.outputs * linear.used for linear in model.heads if linear.stream in _TOKENS
        )
        return 2 * weights * (self.again + (self.possible if level is Level.HIGH else 0))

    @property
    def assumption(self) -> Note:
        return _FOR_SOME if self.is_counted else _FOR_ALL
