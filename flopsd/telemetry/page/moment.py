"""Times on the page."""

from __future__ import annotations


def moment(at: str, now: str | None) -> str:
    """`at` to the minute, with its date if that differs from the date of `now`: a run may be weeks old."""
    same_day = now is not None and at[:10] == now[:10]
    return f"{'' if same_day else at[:10] + ' '}{at[11:16]} UTC"
