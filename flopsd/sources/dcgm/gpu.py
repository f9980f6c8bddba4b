"""One GPU of a dcgm-exporter, followed from page to page: when a collection is new, and what time it covers. Pure.

A page has no timestamps and is read more often than it is renewed. A collection is recognised by changed values. Its
averages cover one collection interval, and say nothing about other time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from flopsd.core.clock_integral import ClockSample, Cycles, integrate, is_clock
from flopsd.core.dataclass import dataclass
from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Active, Busy, Evidence, Gap, GapReason, Gauges, Growth, Limits, Pipe, Reading, Totals
from flopsd.core.peaks import PeakTable
from flopsd.core.values import added
from flopsd.sources.dcgm.coverage import CollectionCoverage
from flopsd.sources.dcgm.device import clock_of, device_of, driver_of, limits_of, shared_by
from flopsd.sources.dcgm.exposition import PREFIX, Field, GpuPage
from flopsd.sources.dcgm.work import (
    COUNTERS_NAME,
    DIVERGED,
    SPLIT_COUNTERS,
    SPLIT_RATIOS,
    STALE,
    STANDING,
    STUCK,
    UNSEEN,
    UNSPLIT,
    Expected,
    active,
    ceiling,
    counted_between,
    expect,
    has_counters,
    has_tensor,
    ratios,
    stands_still,
    totals,
    unread_counters,
)
from flopsd.sources.nvml.counter_calibration import Calibration, CounterScale, SampleInterval, SelfTestFailedError
from flopsd.sources.nvml.plausibility import STUCK_RATIO
from flopsd.sources.nvml.sm_clock import SmClocks

_SAMPLE_SLACK_NS = 2_000_000_000  # how far the first and last sample of the clock may be from the interval's ends
_AVERAGES = f"{PREFIX}PROF_"


@dataclass(slots=True)
class _Collection:
    """A new set of values, recognised at `at_ns`; it came at most `lag_ns` before that."""

    at_ns: int
    lag_ns: int
    page: GpuPage
    changed: set[str]


class FollowedGpu:
    """One GPU between reads. The values of its first page are of unknown age and only serve to recognise new ones."""

    def __init__(
        self, page: GpuPage, at: int, now_ns: int, interval_ns: int, peaks: PeakTable, more_clocks: SmClocks | None
    ) -> None:
        """`at`: the index of the GPU on the page. `interval_ns`: the collection interval of the exporter."""
        self._interval_ns, self._more_clocks, self._coverage = interval_ns, more_clocks, CollectionCoverage(interval_ns)
        self._page, self._since_ns, self._changed_ns, self._seen_ns = page, now_ns, now_ns, now_ns
        self._unread: GapReason | None = GapReason.STARTING  # why the next collection cannot be counted
        self._pending: _Collection | None = None  # recognised, but perhaps not complete yet
        self._last: _Collection | None = None
        self._averaged: _Collection | None = None  # the last one with new averages
        self._alike: _Collection | None = None  # the first one with the ratios of the newest
        self._stuck = False
        self._split: set[Field] = set()  # the kinds of tensor activity that this exporter ever showed apart
        self._clocks: list[ClockSample] = []
        self._refused = False  # the counters diverged from the clock
        self.lost = 0  # how often tensor activity went away
        self.device = device_of(page, at)
        driver = self.device.driver
        self.limits, self._hopper = limits_of(self.device, peaks)
        limits = self.limits or Limits(0, 0)  # then nothing is counted
        counters = f"{COUNTERS_NAME} of driver {driver}" if driver else COUNTERS_NAME
        self._scale = CounterScale(limits.sm_count, limits.sm_clock_max_mhz, counters)
        clock_known = bool(page.values.get(Field.SM_CLOCK)) or more_clocks is not None
        self._set_evidence(expect(page, self.limits, None, clock_known, self._hopper))

    def follow(self, page: GpuPage, now_ns: int, origin: str | None) -> list[Reading]:
        """Return the readings that became known by `now_ns`, when `page` showed the GPU. `origin`: of earlier totals. A
        page can be read while the exporter renews it. So a collection is counted one read later: values that change
        for the first time then belong to it, and a second change of a value is a new collection."""
        lag_ns, self._seen_ns = now_ns - self._seen_ns, now_ns  # not every page need show the GPU
        page.had_tensor = self._page.had_tensor or has_tensor(self._page)
        self.lost += has_tensor(self._page) and not has_tensor(page)
        changed, self._page = page.changed_from(self._page), page
        if self._scale.proven is None and not self._refused and self.limits is not None:
            self._scale.recall(origin)
        self.device = replace(self.device, shared=shared_by(page))
        pending, self._pending = self._pending, None
        if changed:
            self._changed_ns = now_ns
            if pending and not changed & pending.changed and now_ns - pending.at_ns < self._interval_ns // 2:
                pending.page, pending.changed, self._pending = page, pending.changed | changed, pending
                return []
            self._pending = _Collection(now_ns, lag_ns, page, changed)
        if pending:
            return self._count(pending)
        if changed:
            return []
        reason = self._unread
        if reason is None and now_ns - self._changed_ns > 2 * self._interval_ns + 1_000_000_000:
            reason = GapReason.STALE
            self._set_evidence(STALE)
        return [] if reason is None else self._reading_until(now_ns, Gap(reason))

    def is_of_other_driver(self, page: GpuPage) -> bool:
        """Whether the driver was replaced since this GPU was first seen: its clocks and counters may differ."""
        known, shown = self.device.driver, driver_of(page)
        return None not in (known, shown) and known != shown

    def in_place_of(self, before: FollowedGpu) -> FollowedGpu:
        """Return itself, with its first reading beginning where the last one of `before` ended."""
        self._since_ns = before._since_ns
        return self

    def interrupt(self, now_ns: int) -> None:
        """Note that the exporter was out of reach until now: the next collection is of unknown age."""
        self._since_ns = self._changed_ns = now_ns
        self._pending, self._unread = None, GapReason.SOURCE_DOWN
        self._split.clear()  # it may have been started again with other fields

    def gauges(self) -> Gauges:
        percent, mhz = self._page.utilization_percent(), self._page.values.get(Field.SM_CLOCK)
        utilization = percent / 100 if percent is not None and 0 <= percent <= 100 else None
        return Gauges({} if self._page.slices else ratios(self._page), utilization, clock_of(mhz))

    def _count(self, collection: _Collection) -> list[Reading]:
        """Return the readings up to a complete collection: one, or two if it came late."""
        before, self._last = self._last, collection
        end_ns, page = collection.at_ns, collection.page
        mhz = page.values.get(Field.SM_CLOCK)
        if mhz is not None and self.limits and is_clock(mhz, self.limits.sm_clock_max_mhz):
            self._clocks.append((end_ns, round(mhz)))
        if any(name.startswith(_AVERAGES) for name in collection.changed):  # other fields may be renewed at other times
            if self._averaged is not None:
                self._coverage.followed(end_ns - self._averaged.at_ns + self._averaged.lag_ns)
            self._averaged = collection
        best = expect(page, self.limits, self._scale.proven, True, self._hopper)
        if self._unread is not None or best.evidence is not Evidence.ACTIVITY:
            return self._judge(before, collection)
        uncovered_ns, behind_ns = self._coverage.uncovered_ns(end_ns - self._since_ns, collection.lag_ns)
        late = self._reading_until(self._since_ns + uncovered_ns, Gap(GapReason.STALE))
        if late:
            self._coverage.interrupt(behind_ns)
        return late + self._judge(before, collection)

    def _judge(self, before: _Collection | None, collection: _Collection) -> list[Reading]:
        page, limits, begin_ns, end_ns = collection.page, self.limits, self._since_ns, collection.at_ns
        unread, self._unread = self._unread, None
        counters = {"energy_mj": int(page.values[Field.ENERGY])} if Field.ENERGY in page.values else {}
        if limits is None or page.slices:
            refused = expect(page, limits, None, False, self._hopper)
            self._set_evidence(refused)
            return self._reading_until(end_ns, Gap(refused.gap or GapReason.UNKNOWN_DEVICE), counters)
        known = None if self._more_clocks is None else self._more_clocks.cycles(self.device.uid, begin_ns, end_ns)
        seen = self._exported_cycles(begin_ns, end_ns)
        most_mhz = limits.sm_clock_max_mhz
        cycles = known or (None if seen is None else seen.up_to(most_mhz, end_ns - begin_ns))
        expected = expect(page, limits, self._scale.proven, cycles is not None, self._hopper)
        clock_follows = unread is not None and (Field.SM_CLOCK in page.values or self._more_clocks is not None)
        self._set_evidence(expect(page, limits, self._scale.proven, cycles is not None or clock_follows, self._hopper))
        earlier = before.page if before is not None and before.at_ns == begin_ns else None  # no gap is between them
        if self._lacks_split(page) and expected.evidence in (Evidence.ACTIVITY, Evidence.CYCLES):
            self._set_evidence(UNSPLIT)
            return self._reading_until(end_ns, Gap(GapReason.NOT_SUPPORTED), counters)
        if self._scale.proven is not None:
            if (is_beyond := self._beyond_old(before, page, end_ns)) is not None:
                running = totals(page, self._scale.proven) if is_beyond else None
                return self._reading_until(end_ns, Gap(GapReason.COUNTER_RESET), counters, running)
            if earlier is not None and self._counted_since(earlier, page, known or seen, end_ns - begin_ns):
                self._refused = self._scale.diverges(self._scale.proven)
            if self._refused:
                self._set_evidence(DIVERGED)
                return self._reading_until(end_ns, Gap(GapReason.CONTRADICTORY), counters)
            if has_counters(page):
                return self._grown(before, page, end_ns, expected.gap, counters, self._scale.proven)
        if gap := unread or expected.gap:
            return self._reading_until(end_ns, Gap(gap), counters)
        if expected.evidence is not Evidence.ACTIVITY or cycles is None:
            percent = page.utilization_percent()
            assert percent is not None
            return self._reading_until(end_ns, ceiling(percent, limits, end_ns - begin_ns), counters)
        if earlier is not None and not self._refused:
            trial = self._counted_since(earlier, page, known or seen or cycles, end_ns - begin_ns)
            if trial is not None:
                with suppress(SelfTestFailedError):  # the next intervals may pass
                    self._scale.prove(trial)
        if self._scale.clock_doubt:
            cycles = cycles.up_to(most_mhz, end_ns - begin_ns)
        proven = self._scale.proven if has_counters(page) else None
        running = None if proven is None else totals(page, proven)
        work = active(page, cycles, limits.sm_count)
        if self._is_stuck(collection):
            self._set_evidence(STUCK)
            return self._reading_until(end_ns, Gap(GapReason.STALE), counters, running)
        shifted = self._coverage.shifted(ratios(page), collection.lag_ns, limits)
        is_unseen = before is not None and end_ns - before.at_ns <= min(collection.lag_ns, self._interval_ns // 2)
        if is_unseen:
            self._set_evidence(UNSEEN)
        if is_unseen or max(shifted.values(), default=0) > max_sm_cycles(limits, end_ns - begin_ns):
            return self._reading_until(end_ns, Gap(GapReason.STALE), counters, running)
        doubt = added(work.uncertainty_sm_cycles, shifted)
        if before is not None and not _shows_each_collection(before.page, page):
            doubt = added(doubt, _alike_before(before.page, page, end_ns - begin_ns, limits))
        return self._reading_until(end_ns, replace(work, uncertainty_sm_cycles=doubt), counters, running)

    def _lacks_split(self, page: GpuPage) -> bool:
        """Whether a kind of tensor activity is missing that was shown apart before: its work would count as of the
        declared format, which describes only the rest."""
        kinds = SPLIT_COUNTERS if self._scale.proven is not None and has_counters(page) else SPLIT_RATIOS
        self._split |= kinds & page.values.keys()
        return not self._split & kinds <= page.values.keys()

    def _is_stuck(self, collection: _Collection) -> bool:
        """Whether the ratios are the same as more than two intervals ago, to the last digit, although utilisation
        differs or is zero: an exporter shows a field's last value until a new one comes. Ratios of more than three
        digits that repeat for five intervals are stuck whatever the utilisation: no load has such averages."""
        found, percent = ratios(collection.page), collection.page.utilization_percent()
        if self._alike is None or ratios(self._alike.page) != found:
            self._alike, self._stuck = collection, False
        differs = percent is not None and (percent == 0 or percent != self._alike.page.utilization_percent())
        is_exact = any(abs(ratio - round(ratio, 3)) > 1e-7 for ratio in found.values())
        intervals = 2 if differs else 5 if is_exact else math.inf
        is_old = collection.at_ns - self._alike.at_ns > intervals * self._interval_ns + 1_000_000_000
        self._stuck = self._stuck or (is_old and max(found.values(), default=0) >= STUCK_RATIO)
        return self._stuck

    def _grown(
        self, before: _Collection | None, page: GpuPage, end_ns: int, gap: GapReason | None,
        counters: Mapping[str, int], calibration: Calibration,
    ) -> list[Reading]:  # fmt: skip
        """Return the reading of counters in use, unless a `gap` forbids it."""
        if gap is None and before is not None and stands_still(before.page, page):
            gap = GapReason.COUNTER_STALLED
            self._set_evidence(STANDING)
        work = Growth(unread_counters(page)) if gap is None else Gap(gap)
        return self._reading_until(end_ns, work, counters, totals(page, calibration))

    def _beyond_old(self, before: _Collection | None, page: GpuPage, end_ns: int) -> bool | None:
        """As CounterScale's, for counters in use. Two exporters behind one address may show older values."""
        if before is None or not (has_counters(before.page) and has_counters(page)):
            return None
        elapsed, earlier = (int(one.values[Field.CYCLES_ELAPSED]) for one in (page, before.page))
        return self._scale.beyond_old(elapsed, elapsed - earlier, end_ns - before.at_ns)

    def _counted_since(
        self, earlier: GpuPage, later: GpuPage, clock: Cycles | None, duration_ns: int
    ) -> SampleInterval | None:
        """Return the growth of the counters, once noted for their self-test or comparison with the SM clock."""
        trial = counted_between(earlier, later)
        if trial is None or clock is None:
            self._scale.interrupt()
            return None
        self._scale.add(trial.elapsed, clock, duration_ns)
        return trial

    def _exported_cycles(self, begin_ns: int, end_ns: int) -> Cycles | None:
        """Estimate the cycles of one SM by the exporter's one clock value per collection. The doubt is not a bound."""
        oldest_ns = begin_ns - 3 * self._interval_ns
        self._clocks = [sample for sample in self._clocks if sample[0] >= oldest_ns]
        return _integral(self._clocks, begin_ns, end_ns)

    def _reading_until(
        self,
        end_ns: int,
        work: Active | Growth | Busy | Gap,
        counters: Mapping[str, int] | None = None,
        running: Totals | None = None,
    ) -> list[Reading]:
        """Return the reading from where the last one ended, in a list that is empty if the duration is zero."""
        begin_ns = self._since_ns
        if end_ns <= begin_ns:
            return []
        self._since_ns = end_ns
        if not isinstance(work, Active):
            self._coverage.interrupt()
        return [Reading(self.device.uid, begin_ns, end_ns, work, counters or {}, running)]

    def _set_evidence(self, expected: Expected) -> None:
        self.device = replace(
            self.device, evidence=expected.evidence, evidence_reason=expected.reason, evidence_fix=expected.fix
        )


def _shows_each_collection(before: GpuPage, now: GpuPage) -> bool:
    """Whether a running counter moved between two pages, so that no two collections are alike."""
    return any(
        name in before.values and now.values.get(name) != before.values[name]
        for name in (Field.ENERGY, Field.CYCLES_ELAPSED)
    )


def _alike_before(before: GpuPage, now: GpuPage, duration_ns: int, limits: Limits) -> dict[Pipe, int]:
    """Return by how many SM-cycles each pipe is off at most, if the exporter collects more often than is stated:
    collections between these two then had the values of the first."""
    earlier, later = ratios(before), ratios(now)
    found = {}
    for pipe, ratio in later.items():
        ns = math.ceil(abs(ratio - earlier.get(pipe, 0.0)) * duration_ns)
        if ns:
            found[pipe] = max_sm_cycles(limits, ns)
    return found


def _integral(samples: Sequence[ClockSample], begin_ns: int, end_ns: int) -> Cycles | None:
    slack_ns = min(_SAMPLE_SLACK_NS, (end_ns - begin_ns) // 4)
    if not samples or samples[0][0] > begin_ns + slack_ns or samples[-1][0] < end_ns - slack_ns:
        return None
    return integrate(samples, begin_ns, end_ns)
