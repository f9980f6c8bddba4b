"""The NVML source, and its clocks next to another source: real pynvml on the stand-in, and a clock stepped by hand."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from flopsd.core.model import Active, Busy, Evidence, Gap, GapReason, Pipe, Reading
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.errors import SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.nvml.confidential import DEVELOPER_TOOLS, OFF, ON
from flopsd.sources.nvml.profiling_access import profiling_access
from flopsd.sources.nvml.sm_clock import SmClocks, open_clocks
from flopsd.sources.nvml.source import NvmlSource
from flopsd.sources.nvml.without_gpm import gpus_without_gpm
from flopsd.system.clock import NS_PER_S
from tests.contract.conftest import Open
from tests.second_implementation.arithmetic import payload_of
from tests.support.runs import Run
from tests.support.scenario import LIBRARY, Fault, Scenario, Segment, a100, h100
from tests.support.sim import Fold, SharedClock, simulated
from tests.support.strategies import table

BURSTS = (
    Segment(950, hmma=0.62, fp32=0.11, fp64=0.01, util=97, watts=610),
    Segment(50, hmma=0.91, imma=0.05, util=100),
)


def read(source: NvmlSource, clock: SharedClock, ms: int) -> list[Reading]:
    clock.advance(ms * 1_000_000)
    return list(source.read().readings)


def test_identity_is_read_from_the_device(open_sim: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "__version__", 13.5, raising=False)
    source, _ = open_sim(h100(BURSTS), a100(BURSTS))
    hopper, ampere = source.devices()
    assert hopper.uid == "GPU-5a4d0000-0000-4000-8000-000000000000"
    assert (hopper.model, hopper.serial, hopper.pci_device_id) == ("NVIDIA H100 80GB HBM3", "1650000000", 0x2330)
    assert (hopper.sm_count, hopper.sm_clock_max_mhz, hopper.driver) == (132, 1980, "595.91.07")
    assert (hopper.evidence, hopper.evidence_reason) == (Evidence.ACTIVITY, "not read yet")
    assert (ampere.sm_count, ampere.evidence) == (108, Evidence.UTILIZATION)
    assert "no GPM on this GPU" in ampere.evidence_reason
    stated = dict(source.describe())
    library = Path(stated.pop("library"))
    assert library.name == LIBRARY
    assert stated.pop("counters_served_by") in (None, "dcgm-exporter")  # of another test running at the same time
    assert stated.pop("library_sha256") == hashlib.sha256(library.read_bytes()).hexdigest()
    assert stated == {
        "driver": "595.91.07", "nvml": "13.595.91.07", "binding": "13.5", "replay": None, "confidential_computing": None,
        "profiling_counters": profiling_access(False).value, "mig_monitor": "absent", "mig_config": "absent",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["off", "on", "devtools"])
def test_a_device_has_counters_or_confidential_computing_and_the_ledger_states_which(
    open_sim: Open, tmp_path: Path, mode: str
) -> None:
    source, clock = open_sim(h100(BURSTS), confidential=mode)
    run = Run(tmp_path / "state", devices=(), clock=clock)
    for at in range(8):
        clock.advance(NS_PER_S)
        sweep, facts = source.read(), None if at else source.describe()
        run.writer.take(Message("nvml", clock.boottime_ns(), tuple(source.devices()), sweep, opened=facts))
    run.finish()
    predicate = payload_of(run.seal(tmp_path / "ledger.json").ledger)["predicate"]
    (device,) = predicate["devices"]
    stated = predicate["incarnations"][0]["sources"]["nvml"]["confidential_computing"]
    assert (stated, device["evidence"]) == {
        "off": (OFF, "activity"), "on": (ON, "utilization"), "devtools": (DEVELOPER_TOOLS, "activity"),
    }[mode]  # fmt: skip
    assert (ON in device["evidenceReason"]) is (mode == "on")
    assert (device["executed"]["measured"] is None) is (mode == "on")


def test_activity_is_exact_at_a_constant_clock(open_sim: Open, caplog: pytest.LogCaptureFixture) -> None:
    gpu = h100(BURSTS)
    source, clock = open_sim(gpu)
    first = read(source, clock, 10)[0]
    assert first.work == Gap(GapReason.STARTING)
    counted = dict.fromkeys(Pipe, 0)
    for ms in (1000, 137, 1003, 20_000, 481):
        (reading,) = read(source, clock, ms)
        assert isinstance(reading.work, Active)
        for pipe, cycles in reading.work.sm_cycles.items():
            counted[pipe] += cycles
    for pipe in (Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA, Pipe.FP64, Pipe.FP32, Pipe.FP16):
        true = gpu.sm_cycles(pipe, 10_000_000, 10_000_000 + 22_621_000_000, 132)
        assert abs(counted[pipe] - true) <= 5 + true / 10**9  # five roundings, and the driver's double
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_tensor_work_without_a_sub_pipe_is_kept_separate(open_sim: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    source, clock = open_sim(h100((Segment(1000, hmma=0.4, imma=0.2),)))
    original = pynvml.nvmlGpmMetricsGet

    def without_imma(request: pynvml.c_nvmlGpmMetricsGet_t) -> pynvml.c_nvmlGpmMetricsGet_t:
        original(request)
        for at in range(request.numMetrics):
            if request.metrics[at].metricId == 9:
                request.metrics[at].nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
        return request

    monkeypatch.setattr(pynvml, "nvmlGpmMetricsGet", without_imma)
    read(source, clock, 10)
    (reading,) = read(source, clock, 1000)
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR_IMMA] == 0
    assert reading.work.sm_cycles[Pipe.TENSOR] == pytest.approx(0.2 * 1755e6 * 132, rel=1e-6)


def test_utilization_is_a_ceiling_over_the_whole_interval(open_sim: Open) -> None:
    gpu = a100((Segment(50, util=100, hmma=1.0, mhz=1410), Segment(950, util=0, mhz=1410)))
    source, clock = open_sim(gpu)
    start_ns = clock.boottime_ns()
    read(source, clock, 400)
    bound, begin_ns, end_ns = 0, None, 0
    for _ in range(20):
        for reading in read(source, clock, 1000):
            assert isinstance(reading.work, Busy)
            bound += reading.work.sm_cycles
            begin_ns = reading.begin_ns if begin_ns is None else begin_ns
            end_ns = reading.end_ns
    assert begin_ns is not None
    true = gpu.sm_cycles(Pipe.TENSOR_HMMA, begin_ns - start_ns, end_ns - start_ns, 108)
    assert true <= bound <= true + (end_ns - begin_ns) * 0.02 * 1.41 * 108 + 0.2 * 1.41e9 * 108
    assert clock.boottime_ns() - end_ns < 200_000_000


@pytest.mark.parametrize(
    ("kind", "reason", "baseline_fails"),
    [
        ("gpu_lost", GapReason.DEVICE_LOST, True),
        ("timeout", GapReason.DRIVER_TIMEOUT, True),
        ("unknown", GapReason.DRIVER_ERROR, True),
        ("no_permission", GapReason.NO_PERMISSION, True),
        ("nan", GapReason.NOT_A_NUMBER, False),
        ("range", GapReason.OUT_OF_RANGE, False),
    ],
)
def test_a_fault_is_a_gap_with_its_reason_and_does_not_affect_other_devices(
    open_sim: Open, kind: str, reason: GapReason, baseline_fails: bool
) -> None:
    source, clock = open_sim(h100(BURSTS, (Fault(2500, 4500, kind),)), h100(BURSTS))
    reasons: list[GapReason | None] = []
    for _ in range(8):
        hit, other = read(source, clock, 1000)
        reasons.append(hit.work.reason if isinstance(hit.work, Gap) else None)
        if clock.boottime_ns() > 1001 * NS_PER_S:
            assert isinstance(other.work, Active)
    # From the first failure to the first sample that can be a baseline again, then measured.
    assert reasons == [
        GapReason.STARTING,
        None,
        *[reason] * (3 if baseline_fails else 2),
        *[None] * (3 + (not baseline_fails)),
    ]


def test_when_every_gpu_fails_nvml_is_restarted(open_sim: Open) -> None:
    source, clock = open_sim(*[h100(BURSTS, (Fault(1500, 3500, "unknown"),))] * 2)
    got = [[type(reading.work) for reading in read(source, clock, 1000)] for _ in range(6)]
    assert got == [[Gap, Gap]] * 4 + [[Active, Active]] * 2


def test_a_late_driver_is_unavailable_first(open_sim: Open) -> None:
    with pytest.raises(SourceUnavailableError, match="Driver Not Loaded") as caught:
        open_sim(h100(BURSTS), driver_from_ms=5000)
    assert "load the driver" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "words", "hint"),
    [
        (None, "shows no GPU", "NVIDIA_VISIBLE_DEVICES"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "does not list its devices", "/dev/nvidia"),
    ],
)
def test_without_a_gpu_nvml_is_unavailable_with_a_hint_and_released(
    open_sim: Open, monkeypatch: pytest.MonkeyPatch, error: int | None, words: str, hint: str
) -> None:
    def refuse() -> int:
        raise pynvml.NVMLError(error)

    if error is not None:
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", refuse)
    with pytest.raises(SourceUnavailableError, match=words) as caught:
        open_sim()
    monkeypatch.undo()
    assert hint in caught.value.hint
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlDeviceGetCount()


def test_a_gpu_named_late_is_metered_once_under_its_name(open_sim: Open, tmp_path: Path) -> None:
    """The driver fails until GPUs are looked for again: that time has the ceiling of the GPU that was then
    identified."""
    source, clock = open_sim(h100(BURSTS, (Fault(0, 9500, "timeout"),)))
    run = Run(tmp_path / "state", devices=(), clock=clock)

    def meter(seconds: int) -> None:
        for _ in range(seconds):
            clock.advance(NS_PER_S)
            sweep = source.read()
            run.writer.take(Message("sim", clock.boottime_ns(), tuple(source.devices()), sweep))

    meter(9)
    assert source.devices()[0].model == "unidentified"
    assert run.writer.snapshot.view.figures.high_flop is None  # its capability is still unknown
    meter(1)
    assert len(source.devices()) == 1, "it is not a new one"
    meter(290)
    nameless, named = run.writer.snapshot.devices
    assert (nameless.device.uid, nameless.device.model) == ("nvml-index-0", named.device.model)
    assert nameless.tally.gap_ns == {GapReason.DRIVER_TIMEOUT: 9 * NS_PER_S, GapReason.REPLACED: 289 * NS_PER_S}
    assert nameless.tally.job_ns + named.tally.job_ns == 300 * NS_PER_S
    figures, coverage = run.writer.snapshot.view.figures, run.writer.snapshot.view.coverage_ppm or 0
    assert figures.high_flop is not None
    assert coverage > 965_000
    run.restart()
    source.close()
    source, _ = open_sim(again=clock)
    meter(5)
    assert [state.device.uid for state in run.writer.snapshot.devices] == [
        named.device.uid
    ]  # the temporary name is gone
    assert (run.writer.snapshot.view.coverage_ppm or 0) > coverage - 5000
    run.finish()
    run.seal(tmp_path / "out" / "ledger.json")


@pytest.mark.parametrize("how", ["refused", "not asked"])
def test_gpm_that_a_gpu_lacks_at_first_is_tried_again(
    open_sim: Open, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One call that times out at the start, or a driver that is not ready, is no reason to stay with a ceiling."""
    ask, asked = pynvml.nvmlGpmQueryDeviceSupport, list[object]()

    def timed_out_once(handle: object) -> Any:
        asked.append(handle)
        if how == "not asked" and len(asked) == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        return ask(handle)

    monkeypatch.setattr(pynvml, "nvmlGpmQueryDeviceSupport", timed_out_once)
    faults = (Fault(0, 5000, "unsampled"),) if how == "refused" else ()
    source, clock = open_sim(h100(BURSTS, faults), a100(BURSTS))
    fold = Fold(source, clock).read(10).read(1000, 8)
    assert [device.evidence for device in source.devices()] == [Evidence.UTILIZATION] * 2
    calls = len(asked)
    fold.read(1000, 52)
    assert [device.evidence for device in source.devices()] == [Evidence.ACTIVITY, Evidence.UTILIZATION]
    assert len(asked) == calls + 2, "of one GPU, once for the sample and once for the meter; an A100 has none"
    tally = fold.tallies[source.devices()[0].uid]
    assert tally.observed_ns[Evidence.ACTIVITY] >= 49 * NS_PER_S
    assert tally.total_gap_ns < 6 * NS_PER_S


