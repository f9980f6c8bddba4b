"""What was probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable

LIKELY = 0.6


def closest(word: str, known: Iterable[str], cutoff: float = LIKELY) -> str | None:
    """The known word nearest to `word`; None where none reaches the similarity `cutoff`, of 0 to 1."""
    from difflib import get_close_matches  # only for a mistake

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = LIKELY) -> str:
    """`; did you mean WORD?`, to follow the statement that `word` is not known; empty where nothing is near."""
    close = closest(word, known, cutoff)
    return "" if close is None else f"; did you mean {close}?"
