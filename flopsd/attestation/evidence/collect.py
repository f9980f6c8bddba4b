"""Collect the evidence of a seal in bounded time; evidence that cannot be collected is recorded as absent."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from flopsd.attestation.evidence import (
    driver_library,
    ec2_identity,
    nvidia_spdm,
    package_digest,
    rfc3161,
    sagemaker_job,
)
from flopsd.attestation.evidence.deadline import Call
from flopsd.attestation.evidence.item import CollectContext, EvidenceModule, absent, present
from flopsd.core.ledger.history import History
from flopsd.errors import EvidenceError
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.system.clock import Clock, rfc3339

MODULES: Sequence[EvidenceModule] = (ec2_identity, nvidia_spdm, driver_library, package_digest, sagemaker_job)
SWITCHED_OFF = "switched off by the setting evidence"


def collect(wanted: EvidenceWanted, history: History, head_sha256: str, clock: Clock) -> tuple[dict[str, Any], ...]:
    """The items for the ledger, one of each kind. All are collected at once, each with its deadline. Never raises."""
    context = CollectContext(history, head_sha256, wanted.environment)
    calls = {module.KIND.name: _call(module, context, clock) for module in MODULES if module.KIND.name in wanted.kinds}
    items = []
    for module in MODULES:
        call, reason = calls.get(module.KIND.name), SWITCHED_OFF
        if call is not None:
            try:
                data = call.result()
            except EvidenceError as fault:
                reason = str(fault)
            else:
                items.append(present(module.KIND, rfc3339(clock.wall_ns()), data))
                continue
        items.append(absent(module.KIND, rfc3339(clock.wall_ns()), reason))
    return tuple(items)


def stamp(envelope: bytes, wanted: EvidenceWanted, clock: Clock) -> tuple[bytes, str]:
    """The envelope with a timestamp for each signature that has none, and a text for the user.

    Never raises: without an answer the envelope is unchanged, and the text states the reason.
    """
    if wanted.timestamp_url is None:
        return envelope, ""
    url, document, texts = wanted.timestamp_url, json.loads(envelope), []
    missing = [one for one in document["signatures"] if not one.get("timestamps")]
    requests = [partial(rfc3161.fetch, base64.b64decode(one["sig"]), url) for one in missing]
    calls = [Call("timestamp", one, rfc3161.KIND.deadline_seconds, clock) for one in requests]
    for one, call in zip(missing, calls, strict=True):
        try:
            token = call.result()
            texts.append(f"{rfc3161.time_of_token(token)}, by {url}")
        except EvidenceError as fault:
            texts.append(f"NONE: {fault}" + (f" ({fault.hint})" if fault.hint else ""))
            continue
        one["timestamps"] = [{"type": rfc3161.KIND.name, "token": base64.b64encode(token).decode("ascii")}]
    return json.dumps(document, indent=1).encode("ascii") + b"\n", "; ".join(texts)


def _call(module: EvidenceModule, context: CollectContext, clock: Clock) -> Call[dict[str, Any]]:
    return Call(module.KIND.name, lambda: module.collect(context), module.KIND.deadline_seconds, clock)
