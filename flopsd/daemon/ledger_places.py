"""The place of a journal's ledger on this machine, and the destinations of its copies, by the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flopsd.errors import LedgerError
from flopsd.journal.segments import begins_otherwise, first_record
from flopsd.settings.locations import S3Location, is_remote, named, of_segment, parse_location
from flopsd.settings.platform import default_state_dir
from flopsd.settings.schema import Settings


def state_dir(settings: Settings, environment: Mapping[str, str]) -> Path:
    return Path(settings.state_dir) if settings.state_dir else default_state_dir(environment)


def local_ledger(settings: Settings, folder: Path, run: str, node: str, segment: int | None = None) -> Path:
    """Return the path of the ledger on this machine: in `folder` if --ledger is absent or remote. `segment`: its number
    in a rotated run."""
    if settings.ledger is None or is_remote(settings.ledger):
        path = folder / named("{run}.ledger.json", run, "")  # the run's name may come from a foreign journal
    else:
        path = Path(named(settings.ledger, run, node))
    return of_segment(path, segment)


def copy_destinations(settings: Settings, run: str, node: str, segment: int | None = None) -> list[Path | S3Location]:
    """Return the destinations of copies of the ledger. `segment`: its number in a rotated run."""
    remote = [settings.ledger] if settings.ledger is not None and is_remote(settings.ledger) else []
    places = (parse_location(named(text, run, node)) for text in (*remote, *settings.ledger_copies))
    return [of_segment(place, segment) for place in places]


def run_node_segment(journal: Path, settings: Settings, *, closed: bool = False) -> tuple[str, str, int | None]:
    """Return run, node and segment number of a journal; the number is None if the run is not rotated. `closed`: a
    rotation closed the journal, in this run or an earlier one. Raises LedgerError for an empty journal and, unless
    `closed`, for one of another run than --run-id."""
    first = first_record(journal)
    if first is None and begins_otherwise(journal):
        raise LedgerError(
            f"{journal} is not a journal: it begins otherwise",
            hint="name journal.jsonl of a state folder, or the NAME.journal.jsonl beside a ledger",
        )
    if first is None:
        raise LedgerError(
            f"{journal} holds no complete record: there is nothing to seal",
            hint="its daemon ended before it wrote a record; the next daemon continues in that folder",
        )
    if not closed and settings.run_id not in (None, first.get("run")):
        raise LedgerError(
            f"{journal} is of run {first.get('run')!r}, not of {settings.run_id!r}",
            hint="leave --run-id out to seal the run that is there",
        )
    before = first.get("continues", {}).get("segment") if isinstance(first.get("continues", {}), dict) else None
    is_first = 1 if closed or settings.rotate_every is not None else None
    return str(first.get("run")), str(first.get("node")), before + 1 if type(before) is int else is_first
