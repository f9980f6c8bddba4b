"""Whether the job could have written or signed the journal of its own meter, as a ledger states it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.core.ledger.tally_records import Record, count, text
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.values import text_or_none


class Continues(str, Enum):
    """What vouched for the existing files when a daemon start continued them."""

    LAUNCHER = "launcher"  # it knew what the previous daemon start had written
    FILE_OWNER = "file_owner"  # the kernel: only the daemon's user can write the files
    NOTHING = "nothing"


class WhyJobCould(str, Enum):
    """Why the job could have written the journal."""

    USER_UNKNOWN = "job_user_unknown"
    SAME_USER = "same_user"
    ROOT = "job_is_root"
    OPEN_FILES = "files_open_to_others"
    UNCHECKED_START = "continued_unchecked"


@dataclass(frozen=True, slots=True)
class Isolation:
    """What separates the job from its meter, as found at daemon start. Users are numeric ids."""

    daemon_user: int
    job_user: int | None = None  # None: not known
    job_container: bool = False  # the operator states that the job has its own container, without these files
    files_private: bool = True  # no other user can write the state folder or a file in it
    checkpoint_output: str = "off"
    continues: str | None = None  # a value of `Continues`; None: this start began a journal

    def for_journal(self) -> dict[str, Any]:
        return asdict(self)


UNKNOWN = Isolation(0)  # for a journal that no daemon writes


def isolation_from(record: Record) -> Isolation:
    """The inverse of `Isolation.for_journal`. Raises KeyError, TypeError or ValueError."""
    job_user, continues = record["job_user"], record["continues"]
    job_container, files_private = record["job_container"], record["files_private"]
    if not type(files_private) is type(job_container) is bool or len(record) != 6:
        raise ValueError("the isolation lacks a member or has an unknown one")
    return Isolation(
        count(record["daemon_user"]),
        None if job_user is None else count(job_user),
        job_container,
        files_private,
        text(record["checkpoint_output"]),
        None if continues is None else Continues(continues).value,
    )


def isolation_for_ledger(
    begins: Iterable[Record], clients: Iterable[DeclaredSession], key: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A ledger's statement on isolation, from the `begin` records of a journal and the processes that declared
    something. `key` is the kind of the sealing key, with owner and mode of a key file; None: not known."""
    starts, clients = [isolation_from(begin["isolation"]) for begin in begins], list(clients)
    users = {start.job_user for start in starts if start.job_user is not None} | {client.uid for client in clients}
    # The kernel reports a pid for processes that the daemon can see, but not for those of another container.
    in_container = all(start.job_container for start in starts) and all(client.pid is None for client in clients)
    daemon_users = {start.daemon_user for start in starts}
    files_private = all(start.files_private for start in starts)
    could = {
        WhyJobCould.USER_UNKNOWN: not in_container and not users,
        WhyJobCould.SAME_USER: not in_container and users & daemon_users,
        WhyJobCould.ROOT: not in_container and 0 in users,
        WhyJobCould.OPEN_FILES: not files_private,
        WhyJobCould.UNCHECKED_START: any(start.continues == Continues.NOTHING.value for start in starts),
    }
    reasons = [why.value for why, holds in could.items() if holds]
    return {
        "daemonUsers": [str(user) for user in sorted(daemon_users)],
        "jobUsers": [str(user) for user in sorted(users)],
        "jobContainer": in_container,
        "filesPrivate": files_private,
        "checkpointOutput": sorted({start.checkpoint_output for start in starts}),
        "continues": [start.continues for start in starts],
        "key": None if key is None else dict(key),
        "jobCouldWriteJournal": bool(reasons),
        "reasons": reasons,
        "jobCouldReadKey": _could_read(key, users, in_container=in_container),
    }


def key_file(owner: int, mode: int) -> dict[str, Any]:
    """A key file as recorded by a seal."""
    return {"kind": "file", "ownerUser": text_or_none(owner), "mode": f"{mode & 0o7777:04o}"}


def _could_read(key: Mapping[str, Any] | None, users: set[int], *, in_container: bool) -> bool | None:
    """Whether the job could read the key; None: not known, as for a key used over a network or in a token."""
    if key is None or key["kind"] != "file":
        return None
    if in_container:
        return False
    if int(key["mode"], 8) & 0o044 or users & {0, int(key["ownerUser"])}:
        return True
    return False if users else None


def key_from(value: object) -> Mapping[str, Any] | None:
    """The key in a ledger. Raises KeyError, TypeError or ValueError for anything that no seal writes."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("isolation.key must be null or an object")
    if value["kind"] == "file":
        if value != key_file(int(value["ownerUser"]), int(value["mode"], 8)):
            raise ValueError("isolation.key is not as flopsd writes it")
    elif value != {"kind": text(value["kind"])}:
        raise ValueError("isolation.key of a key that is not a file must have a kind only")
    return value
