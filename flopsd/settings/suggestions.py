"""What was probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean WORD?`, to follow the statement that `word` is not known; empty where none of the known words
    reaches the similarity `cutoff`, of 0 to 1, as it is or in small letters."""
    from difflib import get_close_matches  # only for a mistake

    words = list(known)
    close = [one for form in (word, word.lower()) for one in get_close_matches(form, words, n=1, cutoff=cutoff)]
    return f"; did you mean {close[0]}?" if close else ""
