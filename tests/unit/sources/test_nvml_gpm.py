"""GPM's answers, metric by metric: metrics that a chip or driver lacks, and impossible values."""

import ctypes
import math
from collections.abc import Mapping
from typing import Any

import pynvml
import pytest

from flopsd.core.model import GapReason, Pipe
from flopsd.sources.nvml.driver import UnusableError
from flopsd.sources.nvml.gpm import Gpm, Metrics, remainder
from tests.support.nvml_answers import NvmlFault

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
TENSOR, HMMA, IMMA, DFMA = Pipe.TENSOR, Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA
# By the ids of nvml.h: percentages, and counters.
ANY, DFMA_ID, HMMA_ID, DMMA_ID, IMMA_ID, FP64, FP32, FP16 = 5, 6, 7, 8, 9, 11, 12, 13
ELAPSED, ANY_C, DMMA_C, HMMA_C, IMMA_C, DFMA_C, FP64_C, FP32_C, FP16_C = 248, *range(250, 255), *range(258, 261)
PERCENT = {ANY: 60.0, DFMA_ID: 2.0, HMMA_ID: 30.0, DMMA_ID: 1.0, IMMA_ID: 20.0, FP64: 4.0, FP32: 50.0, FP16: 8.0}
CYCLES = {ELAPSED: 1000.0, ANY_C: 600.0, DMMA_C: 10.0, HMMA_C: 300.0, IMMA_C: 200.0, DFMA_C: 20.0, FP64_C: 40.0, FP32_C: 500.0, FP16_C: 80.0}  # fmt: skip
RATIOS = {TENSOR: 0.6, HMMA: 0.3, IMMA: 0.2, DFMA: 0.02, Pipe.FP64: 0.04, Pipe.FP32: 0.5, Pipe.FP16: 0.08}
COUNTERS = {TENSOR: 600, HMMA: 300, IMMA: 200, DFMA: 20, Pipe.FP64: 40, Pipe.FP32: 500, Pipe.FP16: 80}
ALL = Metrics(RATIOS, (), 1000, COUNTERS)


class Library:
    """Answers each metric with a value, or refuses it with a code; `refusals` refuse whole requests, in order."""

    NVMLError = NvmlFault
    c_nvmlGpmMetricsGet_t = pynvml.c_nvmlGpmMetricsGet_t  # noqa: N815

    def __init__(self, answers: Mapping[int, float | int], *refusals: int) -> None:
        self.answers, self.refusals = answers, list(refusals)
        self.unwritten: set[int] = set()  # metrics that are left as they were, in a call that succeeds
        self.asked: list[int] = []  # the number of metrics in each request
        self.samples: list[tuple[int | None, int | None]] = []
        self.freed: list[Any] = []
        self.nvmlGpmSampleFree = self.freed.append
        self._buffers = [ctypes.create_string_buffer(8) for _ in range(2)]
        self.allocated = [ctypes.cast(buffer, pynvml.c_nvmlGpmSample_t) for buffer in self._buffers]
        self._left = list(self.allocated)

    def nvmlGpmSampleAlloc(self) -> Any:  # noqa: N802
        return self._left.pop(0)

    def nvmlGpmMetricsGet(self, request: Any) -> None:  # noqa: N802
        assert request.version == 1
        self.asked.append(request.numMetrics)
        first, second = (ctypes.cast(sample, ctypes.c_void_p).value for sample in (request.sample1, request.sample2))
        self.samples.append((first, second))
        if self.refusals:
            raise NvmlFault(self.refusals.pop(0))
        for metric in request.metrics[: request.numMetrics]:
            if metric.metricId in self.unwritten:
                continue
            answer = self.answers.get(metric.metricId, NOT_SUPPORTED)
            metric.nvmlReturn = answer if isinstance(answer, int) else 0
            metric.value = answer if isinstance(answer, float) else 0.0


def sampled(lib: Library) -> Gpm:
    gpm = Gpm(lib, lambda _: None)
    gpm.sample()
    return gpm


def changed(metrics: Metrics = ALL, **fields: Any) -> Metrics:
    return metrics._replace(**fields)


def without(whole: Mapping[Pipe, Any], *pipes: Pipe) -> dict[Pipe, Any]:
    return {pipe: value for pipe, value in whole.items() if pipe not in pipes}


