"""What was probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean WORD?`, to follow the statement that `word` is not known; empty where none of the known words
    reaches the similarity `cutoff`, of 0 to 1."""
    from difflib import get_close_matches  # only for a mistake

    return "".join(f"; did you mean {close}?" for close in get_close_matches(word, list(known), n=1, cutoff=cutoff))
