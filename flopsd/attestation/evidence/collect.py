"""Collect the evidence of a seal in bounded time; evidence that cannot be collected is recorded as absent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from flopsd.attestation.evidence import (
    driver_library,
    ec2_identity,
    nvidia_spdm,
    package_digest,
    rfc3161,
    sagemaker_job,
    witness,
)
from flopsd.attestation.evidence.item import CollectContext, EvidenceModule, not_collected, reason_of
from flopsd.core.envelope import encode64
from flopsd.core.ledger.history import History
from flopsd.core.notes import Note, note
from flopsd.errors import EvidenceError
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.system.clock import NS_PER_S, Clock, rfc3339

T = TypeVar("T")
MODULES: Sequence[EvidenceModule] = (ec2_identity, nvidia_spdm, driver_library, package_digest, sagemaker_job, witness)


def collect(wanted: EvidenceWanted, history: History, head_sha256: str, clock: Clock) -> tuple[dict[str, Any], ...]:
    """The items for the ledger, one of each kind, collected at the same time, each with its deadline. Never raises."""
    context = CollectContext(history, head_sha256, wanted.environment, witness_url=wanted.witness_url)
    modules = (witness,) if wanted.witness_alone else MODULES
    kinds = {*wanted.kinds, witness.KIND.name}
    calls = {
        module.KIND.name: Call(module.KIND.name, partial(module.collect, context), module.KIND.deadline_seconds, clock)
        for module in modules
        if module.KIND.name in kinds
    }
    items = []
    for module in modules:
        data: dict[str, Any] | None = None
        reason: Note | None = note("switched_off")
        if (call := calls.get(module.KIND.name)) is not None:
            try:
                data, reason = call.result(), None
            except EvidenceError as fault:
                reason = reason_of(fault)
        items.append(
            {
                "type": module.KIND.name,
                "collectedAt": rfc3339(clock.wall_ns()),
                "state": "absent" if data is None else "present",
                "reason": None if reason is None else reason.for_ledger(),
                "data": data,
            }
        )
    return tuple(items)


def stamp(envelope: bytes, wanted: EvidenceWanted, clock: Clock) -> tuple[bytes, str]:
    """Add a timestamp to each signature that has none; return the envelope and a text for the user. Never raises: a
    signature without an answer is unchanged, and the text states the reason."""
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
        one["timestamps"] = [{"type": rfc3161.KIND.name, "token": encode64(token)}]
    return json.dumps(document, indent=1).encode("ascii") + b"\n", "; ".join(texts)


class Call(Generic[T]):
    """A call on a daemon thread, so that a hanging driver or resolver does not keep the process alive."""

    def __init__(self, name: str, function: Callable[[], T], seconds: float, clock: Clock) -> None:
        self._function, self._seconds, self._clock = function, seconds, clock
        self._deadline_ns = clock.boottime_ns() + round(seconds * NS_PER_S)
        self._done = threading.Event()
        self._found: list[T] = []
        self._fault: EvidenceError | None = None
        try:
            threading.Thread(target=self._run, name=f"evidence-{name}", daemon=True).start()
        except RuntimeError as fault:  # no more threads
            self._fault = EvidenceError(str(fault))
            self._done.set()

    def result(self) -> T:
        """The result of the function. Raises its EvidenceError, or an EvidenceError if the deadline has passed."""
        left_ns = self._deadline_ns - self._clock.boottime_ns()
        if not self._clock.wait(self._done, left_ns / NS_PER_S):
            raise not_collected("no_answer", seconds=f"{self._seconds:g}")
        if self._fault is not None:
            raise self._fault
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._function())
        except EvidenceError as fault:
            self._fault = fault
        except Exception as fault:  # noqa: BLE001, evidence must never prevent a seal
            self._fault = EvidenceError(f"{type(fault).__name__}: {fault}")
        self._done.set()
