"""A dcgm-exporter that flopsd starts, as a source. It is read like any other exporter.

It is started again when it dies or hangs, ever more rarely, and ended while a profiler runs, unless a setting asks for
it. If it is refused for lack of privilege, or its GPUs have no profiling fields, it is not started again: neither
changes while this process runs. Until it answers, NVML bounds its GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import ChildCost, Device, Evidence, GapReason, Sweep
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources.dcgm.exposition import Field
from flopsd.sources.dcgm.own_exporter import Ending, OwnExporter, ending_of
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.sources.nvml.counter_servers import PROFILERS, SERVERS, running
from flopsd.system.clock import NS_PER_S, Clock

log = logging.getLogger("flopsd")
SILENT_START_NS = 10 * NS_PER_S  # for an exporter whose log does not say when it answers
STARTUP_NS = 60 * NS_PER_S  # until its first page: it initialises every GPU
SILENT_NS = 15 * NS_PER_S  # longer than this without a page: it hangs
LOOK_NS = 60 * NS_PER_S  # for another server of the counters, which takes precedence
LOOK_FOR_PROFILERS_NS = 10 * NS_PER_S  # milliseconds each, where a thousand processes run
_BACKOFF_NS = {Ending.FAULT: (NS_PER_S, 64 * NS_PER_S), Ending.IN_USE: (60 * NS_PER_S, 600 * NS_PER_S)}
_HINTS = {
    Ending.FAULT: "see its message; --dcgm-hostengine off meters without it",
    Ending.IN_USE: "end Nsight, the CUPTI profiler or the other DCGM, on whichever GPU: only one program on a "
    "machine can have the counters; flopsd tries again every 1 to 10 minutes",
    Ending.NOT_SUPPORTED: "install datacenter-gpu-manager-4-proprietary too: GPUs before Hopper need it",
}


class OwnDcgmSource:
    name = "dcgm"

    def __init__(
        self, clock: Clock, devices: Sequence[Device], path: str, interval_ms: int, read: Callable[[str], DcgmSource],
        remedy: str, read_other: Callable[[], DcgmSource] | None,
    ) -> None:  # fmt: skip
        """`devices`: those that the exporter is started for. `read` opens the page at an address. `remedy`: for lack of
        privilege. `read_other` opens another exporter that takes the place of this one; None: this one stays. Raises
        SourceUnavailableError."""
        why = "dcgm-exporter is starting"
        self._starting = [replace(one, evidence=Evidence.GAP, evidence_reason=why) for one in devices]
        self._clock, self._open, self._open_other = clock, read, read_other
        self._hints = {**_HINTS, Ending.REFUSED: f"{remedy}; then restart flopsd, which does not try again by itself"}
        self._exporter = OwnExporter(path, interval_ms)
        self._reader: DcgmSource | None = None
        self._sha256: str | None = None
        self._starts = 0
        self._fault: SourceUnavailableError | None = None  # since it last gave a page
        self._retry_ns: int | None = None  # when it is started again; None: it runs, or never
        self._backoff_ns: dict[Ending, int] = {}  # since it last answered: the next pause
        self._answered_ns = self._looked_ns = self._looked_for_profilers_ns = clock.boottime_ns()
        self._others: frozenset[int] = frozenset()
        self._is_over = self._has_ended = False  # another exporter is read; the program is not to be started again
        try:
            self._start()
        except SourceUnavailableError:
            self.close()
            raise

    @property
    def facts_version(self) -> str:
        lost = "" if self._reader is None else self._reader.facts_version
        return f"{self._starts} {self._is_over} {lost} {self._fault or ''}"

    def devices(self) -> Sequence[Device]:
        return self._starting if self._reader is None else self._reader.devices()

    def describe(self) -> Mapping[str, Any]:
        facts = {"replay": None} if self._reader is None else self._reader.describe()
        exporter = self._exporter
        return {
            **facts,
            "own_exporter": exporter.path,
            "own_exporter_version": exporter.version,
            "own_exporter_sha256": self._sha256,
            "own_exporter_starts": self._starts,
            "own_exporter_cpu_ms": exporter.cost.cpu_ns // 1_000_000,
            "own_exporter_memory_bytes": exporter.memory_bytes,
            "own_exporter_fault": None if self._fault is None else str(self._fault),
        }

    def read(self) -> Sweep:
        """Return what became known since the last read. Raises SourceUnavailableError while nothing can be read."""
        now_ns = self._clock.boottime_ns()
        if self._open_other is not None and not self._is_over and now_ns - self._looked_ns >= LOOK_NS:
            self._look_for_others(now_ns)
        if self._is_over:
            return self._read_other()
        is_due = self._retry_ns is not None and now_ns >= self._retry_ns
        if self._open_other is not None and (self._retry_ns is None or is_due):
            self._give_way(now_ns, is_due)
        if is_due:
            self._retry_ns = None
            self._start()
        if self._has_ended or self._retry_ns is not None:
            assert self._fault is not None
            raise self._fault
        ended = self._exporter.look()
        if ended is not None:
            ending, words = ending_of(list(self._exporter.lines))
            # An exporter that had the counters did not end because they were taken, whatever else its log says.
            self._fail(ending if self._is_first else Ending.FAULT, f"{ended}: {words}")
        sweep = self._read_page(now_ns)
        cost = self._exporter.cost
        return replace(sweep, child=ChildCost(self._starts, cost.cpu_ns, cost.memory_bytes))

    def poll(self, until_ns: int) -> int | None:
        return None if self._reader is None else self._reader.poll(until_ns)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._exporter.close()

    @property
    def _is_first(self) -> bool:
        """Whether it has given no page since it was started."""
        return self._starts == 0 or self._fault is not None

    def _start(self) -> None:
        self._exporter.start()
        self._answered_ns = self._clock.boottime_ns()

    def _read_page(self, now_ns: int) -> Sweep:
        if not self._exporter.is_serving and now_ns - self._answered_ns < SILENT_START_NS:
            return self._empty_sweep()  # a request would only wait, and delay the end of a run
        try:
            if self._reader is None:
                self._reader = self._open(f"http://{self._exporter.address}/metrics")
            sweep = self._reader.read()
        except SourceError as fault:
            if now_ns - self._answered_ns > (STARTUP_NS if self._is_first else SILENT_NS):
                self._fail(
                    Ending.FAULT, f"hangs: it has given no page for {(now_ns - self._answered_ns) // NS_PER_S} s"
                )
            return self._empty_sweep(fault)
        self._answered_ns = now_ns
        if self._is_first:
            self._take_first_page()
        return sweep

    def _empty_sweep(self, fault: SourceError | None = None) -> Sweep:
        """Return an empty sweep, at the first start without a page. Raises otherwise: NVML then has the devices."""
        if self._fault is not None:
            raise self._fault
        if fault is not None and self._reader is not None:
            raise fault
        return Sweep(())

    def _take_first_page(self) -> None:
        """Note the first page since a start. An exporter without profiling fields is of no use. Raises as `_fail`."""
        assert self._reader is not None
        if not self._reader.has_field(Field.TENSOR):
            self._exporter.look()  # what it has said until now
            ending, words = ending_of(list(self._exporter.lines))
            if ending is not Ending.FAULT:
                self._fail(ending, f"has no profiling fields: {words}")
        self._sha256 = self._exporter.program_sha256()
        self._starts, self._fault = self._starts + 1, None
        self._backoff_ns.clear()
        log.info(
            "started %s %s for the profiling counters of %d GPUs: process %d; while it runs the driver refuses them to "
            "other profilers%s; --dcgm-hostengine off leaves them free",
            self._exporter.path, self._exporter.version or "", len(self._reader.devices()), self._exporter.pid or 0,
            "" if self._open_other is None else ", and flopsd ends it while ncu or nsys runs",
        )  # fmt: skip

    def _fail(self, ending: Ending, words: str) -> None:
        """End an exporter that gives nothing, and plan its next start, if any. Raises SourceUnavailableError."""
        self._exporter.stop()
        if self._reader is not None:
            self._reader.interrupt()
        in_use = ending is Ending.IN_USE
        what = "another profiler has the profiling counters" if in_use else "the dcgm-exporter that flopsd started"
        self._fault = SourceUnavailableError(
            f"{what}: {words}" if in_use else f"{what} {words}",
            hint=self._hints[ending],
            reason=GapReason.COUNTERS_IN_USE.value if in_use else "",
        )
        if ending in _BACKOFF_NS:
            first_ns, longest_ns = _BACKOFF_NS[ending]
            pause_ns = self._backoff_ns.get(ending, first_ns)
            self._retry_ns = self._clock.boottime_ns() + pause_ns
            self._backoff_ns[ending] = min(2 * pause_ns, longest_ns)
        else:
            self._has_ended = True
        raise self._fault

    def _give_way(self, now_ns: int, is_due: bool) -> None:
        """End our exporter, or do not start it, while a profiler runs: that is refused the counters as long as ours has
        them. Raises SourceUnavailableError then."""
        if self._has_ended or not (is_due or now_ns - self._looked_for_profilers_ns >= LOOK_FOR_PROFILERS_NS):
            return
        self._looked_for_profilers_ns = now_ns
        if profilers := running(PROFILERS):
            pid, name = min(profilers.items())
            self._fail(Ending.IN_USE, f"{name} runs here (process {pid}), and flopsd leaves the counters to it")

    def _look_for_others(self, now_ns: int) -> None:
        """End our exporter if another server of the counters stays: it is refused them as long as ours has them. A
        server that is gone at the next look was an attempt, perhaps of another flopsd."""
        self._looked_ns = now_ns
        seen = {pid: name for pid, name in running(SERVERS).items() if pid != self._exporter.pid}
        stay = self._others & seen.keys()
        self._others = frozenset(seen)
        if not stay:
            return
        log.warning("%s runs here now: flopsd ends its own dcgm-exporter", ", ".join({seen[pid] for pid in stay}))
        self._is_over = True
        self._exporter.stop()
        if self._reader is not None:
            self._reader.close()
        self._reader, self._fault = None, None

    def _read_other(self) -> Sweep:
        if self._reader is None:
            assert self._open_other is not None
            self._reader = self._open_other()
        return self._reader.read()
