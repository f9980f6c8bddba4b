"""The positions that a key-value cache holds."""

from __future__ import annotations

from typing import Any


def past_length(cache: Any) -> int | None:
    """The number of positions that a key-value cache holds; None without a cache."""
    if cache is None:
        return None
    if hasattr(cache, "get_seq_length"):
        try:
            return int(cache.get_seq_length())
        except ValueError:  # a cache of states only, which has no positions
            return 0
    return int(cache[0][0].shape[-2])


def fixed_length(cache: Any) -> int | None:
    """The number of positions that each pass attends to with a cache of a fixed size, full or not; else None."""
    if not getattr(cache, "is_compileable", False):
        return None
    longest = getattr(cache, "get_max_length", None) or cache.get_max_cache_shape  # the earlier name
    return int(longest() or 0)