@pytest.mark.parametrize(
    ("answers", "metrics"),
    [
        ({}, ALL),
        ({DFMA_ID: 1.0, DMMA_ID: 3.0, DFMA_C: 10.9, DMMA_C: 30.9},
         changed(ratios={**RATIOS, DFMA: 0.03}, counters={**COUNTERS, DFMA: 30})),
        ({DFMA_ID: 3, DMMA_ID: 3, DFMA_C: 3, DMMA_C: 3},
         changed(ratios={**RATIOS, DFMA: 0.0}, counters={**COUNTERS, DFMA: 0})),
        ({HMMA_ID: 6, IMMA_ID: 13, HMMA_C: 3, IMMA_C: 25},
         changed(ratios={**RATIOS, HMMA: 0.0, IMMA: 0.0}, counters={**COUNTERS, HMMA: 0, IMMA: 0})),
        ({FP64: 2, FP16: 3, FP32_C: 3},
         changed(ratios=without(RATIOS, Pipe.FP64, Pipe.FP16), unread=(Pipe.FP64, Pipe.FP16),
                 counters=without(COUNTERS, Pipe.FP32))),
        ({ANY_C: 3}, changed(counters={})),
        ({ELAPSED: 3}, changed(elapsed=None, counters={})),
        ({FP32: 100.5}, changed(ratios={**RATIOS, Pipe.FP32: 1.0})),
        ({FP32: 100.5, FP16: 3}, changed(ratios={**without(RATIOS, Pipe.FP16), Pipe.FP32: 1.0}, unread=(Pipe.FP16,))),
        ({ANY: 47.0}, changed(ratios={**RATIOS, TENSOR: 0.47})),  # its parts may be five points more
        ({ANY: 46.9}, GapReason.CONTRADICTORY),
        ({ANY: 3}, GapReason.NOT_SUPPORTED),
        ({FP32: 100.6}, GapReason.OUT_OF_RANGE),
        ({FP64: -0.1}, GapReason.OUT_OF_RANGE), ({FP16_C: -1.0}, GapReason.OUT_OF_RANGE),
        ({FP16: math.nan}, GapReason.NOT_A_NUMBER), ({ELAPSED: math.inf}, GapReason.NOT_A_NUMBER),
        ({FP16: pynvml.NVML_ERROR_GPU_IS_LOST}, pynvml.NVML_ERROR_GPU_IS_LOST),
    ],
)  # fmt: skip
def test_metrics_follow_from_the_answer_for_each(
    answers: Mapping[int, float | int], metrics: Metrics | GapReason | int
) -> None:
    gpm = sampled(Library({**PERCENT, **CYCLES, **answers}))
    if isinstance(metrics, Metrics):
        found = gpm.metrics()
        assert found.ratios == pytest.approx(metrics.ratios, abs=1e-12)
        assert found._replace(ratios={}) == metrics._replace(ratios={})
        return
    with pytest.raises((UnusableError, NvmlFault)) as caught:
        gpm.metrics()
    assert getattr(caught.value, "reason", getattr(caught.value, "value", None)) == metrics


@pytest.mark.parametrize(
    ("unwritten", "found"),
    [
        ({*PERCENT, *CYCLES}, GapReason.NOT_SUPPORTED), ({ANY}, GapReason.NOT_SUPPORTED),
        ({HMMA_C}, GapReason.NOT_SUPPORTED), (set(CYCLES), changed(elapsed=None, counters={})),
        ({FP16}, changed(ratios=without(RATIOS, Pipe.FP16), unread=(Pipe.FP16,))),
    ],
)  # fmt: skip
def test_values_that_a_call_left_untouched_are_not_those_of_the_call_before(
    unwritten: set[int], found: Metrics | GapReason
) -> None:
    lib = Library({**PERCENT, **CYCLES})
    gpm = sampled(lib)
    assert gpm.metrics().elapsed == 1000
    lib.unwritten = unwritten
    if isinstance(found, Metrics):
        assert gpm.metrics()._replace(ratios={}) == found._replace(ratios={})
        return
    with pytest.raises(UnusableError) as caught:
        gpm.metrics()
    assert caught.value.reason is found


@pytest.mark.parametrize("missing", [DFMA_ID, HMMA_ID, DMMA_ID, IMMA_ID, DMMA_C, HMMA_C, IMMA_C, DFMA_C])
def test_tensor_work_that_is_split_only_at_times_is_never_taken_for_another_kind(missing: int) -> None:
    lib = Library({**PERCENT, **CYCLES, missing: NOT_SUPPORTED})
    gpm = sampled(lib)
    assert gpm.metrics().elapsed == 1000, "a chip that never splits it off"
    lib.answers = {**PERCENT, **CYCLES}
    assert gpm.metrics().elapsed == 1000
    lib.answers = {**PERCENT, **CYCLES, missing: NOT_SUPPORTED}
    with pytest.raises(UnusableError, match="NOT_SUPPORTED"):
        gpm.metrics()
    lib.answers = {**PERCENT, missing: NOT_SUPPORTED}  # counters that are all missing lack no kind
    if missing in CYCLES:
        assert gpm.metrics().elapsed is None


def test_ratios_are_made_disjoint() -> None:
    found = remainder(RATIOS)
    assert found.pop(TENSOR) == pytest.approx(0.08)
    assert found == without(RATIOS, TENSOR)
    assert remainder({**RATIOS, TENSOR: 0.5})[TENSOR] == 0.0


@pytest.mark.parametrize(
    ("answers", "refusals", "asked"),
    [
        ({}, (), [17, 17]),
        ({ELAPSED: 3}, (), [17, 8]),  # the counters will not appear while this driver runs
        ({ELAPSED: 3}, (2,), [17, 8, 8]), ({ELAPSED: 3}, (25,), [17, 8, 8]),
        ({}, (2, 2), [17, 8]), ({}, (3,), [17]),
    ],
)  # fmt: skip
def test_a_driver_without_the_counters_is_asked_only_for_percentages(
    answers: Mapping[int, float | int], refusals: tuple[int, ...], asked: list[int]
) -> None:
    lib = Library({**PERCENT, **CYCLES, **answers}, *refusals)
    gpm = sampled(lib)
    try:
        found = [gpm.metrics(), gpm.metrics()]
    except NvmlFault as fault:
        assert fault.value == refusals[-1]
    else:
        assert found[0] == found[1]
    assert lib.asked == asked


def test_samples_alternate_between_buffers_that_are_freed_once() -> None:
    lib, taken = Library({**PERCENT, **CYCLES}), list[Any]()
    gpm = Gpm(lib, taken.append)
    gpm.release()
    assert lib.freed == []
    first, second = lib.allocated
    for _ in range(2):
        gpm.sample()
        gpm.metrics()
        gpm.keep()
    assert [sample is second for sample in taken] == [True, False]
    addresses = [ctypes.cast(buffer, ctypes.c_void_p).value for buffer in (first, second)]
    assert lib.samples == [tuple(addresses), tuple(addresses[::-1])]
    for _ in range(2):
        gpm.release()
    assert lib.freed == [first, second]
