"""Edits from which the tables of vectors are made: of a journal's records, of entries, of a predicate."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

J = dict[str, Any]
Edit = Callable[[list[J]], object]  # of records, or of entries
DROP: Any = ...
P = ParamSpec("P")
T = TypeVar("T")


def edits(change: Callable[Concatenate[T, P], object]) -> Callable[P, Callable[[T], object]]:
    """`change` takes the object to change as its first argument; called with the others, it returns an edit."""

    def given(*args: P.args, **kwargs: P.kwargs) -> Callable[[T], object]:
        return lambda changed: change(changed, *args, **kwargs)

    return given


@edits
def put(whole: Any, *path: str | int, value: Any) -> None:
    """Sets a member, or drops it."""
    for step in path[:-1]:
        whole = whole[step]
    if value is DROP:
        del whole[path[-1]]
    else:
        whole[path[-1]] = value


@edits
def facts(records: list[J], /, **changes: Any) -> None:
    """Declarations of a process, in the first record that has any."""
    next(one for record in records for one in record.get("sessions", ()) if one.get("facts"))["facts"].update(changes)


@edits
def in_last_tally(records: list[J], edit: Callable[[J], object]) -> None:
    """Edit the tally of the last checkpoint."""
    edit([record for record in records if record["kind"] == "checkpoint"][-1]["devices"][0])


@edits
def users(records: list[J], daemons: tuple[int, ...], *jobs: int) -> None:
    """Set the users of each daemon start and of its job."""
    begins = [record for record in records if record["kind"] == "begin"]
    for at, begin in enumerate(begins):
        begin["isolation"].update(daemon_user=daemons[at], job_user=jobs[at] if at < len(jobs) else None)


@edits
def of_starts(records: list[J], part: str, member: str, *values: Any) -> None:
    """Set a member of a part of `begin`, to another value at each daemon start."""
    for begin, value in zip((one for one in records if one["kind"] == "begin"), values, strict=True):
        begin[part][member] = value
