"""A page of metrics as families, with the labels that a scrape would have added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from flopsd.core.dataclass import dataclass
from flopsd.errors import PushError
from flopsd.telemetry.families import metric
from flopsd.telemetry.push.frames import Page
from flopsd.telemetry.push.states import PREFIX, PushState, metrics

INFO = "flopsd_run_info"


@dataclass(frozen=True, slots=True)
class Parsed(Collector):
    """A page's families, the run and node that it is of, its time, and whether it is the first of the run."""

    families: tuple[Metric, ...]
    run_id: str
    node: str
    wall_ns: int
    first: bool = False

    @property
    def instance(self) -> str:
        """Of one daemon's account, as `job` and `instance` have to be: the next run on a node is another."""
        return f"{self.node}/{self.run_id}"

    @property
    def grouping_key(self) -> dict[str, str]:
        return {"instance": self.instance, "run_id": self.run_id, "node": self.node}

    def collect(self) -> Iterator[Metric]:
        return iter(self.families)


def parse_page(page: Page) -> Parsed:
    """Raises PushError for a page that is not flopsd's."""
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


class Zeros:
    """Counters that a page shows for the first time. A series that was not there a page ago counted nothing until then:
    it was 0. Without that point the receiver's increase() would miss what the first one holds. Before the first page
    of a pusher another one may have sent some, unless it is the first of the run."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, tuple[tuple[str, str], ...]]] | None = None

    def of(self, parsed: Parsed) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        """The counters of this page that need a zero before it; remembers the page."""
        now = {
            key_of(sample.name, sample.labels)
            for family in parsed.families
            if family.type == "counter"
            for sample in family.samples
        }
        before = self._seen if self._seen is not None else set() if parsed.first else now
        new = now - before
        self._seen = now | (self._seen or set())
        return new


def key_of(name: str, labels: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))
