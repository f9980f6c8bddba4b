"""What kind of work a training process declares. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.session_protocol import DeclaredSession


def is_trained(session: DeclaredSession) -> bool:
    """Whether it is of the model that is trained, as all sessions without a role are."""
    return "role" not in session.facts


def has_passed(counters: Mapping[str, int]) -> bool:
    """Whether anything was counted that passed a model: of an image encoder that is patches alone."""
    return bool(counters.get("tokens") or counters.get("patches"))
