"""Parse a page of metrics into families, with the labels that a scrape would have added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from flopsd.core.dataclass import dataclass
from flopsd.errors import PushError
from flopsd.telemetry.families import metric
from flopsd.telemetry.push.frames import Page
from flopsd.telemetry.push.states import PREFIX, PushState, metrics

INFO = "flopsd_run_info"
Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]  # name and labels of a series


@dataclass(frozen=True, slots=True)
class Parsed(Collector):
    """A page's families, its run and node, its time in Unix nanoseconds, and whether it is the first of the run."""

    families: tuple[Metric, ...]
    run_id: str
    node: str
    wall_ns: int
    first: bool = False

    @property
    def instance(self) -> str:
        """A name for one run on one node: `job` and `instance` must not be the same for the node's next run."""
        return f"{self.node}/{self.run_id}"

    @property
    def grouping_key(self) -> dict[str, str]:
        return {"instance": self.instance, "run_id": self.run_id, "node": self.node}

    def collect(self) -> Iterator[Metric]:
        return iter(self.families)


def parse_page(page: Page) -> Parsed:
    """Parse a page. Raises PushError if it is not flopsd's."""
    try:
        families = text_string_to_metric_families(page.text.decode())
        found = [family for family in families if not family.name.startswith(PREFIX)]
    except ValueError as fault:
        raise PushError(f"this is not a page of metrics: {fault}", reason="not_possible", final=True) from fault
    runs = [sample.labels for family in found if family.name == INFO for sample in family.samples]
    if len(runs) != 1 or not {"run_id", "node"} <= runs[0].keys():
        raise PushError(f"this is not a page of flopsd: {INFO} is missing", reason="not_possible", final=True)
    return Parsed(tuple(found), runs[0]["run_id"], runs[0]["node"], page.wall_ns, page.first)


def with_states(parsed: Parsed, states: Iterable[PushState]) -> Parsed:
    return replace(parsed, families=(*parsed.families, *map(metric, metrics(states))))


class Series:
    """Finds the series that a page shows for the first time, and those that it no longer shows."""

    def __init__(self) -> None:
        self._instance = ""
        self._counters: set[Key] | None = None  # those ever shown
        self._shown: set[Key] = set()  # on the page before

    def changes(self, parsed: Parsed) -> tuple[set[Key], set[Key]]:
        """The counters of this page that need a zero before it, and the series that ended with the page before. Keeps
        the series of the page for the next call.

        A counter that was not on the page before was zero until then. Without a point that says so, the receiver's
        increase() would miss its first value. Before the first page of this pusher an earlier pusher may have sent a
        counter, unless the page is the first of the run. The end of a series has to be sent, or a receiver shows its
        last value for minutes, for instance an upper bound that is no longer known."""
        keys = {
            kind: {
                key_of(sample.name, sample.labels)
                for family in parsed.families
                if family.type == kind
                for sample in family.samples
            }
            for kind in ("counter", "gauge")
        }
        if parsed.instance != self._instance:  # the scraped address now serves another run
            self._instance, self._counters, self._shown = parsed.instance, None, set()
        now = keys["counter"]
        before = self._counters if self._counters is not None else set() if parsed.first else now
        self._counters, new = now | (self._counters or set()), now - before
        shown, self._shown = self._shown, now | keys["gauge"]
        return new, shown - self._shown


def key_of(name: str, labels: dict[str, str]) -> Key:
    return name, tuple(sorted(labels.items()))
