"""Metric families as flopsd makes them, and their lines. prometheus-client is the model: `metric` makes its object of a
family, and `Lines` writes byte for byte what its encoders write of that, in an eighth of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from flopsd.system.part_of_package import part_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Family:
    """One counter or gauge, its rows as label values and a value. A counter's name is without `_total`."""

    __slots__ = ("help", "is_counter", "labels", "name", "rows")

    def __init__(self, name: str, text: str, value: float | None, labels: Sequence[str], *, is_counter: bool) -> None:
        self.name, self.help, self.labels, self.is_counter = name, text, tuple(labels), is_counter
        self.rows: list[tuple[tuple[str, ...], float]] = [] if value is None else [((), value)]

    def add(self, labels: tuple[str, ...], value: float) -> None:
        self.rows.append((labels, value))


def counter(name: str, text: str, value: float | None = None, *, labels: Sequence[str] = ()) -> Family:
    return Family(name, text, value, labels, is_counter=True)


def gauge(name: str, text: str, value: float | None = None, *, labels: Sequence[str] = ()) -> Family:
    return Family(name, text, value, labels, is_counter=False)


def metric(family: Family) -> Metric:
    """The same as prometheus-client has it."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    made = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.rows:
        made.add_metric(labels, value)
    return made


def family_of(found: Metric) -> Family:
    """A family without labels, of a collector of prometheus-client's own."""
    return Family(found.name, found.documentation, found.samples[0].value, (), is_counter=found.type == "counter")


_number: Callable[[float], str] = part_of("prometheus_client", "utils").floatToGoString


class Lines:
    """Writes pages, and keeps what of a line does not change. Not thread-safe."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, bool], str] = {}
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[str, float, str]] = {}

    def text(self, families: Iterable[Family], *, is_openmetrics: bool) -> str:
        """The families in Prometheus's text format, or in OpenMetrics without the end."""
        kept = self._kept
        now: dict[tuple[str, tuple[str, ...]], tuple[str, float, str]] = {}
        out: list[str] = []
        for family in families:
            name = family.name
            head = self._heads.get((name, is_openmetrics))
            if head is None:
                head = self._heads[(name, is_openmetrics)] = _head(family, is_openmetrics=is_openmetrics)
            out.append(head)
            for labels, value in family.rows:
                key = (name, labels)
                entry = kept.get(key)
                if entry is None:
                    prefix = _prefix(family, labels)
                elif entry[1] == value and value:  # zero has two signs
                    now[key] = entry
                    out.append(entry[2])
                    continue
                else:
                    prefix = entry[0]
                line = f"{prefix}{_number(value)}\n"
                now[key] = (prefix, value, line)
                out.append(line)
        self._kept = now
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
