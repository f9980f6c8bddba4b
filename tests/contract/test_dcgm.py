"""The values that the DCGM source reads from a page: real captures, and pages of a real HTTP server."""

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import Active, Busy, Evidence, Gap, GapReason, Pipe, Reading
from flopsd.errors import SourceError, SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.dcgm import trusted_users
from flopsd.sources.dcgm.exposition import Field, GpuPage, parse_page
from flopsd.sources.dcgm.source import DcgmSource
from flopsd.sources.dcgm.work import zero_at_full_load
from flopsd.sources.registry import open_source
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.testing import FakeClock
from tests.support.exporter import (
    A100,
    A100_UID,
    BUSY,
    CLOCK,
    DFMA,
    ENERGY,
    FP16,
    FP32,
    FP64,
    HMMA,
    IMMA,
    LIMIT,
    POWER,
    TENSOR,
    UTIL,
    Bench,
    Exporter,
    device_of,
    exporting,
    gpu,
)
from tests.support.strategies import table

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def test_the_t4_capture(exporter: Exporter) -> None:
    exporter.shows((SAMPLES / "dcgm_exporter_t4_loaded_real.prom").read_text())
    source = DcgmSource(FakeClock(), table(), exporter.url)
    (t4,) = source.devices()
    assert (t4.uid, t4.model, t4.index) == ("GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a", "Tesla T4", 0)
    assert (t4.pci_bus_id, t4.driver, t4.vendor) == ("00000000:37:00.0", "590.48.01", "nvidia")
    assert t4.evidence is Evidence.ACTIVITY
    assert t4.evidence_reason == "only Hopper and newer GPUs have cycle counters"
    assert "add DCGM_FI_PROF_PIPE_FP64_ACTIVE, DCGM_FI_PROF_PIPE_FP32_ACTIVE, DCGM_FI" in t4.evidence_fix
    gauges = source.read().gauges[t4.uid]
    assert gauges.pipe_activity_ratio == {Pipe.TENSOR: 0.005822}
    assert (gauges.utilization_ratio, gauges.sm_clock_mhz) == (0.91, 660)
    found = source.describe()
    assert (found["hostname"], found["driver"], found["interval_ms"]) == ("cp-bm14r7", "590.48.01", 30_000)
    assert found["fields"].split()[0] == "DCGM_FI_DEV_GPU_UTIL"
    assert found["replay"] is None


def test_the_label_variants_capture(exporter: Exporter) -> None:
    exporter.shows((SAMPLES / "dcgm_exporter_labels_variants_real_excerpt.prom").read_text())
    ada, l40s, mig = DcgmSource(FakeClock(), table(), exporter.url).devices()
    assert (ada.model, ada.evidence, ada.shared) == ("NVIDIA RTX 4000 Ada Generation", Evidence.GAP, None)
    assert "the peak table does not know" in ada.evidence_reason
    # Only a tensor ratio, no clock, no utilisation.
    assert (l40s.model, l40s.evidence) == ("NVIDIA L40S", Evidence.GAP)
    assert "neither SM clock nor utilisation" in l40s.evidence_reason
    assert (mig.model, mig.evidence, mig.pci_bus_id) == ("NVIDIA A800-SXM4-80GB", Evidence.GAP, None)
    assert "MIG is on (2g.20gb)" in mig.evidence_reason


def test_sub_pipes_are_subtracted_from_any_tensor(exporter: Exporter) -> None:
    bench = Bench(exporter)
    split = {TENSOR: 0.6, HMMA: 0.4, IMMA: 0.1, DFMA: 0.05, FP64: 0.01, FP32: 0.2, FP16: 0.0, CLOCK: 1410}
    bench.collects(split)
    bench.collects(split)
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    cycles = 1410 * 108 * 30_000_000
    assert reading.work.sm_cycles == {
        Pipe.TENSOR: round(0.05 * cycles), Pipe.TENSOR_HMMA: round(0.4 * cycles), Pipe.TENSOR_IMMA: round(0.1 * cycles),
        Pipe.TENSOR_DFMA: round(0.05 * cycles), Pipe.FP64: round(0.01 * cycles), Pipe.FP32: round(0.2 * cycles),
        Pipe.FP16: 0,
    }  # fmt: skip
    assert reading.work.unread == ()


