"""The peak table of a run: the file of --peaks, or the packaged one with the rows that the run's plug-ins ship."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flopsd.core.peaks import PeakTable
from flopsd.errors import PeakTableError, SourceUnavailableError
from flopsd.settings.data_files import parse_peaks, read_peaks, with_rows
from flopsd.settings.strict_yaml import read_yaml
from flopsd.sources import SourceInfo
from flopsd.sources.registry import BUILT_IN, find_with_origin


@dataclass(frozen=True, slots=True)
class RunTable:
    """A peak table, the bytes that its SHA-256 is of, and the sources whose rows were added to flopsd's own."""

    table: PeakTable
    data: bytes
    added: tuple[str, ...] = ()


def table_of(file: str | None, sources: Iterable[str]) -> RunTable:
    """The peak table of a run with these sources. The table in `file` is taken as it is, without anybody's rows.

    Raises PeakTableError, for a plug-in's rows too. A plug-in that is unusable is left to whoever opens it.
    """
    data, name = read_peaks(file)
    rows: dict[str, bytes] = {}
    for source in sources if file is None else ():
        if source in BUILT_IN:
            continue
        try:
            info, origin = find_with_origin(source)
        except SourceUnavailableError:
            continue
        if info.peaks is None:
            continue
        what = f"the peak rows of source {source!r}{origin}, {info.peaks}"
        try:
            rows[source] = _rows(info)
            parse_peaks(with_rows(data, {source: rows[source]}), what)
        except (PeakTableError, OSError) as fault:
            raise PeakTableError(f"{what}: {fault}", hint="ask its authors, or give --peaks a whole table") from fault
    if rows:
        data = with_rows(data, rows)
    return RunTable(parse_peaks(data, name), data, tuple(sorted(rows)))


def _rows(info: SourceInfo) -> bytes:
    """Raises OSError; PeakTableError where they are not a list of rows of the source's own vendor."""
    assert info.peaks is not None
    data = info.peaks.read_bytes()
    rows, problems = read_yaml(data, info.peaks.name)
    if problems or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PeakTableError("; ".join(problems) or "not a list of rows")
    if other := sorted({str(row.get("vendor")) for row in rows} - {info.vendor}):
        raise PeakTableError(f"rows of vendor {', '.join(other)}, and the source's is {info.vendor!r}")
    return data
