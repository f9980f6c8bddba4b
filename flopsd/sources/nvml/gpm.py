"""GPM, the counters of Hopper and newer: percentages between two samples, and cycles that run on since boot.

One call gives all metrics of the two samples. Percentages are cycle-weighted averages over exactly that
interval (NVIDIA/open-gpu-kernel-modules#1122). Sources: nvml.h 13.5.37; open-gpu-kernel-modules 595.45.04.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.core.meter import SUB_PIPES_TOLERANCE_PPM
from flopsd.core.model import PPM, GapReason, Pipe
from flopsd.sources.nvml.driver import NOT_OFFERED, PERCENT_MAX, UnusableError

# Ids are stable from nvidia-ml-py 11.525 to 13.615; names of newer ones are missing in older bindings.
_ANY_TENSOR, _DFMA, _HMMA, _DMMA, _IMMA, _FP64, _FP32, _FP16 = 5, 6, 7, 8, 9, 11, 12, 13
_ELAPSED, _MMA_C, _DMMA_C, _HMMA_C, _IMMA_C, _DFMA_C, _FP64_C, _FP32_C, _FP16_C = (
    248, 250, 251, 252, 253, 254, 258, 259, 260,
)  # fmt: skip
_PERCENTAGES = (_ANY_TENSOR, _DFMA, _HMMA, _DMMA, _IMMA, _FP64, _FP32, _FP16)
_COUNTERS = (_ELAPSED, _MMA_C, _DMMA_C, _HMMA_C, _IMMA_C, _DFMA_C, _FP64_C, _FP32_C, _FP16_C)
_VECTOR_PIPES = ((_FP64, _FP64_C, Pipe.FP64), (_FP32, _FP32_C, Pipe.FP32), (_FP16, _FP16_C, Pipe.FP16))
_UNKNOWN_ID = (2, 25)  # invalid argument, argument version mismatch
_NOT_HAD = frozenset((*NOT_OFFERED, *_UNKNOWN_ID))
# nvmlGpmMetric_t: id, return code, value, three pointers; the array follows version, count and two samples. Read
# as raw memory, since ctypes takes a microsecond for a field.
_METRIC, _METRICS_AT = "Iid24x", 24
_PERCENT_SLACK = 0.5  # rounding of the driver's double
MIN_INTERVAL_NS = 100_000_000  # "should be greater than 100ms", nvml.h; a hard minimum on Hopper, DCGM#310


@dataclass(frozen=True, slots=True)
class Metrics:
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
        self._buffers: tuple[Any, Any] | None = None
        self._request: Any = None
        self._ask(_PERCENTAGES + _COUNTERS)

    def _ask(self, metrics: tuple[int, ...]) -> None:
        request = self._lib.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = 1, len(metrics)
        for at, metric in enumerate(metrics):
            request.metrics[at].metricId = metric
        self._request, self._metrics = request, metrics
        self._answers = struct.Struct("=" + _METRIC * len(metrics))

    def sample(self) -> None:
        """Take the newest sample; `metrics` is about it and the one that was kept before. Raises NVMLError."""
        if self._buffers is None:
            self._buffers = (self._lib.nvmlGpmSampleAlloc(), self._lib.nvmlGpmSampleAlloc())
        self._sample_into(self._buffers[1])

    def keep(self) -> None:
        """Let the newest sample be the one that the next is compared with."""
        assert self._buffers is not None
        self._buffers = (self._buffers[1], self._buffers[0])

    def release(self) -> None:
        """Give the buffers back. Raises NVMLError."""
        buffers, self._buffers = self._buffers or (), None
        for sample in buffers:
            self._lib.nvmlGpmSampleFree(sample)

    def metrics(self) -> Metrics:
        """The metrics between the kept and the newest sample. Raises NVMLError, UnusableError."""
        assert self._buffers is not None
        request = self._request
        request.sample1, request.sample2 = self._buffers
        try:
            self._lib.nvmlGpmMetricsGet(request)
        except self._lib.NVMLError as fault:
            if fault.value not in _UNKNOWN_ID or self._metrics == _PERCENTAGES:
                raise
            self._ask(_PERCENTAGES)  # an old driver refuses ids that it does not know
            return self.metrics()
        answers = self._answers.unpack_from(request, _METRICS_AT)
        ids, codes, found = answers[::3], answers[1::3], answers[2::3]
        values: Mapping[int, float | None]
        if not any(codes) and math.isfinite(sum(found)) and min(found) >= 0:  # as nearly always
            values = dict(zip(ids, found, strict=True))
        else:
            values = {metric: self._value(code, one) for metric, code, one in zip(ids, codes, found, strict=True)}
        ratios, unread = self._ratios(values)
        elapsed = values.get(_ELAPSED)
        if elapsed is None and len(self._metrics) > len(_PERCENTAGES):
            self._ask(_PERCENTAGES)  # they will not come while this driver runs
        return Metrics(ratios, unread, None if elapsed is None else int(elapsed), _counters(values))

    def _value(self, code: int, value: float) -> float | None:
        """One value; None where this chip or driver does not have it."""
        if code:
            if code in _NOT_HAD:
                return None
            raise self._lib.NVMLError(code)
        if not math.isfinite(value):
            raise UnusableError(GapReason.NOT_A_NUMBER)
        if value < 0:
            raise UnusableError(GapReason.OUT_OF_RANGE)
        return value

    def _ratios(self, values: Mapping[int, float | None]) -> tuple[dict[Pipe, float], tuple[Pipe, ...]]:
        percent: dict[int, float] = {}
        for metric in _PERCENTAGES:
            value = values[metric]
            if value is None:
                continue
            if value > PERCENT_MAX + _PERCENT_SLACK:
                raise UnusableError(GapReason.OUT_OF_RANGE)
            percent[metric] = min(value, PERCENT_MAX) / 100
        if _ANY_TENSOR not in percent:
            raise UnusableError(GapReason.NOT_SUPPORTED)
        ratios = {
            Pipe.TENSOR: percent[_ANY_TENSOR],
            # A sub-pipe that this chip does not split off stays in "any tensor".
            Pipe.TENSOR_HMMA: percent.get(_HMMA, 0.0),
            Pipe.TENSOR_IMMA: percent.get(_IMMA, 0.0),
            # How the two ids relate is documented nowhere: never both.
            Pipe.TENSOR_DFMA: max(percent.get(_DFMA, 0.0), percent.get(_DMMA, 0.0)),
        }
        if _sub_pipes(ratios) > ratios[Pipe.TENSOR] + SUB_PIPES_TOLERANCE_PPM / PPM:
            raise UnusableError(GapReason.CONTRADICTORY)
        ratios.update({pipe: percent[metric] for metric, _, pipe in _VECTOR_PIPES if metric in percent})
        return ratios, tuple(pipe for metric, _, pipe in _VECTOR_PIPES if metric not in percent)


def remainder(ratios: Mapping[Pipe, float]) -> dict[Pipe, float]:
    """The same ratios, disjoint: TENSOR is what no sub-pipe accounts for."""
    return {**ratios, Pipe.TENSOR: max(0.0, ratios[Pipe.TENSOR] - _sub_pipes(ratios))}


def _sub_pipes(ratios: Mapping[Pipe, float]) -> float:
    return ratios[Pipe.TENSOR_HMMA] + ratios[Pipe.TENSOR_IMMA] + ratios[Pipe.TENSOR_DFMA]


def _counters(values: Mapping[int, float | None]) -> dict[Pipe, int]:
    read = {metric: int(value) for metric, value in values.items() if value is not None and metric >= _ELAPSED}
    if _MMA_C not in read:
        return {}
    counters = {
        Pipe.TENSOR: read[_MMA_C],
        Pipe.TENSOR_HMMA: read.get(_HMMA_C, 0),
        Pipe.TENSOR_IMMA: read.get(_IMMA_C, 0),
        Pipe.TENSOR_DFMA: max(read.get(_DFMA_C, 0), read.get(_DMMA_C, 0)),
    }
    counters.update({pipe: read[counter] for _, counter, pipe in _VECTOR_PIPES if counter in read})
    return counters
