"""The note of deliveries in a state folder: which sealed ledgers still have to go where, whoever delivers them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from flopsd.core.companions import is_companion_name
from flopsd.core.dataclass import dataclass
from flopsd.core.values import is_digest
from flopsd.errors import StorageError
from flopsd.system.atomic_files import replace_file
from flopsd.system.regular_files import read_at_most

MAX_NOTE_BYTES = 64 << 20
NOT_OURS = "its content is not as flopsd writes it"
COPIED_BYTES_PER_S = 3_000_000  # over a network that is slow, but not broken


class Delivery(Enum):
    """The state of one ledger at one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"  # another file is there, which an operator has to move or rename


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a ledger goes, as in --ledger-copy, with options. `reason`: why the ledger is not there yet."""

    address: str
    state: Delivery = Delivery.PENDING
    reason: str = ""

    @property
    def name(self) -> str:
        """The address without its options, on which the files there do not depend."""
        return self.address.partition("?")[0] if "://" in self.address else self.address


@dataclass(frozen=True, slots=True)
class NotedLedger:
    """A sealed ledger, the SHA-256 of its files by kind, and of companions by name, and where it goes."""

    ledger: Path
    sha256: Mapping[str, str]
    destinations: tuple[Destination, ...]

    @property
    def undelivered(self) -> tuple[Destination, ...]:
        return tuple(one for one in self.destinations if one.state is not Delivery.DELIVERED)


def read_deliveries(path: Path) -> tuple[NotedLedger, ...]:
    """Read the note; empty if there is none. Raises StorageError if it cannot be read."""
    try:
        document = json.loads(read_at_most(path, MAX_NOTE_BYTES))  # paths need not be UTF-8
        return tuple(_noted(one) for one in document["ledgers"])
    except FileNotFoundError:
        return ()
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as fault:
        raise not_known(path, fault.strerror if isinstance(fault, OSError) else NOT_OURS) from fault


def not_known(path: Path, why: object = NOT_OURS) -> StorageError:
    return StorageError(
        f"cannot tell which ledgers still have to be copied: {path}: {why}",
        hint="copy them with `flopsd copy LEDGER --to DESTINATION`, then move that file away",
    )


def write_deliveries(path: Path, ledgers: Sequence[NotedLedger]) -> None:
    """Raises OSError."""
    document = {
        "ledgers": [
            {
                "ledger": str(one.ledger),
                "sha256": dict(one.sha256),
                "destinations": [
                    {"address": place.address, "state": place.state.value, "reason": place.reason}
                    for place in one.destinations
                ],
            }
            for one in ledgers
        ]
    }
    replace_file(path, json.dumps(document).encode("ascii") + b"\n", 0o600)


def _noted(record: Any) -> NotedLedger:
    """Raises LookupError, TypeError, ValueError."""
    digests = dict(record["sha256"])
    companions = digests.keys() - {"ledger", "journal", "publicKey"}
    if not all(map(is_digest, digests.values())) or not all(map(is_companion_name, companions)):
        raise ValueError
    if not {"ledger", "publicKey"} <= digests.keys():
        raise ValueError
    places = (
        Destination(_text(one["address"]), Delivery(one["state"]), str(one["reason"])) for one in record["destinations"]
    )
    return NotedLedger(Path(_text(record["ledger"])), digests, tuple(places))


def _text(found: Any) -> str:
    """Raises TypeError or ValueError for anything but text that a path can have."""
    if b"\0" in os.fsencode(found):
        raise ValueError
    return str(found)
