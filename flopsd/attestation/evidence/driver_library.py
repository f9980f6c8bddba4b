"""`driver-library`: the libnvidia-ml that the metering daemon had loaded, from the journal's source records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.attestation.evidence.item import CheckContext, CollectContext, EvidenceKind, EvidenceState, not_collected
from flopsd.core.ledger.history import History
from flopsd.errors import EvidenceError
from flopsd.settings.evidence_kinds import DRIVER_LIBRARY

KIND = EvidenceKind(
    DRIVER_LIBRARY,
    1,
    "The daemon read its counters through a library file of this digest, recorded when it was loaded.",
    "Only the daemon vouches for the digest. To find out whether the file is NVIDIA's, compare the digest with that of "
    "the driver package of that version. The kernel module is not covered.",
)


def collect(context: CollectContext) -> dict[str, Any]:
    """The libraries that the sources recorded. Raises EvidenceError if there are none."""
    found = _libraries_in(context.history)
    if not found:
        raise not_collected("no_nvidia_library")
    return {"libraries": found}


def check(data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:
    """Compare the item with the journal's records. Raises EvidenceError if they differ."""
    recorded = _libraries_in(context.history)
    if data.get("libraries") != recorded:
        raise EvidenceError("the journal records other libraries")
    text = "; ".join(f"{one['path']} {one['sha256'] or 'digest unknown'}" for one in recorded)
    return EvidenceState.NOT_CHECKED, f"{text}: as in the journal, not compared with NVIDIA's file"


def _libraries_in(history: History) -> list[dict[str, str | None]]:
    """The distinct libraries in the order of loading."""
    found: list[dict[str, str | None]] = []
    for incarnation in history.incarnations:
        for facts in incarnation.sources.values():
            if facts.get("library") is not None:
                one = {"path": facts["library"], "sha256": facts.get("library_sha256")}
                if one not in found:
                    found.append(one)
    return found
