"""What a verifier finds of the evidence in a ledger, each item on its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopsd.attestation.evidence import rfc3161
from flopsd.attestation.evidence.collect import MODULES
from flopsd.attestation.evidence.item import CheckContext, EvidenceResult, EvidenceState
from flopsd.attestation.evidence.trust import Trust
from flopsd.errors import EvidenceError, NotVerifiedError

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
_MEMBERS = {"type", "collectedAt", "state", "reason", "data", "proves", "limits"}
_UNKNOWN = ("Nothing that this verifier knows of.", "A newer flopsd may know this kind.")
MAX_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Stamped:
    """A signature that a trusted key made, with the timestamps that stand beside it."""

    signature: bytes
    tokens: tuple[bytes, ...]


def signed_items(predicate: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The items of a predicate. Raises NotVerifiedError where a list is not one of items."""
    items = predicate.get("evidence")
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise NotVerifiedError("the ledger's evidence is not a list of items")
    for item in items:
        if not isinstance(item, dict) or set(item) != _MEMBERS:
            raise NotVerifiedError("an item of evidence has not the members of one")
        texts = ("type", "collectedAt", "proves", "limits")
        if not all(isinstance(item[name], str) for name in texts) or not _TIME.fullmatch(item["collectedAt"]):
            raise NotVerifiedError("an item of evidence does not say its type, time and meaning")
        there = item["state"] == "present" and isinstance(item["data"], dict) and item["reason"] is None
        missing = item["state"] == "absent" and item["data"] is None and isinstance(item["reason"], str)
        if not there and not missing:
            raise NotVerifiedError(f"the evidence {item['type']!r} is neither present with data nor absent with reason")
    if len({item["type"] for item in items}) != len(items):
        raise NotVerifiedError("a kind of evidence stands twice in the ledger")
    return tuple(items)


def findings(items: Sequence[Mapping[str, Any]], grounds: CheckContext) -> tuple[EvidenceResult, ...]:
    """One for each item; a FAILED one says why the evidence is not what it claims."""
    modules = {module.KIND.name: module for module in MODULES}
    found = []
    for item in items:
        module = modules.get(item["type"])
        proves, limits = _UNKNOWN if module is None else (module.KIND.proves, module.KIND.limits)
        if item["state"] == "absent":
            verdict, words = EvidenceState.ABSENT, str(item["reason"])
        elif module is None:
            verdict, words = EvidenceState.NOT_CHECKED, "of a kind that this verifier does not know"
        else:
            try:
                verdict, words = module.check(item["data"], grounds)
            except EvidenceError as fault:
                verdict, words = EvidenceState.FAILED, str(fault)
        found.append(EvidenceResult(item["type"], verdict, words, proves, limits))
    return tuple(found)


def timestamp_findings(stamped: Sequence[Stamped], trust: Trust, sealed_at: str) -> tuple[EvidenceResult, ...]:
    """One for each timestamp beside a good signature, or one that says that there is none."""
    if sum(len(one.tokens) for one in stamped) > MAX_ITEMS:
        raise NotVerifiedError(f"the ledger has more than {MAX_ITEMS} timestamps")
    found = [_stamp(one.signature, token, trust, sealed_at) for one in stamped for token in one.tokens]
    return tuple(found) or (_result(EvidenceState.ABSENT, "no timestamp stands beside a good signature"),)


def _stamp(signature: bytes, token: bytes, trust: Trust, sealed_at: str) -> EvidenceResult:
    if not trust.tsa_chains:
        return _result(
            EvidenceState.NOT_CHECKED, "no certificate of a timestamp authority; --tsa-certificate names one"
        )
    try:
        import rfc3161_client  # noqa: F401
    except ImportError:
        return _result(EvidenceState.NOT_CHECKED, "this needs the extra: pip install 'flopsd[timestamp]'")
    faults = []
    for chain in trust.tsa_chains:
        try:
            moment, root = rfc3161.verify(token, signature, chain)
        except EvidenceError as fault:
            faults.append(str(fault))
            continue
        words = f"the signature existed at {moment}, says {root}; the ledger says that it was sealed at {sealed_at}"
        return _result(EvidenceState.HOLDS, words)
    try:
        signers = rfc3161.signers_of(token)
    except EvidenceError as fault:
        return _result(EvidenceState.FAILED, "; ".join({*faults, str(fault)}))
    if any({one.subject, one.issuer} & signers for chain in trust.tsa_chains for one in chain):
        return _result(EvidenceState.FAILED, "; ".join(faults))
    named = ", ".join(sorted(name.rfc4514_string() for name in signers)) or "nobody"
    return _result(
        EvidenceState.NOT_CHECKED, f"no certificate was given of its authority, which it names as {named:.300}"
    )


def _result(verdict: EvidenceState, words: str) -> EvidenceResult:
    return EvidenceResult(rfc3161.KIND.name, verdict, words, rfc3161.KIND.proves, rfc3161.KIND.limits)
