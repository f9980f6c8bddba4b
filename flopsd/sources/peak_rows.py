"""The peak table of a run: the file of --peaks, or the packaged one with the rows that the run's plug-ins ship."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from flopsd.core.peaks import PeakTable
from flopsd.errors import PeakTableError, SourceUnavailableError
from flopsd.settings.data_files import parse_peaks, read_peaks, with_rows
from flopsd.settings.strict_yaml import read_yaml
from flopsd.sources import SourceInfo
from flopsd.sources.registry import BUILT_IN, find_with_origin


class RunTable(NamedTuple):
    """A peak table, the bytes that its SHA-256 covers, and the sources whose rows were added to flopsd's own."""

    table: PeakTable
    data: bytes
    added: tuple[str, ...] = ()


def table_of(
    file: str | None, sources: Iterable[str], left_out: Callable[[PeakTableError], None] | None = None
) -> RunTable:
    """Return the peak table of a run with these sources. A table in `file` is taken as it is, without further rows.
    Raises PeakTableError, for a plug-in's rows too; if `left_out` is given, it is called with that error instead, and
    the rows are left out. An unusable plug-in is skipped: opening its source reports the fault."""
    own, name = read_peaks(file)
    data, table, rows = own, parse_peaks(own, name), dict[str, bytes]()
    for source in sources if file is None else ():
        if source in ("probe", *BUILT_IN):  # looking for a plug-in imports importlib.metadata
            continue
        try:
            info, origin = find_with_origin(source)
        except SourceUnavailableError:
            continue
        if info.peaks is None:
            continue
        try:
            more = {**rows, source: _rows(info)}
            combined = with_rows(own, more)
            table = parse_peaks(combined, "with them")
        except (PeakTableError, OSError, TypeError) as why:
            fault = PeakTableError(
                f"the peak rows of source {source!r}{origin}, {info.peaks}: {why}",
                hint="ask its authors, or give --peaks a whole table",
            )
            if left_out is None:
                raise fault from why
            left_out(fault)
            continue
        data, rows = combined, more
    return RunTable(table, data, tuple(sorted(rows)))


def _rows(info: SourceInfo) -> bytes:
    """Return the bytes of a plug-in's rows. Raises OSError; TypeError if the plug-in names no path; PeakTableError if
    the file is not a list of rows of its own vendor."""
    assert info.peaks is not None
    data = Path(info.peaks).read_bytes()
    rows, problems = read_yaml(data, Path(info.peaks).name)
    if problems or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PeakTableError("; ".join(problems) or "not a list of rows")
    if other := sorted({str(row.get("vendor")) for row in rows} - {info.vendor}):
        raise PeakTableError(f"rows of vendor {', '.join(other)}, and the source's is {info.vendor!r}")
    return data
