"""Half an hour with restarts, a lost device and counters that run on: what Prometheus sums up is what the ledger says."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.core.model import GapReason, Growth, Pipe
from flopsd.system.clock import NS_PER_S
from flopsd.telemetry.prometheus import Exposition
from tests.support.hour import BF16, OPENMETRICS, SCRAPE, served, stamped, stored
from tests.support.process import flopsd, get
from tests.support.story import CYCLES_H100, H100, PEAKS, Plan, Story, active, gap

OTHERS = [replace(H100, uid=f"GPU-{n}", index=n) for n in (1, 2)]
TRAINS = active(132, 1755, {Pipe.TENSOR_HMMA: 481_113, Pipe.TENSOR_IMMA: 20_000, Pipe.FP32: 99_999, Pipe.FP64: 7})
IDLE = active(132, 345, {})
LOST = gap(GapReason.DEVICE_LOST)


class Scraped(Story):
    """A story that Prometheus scrapes every fifteen seconds for as long as its daemon lives."""

    def __init__(self, folder: Path) -> None:
        self.pages: list[str] = []
        super().__init__(folder, (CYCLES_H100, *OTHERS), precision=BF16, run="half-an-hour")
        self.exposition = Exposition()

    def watched(self, minutes: int, second: Plan, third: Plan) -> None:
        for _ in range(minutes * 60 // SCRAPE):
            self.during(SCRAPE, {CYCLES_H100: lambda _: Growth(), **second, **third})
            self.scrape()

    def scrape(self) -> None:
        page = self.exposition.render(self.writer.snapshot, OPENMETRICS)[0].decode()
        self.pages += stamped(page, 'job="flopsd",instance="node-0:10188"', self.clock.wall_ns() // NS_PER_S)

    def dies(self, seconds: int) -> None:
        self.kill(for_seconds=seconds)
        self.exposition = Exposition()
        self.start()


def asked(url: str, expression: str, at: int) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression, "time": at})
    found: list[dict[str, Any]] = json.loads(get(f"{url}/api/v1/query?{query}")[1])["data"]["result"]
    return found


@pytest.mark.tool("prometheus", "promtool")
def test_increase_over_the_whole_is_the_ledgers_total(tmp_path: Path) -> None:
    """The half hour passes on a clock stepped by hand; writer, journal, exporter, sealing and Prometheus are the real ones."""
    story = Scraped(tmp_path / "state")
    one, two = OTHERS
    story.during(1, {CYCLES_H100: lambda _: Growth(), one: IDLE, two: IDLE})  # jobs begin with devices that are idle
    story.scrape()
    begin = story.clock.wall_ns() // NS_PER_S  # from sample to sample, so that increase() has nothing to extrapolate
    story.watched(8, {one: TRAINS}, {two: TRAINS})
    story.dies(20)
    story.watched(6, {one: TRAINS}, {two: LOST})
    story.watched(4, {one: TRAINS}, {two: TRAINS})  # it is back
    story.dies(47)
    story.watched(5, {one: IDLE}, {two: TRAINS})
    story.dies(2)
    story.watched(6, {one: TRAINS}, {two: TRAINS})
    assert story.writer.close("stopped by SIGTERM")
    story.scrape()
    end = story.clock.wall_ns() // NS_PER_S
    story.kill()
    assert end - begin > 29 * 60
    key, _ = ensure_key(None, story.state.path)
    seal_journal(story.state.journal, key, tmp_path / "ledger.json", story.clock, str(PEAKS))
    done = flopsd(
        "verify", str(tmp_path / "ledger.json"), "--key", str(tmp_path / "ledger.pub"), "--peaks", str(PEAKS), "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)["predicate"]
    total = int(told["totals"]["executed"]["measured"])
    assert len(told["incarnations"]) == 4

    blocks = stored(tmp_path, "".join(story.pages) + "# EOF\n")
    with served(blocks) as url:
        span = f"[{end - begin}s]"
        rows = asked(url, f"flopsd_flop_total{span}", end)
        first = sum(float(row["values"][0][1]) for row in rows)
        increase = float(asked(url, f"sum(increase(flopsd_flop_total{span}))", end)[0]["value"][1])
        names = {
            row["metric"]["__name__"] for row in asked(url, 'count by (__name__) ({__name__=~"flopsd_.+_total"})', end)
        }
        resets = {name: asked(url, f"sum(resets({name}{span}))", end)[0]["value"][1] for name in names}
        run = float(asked(url, 'flopsd_run_flop{basis="executed",bound="measured"}', end)[0]["value"][1])
        scraped = len(rows[0]["values"])
    error = (increase - total) / total
    print(
        f"{end - begin} s, {scraped} scrapes, 3 restarts, {len(rows)} series: ledger {total} FLOP, increase() {increase:.17g}, "
        f"off by {error:.1e}"
    )
    assert "flopsd_gap_seconds_total" in resets
    assert set(resets.values()) == {"0"}, resets
    assert run == float(total)
    assert abs(error) < 1e-14
    assert first == 0, "a series that begins with work is work that increase() does not see"