def test_a_gpu_without_a_readable_clock_is_bounded_by_its_utilisation(
    open_sim: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a guest with part of a GPU: counters without a clock measure nothing, and are not tried again and again."""

    def not_supported(_handle: object, _kind: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", not_supported)
    half = (Segment(1000, mhz=1400, hmma=0.5, util=50),)
    source, clock = open_sim(h100(half), a100(half))
    fold = Fold(source, clock).read(10).read(1000, 60)
    for device in source.devices():
        tally = fold.tallies[device.uid]
        assert device.evidence is Evidence.UTILIZATION
        assert tally.observed_ns[Evidence.UTILIZATION] >= 55 * NS_PER_S
        most = 60e9 * 1.98 * (device.sm_count or 0)
        assert 0.45 * most * (device.sm_clock_max_mhz or 0) / 1980 < tally.busy_sm_cycles < 0.6 * most
        truth = (h100(half) if device.sm_count == 132 else a100(half)).sm_cycles(
            Pipe.TENSOR_HMMA, 0, tally.watermark_ns - 1000 * NS_PER_S, device.sm_count or 0
        )
        assert tally.busy_sm_cycles > truth
    assert "no sample with an SM clock" in source.devices()[0].evidence_reason


def test_a_lost_gpu_hides_no_other_that_needs_an_exporter(clock: SharedClock, standin: Path, tmp_path: Path) -> None:
    lost = a100(BURSTS, (Fault(0, 10**9, "gpu_lost"),))
    scenario = Scenario((lost, h100(BURSTS), a100(BURSTS)))
    with simulated(standin, tmp_path, scenario, clock):
        devices, _ = gpus_without_gpm(clock, table())
    assert [(device.index, device.model) for device in devices] == [(2, "NVIDIA A100-SXM4-80GB")]


KEEP_S = 10


STEADY = (a100((Segment(1000, mhz=1230),)),)


@pytest.fixture
def clock(tmp_path: Path) -> SharedClock:
    return SharedClock(tmp_path / "clock")


def opened(clock: SharedClock) -> SmClocks:
    clocks = open_clocks(clock, table(), KEEP_S * NS_PER_S)
    assert clocks is not None
    return clocks


def test_a_reloaded_driver_is_read_again(clock: SharedClock, standin: Path, tmp_path: Path) -> None:
    """The stand-in, like NVML, reads the machine when its first user starts: a new one is seen only after all have
    shut down."""
    lost = Scenario((a100((Segment(1000, mhz=1230),), (Fault(5_000, 10**9, "gpu_lost"),)),))
    with simulated(standin, tmp_path, lost, clock):
        clocks = opened(clock)
        clocks.read({lost.uuid(0): 1410})
        clock.advance(6 * NS_PER_S)
        clocks.read({lost.uuid(0): 1410})
        assert not clocks.is_open, "a fault lets go of the driver"
    healthy = Scenario((a100((Segment(1000, mhz=1320),)),))
    with simulated(standin, tmp_path, healthy, clock):
        for _ in range(2):
            clock.advance(NS_PER_S)
            clocks.read({healthy.uuid(0): 1410})
        now_ns = clock.boottime_ns()
        found = clocks.cycles(healthy.uuid(0), now_ns - NS_PER_S, now_ns)
        assert found is not None
        assert found.cycles == 1320 * 10**6
        clocks.close()


@pytest.mark.parametrize("opening", [lambda at: opened(at), lambda at: NvmlSource(pynvml, SourceSettings(at, table()))])
def test_closing_twice_releases_nvml_once(
    clock: SharedClock, standin: Path, tmp_path: Path, opening: Callable[[SharedClock], SmClocks | NvmlSource]
) -> None:
    """NVML counts its users: another user in the same process must not lose its handle."""
    with simulated(standin, tmp_path, Scenario(STEADY), clock):
        pynvml.nvmlInit()
        user = opening(clock)
        user.close()
        user.close()
        assert not (isinstance(user, SmClocks) and user.is_open)
        assert pynvml.nvmlDeviceGetCount() == 1
        pynvml.nvmlShutdown()
        with pytest.raises(pynvml.NVMLError):
            pynvml.nvmlDeviceGetCount()


def test_without_a_driver_there_are_no_clocks(clock: SharedClock, standin: Path, tmp_path: Path) -> None:
    with simulated(standin, tmp_path, Scenario(STEADY, driver_from_ms=1_000), clock):
        assert open_clocks(clock, table(), NS_PER_S) is None


@pytest.mark.parametrize("counted", [100, 120, 132, 144])
@pytest.mark.parametrize("counters", ["none", "average"])
def test_where_driver_and_table_sm_counts_differ_the_truth_of_either_is_in_the_bounds(
    open_sim: Open, counted: int, counters: str
) -> None:
    gpu = h100((Segment(1000, hmma=0.6, util=90, watts=600),), counters=counters, cores=counted * 128)
    source, clock = open_sim(gpu)
    fold = Fold(source, clock).read(10).read(1000, 20)
    device = source.devices()[0]
    figures = fold.figures(device.uid)
    assert device.sm_count == max(counted, 132)
    assert ("differ by" in device.evidence_reason) == (counted != 132)
    assert (device.evidence is Evidence.CYCLES) == (counted == 132 and counters != "none")
    rate = table().resolve(device).rates(Pipe.TENSOR_HMMA, None)
    for sms in (counted, 132):
        cycles = gpu.sm_cycles(Pipe.TENSOR_HMMA, 0, fold.clock.boottime_ns() - 1000 * 10**9, sms)
        assert rate.low is not None
        assert rate.high is not None
        assert figures.high_flop is not None
        assert figures.low_flop <= cycles * rate.low
        assert cycles * rate.high <= figures.high_flop


@pytest.mark.parametrize("counted", [100, 108, 124])
def test_a_ceiling_covers_the_sms_of_driver_and_table(open_sim: Open, counted: int) -> None:
    load = (Segment(1000, mhz=1410, hmma=1.0, util=100),)
    source, clock = open_sim(replace(a100(load), cores=counted * 64))
    fold = Fold(source, clock).read(10).read(1000, 20)
    device = source.devices()[0]
    rate, high = table().ceiling_flop_per_cycle(table().resolve(device), None), fold.figures(device.uid).high_flop
    assert rate is not None
    assert high is not None
    tally = fold.tallies[device.uid]
    assert max(counted, 108) * 1410 * tally.span_ns // 1000 * rate <= high, "every pipe at once"
