"""`witness`: a timestamp authority's statement that the head of the journal's chain existed at a time.

`rfc3161` covers the signature and stands next to it. This stamp is part of the signed payload, and every rolling seal
asks for one: the stamps of earlier seals stay in the journal. Needs the extra `timestamp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.attestation.evidence import rfc3161
from flopsd.attestation.evidence.item import (
    REASON,
    CheckContext,
    CollectContext,
    EvidenceKind,
    EvidenceResult,
    EvidenceState,
    bytes_of,
    fields_of,
    not_collected,
)
from flopsd.core.envelope import encode64
from flopsd.core.ledger.earlier_seals import SealsSoFar
from flopsd.errors import EvidenceError
from flopsd.settings.evidence_kinds import WITNESS
from flopsd.settings.words import say

KIND = EvidenceKind(
    WITNESS,
    4,
    "The timestamp authority signed that this head of the journal, and so every record up to it, existed at that time.",
    "It proves 'not later than', never 'not earlier than', and only to those who trust the authority. It does not "
    "prove that there is no other journal: two that diverge may both be stamped.",
)


def collect(context: CollectContext) -> dict[str, Any]:
    """The authority's TimeStampResp over the 32 bytes of the head. Raises EvidenceError."""
    if context.witness_url is None:
        raise not_collected("no_witness")
    return {"token": encode64(rfc3161.fetch(bytes.fromhex(context.head_sha256), context.witness_url))}


def check(data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:
    """Check the stamp of the head of the sealed part."""
    token = bytes_of(fields_of(data), "token")
    state, text = rfc3161.judge(token, bytes.fromhex(context.head_sha256), context.tsa_chains)
    if state is EvidenceState.HOLDS:
        later = rfc3161.if_later(token, "it states", context.history.incarnations[-1].last_utc)
        text = f"the last sealed record existed at {text}{later}"
    return state, text


def of_earlier_seals(seals: SealsSoFar, context: CheckContext) -> tuple[EvidenceResult, ...]:
    """The result of checking the first and the newest stamp of the seals listed in the journal; empty if none of them
    asked a witness. A journal may have many stamps; all others lie between these two."""
    newest = None if seals.newest_asked is None else seals.newest_asked.witness
    if newest is None:
        return ()
    if not seals.stamped:
        text = f"none of {seals.asked} earlier seals is stamped; the newest: {say(REASON, newest['absent'])}"
        return (KIND.result(EvidenceState.ABSENT, text),)
    states, texts = [], [f"{seals.stamped_count} of {seals.asked} earlier seals are stamped"]
    for seal in seals.stamped:
        try:
            data = bytes_of(fields_of({"token": seal.token}), "token")
            state, text = rfc3161.judge(data, bytes.fromhex(seal.head_sha256), context.tsa_chains)
            if state is EvidenceState.HOLDS:
                later = rfc3161.if_later(data, "they state that they were sealed at", seal.sealed_at)
                text = f"its first {seal.size_bytes} bytes existed at {text}{later}"
        except EvidenceError as fault:
            state, text = EvidenceState.FAILED, str(fault)
        states.append(state)
        texts.append(text)
    worst = next((state for state in (EvidenceState.FAILED, EvidenceState.NOT_CHECKED) if state in states), states[0])
    return (KIND.result(worst, "; ".join(texts)),)
