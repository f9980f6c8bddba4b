"""Column-wise check of checkpoints that differ from their predecessor in amounts only. Pure.

Nearly all checkpoints of a long journal do. If `goes_on` is true, reading the checkpoint device by device would also
find no fault: the same amounts are there, none fell, observed time grew as the span did, no gap grew, and no phase has
more than there is. If it is false nothing is decided, and the checkpoint is read device by device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import eq, le, lt, sub
from typing import Any, NamedTuple

Columns = Mapping[str, Any]
Path = tuple[str, ...]
DEPTH = 4  # nesting of the deepest column, from 0: phases, a phase, sm_cycles, an evidence, a pipe
_END: Any = object()  # marks the end of one object's names


class _Part(NamedTuple):
    """Positions in a list of columns of the amounts of all devices, or of their shares of a phase."""

    to_ns: int
    observed: tuple[int, ...]
    gaps: tuple[int, ...]
    all: tuple[int, ...]


class _Shape(NamedTuple):
    """The layout that consecutive checkpoints share."""

    whole: _Part
    phases: tuple[_Part, ...]
    shared: tuple[tuple[int, tuple[int, ...]], ...]  # columns of the whole, with their parts in phases


class Steady:
    """The tallies of a checkpoint that was found correct, in their own layout."""

    __slots__ = ("_begin_ns", "_columns", "_known", "_names", "_shape", "devices", "tallies")

    def __init__(self, devices: Sequence[int], tallies: Columns, begin_ns: Sequence[int]) -> None:
        """`begin_ns`: when counting of each device began."""
        self.devices, self.tallies, self._begin_ns = devices, tallies, begin_ns
        self._names, columns = _flat(tallies)
        self._known, self._columns = _counts(columns)
        self._shape: _Shape | None = None

    def goes_on(self, devices: Sequence[int], tallies: Columns, at_ns: int) -> bool:
        """Whether these tallies are known to be a correct continuation of the previous ones, none later than `at_ns`.
        If so, they become the previous ones."""
        before, (names, listed) = self._columns, _flat(tallies)
        if devices != self.devices or names != self._names:
            return False
        known, columns = _counts(listed)
        if columns == before and known == self._known:
            return True  # nothing was read in between, as at the end of a run
        shape = self._shape = self._shape or _shape_of(list(_paths(tallies)))
        if shape is None or set(map(len, listed)) != {len(devices)}:
            return False
        if known != self._known or not all(map(le, chain.from_iterable(before), chain.from_iterable(columns))):
            return False
        whole = shape.whole
        to_ns = columns[whole.to_ns]
        if max(to_ns, default=at_ns) > at_ns:
            return False
        if not all(map(lt, before[whole.to_ns], to_ns)):
            return False
        if not all(_is_observed(part, before, columns) for part in (whole, *shape.phases)):
            return False
        if shape.phases and not self._phases_fit(shape, columns):
            return False
        self.tallies, self._columns = tallies, columns
        return True

    def _phases_fit(self, shape: _Shape, columns: list[list[int]]) -> bool:
        """Whether no phase has more than there is, or changed while its time stood still."""
        before = self._columns
        for whole, shares in shape.shared:
            most = columns[whole]
            if whole == shape.whole.to_ns:
                most = list(map(sub, most, self._begin_ns))
            if not all(map(le, map(sum, zip(*(columns[share] for share in shares), strict=True)), most)):
                return False
        for part in shape.phases:
            for device, stands in enumerate(map(eq, before[part.to_ns], columns[part.to_ns])):
                if stands and any(before[at][device] != columns[at][device] for at in part.all):
                    return False
        return True


def _flat(tallies: Columns) -> tuple[list[Any], list[list[Any]]]:
    """The names of columns and of their enclosing objects, and the columns, in order. Raises ValueError."""
    names: list[Any] = []
    found: list[list[Any]] = []
    _add(tallies, DEPTH, names, found)
    return names, found


def _add(columns: Columns, depth: int, names: list[Any], found: list[list[Any]]) -> None:
    lists = [column for column in columns.values() if type(column) is list]
    names.extend(columns)
    names.append(_END)
    found.extend(lists)
    if len(lists) == len(columns):
        return
    for name, column in columns.items():
        if type(column) is dict and depth:
            names.append(name)
            _add(column, depth - 1, names, found)
        elif type(column) is not list:
            raise ValueError(f"{name!r:.80} is not a column")


def _paths(columns: Columns, above: Path = ()) -> Iterator[Path]:
    """The path of names to each column, in order."""
    yield from ((*above, name) for name, column in columns.items() if not isinstance(column, dict))
    for name, column in columns.items():
        if isinstance(column, dict):
            yield from _paths(column, (*above, name))


def _counts(columns: list[list[Any]]) -> tuple[list[bool] | None, list[list[int]]]:
    """Which amounts are present, and the columns with 0 for absent ones; None: all are present."""
    types = set(map(type, chain.from_iterable(columns)))
    if types == {int}:
        return None, columns
    if types != {int, type(None)}:
        return [], columns  # no correct checkpoint has such values, or it has no device
    return [one is not None for column in columns for one in column], [[one or 0 for one in c] for c in columns]


def _is_observed(part: _Part, before: list[list[int]], columns: list[list[int]]) -> bool:
    """Whether all growth of time was observed."""
    if any(before[at] != columns[at] for at in part.gaps):
        return False
    observed = (map(sub, columns[at], before[at]) for at in part.observed)
    return list(map(sub, columns[part.to_ns], before[part.to_ns])) == list(map(sum, zip(*observed, strict=True)))


def _shape_of(paths: list[Path]) -> _Shape | None:
    """The layout; None for tallies without observed time, or with amounts in a phase that the whole lacks."""
    numbers = {path: at for at, path in enumerate(paths)}
    in_phases: dict[str, dict[Path, int]] = {}
    for path, at in numbers.items():
        if path[0] == "phases" and len(path) > 2:
            in_phases.setdefault(path[1], {})[path[2:]] = at
    shared: dict[int, list[int]] = {}
    for share in in_phases.values():
        for path, at in share.items():
            shared.setdefault(numbers.get(path, -1), []).append(at)
    parts = [_part(one) for one in (numbers, *in_phases.values())]
    known = tuple(one for one in parts if one is not None)
    if len(known) < len(parts) or -1 in shared:
        return None
    return _Shape(known[0], known[1:], tuple((at, tuple(shares)) for at, shares in shared.items()))


def _part(numbers: Mapping[Path, int]) -> _Part | None:
    """The part whose columns have these `numbers` by path; None without time or observed time."""
    to_ns = numbers.get(("to_ns",))
    observed, gaps = (
        tuple(at for path, at in numbers.items() if path[0] == name) for name in ("observed_ns", "gap_ns")
    )
    return _Part(to_ns, observed, gaps, tuple(numbers.values())) if to_ns is not None and observed else None