def test_names_of_dcgm_4_6_and_old_labels_are_the_same_fields_of_the_gpu_that_nvml_lists(exporter: Exporter) -> None:
    renamed = {
        "DCGM_FI_PROF_TENSOR_UTIL_RATIO": 0.6, "DCGM_FI_PROF_HMMA_UTIL_RATIO": 0.5, "DCGM_FI_PROF_FP32_UTIL_RATIO": 0.1,
        "DCGM_FI_DEV_GPU_UTIL_RATIO": 0.88, "DCGM_FI_DEV_BOARD_POWER_WATTS": 300, CLOCK: 1410,
    }  # fmt: skip
    page = gpu(renamed, A100_UID.upper())
    exporter.shows(page.replace("UUID=", "uuid=").replace("Hostname=", "hostname="))
    source = DcgmSource(FakeClock(), table(), exporter.url)
    (device,) = source.devices()
    assert (device.uid, device.evidence) == (A100_UID, Evidence.ACTIVITY)
    gauges = source.read().gauges[A100_UID]
    assert gauges.pipe_activity_ratio[Pipe.TENSOR_HMMA] == 0.5
    assert gauges.pipe_activity_ratio[Pipe.FP32] == 0.1
    assert gauges.utilization_ratio == pytest.approx(0.88)
    assert source.describe()["hostname"] == "node-7"


@pytest.mark.parametrize(("percent", "ratio"), [(-1, None), (0, 0.0), (100, 1.0), (101, None)])
def test_an_idle_gpu_has_zero_utilization_and_over_100_percent_is_none(
    exporter: Exporter, percent: int, ratio: float | None
) -> None:
    exporter.shows(gpu({**BUSY, UTIL: percent}))
    assert DcgmSource(FakeClock(), table(), exporter.url).read().gauges[A100_UID].utilization_ratio == ratio


@pytest.mark.parametrize("label", ["", 'gpu="nvidia1",'])
def test_gpus_without_an_index_are_numbered_in_order(exporter: Exporter, label: str) -> None:
    exporter.shows(gpu(BUSY) + gpu(BUSY, uid=A100_UID[:-1] + "f", index=7).replace('gpu="7",', label))
    assert [device.index for device in DcgmSource(FakeClock(), table(), exporter.url).devices()] == [0, 1]


def test_a_gpu_that_the_page_shows_later_is_read_from_then_on(exporter: Exporter) -> None:
    bench, late = Bench(exporter, interval_s=1), A100_UID[:-1] + "f"
    joined_ns, readings = bench.clock.boottime_ns() + NS_PER_S, list[Reading]()
    for energy in range(6):
        exporter.shows(gpu({**BUSY, ENERGY: energy}) + gpu({**BUSY, ENERGY: energy}, uid=late, index=1))
        bench.clock.advance(NS_PER_S)
        readings += [one for one in bench.source.read().readings if one.device == late]
    assert [device.index for device in bench.source.devices()] == [0, 1]
    assert (readings[0].begin_ns, type(readings[-1].work)) == (joined_ns, Active)


def test_several_containers_on_one_gpu_are_one_shared_gpu(exporter: Exporter) -> None:
    def shared(energy: int) -> str:
        return "".join(
            gpu({**BUSY, ENERGY: energy}, more=f',namespace="ml",pod="{pod}",container="train"') for pod in ("a", "b")
        )

    exporter.shows(shared(1))
    bench = Bench(exporter)
    (device,) = bench.source.devices()
    assert device.shared == "2 containers: ml/a/train, ml/b/train"
    for energy in (2, 3):
        for _ in range(29):
            bench.read()
        exporter.shows(shared(energy))
        bench.read()
    (reading,) = bench.read()
    assert isinstance(reading.work, Active)
    assert reading.work.sm_cycles[Pipe.TENSOR] == round(0.93 * 1230e6 * 30 * 108)
    one = ',namespace="ml",pod="a",container="train"'
    assert parse_page(gpu(BUSY) + gpu({UTIL: 100}, more=one))[A100_UID].users == {"ml/a/train"}
    for alone in ("", one):
        exporter.shows(gpu({**BUSY, ENERGY: 3}, more=alone))
        bench.read()
        assert bench.source.devices()[0].shared is None


