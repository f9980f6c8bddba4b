"""Kernel windows through PyTorch's own profiler, on the CPU: the profiler is real, and its kernels come from real
traces."""

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from flopsd.core.kernel_windows import CLASSES, KERNEL_COUNTERS, LAUNCHES_OF, NS_OF, is_impossible
from flopsd.system.clock import NS_PER_S
from tests.train.kernel_records import TRACES, Kernel, Range, profiler_with, records_of
from tests.train.operator_cases import DEVICE, Counters
from tests.train.pytorch import torch

pytestmark = pytest.mark.training()
STEP_NS, COST_NS = 40_000_000, 1_000_000
FIRST, EVERY = 120, 600


KERNELS = (
    Kernel("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN", 9_000_001),
    Kernel("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN", 1),
    Kernel("Memset (Device)", 1000),
    Kernel("kernel_of_my_own", 0, index=1),
    Kernel("cudaLaunchKernel", 5000, type="CPU"),
    Kernel("of no end", 2**64 - 5),
    Range("ProfilerStep#4", 30_000_000),
)


@dataclass
class SteppedClient(Counters):
    """A client whose clock a test sets."""

    now: int = 0

    def now_ns(self) -> int:
        return self.now


@dataclass
class Setting:
    client: SteppedClient
    windows: Any
    events: list[Kernel]
    made: list[Any] = field(default_factory=list)
    costs_ns: int = COST_NS
    fault: str = ""

    def profile(self) -> Any:
        """A profiler whose start and stop take time."""

        def before(name: str) -> None:
            self.client.now += self.costs_ns
            if self.fault == name:
                raise RuntimeError(f"no {name}")

        self.made.append(profiler_with(self.events, before))
        return self.made[-1]

    def step(self, *inside: Callable[[], object]) -> None:
        with self.windows.step():
            torch.ones(4, 4) @ torch.ones(4, 4)
            for one in inside:
                one()
            self.client.now += STEP_NS

    def after(self, seconds: float) -> None:
        self.client.now += round(seconds * NS_PER_S)

    @property
    def seen(self) -> dict[str, int]:
        assert set(self.client.work) <= {"train"}
        return {name: count for name, count in self.client.work["train"].items() if count}


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Check that PyTorch's profiler is restored whatever happened."""
    from torch.autograd import profiler

    before = profiler._prepare_profiler, profiler._enable_profiler
    yield
    assert (profiler._prepare_profiler, profiler._enable_profiler) == before
    assert not torch.autograd._profiler_enabled()
    assert "ProfilerStep" not in profiler.KinetoStepTracker._step_dict


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    from flopsd.integrations.kernel_windows import KernelWindows

    monkeypatch.setenv("FLOPSD_DEVICE_UUID", DEVICE)
    client = SteppedClient(current_phase="train")
    found = Setting(client, None, list(KERNELS))
    found.windows = KernelWindows(client, first_seconds=FIRST, every_seconds=EVERY, profile=found.profile)
    return found


def test_a_window_is_one_step_and_the_next_one_is_later(setting: Setting) -> None:
    setting.step()
    assert setting.made == []
    setting.after(FIRST)
    for _ in range(3):
        setting.step()
    assert len(setting.made) == 1
    both = {
        "kernel_windows": 2,
        "kernel_window_ns": 2 * STEP_NS,
        "kernel_window_cost_ns": 4 * COST_NS,
    }  # of two devices
    assert setting.seen == {
        **both, "kernel_ns_matrix_bf16": 9_000_002, "kernel_launches_matrix_bf16": 2, "kernel_ns_copy": 1000,
        "kernel_launches_copy": 1, "kernel_launches_other": 1,
    }  # fmt: skip
    assert setting.client.facts["device"] == DEVICE
    setting.after(EVERY)
    setting.step()
    assert len(setting.made) == 2
    assert set(setting.seen) <= set(KERNEL_COUNTERS)
    assert setting.windows.ended is None


def test_windows_are_rarer_if_they_cost_more_than_their_share(setting: Setting) -> None:
    setting.costs_ns = 5 * NS_PER_S
    setting.after(FIRST)
    setting.step()
    assert setting.client.work["train"]["kernel_window_cost_ns"] == 2 * 2 * 5 * NS_PER_S
    setting.after(2 * 5 / 0.005 - 1)
    setting.step()
    assert len(setting.made) == 1
    setting.after(1)
    setting.step()
    assert len(setting.made) == 2


