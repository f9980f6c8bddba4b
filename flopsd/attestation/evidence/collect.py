"""All evidence of a seal, in bounded time: what is there is recorded, what is not is recorded as absent."""

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
    """The items for the ledger, one of each kind. All are asked at once, each for its own time. Raises nothing."""
    scene = CollectContext(history, head_sha256, wanted.environment)
    calls = {module.KIND.name: _call(module, scene, clock) for module in MODULES if module.KIND.name in wanted.kinds}
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
    """The envelope with a timestamp beside each signature that has none, and what to tell of it.

    Raises nothing: without an answer the envelope stays as it is, and the words say why.
    """
    if wanted.timestamp_url is None:
        return envelope, ""
    url, document, words = wanted.timestamp_url, json.loads(envelope), []
    waiting = [one for one in document["signatures"] if not one.get("timestamps")]
    asked = [partial(rfc3161.fetch, base64.b64decode(one["sig"]), url) for one in waiting]
    calls = [Call("timestamp", one, rfc3161.KIND.deadline_seconds, clock) for one in asked]
    for one, call in zip(waiting, calls, strict=True):
        try:
            token = call.result()
            words.append(f"{rfc3161.time_of_token(token)}, by {url}")
        except EvidenceError as fault:
            words.append(f"NONE: {fault}" + (f" ({fault.hint})" if fault.hint else ""))
            continue
        one["timestamps"] = [{"type": rfc3161.KIND.name, "token": base64.b64encode(token).decode("ascii")}]
    return json.dumps(document, indent=1).encode("ascii") + b"\n", "; ".join(words)


def _call(module: EvidenceModule, scene: CollectContext, clock: Clock) -> Call[dict[str, Any]]:
    return Call(module.KIND.name, lambda: module.collect(scene), module.KIND.deadline_seconds, clock)
