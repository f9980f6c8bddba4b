"""GPM, the counters of Hopper and newer: percentages between two samples, and running cycle counters since boot.

One call gives all metrics between two samples. Percentages are cycle-weighted averages over exactly that
interval (NVIDIA/open-gpu-kernel-modules#1122). Sources: nvml.h 13.5.37; open-gpu-kernel-modules 595.45.04.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flopsd.core.model import PPM, GapReason, Pipe
from flopsd.core.running_counters import SUB_PIPES_TOLERANCE_PPM
from flopsd.sources.nvml.driver import NOT_OFFERED, PERCENT_MAX, UnusableError

# Ids are stable from nvidia-ml-py 11.525 to 13.615; names of newer ones are missing in older bindings.
_ANY_TENSOR, _DFMA, _HMMA, _DMMA, _IMMA, _FP64, _FP32, _FP16 = 5, 6, 7, 8, 9, 11, 12, 13
_ELAPSED, _MMA_C, _DMMA_C, _HMMA_C, _IMMA_C, _DFMA_C, _FP64_C, _FP32_C, _FP16_C = (
    248, 250, 251, 252, 253, 254, 258, 259, 260,
)  # fmt: skip
_PERCENTAGES = (_ANY_TENSOR, _DFMA, _HMMA, _DMMA, _IMMA, _FP64, _FP32, _FP16)
_COUNTERS = (_ELAPSED, _MMA_C, _DMMA_C, _HMMA_C, _IMMA_C, _DFMA_C, _FP64_C, _FP32_C, _FP16_C)
_SPLIT = frozenset((_DFMA, _HMMA, _DMMA, _IMMA, _DMMA_C, _HMMA_C, _IMMA_C, _DFMA_C))
# Looking up a member of an enumeration takes several times as long as looking up a name of this module.
_TENSOR, _HMMA_PIPE, _IMMA_PIPE, _DFMA_PIPE = Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA
_VECTOR = (Pipe.FP64, Pipe.FP32, Pipe.FP16)
_UNKNOWN_ID = (2, 25)  # invalid argument, argument version mismatch
_NOT_HAD = frozenset((*NOT_OFFERED, *_UNKNOWN_ID))
# nvmlGpmMetric_t: id, return code, value, three pointers; the array follows version, count and two samples. Read
# as raw memory, since ctypes takes a microsecond for a field.
_METRIC, _METRICS_AT = "4xid24x", 24
_SAMPLES, _SAMPLES_AT = struct.Struct("PP"), 8
_PERCENT_SLACK = 0.5  # rounding of the driver's double
# What stands in place of each value before a call. A driver that reports success and writes nothing leaves it there;
# the values of the call before would look like new ones.
_UNWRITTEN = -1e300
MIN_INTERVAL_NS = 100_000_000  # "should be greater than 100ms", nvml.h; a hard minimum on Hopper, DCGM#310


class Metrics(NamedTuple):
    """The difference of two samples. TENSOR is any tensor activity; a pipe without a value is in `unread`."""

    ratios: Mapping[Pipe, float]
    unread: tuple[Pipe, ...]
    elapsed: int | None  # None: this driver has no running counters (they came with R595)
    counters: Mapping[Pipe, int]


class Gpm:
    """The GPM samples of one device, or of one GPU instance in MIG mode."""

    def __init__(self, lib: Any, sample_into: Callable[[Any], Any]) -> None:
        """`sample_into` fills a sample buffer with the counters as they stand."""
        self._lib, self._sample_into = lib, sample_into
        self._buffers: list[tuple[Any, Any]] = []  # with addresses: the kept sample's, then the newest one's
        self.split_off: frozenset[int] = frozenset()  # the kinds of tensor activity that were ever given apart
        self._ask(_PERCENTAGES + _COUNTERS)

    def _ask(self, metrics: tuple[int, ...]) -> None:
        request = self._lib.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = 1, len(metrics)
        for at, metric in enumerate(metrics):
            request.metrics[at].metricId = metric
        self._request, self._metrics = request, metrics
        self._answers, self._splits = struct.Struct("=" + _METRIC * len(metrics)), _SPLIT.intersection(metrics)
        for at in range(len(metrics)):
            request.metrics[at].value = _UNWRITTEN
        self._blank = ctypes.string_at(ctypes.addressof(request), _METRICS_AT + self._answers.size)

    def sample(self) -> None:
        """Take the newest sample; `metrics` compares it with the sample that was kept before. Raises NVMLError."""
        if not self._buffers:
            buffers = (self._lib.nvmlGpmSampleAlloc(), self._lib.nvmlGpmSampleAlloc())
            self._buffers = [(buffer, ctypes.cast(buffer, ctypes.c_void_p).value) for buffer in buffers]
        self._sample_into(self._buffers[1][0])

    def keep(self) -> None:
        """Keep the newest sample, to compare the next one with it."""
        self._buffers.reverse()

    def release(self) -> None:
        """Free the buffers. Raises NVMLError."""
        buffers, self._buffers = self._buffers, []
        for buffer, _ in buffers:
            self._lib.nvmlGpmSampleFree(buffer)

    def metrics(self) -> Metrics:
        """Return the metrics between the kept and the newest sample. Raises NVMLError, UnusableError."""
        (_, kept), (_, newest) = self._buffers
        request = self._request
        struct.pack_into(f"{len(self._blank)}s", request, 0, self._blank)
        _SAMPLES.pack_into(request, _SAMPLES_AT, kept, newest)
        try:
            self._lib.nvmlGpmMetricsGet(request)
        except self._lib.NVMLError as fault:
            if fault.value not in _UNKNOWN_ID or self._metrics == _PERCENTAGES:
                raise
            self._ask(_PERCENTAGES)  # an old driver refuses ids that it does not know
            return self.metrics()
        answers = self._answers.unpack_from(request, _METRICS_AT)
        codes, values = answers[::2], answers[1::2]
        read: Sequence[float | None] = values
        if any(codes) or not math.isfinite(sum(values)) or min(values) < 0:  # hardly ever
            read = [self._value(code, value) for code, value in zip(codes, values, strict=True)]
        if read is not values:
            self._require_split(read)
        elif not self.split_off >= self._splits:
            self.split_off |= self._splits
        ratios, unread = _ratios(read[: len(_PERCENTAGES)])
        counted = read[len(_PERCENTAGES) :]
        if counted and counted[0] is None:
            self._ask(_PERCENTAGES)  # this driver has no counters
        if not counted or counted[0] is None:
            return Metrics(ratios, unread, None, {})
        return Metrics(ratios, unread, int(counted[0]), _counters(counted[1:]))

    def _require_split(self, read: Sequence[float | None]) -> None:
        """Raises UnusableError if a kind of tensor activity is missing that was given apart before: its work would
        count as of the declared format, which describes only the rest. Counters that are all missing are no matter."""
        asked = self._metrics if len(read) > len(_PERCENTAGES) and read[len(_PERCENTAGES)] is not None else _PERCENTAGES
        given = frozenset(metric for metric, value in zip(asked, read, strict=False) if value is not None)
        self.split_off |= given & _SPLIT
        if self.split_off & frozenset(asked) - given:
            raise UnusableError(GapReason.NOT_SUPPORTED)

    def _value(self, code: int, value: float) -> float | None:
        """Return one value; None if this chip or driver does not have it. Raises NVMLError, UnusableError."""
        if code or value == _UNWRITTEN:
            if not code or code in _NOT_HAD:
                return None
            raise self._lib.NVMLError(code)
        if not math.isfinite(value):
            raise UnusableError(GapReason.NOT_A_NUMBER)
        if value < 0:
            raise UnusableError(GapReason.OUT_OF_RANGE)
        return value


def _ratios(percentages: Sequence[float | None]) -> tuple[dict[Pipe, float], tuple[Pipe, ...]]:
    """Return values in the order of _PERCENTAGES as ratios, and the pipes without a value. Raises UnusableError."""
    highest = max(filter(None, percentages), default=PERCENT_MAX)
    if highest > PERCENT_MAX + _PERCENT_SLACK:
        raise UnusableError(GapReason.OUT_OF_RANGE)
    if highest > PERCENT_MAX:
        percentages = [percent and min(percent, PERCENT_MAX) for percent in percentages]
    any_tensor, dfma, hmma, dmma, imma, *vector = percentages
    if any_tensor is None:
        raise UnusableError(GapReason.NOT_SUPPORTED)
    # A sub-pipe that this chip does not split off stays in "any tensor". It is documented nowhere how DFMA's two ids
    # relate, so they are never added.
    hmma, imma, dfma = (hmma or 0.0) / 100, (imma or 0.0) / 100, max(dfma or 0.0, dmma or 0.0) / 100
    any_tensor /= 100
    if hmma + imma + dfma > any_tensor + SUB_PIPES_TOLERANCE_PPM / PPM:
        raise UnusableError(GapReason.CONTRADICTORY)
    ratios = {_TENSOR: any_tensor, _HMMA_PIPE: hmma, _IMMA_PIPE: imma, _DFMA_PIPE: dfma}
    unread: tuple[Pipe, ...] = ()
    for pipe, percent in zip(_VECTOR, vector, strict=True):
        if percent is None:
            unread += (pipe,)
        else:
            ratios[pipe] = percent / 100
    return ratios, unread


def remainder(ratios: Mapping[Pipe, float]) -> dict[Pipe, float]:
    """Return the same ratios, made disjoint: TENSOR becomes what no sub-pipe accounts for."""
    parts = ratios[_HMMA_PIPE] + ratios[_IMMA_PIPE] + ratios[_DFMA_PIPE]
    return {**ratios, _TENSOR: max(0.0, ratios[_TENSOR] - parts)}


def _counters(values: Sequence[float | None]) -> dict[Pipe, int]:
    """Return the counters by pipe from values in the order of _COUNTERS, without the elapsed cycles."""
    any_tensor, dmma, hmma, imma, dfma, *vector = values
    if any_tensor is None:
        return {}
    counters = {_TENSOR: int(any_tensor), _HMMA_PIPE: int(hmma or 0), _IMMA_PIPE: int(imma or 0)}
    counters[_DFMA_PIPE] = int(max(dfma or 0, dmma or 0))
    for pipe, value in zip(_VECTOR, vector, strict=True):
        if value is not None:
            counters[pipe] = int(value)
    return counters
