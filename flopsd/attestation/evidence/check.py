"""Check the evidence in a ledger, each item separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.attestation.evidence import rfc3161
from flopsd.attestation.evidence.collect import MODULES
from flopsd.attestation.evidence.item import REASON, CheckContext, EvidenceKind, EvidenceResult, EvidenceState
from flopsd.attestation.evidence.trust import Trust
from flopsd.core.notes import is_note
from flopsd.core.values import is_timestamp
from flopsd.errors import EvidenceError, NotVerifiedError
from flopsd.settings.words import say

_UNKNOWN = ("Unknown to this verifier.", "A newer flopsd may know this kind.")
_MEMBERS = {"type", "collectedAt", "state", "reason", "data"}
MAX_ITEMS = 64
_MALFORMED = "evidence_malformed"


def signed_items(predicate: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The items of a predicate. Raises NotVerifiedError if they are malformed."""
    items = predicate.get("evidence")
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise NotVerifiedError(f"predicate.evidence must be a list of at most {MAX_ITEMS} items", code=_MALFORMED)
    for at, item in enumerate(items):
        path = f"predicate.evidence[{at}]"
        if not isinstance(item, dict) or set(item) != _MEMBERS:
            raise NotVerifiedError(
                f"{path} must have exactly the fields {', '.join(sorted(_MEMBERS))}", code=_MALFORMED
            )
        if not isinstance(item["type"], str) or not is_timestamp(item["collectedAt"]):
            raise NotVerifiedError(f"{path} has a malformed type or time", code=_MALFORMED)
        there = item["state"] == "present" and isinstance(item["data"], dict) and item["reason"] is None
        missing = item["state"] == "absent" and item["data"] is None and is_note(item["reason"])
        if not there and not missing:
            raise NotVerifiedError(f"{path} must be present with data, or absent with a reason", code=_MALFORMED)
    if len({item["type"] for item in items}) != len(items):
        raise NotVerifiedError("predicate.evidence contains the same type twice", code=_MALFORMED)
    return tuple(items)


def findings(items: Sequence[Mapping[str, Any]], context: CheckContext) -> tuple[EvidenceResult, ...]:
    """One result for each item; a FAILED result states why the evidence is invalid."""
    modules = {module.KIND.name: module for module in MODULES}
    found = []
    for item in items:
        module = modules.get(item["type"])
        kind = module.KIND if module is not None else EvidenceKind(item["type"], 0, *_UNKNOWN)
        if item["state"] == "absent":
            verdict, text = EvidenceState.ABSENT, say(REASON, item["reason"])
        elif module is None:
            verdict, text = EvidenceState.NOT_CHECKED, "a kind unknown to this verifier"
        else:
            try:
                verdict, text = module.check(item["data"], context)
            except EvidenceError as fault:
                verdict, text = EvidenceState.FAILED, str(fault)
        found.append(kind.result(verdict, text))
    return tuple(found)


def timestamp_findings(
    stamps: Sequence[tuple[bytes, bytes]], trust: Trust, sealed_at: str
) -> tuple[EvidenceResult, ...]:
    """One result for each of `stamps`, pairs of a valid signature and its timestamp; without any, one ABSENT result."""
    if len(stamps) > MAX_ITEMS:
        raise NotVerifiedError(f"the ledger has more than {MAX_ITEMS} timestamps", code=_MALFORMED)
    found = [_stamp(signature, token, trust, sealed_at) for signature, token in stamps]
    return tuple(found) or (rfc3161.KIND.result(EvidenceState.ABSENT, "no valid signature has a timestamp"),)


def _stamp(signature: bytes, token: bytes, trust: Trust, sealed_at: str) -> EvidenceResult:
    state, text = rfc3161.judge(token, signature, trust.tsa_chains)
    if state is EvidenceState.HOLDS:
        later = rfc3161.if_later(token, "the ledger states that it was sealed at", sealed_at)
        text = f"the signature existed at {text}{later or f'; the ledger was sealed at {sealed_at}'}"
    return rfc3161.KIND.result(state, text)
