"""The data that a ledger names by digest: its peak table and its policies, each read and parsed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from flopsd.config import find_peaks
from flopsd.core.peaks import PeakTable
from flopsd.core.policy import Policy
from flopsd.errors import ConfigError
from flopsd.policies import find_policy


class Tables:
    """Packaged ones, old ones included, and those in the files that a user names."""

    def __init__(self, peaks_file: str | None = None, policy_files: Sequence[str] = ()) -> None:
        """Raises ConfigError for a named file that is not there."""
        self._peaks_files = () if peaks_file is None else (Path(peaks_file),)
        self._policy_files = tuple(Path(file) for file in policy_files)
        missing = [str(path) for path in (*self._peaks_files, *self._policy_files) if not path.is_file()]
        if missing:
            raise ConfigError([f"{path}: no such file" for path in missing], hint="give --peaks and --policy files")
        self._peaks: dict[str, PeakTable] = {}
        self._policies: dict[str, Policy] = {}

    def peaks(self, sha256: str, candidates: Sequence[Path] = ()) -> PeakTable:
        """As `find_peaks`. Raises PeakTableError."""
        if sha256 not in self._peaks:
            self._peaks[sha256] = find_peaks(sha256, [*candidates, *self._peaks_files])
        return self._peaks[sha256]

    def policies(self, sha256s: Iterable[str]) -> tuple[Policy, ...]:
        """As `find_policy`, of each. Raises PolicyError."""
        found = []
        for sha256 in sha256s:
            if sha256 not in self._policies:
                self._policies[sha256] = find_policy(sha256, self._policy_files)
            found.append(self._policies[sha256])
        return tuple(found)
