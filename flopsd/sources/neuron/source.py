"""One neuron-monitor, or the sysfs tree alone, as a source: makes readings of documents, and handles faults."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import Counted, Device, DeviceUid, Evidence, Gap, GapReason, Gauges, Reading, Sweep
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceUnavailableError
from flopsd.sources.neuron.chips import Chip, chips_of_document, chips_of_sysfs, sysfs_facts
from flopsd.sources.neuron.counted_periods import CountedPeriods
from flopsd.sources.neuron.document import MonitorDocument, scrub
from flopsd.sources.neuron.flop_per_chip import Runtimes, account, period_ends
from flopsd.sources.neuron.held_readings import HeldReadings
from flopsd.sources.neuron.monitor_process import Failure, MonitorProcess, StreamItem
from flopsd.sources.neuron.sysfs import Tree, has_device_node
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.log_rest import LogRest

log = logging.getLogger("flopsd")
FIRST_DOCUMENT_SECONDS = 10.0  # it asks the instance metadata service before it prints
FIRST_DOCUMENTS = 5  # until one lists the hardware
STARTUP_NS = 60 * NS_PER_S
SILENT_NS = 10 * NS_PER_S  # longer than this without another line: it hangs
_JITTER = 10  # a document may come late by a tenth of its period without leaving a hole
_KEPT_REPORTS = 8  # to recognise a report that is printed again
_BACKOFF_NS, _BACKOFF_MAX_NS = NS_PER_S, 64 * NS_PER_S


class NeuronSource:
    """All Neuron chips that neuron-monitor, or else sysfs, shows to this process."""

    name = "neuron"

    def __init__(self, clock: Clock, peaks: PeakTable, tree: Tree, monitor: str | None) -> None:
        """Raises SourceUnavailableError: neuron-monitor does not run, or shows no device."""
        self._clock, self._peaks, self._tree, self._path = clock, peaks, tree, monitor
        self._renamed: dict[DeviceUid, Device] = {}  # chips of sysfs, as neuron-monitor names them
        self._cores_per_chip: int | None = None
        self._runtimes: Runtimes = {}
        self._periods, self._held = CountedPeriods(), HeldReadings()
        self._rate_field: str | None = None
        self._facts: Mapping[str, str | int] = {}
        self._identified = self._sees_none = False
        self._reports: deque[tuple[int, ...]] = deque(maxlen=_KEPT_REPORTS)  # the last ones with a period
        self._garbled = self._repeated = self._restarts = 0
        self._monitor: MonitorProcess | None = None
        self._down_reason, self._backoff_ns = GapReason.SOURCE_DOWN, _BACKOFF_NS
        self._opened_ns = self._received_ns = self._restart_ns = clock.boottime_ns()
        self._begun_ns: int | None = None
        self._is_new = False  # whether the monitor was started again and has not reported yet
        self._seen: MonitorDocument | None = None  # the last document of this start of the monitor that lists hardware
        self._fault = self._why_totals = ""
        self._rest, self._is_down_logged = LogRest(clock), False
        self._silent_after_ns = STARTUP_NS
        if monitor is None:
            self._count_totals("no neuron-monitor")
            return
        try:
            self._open(monitor)
        except BaseException:
            self.close()
            raise

    def devices(self) -> Sequence[Device]:
        return [chip.device for chip in self._chips]

    def describe(self) -> Mapping[str, Any]:
        return {
            "neuron_monitor": self._path,
            "neuron_monitor_version": self._monitor.version if self._monitor is not None else None,
            "counted_from": self._rate_field if self._path is not None else "sysfs flop_count",
            **self._facts,
            **sysfs_facts(self._chips, self._tree),
            "garbled_lines": self._garbled,
            "repeated_reports": self._repeated,
            "restarts": self._restarts,
            "replay": None,
        }

    def read(self) -> Sweep:
        """Return what came since the last read. A monitor that died is started again, at growing intervals."""
        now_ns = self._clock.boottime_ns()
        if self._begun_ns is None:
            self._begun_ns = now_ns
        readings: list[Reading] = []
        gauges: dict[DeviceUid, Gauges] = {}
        if self._path is None:
            self._add_chips()
            return Sweep(tuple(chip.read_growth(now_ns) for chip in self._chips))
        for item in self._drain():
            readings += self._take(item, gauges)
        if self._monitor is None:
            readings += self._gap(now_ns, self._down_reason)
            if now_ns >= self._restart_ns:
                self._restart(now_ns)
        elif now_ns - self._received_ns > self._silent_after_ns:
            self._end(now_ns, GapReason.SOURCE_SILENT, "neuron-monitor printed nothing and was killed")
            readings += self._gap(now_ns, GapReason.SOURCE_SILENT)
        return Sweep(tuple(self._with_totals(readings)), gauges, patience_ns=SILENT_NS, renamed=self._renamed)

    def close(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def _open(self, path: str) -> None:
        """Start the monitor and take its first document, which lists the hardware and begins the first period."""
        self._chips = chips_of_sysfs(self._tree, self._opened_ns)
        self._monitor = MonitorProcess(path, self._clock)
        for _ in range(FIRST_DOCUMENTS):
            if self._identified or self._monitor is None or not self._monitor.wait(FIRST_DOCUMENT_SECONDS):
                break
            for item in self._drain():
                self._take(item, {})
        if self._sees_none and self._chips:
            self.close()
            self._count_totals("neuron-monitor sees no device")
        if not self._chips:
            why = "shows no Neuron device" if self._identified else f"printed nothing for {FIRST_DOCUMENT_SECONDS:g} s"
            raise SourceUnavailableError(
                self._fault or f"neuron-monitor {why}",
                hint="load the driver (aws-neuronx-dkms); in a container give it /dev/neuron*",
                absent=not has_device_node(),
            )

    def _count_totals(self, why: str) -> None:
        """Use sysfs alone: its totals cover all chips of the host, even for a sidecar that is given none."""
        self._path, self._why_totals, self._chips = None, why, []
        self._opened_ns = self._clock.boottime_ns()
        self._add_chips()

    def _add_chips(self) -> None:
        self._tree.look()
        new = chips_of_sysfs(self._tree, self._opened_ns, self._chips)
        for chip in new:
            chip.expect_growth(self._tree, self._why_totals)
        self._chips += new

    def _drain(self) -> list[StreamItem]:
        """Return what came, each item with the time at which its period ended."""
        drained = self._monitor.drain() if self._monitor is not None else []
        items = [item for item in drained if not self._is_repeated(item.what)]
        documents = [(item.at_ns, item.what if isinstance(item.what, MonitorDocument) else None) for item in items]
        ends = period_ends(documents, self._runtimes)
        return [StreamItem(end_ns, item.what) for end_ns, item in zip(ends, items, strict=True)]

    def _is_repeated(self, what: MonitorDocument | Failure) -> bool:
        """Whether an item repeats an earlier report; then it is ignored. Periods are printed to the nanosecond, so no
        two reports of a runtime are alike, not even of an idle one."""
        if isinstance(what, Failure) or not what.has_periods:
            return False
        if what.reports in self._reports:
            self._repeated += 1
            return True
        self._reports.append(what.reports)
        return False

    def _end(self, now_ns: int, reason: GapReason, fault: str) -> None:
        if self._monitor is not None:
            self._monitor.close(wait=False)
            self._monitor = None
        self._fault, self._down_reason, self._runtimes = fault, reason, {}
        self._restart_ns = now_ns + self._backoff_ns
        self._backoff_ns = min(2 * self._backoff_ns, _BACKOFF_MAX_NS)

    def _restart(self, now_ns: int) -> None:
        assert self._path is not None
        if self._rest.is_due(self._fault):
            self._is_down_logged = True
            text = "source neuron: %s; it is started again; until it reports, the devices' time is a gap"
            log.error(text, self._fault)
        try:
            self._monitor = MonitorProcess(self._path, self._clock)
        except SourceUnavailableError as fault:
            self._end(now_ns, GapReason.SOURCE_DOWN, str(fault))
            return
        self._restarts, self._is_new, self._seen = self._restarts + 1, True, None
        self._received_ns, self._silent_after_ns = now_ns, STARTUP_NS

    def _take(self, item: StreamItem, gauges: dict[DeviceUid, Gauges]) -> list[Reading]:
        self._received_ns, self._silent_after_ns = item.at_ns, SILENT_NS
        if isinstance(item.what, Failure):
            if item.what.ended:
                self._end(item.at_ns, GapReason.SOURCE_DOWN, item.what.fault)
                return self._gap(item.at_ns, GapReason.SOURCE_DOWN)
            self._garbled += 1
            return self._gap(item.at_ns, GapReason.DRIVER_ERROR)
        if self._is_down_logged:
            self._is_down_logged = False
            log.warning("source neuron: neuron-monitor reports again")
        self._take_hardware_facts(item.what)
        if self._cores_per_chip is None:
            return self._gap(item.at_ns, GapReason.NOT_SUPPORTED)  # which chip has these cores is not known
        ahead = self._periods.ahead(item.what, item.at_ns)
        before = {**self._runtimes, **self._held.returned(item.what)}
        counted = account(self._with_seen(item.what), len(self._chips), self._cores_per_chip, before, ahead)
        self._runtimes, self._backoff_ns = counted.runtimes, _BACKOFF_NS
        for chip, utilization_ratio in zip(self._chips, counted.utilization_ratio, strict=True):
            if not counted.has_rate:
                chip.expect(Evidence.GAP, "this neuron-monitor reports no FLOP rate", "update aws-neuronx-tools")
            elif item.what.rate_field is not None:
                chip.expect(Evidence.COUNT)
            gauges[chip.device.uid] = Gauges(utilization_ratio=utilization_ratio)
        whole = zip(self._chips, counted.work, strict=True)
        readings = [self._reading(chip, work, counted.period_ns, item.at_ns) for chip, work in whole]
        self._is_new = False
        return self._held.take(readings, counted.missing, item.what, item.at_ns)

    def _with_seen(self, document: MonitorDocument) -> MonitorDocument:
        """Return `document` with the hardware that this start of the monitor listed last, if it lists none itself. A
        monitor that has not listed any yet does not know that no runtime is open: the driver may be reloading."""
        if document.device_count is not None or document.cores_per_device is not None:
            self._seen = document
        elif self._seen is None:
            return replace(document, hardware_error=document.hardware_error or "no hardware was listed")
        else:
            return replace(document, device_count=self._seen.device_count)
        return document

    def _take_hardware_facts(self, document: MonitorDocument) -> None:
        """Take over a document's facts about the hardware; facts that it lacks stay as in an earlier document."""
        self._cores_per_chip = document.cores_per_device or self._cores_per_chip
        self._rate_field = document.rate_field or self._rate_field
        if self._identified and (document.device_count or 0) <= len(self._chips):
            return
        found = chips_of_document(document, self._tree, self._peaks, self._opened_ns)
        self._sees_none = document.device_count == 0
        self._identified = bool(found) or self._sees_none
        if document.hardware_error:
            self._fault = f"neuron-monitor: {scrub(document.hardware_error)}"
        if found:
            since_ns = {chip.device.uid: chip.since_ns for chip in self._chips}
            for chip in found:
                chip.since_ns = since_ns.get(chip.device.uid, chip.since_ns)
            # It is not known which chip is which, but they are alike, and no old chip is metered besides the new ones.
            self._renamed = {
                chip.device.uid: found[min(at, len(found) - 1)].device
                for at, chip in enumerate(self._chips)
                if chip.device.uid not in {one.device.uid for one in found}
            }
            self._chips, self._held = found, HeldReadings()
        instance = {"instance_type": document.instance_type} if document.instance_type else {}
        self._facts = {**document.facts, **instance}

    def _reading(self, chip: Chip, work: Counted | Gap, period_ns: int, at_ns: int) -> Reading:
        """Return a chip's reading of one document. It begins where the last one ended, unless a hole lies between."""
        since_ns = chip.since_ns
        end_ns = max(at_ns, since_ns + 1)  # two lines at one moment are still two periods
        begin_ns = end_ns - period_ns
        if self._begun_ns is None or max(begin_ns, since_ns) < self._begun_ns:
            work = Gap(GapReason.STARTING)  # part of the period lies before the first read, and so does its work
        # No period of a monitor that was just started covers the time before its start, however short that is.
        if end_ns - since_ns <= period_ns + (0 if self._is_new else period_ns // _JITTER):
            begin_ns = since_ns
        chip.since_ns = end_ns
        return Reading(chip.device.uid, begin_ns, end_ns, work)

    def _gap(self, until_ns: int, reason: GapReason) -> list[Reading]:
        """Return the time of all chips since their last reading, as a gap."""
        readings = self._held.release()
        for chip in self._chips:
            if until_ns > chip.since_ns:
                readings.append(Reading(chip.device.uid, chip.since_ns, until_ns, Gap(reason)))
                chip.since_ns = until_ns
        return readings

    def _with_totals(self, readings: list[Reading]) -> list[Reading]:
        """Return the readings, the last one of each chip with its sysfs totals."""
        last = {reading.device: at for at, reading in enumerate(readings)}
        worked = {r.device for r in readings if isinstance(r.work, Counted) and r.work.flop}
        for chip in self._chips:
            at = last.get(chip.device.uid)
            if at is not None and chip.read_total(worked=chip.device.uid in worked):
                readings[at] = replace(readings[at], counters=chip.counters)
        return readings