def test_contradictory_series_of_a_gpu_are_ignored(exporter: Exporter) -> None:
    exporter.shows(gpu(BUSY) + gpu({TENSOR: 0.5}, more=',pod="other"'))
    (device,) = DcgmSource(FakeClock(), table(), exporter.url).devices()
    assert device.evidence is Evidence.UTILIZATION
    assert "given twice, with different values" in device.evidence_reason


def test_a_mig_slice_is_never_charged_the_whole_device(exporter: Exporter) -> None:
    def sliced(energy: int) -> str:
        slices = ((1, "3g.20gb"), (2, "3g.20gb"))
        rows = [gpu({TENSOR: 0.95}, more=f',GPU_I_PROFILE="{name}",GPU_I_ID="{at}"') for at, name in slices]
        return gpu({CLOCK: 1318, ENERGY: energy, UTIL: 100}) + "".join(rows)

    exporter.shows(sliced(1))
    assert Field.TENSOR not in parse_page(sliced(1))[A100_UID].values
    both = parse_page(gpu({UTIL: 100}) + gpu({UTIL: 7}, more=',GPU_I_ID="1"'))[A100_UID]
    assert (both.values, both.blanks, both.slices) == ({Field.GPU_UTIL: 100.0}, {}, {"1": "unknown profile"})
    bench = Bench(exporter)
    (device,) = bench.source.devices()
    assert device.evidence is Evidence.GAP
    assert "MIG is on (3g.20gb, 3g.20gb)" in device.evidence_reason
    bench.read()
    exporter.shows(sliced(2))
    bench.read()
    exporter.shows(sliced(3))
    assert [reading.work for reading in bench.read() + bench.read()] == [Gap(GapReason.NOT_SUPPORTED)] * 2


