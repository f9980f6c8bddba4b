"""Suggestions for unknown words."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean WORD?`, to be appended to a message that `word` is not known. Empty if no known word reaches the
    similarity `cutoff` (0 to 1), either as written or in lower case."""
    from difflib import get_close_matches  # needed only for mistakes

    words = list(known)
    close = [one for form in (word, word.lower()) for one in get_close_matches(form, words, n=1, cutoff=cutoff)]
    return f"; did you mean {close[0]}?" if close else ""