def scheduled(steps: int) -> Any:
    """A profiler with a schedule after `steps` steps: waiting, warming up, recording, finished."""
    schedule = torch.profiler.schedule(wait=1, warmup=1, active=1, repeat=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], schedule=schedule)
        found.__enter__()
        for _ in range(steps):
            torch.ones(2, 2) @ torch.ones(2, 2)
            found.step()
    return found


def legacy() -> Any:
    found = torch.autograd.profiler.profile(use_kineto=True)
    found.__enter__()
    return found


@pytest.mark.parametrize("theirs", [legacy, *(lambda steps=steps: scheduled(steps) for steps in range(4))])
def test_no_window_opens_next_to_another_profiler(setting: Setting, theirs: Callable[[], Any]) -> None:
    setting.after(FIRST)
    other = theirs()
    setting.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for a profiler that is stopped before its schedule ends
        other.__exit__(None, None, None)
    assert (setting.made, setting.seen) == ([], {"kernel_windows_skipped": 1})
    setting.step()  # too early
    setting.after(EVERY)
    setting.step()
    assert setting.client.work["train"]["kernel_windows"] == 2


@pytest.mark.parametrize("how", ["torch.profiler", "autograd"])
def test_a_profiler_that_starts_within_a_window_ends_it_first(setting: Setting, how: str) -> None:
    made: list[Any] = []

    def starts() -> None:
        if how == "torch.profiler":
            made.append(torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]))
        else:
            made.append(torch.autograd.profiler.profile(use_kineto=True))
        made[0].__enter__()
        torch.ones(8, 8) @ torch.ones(8, 8)

    setting.after(FIRST)
    setting.step(starts)
    made[0].__exit__(None, None, None)
    found = made[0].events() if how == "torch.profiler" else made[0].function_events
    assert "aten::mm" in {one.name for one in found}
    assert len(setting.made) == 1
    assert setting.seen == {"kernel_windows_skipped": 1}


def test_a_failed_step_leaves_its_window_to_the_next_one(setting: Setting) -> None:
    def fails() -> None:
        raise MemoryError

    setting.after(FIRST)
    with pytest.raises(MemoryError):
        setting.step(fails)
    assert (len(setting.made), setting.seen) == (1, {})
    assert torch.autograd._profiler_enabled(), "nothing waits for a device that may hang"
    setting.step()
    assert (len(setting.made), setting.seen) == (1, {"kernel_windows_skipped": 1})
    setting.after(EVERY)
    setting.windows.begin_step()
    setting.windows.close()
    assert setting.client.work["train"]["kernel_windows_skipped"] == 2


