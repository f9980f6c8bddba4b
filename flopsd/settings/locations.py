"""Locations for a ledger: a local path, or an S3 object with options such as a lock."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import overload

from flopsd.core.dataclass import dataclass
from flopsd.errors import LedgerError

_UNFIT = re.compile(r"[^A-Za-z0-9._-]")
_MAX_DAYS = 36500


@dataclass(frozen=True, slots=True)
class S3Location:
    """An S3 object, locked for `lock_days` if `lock_mode` is set. Without `overwrite` an existing object is kept."""

    bucket: str
    key: str
    lock_mode: str | None = None
    lock_days: int = 0
    overwrite: bool = True
    rolling: bool = True

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def address(self) -> str:
        """The location with its options, as given."""
        options = {
            "lock": self.lock_mode,
            "days": str(self.lock_days) if self.lock_mode else None,
            "overwrite": None if self.overwrite else "never",
            "rolling": None if self.rolling else "off",
        }
        query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
        return f"{self}?{query}" if query else str(self)

    def beside(self, name: str) -> S3Location:
        """The object called `name` in the same folder."""
        return replace(self, key=str(PurePosixPath(self.key).with_name(name)))

    def for_rolling(self) -> S3Location:
        """The location of a rolling ledger: another name, since it is replaced each time and therefore never locked."""
        key = PurePosixPath(self.key)
        name = f"{key.stem}.rolling{key.suffix}"
        return S3Location(self.bucket, str(key.with_name(name)), rolling=self.rolling)


@overload
def of_segment(location: Path, number: int | None) -> Path: ...


@overload
def of_segment(location: Path | S3Location, number: int | None) -> Path | S3Location: ...


def of_segment(location: Path | S3Location, number: int | None) -> Path | S3Location:
    """The location of a segment's ledger, from that of the run: `-0001` is appended to the stem. `number` None: the run
    is not rotated."""
    if number is None:
        return location
    path = location if isinstance(location, Path) else PurePosixPath(location.key)
    name = f"{path.stem}-{number:04d}{path.suffix}"
    return location.with_name(name) if isinstance(location, Path) else location.beside(name)


def is_remote(location: str) -> bool:
    return "://" in location


def refuse_place(ledger: Path, example: str = "ledger.json") -> None:
    """Raise LedgerError for a place where a ledger cannot be a file: a folder, or a device such as /dev/null, which
    root would replace."""
    if os.path.isdir(ledger):  # unlike Path's, no error if this user has no access
        raise LedgerError(f"{ledger} is a folder", hint=f"name a file, such as {ledger / example}")
    if (os.path.exists(ledger) and not os.path.isfile(ledger)) or ledger.parent == Path("/dev"):
        raise LedgerError(f"{ledger} is not a regular file", hint="name a file, or give --no-seal to make no ledger")


def parse_location(text: str) -> Path | S3Location:
    """A location as accepted by --ledger and --ledger-copy. Raises ValueError."""
    if unknown := re.search(r"\{(?!run\}|node\})[^}]*\}", text):
        raise ValueError(f"{unknown[0]} is not known; known: {{run}}, {{node}}")
    return plain_location(text)


def plain_location(text: str) -> Path | S3Location:
    """A location without placeholders. Raises ValueError."""
    if not is_remote(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    if scheme != "s3":
        raise ValueError(f"{scheme}:// is not known; expected a path or s3://BUCKET/KEY")
    address, _, query = rest.partition("?")
    bucket, _, key = address.partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise ValueError(f"{bucket!r} is not a bucket name; expected s3://BUCKET/KEY")
    # An S3 store treats `.` as a name like any other, so files next to such a key would not be next to it.
    if "." in key.split("/") or key.endswith("/") or "//" in key or len(key) > 900 or not PurePosixPath(key).suffix:
        raise ValueError("expected s3://BUCKET/KEY with the key of a file, such as s3://bucket/folder/ledger.json")
    return _with_options(S3Location(bucket, key), query)


def _with_options(location: S3Location, query: str) -> S3Location:
    given: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        name, _, value = option.partition("=")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = value
    mode, days = given.pop("lock", None), given.pop("days", None)
    overwrite, rolling = given.pop("overwrite", None), given.pop("rolling", None)
    if given:
        raise ValueError(f"{next(iter(given))!r} is not an option; known: lock, days, overwrite, rolling")
    if mode not in (None, "governance", "compliance"):
        raise ValueError(f"lock={mode} is not known; expected lock=governance or lock=compliance")
    if (mode is None) != (days is None):
        raise ValueError("lock and days must be given together, such as lock=governance&days=365")
    if days is not None and not (days.isascii() and days.isdigit() and 1 <= int(days[:9]) <= _MAX_DAYS):
        raise ValueError(f"days={days}: expected a whole number from 1 to {_MAX_DAYS}")
    if overwrite not in (None, "never"):
        raise ValueError(f"overwrite={overwrite} is not known; expected overwrite=never")
    if rolling not in (None, "off"):
        raise ValueError(f"rolling={rolling} is not known; expected rolling=off")
    return replace(
        location, lock_mode=mode, lock_days=int(days or 0), overwrite=overwrite is None, rolling=rolling is None
    )


def named(text: str, run: str, node: str) -> str:
    """`text` with {run} and {node} filled in, using only characters that are valid in file names."""
    return text.replace("{run}", _UNFIT.sub("-", run)).replace("{node}", _UNFIT.sub("-", node))
