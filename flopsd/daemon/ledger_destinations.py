"""Where a run's ledger goes, by the settings: its place on this machine, and the places that get a copy."""

from __future__ import annotations

from pathlib import Path

from flopsd.settings.locations import S3Location, is_remote, named, parse_location
from flopsd.settings.schema import Settings

RESERVE_SECONDS, LEAST_SECONDS = 2.0, 1.0


def default_ledger(folder: Path, run: str) -> Path:
    return folder / named("{run}.ledger.json", run, "")  # a journal from elsewhere may name its run anything


def local_ledger(settings: Settings, folder: Path, run: str, node: str) -> Path:
    """Where the ledger lies on this machine; `folder` where only a remote place was named, or none."""
    if settings.ledger is None or is_remote(settings.ledger):
        return default_ledger(folder, run)
    return Path(named(settings.ledger, run, node))


def copy_destinations(settings: Settings, run: str, node: str) -> list[Path | S3Location]:
    """Where copies of the ledger go."""
    remote = [settings.ledger] if settings.ledger is not None and is_remote(settings.ledger) else []
    return [parse_location(named(text, run, node)) for text in (*remote, *settings.ledger_copies)]


def copy_seconds(settings: Settings, used_seconds: float) -> float:
    """What is left for copying of the time that stopping may take, of which `used_seconds` are over."""
    return max(LEAST_SECONDS, settings.stop_seconds - used_seconds - RESERVE_SECONDS)
