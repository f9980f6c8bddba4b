"""Scrapes one dcgm-exporter and makes readings of each GPU on its page. No DCGM engine is asked."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from flopsd.core.model import Device, DeviceUid, GapReason, Gauges, Reading, Sweep
from flopsd.core.peaks import PeakTable
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.dcgm.exposition import FIELD_OF_NAME, Field, GpuPage, parse_page
from flopsd.sources.dcgm.gpu import FollowedGpu
from flopsd.sources.dcgm.listener import require_user
from flopsd.sources.nvml.sm_clock import SmClocks, open_clocks
from flopsd.system.clock import NS_PER_S, Clock

_TIMEOUT_SECONDS, _PAGE_BYTES_MAX, _PART_BYTES = 2.0, 16 * 1024 * 1024, 64 * 1024
_FORGIVEN_NS = 5 * NS_PER_S  # a scrape that fails between two collections misses nothing
_SEE_WHETHER = (
    "check that it runs, and its log; it must answer with series DCGM_FI_... that have a UUID "
    "(if its CSV names a field that it does not know, it answers with no series)"
)


class DcgmSource:
    name = "dcgm"

    def __init__(
        self, clock: Clock, peaks: PeakTable, url: str, interval_seconds: float = 30.0,
        origins: Mapping[DeviceUid, str] | None = None, clocks: Callable[[int], SmClocks | None] = lambda _: None,
        users: Collection[int] | None = None,
    ) -> None:  # fmt: skip
        """`interval_seconds`: how often the exporter collects. `clocks` opens NVML's SM clocks, which keep samples for
        as many ns as its argument: they have one a second or more, the exporter only one a collection. `users`: whose
        server is trusted at this machine's port; None: any user's. Raises SourceUnavailableError."""
        self._clock, self._peaks, self._url = clock, peaks, url
        self._interval_ns = round(interval_seconds * NS_PER_S)
        self._origins: Mapping[DeviceUid, str] = origins if origins is not None else {}
        self._users, self._gpus = users, dict[DeviceUid, FollowedGpu]()
        self._body: bytes | None = None
        self._pages: Mapping[DeviceUid, GpuPage]
        # A proxy in the environment is for the outside world; the exporter is on this machine or next to it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            pages = self._scrape()
        except SourceError as fault:
            raise SourceUnavailableError(str(fault), hint=fault.hint) from fault
        self._clocks = clocks(4 * self._interval_ns)
        self._answered_ns = clock.boottime_ns()
        self._gpus = {uid: self._new(page, at, self._answered_ns) for at, (uid, page) in enumerate(pages.items())}
        self._is_interrupted = False

    @property
    def facts_version(self) -> str:
        return str(self._lost)

    @property
    def _lost(self) -> int:
        """How often a GPU's tensor activity went away: taken by another profiler, or paused."""
        return sum(gpu.lost for gpu in self._gpus.values())

    def devices(self) -> Sequence[Device]:
        return [gpu.device for uid, gpu in self._gpus.items() if uid in self._pages]

    def describe(self) -> Mapping[str, Any]:
        first = next(iter(self._pages.values()))
        found = {name for page in self._pages.values() for name in page.shown if name in FIELD_OF_NAME}
        address = urlsplit(self._url)
        return {
            "url": address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(),  # no password in a ledger
            "hostname": first.label("Hostname", "hostname"),
            "driver": first.label("DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION"),
            "interval_ms": self._interval_ns // 1_000_000,
            "fields": " ".join(sorted(found)),
            "profiling_lost": self._lost,
            "replay": None,
        }

    def read(self) -> Sweep:
        """Return what became known since the last read. Raises SourceError if the exporter has not answered for more
        than 5 s, or half its collection interval if that is less."""
        before_ns, patience_ns = self._clock.boottime_ns(), 2 * self._interval_ns + 2 * NS_PER_S
        try:
            pages = self._scrape()
        except SourceError:
            silent_ns = self._clock.boottime_ns() - self._answered_ns
            if not self._is_interrupted and silent_ns <= min(_FORGIVEN_NS, self._interval_ns // 2):
                return Sweep((), {}, patience_ns)
            self.interrupt()
            raise
        self._is_interrupted = False
        now_ns = (before_ns + self._clock.boottime_ns()) // 2
        self._answered_ns = now_ns
        readings: list[Reading] = []
        gauges: dict[DeviceUid, Gauges] = {}
        if self._clocks is not None:
            limits = {uid: gpu.limits for uid, gpu in self._gpus.items() if uid in pages}
            self._clocks.read({uid: one.sm_clock_max_mhz for uid, one in limits.items() if one is not None})
        for at, (uid, page) in enumerate(pages.items()):
            if uid not in self._gpus:
                self._gpus[uid] = self._new(page, at, now_ns)
            elif self._gpus[uid].is_of_other_driver(page):
                self._gpus[uid] = self._new(page, at, now_ns).in_place_of(self._gpus[uid])
            gpu = self._gpus[uid]
            readings += gpu.follow(page, now_ns, self._origins.get(uid))
            gauges[uid] = gpu.gauges()
        return Sweep(tuple(readings), gauges, patience_ns)

    def interrupt(self) -> None:
        """Note that the exporter is out of reach until the next page, whose collection is of unknown age."""
        self._is_interrupted, now_ns = True, self._clock.boottime_ns()
        for gpu in self._gpus.values():
            gpu.interrupt(now_ns)

    def has_field(self, wanted: Field) -> bool:
        return any(wanted in page.values for page in self._pages.values())

    def poll(self, until_ns: int) -> int | None:
        """Read the SM clocks that are due before the next read, at `until_ns`; return when the next clocks are due."""
        return None if self._clocks is None else self._clocks.poll(until_ns)

    def close(self) -> None:
        if self._clocks is not None:
            self._clocks.close()

    def _new(self, page: GpuPage, at: int, now_ns: int) -> FollowedGpu:
        return FollowedGpu(page, at, now_ns, self._interval_ns, self._peaks, self._clocks)

    def _scrape(self) -> Mapping[DeviceUid, GpuPage]:
        """Return the page as it is now. Raises SourceError."""
        try:
            self._require_user()
            body = self._fetch()
            self._require_user()  # in case somebody listened only for that moment
        except urllib.error.HTTPError as fault:
            fault.close()
            raise _down(f"{self._url} answers {fault.code} {fault.reason}") from fault
        except SourceError:
            raise
        except Exception as fault:  # http.client has errors that are neither OSError nor ValueError
            raise _down(f"no answer from {self._url}: {_root(fault)}") from fault
        if body is None:
            raise _down(f"{self._url} answers with more than {_PAGE_BYTES_MAX} bytes")
        if body != self._body:
            pages = parse_page(body.decode("utf-8", "replace"))
            if not pages:
                raise _down(f"{self._url} shows no GPU in the form of a dcgm-exporter")
            self._body, self._pages = body, pages
        return self._pages

    def _require_user(self) -> None:
        """Raises SourceError if another user listens. Unlike other failures, that is not forgiven for a while."""
        try:
            if self._users is not None:
                require_user(self._url, self._users)
        except SourceError:
            self.interrupt()
            raise

    def _fetch(self) -> bytes | None:
        """Return the page, or None if it is too long. Raises TimeoutError also if it comes bit by bit without end."""
        until_ns, body = self._clock.boottime_ns() + round(_TIMEOUT_SECONDS * NS_PER_S), bytearray()
        with self._opener.open(self._url, timeout=_TIMEOUT_SECONDS) as answer:
            while part := answer.read1(_PART_BYTES):
                body += part
                if len(body) > _PAGE_BYTES_MAX:
                    return None
                if self._clock.boottime_ns() > until_ns:
                    raise TimeoutError(f"the page is not complete after {_TIMEOUT_SECONDS:g} s")
        return bytes(body)


def _down(text: str) -> SourceError:
    """The driver may be well: it is the exporter that does not answer as it should."""
    return SourceError(text, hint=_SEE_WHETHER, reason=GapReason.SOURCE_DOWN.value)


def _root(fault: BaseException) -> BaseException:
    """Return the first cause in a chain of errors; urllib puts it into `reason`."""
    inner = fault.__cause__ or getattr(fault, "reason", None)
    return _root(inner) if isinstance(inner, BaseException) else fault


def open_exporter(
    settings: SourceSettings, url: str, interval_seconds: float, users: Collection[int] | None = None
) -> DcgmSource:
    """Open an exporter, together with NVML's SM clocks if NVML is here. Arguments and errors: as DcgmSource."""
    clock, peaks = settings.clock, settings.peaks
    return DcgmSource(clock, peaks, url, interval_seconds, settings.origins, partial(open_clocks, clock, peaks), users)