@pytest.mark.parametrize(("fault", "code"), [("start", "window_did_not_open"), ("stop", "window_did_not_close")])
def test_a_fault_ends_the_windows_and_not_the_training(
    setting: Setting, fault: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    setting.fault = fault
    setting.after(FIRST)
    setting.step()
    setting.after(10 * EVERY)
    setting.step()
    assert (setting.windows.ended, len(setting.made)) == (code, 1)
    assert [one.message for one in caplog.records if one.name == "flopsd.client"] == [
        f"flopsd records no more kernels: {code}; the training goes on"
    ]
    if fault == "stop":  # the stand-in for the fault left it on
        torch.autograd._disable_profiler()
        torch.autograd.profiler._set_is_profiler_enabled(enable=False)


def test_a_failing_device_synchronization_leaves_no_profiler_on(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    setting.after(FIRST)
    setting.step()
    assert (setting.windows.ended, len(setting.made)) == ("window_did_not_close", 1)
    assert not torch.autograd._profiler_enabled()


def test_a_pytorch_without_the_hooked_functions_leaves_no_profiler_on(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flopsd.integrations.kernel_windows._ENTRANCES", ("_prepare_profiler", "_there_is_none"))
    setting.after(FIRST)
    setting.step()
    assert (setting.windows.ended, len(setting.made)) == ("window_did_not_open", 1)
    assert not torch.autograd._profiler_enabled()


def test_a_forked_child_leaves_the_window_to_its_parent(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.after(FIRST)
    setting.windows.begin_step()
    with monkeypatch.context() as forked:
        forked.setattr("flopsd.integrations.kernel_windows.os.getpid", lambda: -1)
        setting.windows.close()
        assert torch.autograd._profiler_enabled()
    setting.windows.close()


def test_windows_without_kernels_end_all_windows(setting: Setting) -> None:
    setting.events.clear()
    setting.after(FIRST)
    setting.step()
    assert (setting.windows.ended, setting.seen) == ("no_kernels_seen", {})


def test_without_an_nvidia_gpu_or_with_another_tool_there_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from flopsd.integrations.kernel_windows import KernelWindows

    def ended(**more: Any) -> str | None:
        found = KernelWindows(SteppedClient(), first_seconds=0, **more)
        with found.step():
            pass
        return str(found.ended)

    if not torch.cuda.is_available():
        assert ended() == "no_nvidia_gpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert ended() == "cuda_too_old"
    monkeypatch.setenv("CUDA_INJECTION64_PATH", "/opt/nsight/libinjection.so")
    assert ended(profile=lambda: None) == "another_tool_traces"


@pytest.mark.parametrize("captures", ["flopsd.integrations.kernel_windows.is_capturing", "torch.compiler.is_compiling"])
def test_no_window_opens_while_a_graph_is_captured(
    setting: Setting, captures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.after(FIRST)
    with monkeypatch.context() as changed:
        changed.setattr(captures, lambda: True)
        setting.step()
    assert (setting.made, setting.seen) == ([], {"kernel_windows_skipped": 1})


def test_a_window_stays_open_while_a_graph_is_captured(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.after(FIRST)
    setting.windows.begin_step()
    with monkeypatch.context() as changed:
        changed.setattr("flopsd.integrations.kernel_windows.is_capturing", lambda: True)
        setting.windows.end_step()
        setting.step()
        setting.windows.close()
    assert (len(setting.made), setting.seen) == (1, {})
    setting.after(0.04)
    setting.windows.end_step()
    assert setting.client.work["train"]["kernel_windows"] == 2


def test_a_long_window_ends_with_a_part_of_the_step(setting: Setting) -> None:
    setting.after(FIRST)
    setting.windows.begin_step()
    setting.windows.end_part()
    assert setting.seen == {}
    setting.after(0.2)
    setting.windows.end_part()
    assert setting.client.work["train"]["kernel_window_ns"] == 2 * 200_000_000


def test_a_forked_child_opens_no_window(setting: Setting) -> None:
    setting.after(FIRST)
    setting.windows._pid = os.getpid() + 1
    setting.step()
    assert (setting.made, setting.seen) == ([], {})


def test_the_kernel_classes_of_real_traces(capsys: pytest.CaptureFixture[str]) -> None:
    from flopsd.integrations.kernel_classes import KernelClasses

    classes = KernelClasses()
    for trace in TRACES:
        by_class: Counter[str] = Counter()
        for name, _, lasted_ns in trace["kernels"]:
            by_class[classes.of(name)] += lasted_ns
        whole, known = sum(by_class.values()), sum(classes.of(name) != "other" for name, _, _ in trace["kernels"])
        share = 1 - by_class["other"] / whole
        shares = ", ".join(f"{one} {100 * ns / whole:.1f}" for one, ns in by_class.most_common())
        with capsys.disabled():
            print(
                f"\n{trace['file'].rsplit('/', 1)[-1]} ({trace['device']}{', held out' * trace['held_out']}): {known} of {len(trace['kernels'])} names, "
                f"{100 * share:.1f} % of the time; in %: {shares}",
                end="",
            )
        assert share >= 0.9, trace["file"]
        assert set(by_class) <= set(CLASSES)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("matrix_bf16", "ampere_bf16_s1688gemm_bf16_128x128_ldg8_f2f_stages_32x1_nn"),  # karpathy/nanochat PR 105
        ("matrix_bf16", "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_cublas"),
        ("matrix_bf16", "nvjet_sm100_tst_128x256_64x6_2x1_2cta_v_bz_TNT"),
        ("matrix_fp16", "ampere_fp16_s16816gemm_fp16_256x128_ldg8_f2f_mods_stages_64x3_nt"),
        ("matrix_fp16", "turing_h1688gemm_128x128_ldg8_stages_32x1_tn"),
        ("matrix_fp16", "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT"),
        ("matrix_tf32", "sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32_warpgroupsize1x1x1_cublas"),
        ("matrix_tf32", "void cutlass::Kernel<cutlass_80_tensorop_s1688gemm_128x64_16x6_nn_align4>(Params)"),
        ("matrix_fp8", "nvjet_qqtst_128x256_128x6_2x2_2cta_h_bz_Avec32UE8M0_Bvec32UE8M0_TNT"),
        (
            "matrix_fp8",
            "cutlass3x_sm90_tensorop_s64x128x32gemm_e4m3_e4m3_f32_bf16_bf16_128x128x128_1x2x1_0_tnn_align16",
        ),
        ("matrix_fp4", "cutlass3x_sm100_bstensorop_gemm_ue4m3xe2m1_ue4m3xe2m1_f32_bf16_bf16_128x128x256"),
        ("matrix_int8", "void cutlass::Kernel2<cutlass_80_tensorop_i16832gemm_s8_128x64_128x3_tn_align4>(Params)"),
        ("matrix_fp64", "sm90_xmma_gemm_f64f64_f64f64_f64_nn_n_tilesize64x128x16_stage3_tensor16x8x8_cublas"),
        ("matrix_plain", "cutlass3x_sm100_simt_sgemm_f32_f32_f32_f32_f32_64x32x16_1x1x1_3_tnn_align1_bias_f32_relu"),
        ("matrix_plain", "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, __nv_bfloat16, float, 128>"),
        ("matrix_unnamed", "nvjet_sss_64x8_64x16_1x1_h_bz_splitK_TNT"),
        ("matrix_unnamed", "triton_tem_fused__fused_rms_norm_mm_t"),
        ("matrix_unnamed", "bmm_MxE4m3_MxE2m1MxE4m3_Fp32_t128x16x256u2_s3_et128x16_m128x16x32"),  # two formats
        ("attention", "void flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<(int)128>>(Params)"),
        ("attention", "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x128_1x"),
        ("attention", "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(AttentionKernel<cutlass::bfloat16_t>::Params)"),
        ("convolution", "sm80_xmma_dgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128x16"),
        ("vector", "triton_poi_fused_addmm_gelu_4"),
        ("vector", "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float>(Params)"),
        ("vector", "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor<float>>()"),
        ("communication", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"),
        ("copy", "Memcpy HtoD (Pinned -> Device)"),
        ("other", "kernel_of_my_own"),
        ("other", "void mine::kernel<int>(at::native::Array<float>)"),  # its argument types say nothing
        ("other", ""),
    ],
)
def test_the_class_of_a_kernel_follows_from_its_name(kind: str, name: str) -> None:
    from flopsd.integrations.kernel_classes import KernelClasses

    assert KernelClasses().of(name) == kind


def test_each_rule_has_a_source_a_class_and_an_effect() -> None:
    from flopsd.integrations import kernel_classes

    rules = json.loads(kernel_classes._RULES.read_text(encoding="ascii"))["rules"]
    assert all(rule.keys() == {"class", "pattern", "source"} and rule["source"] for rule in rules)
    assert {rule["class"] for rule in rules} == CLASSES.keys() - {"other"}
    assert all(re.compile(rule["pattern"]) for rule in rules)


def test_a_real_trace_is_possible_in_its_window() -> None:
    from flopsd.integrations.kernel_classes import KernelClasses

    for trace in TRACES:
        events = records_of(trace)
        window_ns = sum(event.lasted_ns for event in events)
        (counters,) = KernelClasses().counters_by_device(events, window_ns).values()
        assert sum(counters.get(name, 0) for name in NS_OF.values()) == window_ns
        assert sum(counters.get(name, 0) for name in LAUNCHES_OF.values()) == len(events)
        assert not is_impossible({**counters, "kernel_windows": 1, "kernel_window_ns": window_ns})


def test_the_kernel_probe_of_the_hardware_suite(setting: Setting) -> None:
    from tests.hardware.probe_answers import windows
    from tests.hardware.windows import measured

    found = measured(lambda: torch.ones(8, 8) @ torch.ones(8, 8), lambda: profiler_with(setting.events))
    assert [one["ended"] for one in found["windows"]] == [None] * 4
    assert (found["beside"], found["their_kernels"]) == (1, 0)
    assert found["their_events"] > 0
    assert "1 window was left out beside it" in windows({"probes": {"windows": found}}, {})