@pytest.mark.parametrize(
    ("values", "evidence", "reason", "fix"),
    [
        ({UTIL: 50, CLOCK: 1410}, Evidence.UTILIZATION, "(field 1004) is not exported", "4.1.1 loses it on L40S"),
        ({UTIL: 50, TENSOR: 140737488355331.0}, Evidence.UTILIZATION, "is not permitted", "SYS_ADMIN"),
        ({UTIL: 50, TENSOR: 140737488355330.0}, Evidence.UTILIZATION, "is not supported", "none: DCGM has no profiling fields"),
        ({UTIL: 50, TENSOR: 1.40737488355328e16}, Evidence.UTILIZATION, "is blank", "profile --resume"),
        ({UTIL: 50, TENSOR: "NaN"}, Evidence.UTILIZATION, "is not a number", ""),
        ({UTIL: 50, TENSOR: 0.5}, Evidence.UTILIZATION, "SM clock of the interval is not known", "DCGM_FI_DEV_SM_CLOCK"),
        ({UTIL: 50, TENSOR: 0.5, CLOCK: 2147483632}, Evidence.UTILIZATION, "SM clock of", ""),
        ({TENSOR: 0.5, CLOCK: 1410}, Evidence.ACTIVITY, "only Hopper and newer GPUs have cycle counters", "1013-1015"),
        ({TENSOR: 1.006, CLOCK: 1410}, Evidence.GAP, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE is not a ratio", ""),
        ({TENSOR: 0.5, HMMA: 0.3, IMMA: 0.3, CLOCK: 1410}, Evidence.GAP, "1013-1015 show more", ""),
        ({HMMA: 0.9, DFMA: 0.2, CLOCK: 1410}, Evidence.GAP, "1013-1015 show more", ""),
        ({UTIL: 808334905}, Evidence.GAP, "not a percentage", ""),
        ({ENERGY: 5}, Evidence.GAP, "is not exported", "1.1 loses"),
    ],
)  # fmt: skip
def test_missing_fields_are_named_with_a_remedy(
    exporter: Exporter, values: Mapping[str, object], evidence: Evidence, reason: str, fix: str
) -> None:
    exporter.shows(gpu(values))
    bench = Bench(exporter)
    at_first = device_of(bench)
    bench.collects(values)
    bench.collects(values)
    (reading,) = bench.read()
    found = device_of(bench)
    assert found == at_first
    assert found[0] is evidence
    assert reason in found[1]
    assert fix in found[2]
    assert ("add 1013-1015" in found[2]) == (evidence is Evidence.ACTIVITY and not {HMMA, IMMA, DFMA} & values.keys())
    kinds = {Evidence.GAP: Gap, Evidence.UTILIZATION: Busy, Evidence.ACTIVITY: Active}
    assert isinstance(reading.work, kinds[evidence])


def test_clock_samples_are_kept_only_as_long_as_they_count(exporter: Exporter) -> None:
    bench = Bench(exporter, interval_s=1)
    for _ in range(30):
        bench.collects({UTIL: 50, TENSOR: 0.5, CLOCK: 1410}, after_s=2)
    (followed,) = bench.source._gpus.values()
    assert len(followed._clocks) == 3


def test_one_utilisation_sample_bounds_only_a_sixth_of_a_second(exporter: Exporter) -> None:
    bench = Bench(exporter)
    for _ in range(2):
        bench.collects({UTIL: 9})
    (reading,) = bench.read()
    # 10 % of a sixth of a second, and all of the time that the sample does not cover.
    assert reading.work == Busy(max_sm_cycles(A100, 29_850_000_001))


def test_zero_activity_at_full_load_is_a_gap(exporter: Exporter) -> None:
    stuck = {TENSOR: 0.0, FP32: 0.0, CLOCK: 1410, UTIL: 100, POWER: 300, LIMIT: 400}
    bench = Bench(exporter)
    bench.collects(stuck)
    bench.collects(stuck)
    (reading,) = bench.read()
    assert reading.work == Gap(GapReason.ZERO_AT_FULL_LOAD)
    assert "Xid 31" in device_of(bench)[2]


@pytest.mark.parametrize(("first", "then", "counted"), [(97, 0, 3), (97, 97, 6)])
def test_activity_that_never_changes_is_a_gap(exporter: Exporter, first: int, then: int, counted: int) -> None:
    """An exporter repeats the last value of a field whose watch has died, while its other fields change. At a
    constant utilisation two intervals may be equal, but not five."""
    stuck = {TENSOR: 0.421937, HMMA: 0.421937, CLOCK: 1410}
    bench = Bench(exporter)
    shown = [{**stuck, UTIL: first if at == 1 else then, POWER: 60 + at} for at in range(11)]
    works = [r.work for values in shown for r in bench.collects(values)][-9:]
    expected = [None] * counted + [Gap(GapReason.STALE)] * (9 - counted)
    assert [work if isinstance(work, Gap) else None for work in works] == expected
    assert "though other fields show work of the GPU" in device_of(bench)[1]
    moved = [r for _ in range(2) for r in bench.collects({**stuck, HMMA: 0.41, UTIL: then})]
    assert isinstance(moved[-1].work, Active)


FULL_LOAD = {
    Field.TENSOR: 0.0, Field.FP32: 0.0, Field.GPU_UTIL: 10.0, Field.POWER_USAGE: 140.0, Field.POWER_LIMIT: 700.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Field.TENSOR, 0.001),
        (Field.FP32, 0.001),
        (Field.GPU_UTIL, 9.9),
        (Field.POWER_USAGE, 139.9),
        (Field.POWER_LIMIT, 0.0),
        *((field, None) for field in FULL_LOAD if field is not Field.FP32),
    ],
)
def test_only_a_gpu_busy_by_all_other_signs_is_at_full_load(field: Field, value: float | None) -> None:
    values = {name: read for name, read in {**FULL_LOAD, field: value}.items() if read is not None}
    assert zero_at_full_load(GpuPage("GPU-1", {}, dict(FULL_LOAD)))
    assert not zero_at_full_load(GpuPage("GPU-1", {}, values))
    seen = {**values, Field.GR_ENGINE: 0.0}  # zero, although it covers any kind of work
    assert zero_at_full_load(GpuPage("GPU-1", {}, seen)) is (field in (Field.POWER_USAGE, Field.POWER_LIMIT))


