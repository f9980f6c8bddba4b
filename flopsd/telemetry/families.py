"""Metric families and their text. `PageWriter` writes byte for byte what prometheus-client's encoders write,
in an eighth of the time; `metric` turns a family into prometheus-client's object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf, nextafter
from typing import TYPE_CHECKING

from flopsd.system.part_of_package import part_of
from flopsd.telemetry.metric_help import HELP

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Family:
    """One counter or gauge. Each row is the label values in `series` and, at the same place, the value in `values`. A
    counter's name is without `_total`."""

    __slots__ = ("help", "is_counter", "labels", "name", "series", "values")

    def __init__(self, name: str, text: str, value: float | None, labels: Sequence[str], *, is_counter: bool) -> None:
        self.name, self.help, self.labels, self.is_counter = name, text, labels, is_counter
        self.series: list[tuple[str, ...]] = [] if value is None else [()]
        self.values: list[float] = [] if value is None else [value + 0.0]  # as in `add`

    def add(self, labels: tuple[str, ...], value: float) -> None:
        self.series.append(labels)
        self.values.append(value + 0.0)  # minus zero, which equals zero but is written differently, becomes zero

    def add_each(self, labels: tuple[str, ...], more: Iterable[tuple[str, ...]], values: Iterable[float]) -> None:
        """Add a row for each of `values`, with `labels` and then those of `more` at the same place."""
        self.series += [labels + further for further in more]
        self.values += [value + 0.0 for value in values]

    @property
    def rows(self) -> list[tuple[tuple[str, ...], float]]:
        return list(zip(self.series, self.values, strict=True))


def counter(name: str, value: float | None = None, *, labels: Sequence[str] = ()) -> Family:
    return Family(name, HELP[name], value, labels, is_counter=True)


def gauge(name: str, value: float | None = None, *, labels: Sequence[str] = ()) -> Family:
    return Family(name, HELP[name], value, labels, is_counter=False)


def at_least(value: int) -> float:
    """A lower bound as a float that is not above it."""
    found = float(value)
    return nextafter(found, -inf) if found > value else found


def at_most(value: int | None) -> float:
    """An upper bound as a float that is not below it; infinite if none is known."""
    found = inf if value is None else float(value)
    return nextafter(found, inf) if value is not None and found < value else found


def metric(family: Family) -> Metric:
    """The same family as prometheus-client's object."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    made = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.rows:
        made.add_metric(labels, value)
    return made


_number: Callable[[float], str] = part_of("prometheus_client", "utils").floatToGoString


class _Kept:
    """A family as last written: the first part of each line, the values, and the whole lines."""

    __slots__ = ("heads", "lines", "prefixes", "series", "values")

    def __init__(self) -> None:
        self.heads: dict[bool, str] = {}  # by format
        self.series: list[tuple[str, ...]] = []
        self.prefixes: list[str] = []
        self.values: list[float] = []
        self.lines: list[str] = []

    def take(self, family: Family) -> None:
        """Bring the lines up to date."""
        values, before = family.values, self.values
        if family.series != self.series:
            known = dict(zip(self.series, self.prefixes, strict=True))
            self.prefixes = [known.get(labels) or _prefix(family, labels) for labels in family.series]
            self.lines = [f"{prefix}{_number(value)}\n" for prefix, value in zip(self.prefixes, values, strict=True)]
        elif values != before:
            for at, value in enumerate(values):
                if value != before[at]:
                    self.lines[at] = f"{self.prefixes[at]}{_number(value)}\n"
        self.series, self.values = family.series, values


class PageWriter:
    """Writes pages, and keeps the lines of the last one. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def text(self, families: Iterable[Family], *, is_openmetrics: bool) -> str:
        """The families in Prometheus's text format, or in OpenMetrics without the end marker. They must not change
        afterwards."""
        out: list[str] = []
        for family in families:
            kept = self._kept.get(family.name)
            if kept is None:
                kept = self._kept[family.name] = _Kept()
            if is_openmetrics not in kept.heads:
                kept.heads[is_openmetrics] = _head(family, is_openmetrics=is_openmetrics)
            kept.take(family)
            out.append(kept.heads[is_openmetrics])
            out += kept.lines
        return "".join(out)


def _head(family: Family, *, is_openmetrics: bool) -> str:
    name = family.name if is_openmetrics or not family.is_counter else f"{family.name}_total"
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if is_openmetrics:
        text = text.replace('"', r"\"")
    return f"# HELP {name} {text}\n# TYPE {name} {'counter' if family.is_counter else 'gauge'}\n"


def _prefix(family: Family, labels: tuple[str, ...]) -> str:
    name = f"{family.name}_total" if family.is_counter else family.name
    pairs = sorted(zip(family.labels, labels, strict=True))
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
    return f"{name}{{{inside}}} " if inside else f"{name} "


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