def test_a_port_without_listener_is_an_absence_with_a_remedy() -> None:
    with exporting("") as gone:
        url = gone.url
    with pytest.raises(SourceUnavailableError, match="Connection refused") as caught:
        open_source("dcgm", SourceSettings(FakeClock(), table(), {"url": url, "interval_seconds": 30}))
    assert caught.value.absent
    assert "the capability SYS_ADMIN" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "page", "says"),
    [
        (404, "", "answers 404"),
        (200, "<html>a web shop</html>", "shows no GPU"),
        (200, "", "shows no GPU"),
        (200, 'nvidia_smi_utilization{uuid="GPU-1"} 1\n# DCGM_FI_X{UUID="GPU-1"} 1\n', "shows no GPU"),
    ],
)
def test_another_server_at_the_address_is_no_absence(exporter: Exporter, status: int, page: str, says: str) -> None:
    exporter.status = status
    exporter.shows(page)
    with pytest.raises(SourceUnavailableError, match=says) as caught:
        open_source("dcgm", SourceSettings(FakeClock(), table(), {"url": exporter.url}))
    assert not caught.value.absent
    assert "check that it runs" in caught.value.hint


def test_an_endless_page_is_cut_off_and_only_http_is_used(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopsd.sources.dcgm.source._PAGE_BYTES_MAX", 100)
    with pytest.raises(SourceUnavailableError, match="more than 100 bytes"):
        DcgmSource(FakeClock(), table(), exporter.url)

    with pytest.raises(SourceUnavailableError, match="not an address of an exporter"):
        open_source("dcgm", SourceSettings(FakeClock(), table(), {"url": "file:///etc/passwd"}))


def test_a_dripping_page_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip() -> None:
        client, _ = server.accept()
        with client, suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while True:
                client.sendall(b"#")

    monkeypatch.setattr("flopsd.sources.dcgm.source._TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(SourceUnavailableError, match="not complete after 0.1 s"):
            DcgmSource(SystemClock(), table(), f"http://127.0.0.1:{server.getsockname()[1]}/metrics")


def test_at_the_default_address_only_roots_and_our_own_server_is_trusted(exporter: Exporter) -> None:
    """A server of another user may be the job's, which can listen there while no exporter does."""
    exporter.shows(gpu(BUSY))
    clock, mine = FakeClock(), os.geteuid()
    source = DcgmSource(clock, table(), exporter.url, users=(mine,))
    source._users = (mine + 1,)
    clock.advance(10**9)
    for _ in range(2):
        with pytest.raises(SourceError, match=f"a process of user {mine} answers at"):
            source.read()
    with pytest.raises(SourceUnavailableError, match=f"a process of user {mine} answers"):
        DcgmSource(clock, table(), exporter.url, users=())
    assert (trusted_users("http://127.0.0.1:9400/metrics"), trusted_users(exporter.url)) == ((0, mine), None)


def test_no_password_is_reported(exporter: Exporter) -> None:
    source = DcgmSource(FakeClock(), table(), exporter.url)
    source._url = "http://me:secret@node:9400/metrics"
    assert source.describe()["url"] == "http://node:9400/metrics"
