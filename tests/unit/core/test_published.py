"""Published measurements, recomputed by flopsd's own arithmetic: DCGM fields -> meter -> figures.

`pytest -s` prints both side by side. The inputs are activity ratios and clocks that others measured.
"""

import json
from fractions import Fraction
from typing import Any

import pytest

from flopsd.core.clock_integral import integrate
from flopsd.core.figures import Figures
from flopsd.core.meter import advance
from flopsd.core.model import Evidence, Limits, Precision, Reading
from flopsd.core.part import Part
from flopsd.core.rows import Rating
from flopsd.core.tally import Tally
from flopsd.sources.dcgm.exposition import Field, GpuPage
from flopsd.sources.dcgm.work import active
from flopsd.system.clock import NS_PER_S
from tests.hardware.margins import margin_ppm
from tests.support.paths import SAMPLES
from tests.support.sim import total
from tests.support.strategies import table
from tests.unit.core.test_peaks import raw

A100, H100_PCIE = (table().parts[name] for name in ("a100-sxm4-40gb", "h100-pcie"))
FP16, BF16 = (Precision(((name, 1_000_000),), "test") for name in ("fp16", "bf16"))
VECTOR_IDLE = {Field.FP64: 0.0, Field.FP32: 0.0, Field.FP16: 0.0}
TERA = 10**12
SAMPLE = SAMPLES / "h100_pcie_tinyllama_dcgm_summary.json"
RUNS: list[dict[str, Any]] = json.loads(SAMPLE.read_text())["rows"]


def computed(part: Part, sm_count: int, activity: float, mhz: float, seconds: float, precision: Precision) -> Figures:
    """flopsd's figures for `seconds` at this tensor activity and SM clock."""
    end_ns, clock_khz = round(seconds * NS_PER_S), round(mhz * 1000)
    # The published clocks are means with decimals: use samples of whole MHz over a thousand times the duration.
    cycles = integrate([(0, clock_khz)], 0, end_ns // 1000)
    assert cycles is not None
    assert part.tensor_ref_mhz is not None
    page = GpuPage("GPU-0", {}, {Field.TENSOR: activity, **VECTOR_IDLE})
    limits = Limits(sm_count, part.vector_ref_mhz or part.tensor_ref_mhz)
    reading = Reading("GPU-0", 0, end_ns, active(page, cycles, sm_count))
    tally = advance(Tally(0, 0), reading, limits)
    assert tally.gap_ns == {}
    return total(tally, Rating(part, limits, precision, table()))


def tflops(figures: Figures, seconds: float = 1.0) -> float:
    assert figures.measured_flop is not None
    return figures.measured_flop / seconds / TERA


def test_the_a100_example_of_the_dcgm_guide() -> None:
    """dcgmproftester 1004: 252.5 to 254 TFLOP/s computed, tensor activity 0.927 to 0.932, 108 SMs. The guide gives
    ranges, whose ends are paired here. It does not print the clock; these figures need 1230 MHz, a usual clock under
    the power cap. The test shows that one clock fits all of them."""
    print("\nDCGM user guide, A100, dcgmproftester -t 1004")
    for activity, published in ((0.927, 252.5), (0.930, 253.0), (0.932, 254.0)):
        ours = tflops(computed(A100, 108, activity, 1230, 1.0, FP16))
        print(f"  activity {activity:.3f}: {ours:6.2f} TFLOP/s, printed {published:6.2f}, {ours / published - 1:+.2%}")
        assert ours == pytest.approx(published, rel=0.003)
    naive = 0.930 * 312
    print(f"  activity x datasheet: {naive:.1f} TFLOP/s, {naive / 253.0 - 1:+.1%}: the clock is what it misses")
    assert naive / 253.0 > 1.14


def test_the_mig_example_of_the_dcgm_guide() -> None:
    """2 x 3g.20gb of 42 SMs at 0.9525 give 108.1 TFLOP/s each; the whole GPU shows 0.8165, over its 98 MIG SMs."""
    each = tflops(computed(A100, 42, 0.9525, 1318.8, 1.0, FP16))
    whole = tflops(computed(A100, 98, 0.8165, 1318.8, 1.0, FP16))
    wrong = tflops(computed(A100, 108, 0.8165, 1318.8, 1.0, FP16))
    print("\nDCGM user guide, A100 in MIG mode, 2 x 3g.20gb")
    print(f"  one slice, 42 SMs: {each:7.3f} TFLOP/s, printed 108.1, {each / 108.1 - 1:+.2%}")
    print(f"  the GPU over 98 SMs: {whole:7.3f}, twice a slice {2 * each:7.3f}, {whole / (2 * each) - 1:+.3%}")
    print(f"  the GPU over 108 SMs would be {wrong:7.3f}, {wrong / (2 * each) - 1:+.1%}")
    assert each == pytest.approx(108.1, rel=0.001)
    assert whole == pytest.approx(2 * each, rel=0.0005)


# MFU, HFU and OFU in percent, as Vilanakis 2026 prints them, by sequence length, batch and checkpointing.
PRINTED = {
    (2048, 8, False): (41.1, 42.1, 43.5),
    (2048, 8, True): (33.4, 42.4, 43.7),
    (8192, 2, False): (41.5, 44.4, 43.4),
    (2048, 2, False): (32.2, 33.0, 35.0),
    (8192, 2, True): (33.6, 45.1, 44.2),
    (2048, 16, True): (35.0, 44.5, 44.5),
}


def test_the_table_of_vilanakis_2026_is_reproduced() -> None:
    """MFU, HFU and OFU of one H100 PCIe. OFU is flopsd's measured figure over the datasheet's dense peak."""
    peak = next(flop for _, name, flop in H100_PCIE.datasheet_peaks() if name == "bf16")
    print(f"\nVilanakis 2026, H100 PCIe, TinyLlama 1.1B bf16, peak {peak / TERA:.1f} TFLOP/s, percent (ours / printed)")
    compared = 0
    for run in RUNS:
        key = (run["sequence_length"], run["batch"], run["activation_checkpointing"])
        if key not in PRINTED:
            continue
        figures = of_run(run)
        assert figures.measured_flop is not None
        needed, executed = (run[f"{kind}_flop_per_token"] * run["tokens_per_s"] for kind in ("required", "executed"))
        ours = (needed / peak, executed / peak, figures.measured_flop / run["elapsed_s"] / peak)
        names = zip(("MFU", "HFU", "OFU"), ours, PRINTED[key], strict=True)
        print(f"  {key[0]:4d} x {key[1]}, checkpointing {key[2]!s:5}: "
              + ", ".join(f"{name} {100 * value:.2f} / {printed}" for name, value, printed in names))  # fmt: skip
        assert [round(100 * value, 1) for value in ours] == pytest.approx(PRINTED[key], abs=0.11)
        compared += 1
    assert compared == len(PRINTED)


@pytest.mark.parametrize(
    "run", RUNS, ids=lambda run: f"{run['sequence_length']}x{run['batch']}{'c' * run['activation_checkpointing']}"
)
def test_executed_flop_of_published_runs_lie_within_the_measured_interval(run: dict[str, Any]) -> None:
    """Executed FLOP by the paper's own count lie between flopsd's low and high, with the margin of these runs."""
    figures = of_run(run)
    assert figures.measured_flop is not None
    assert figures.high_flop is not None
    executed = run["executed_flop_per_token"] * run["tokens_per_s"] * run["elapsed_s"]
    required = run["required_flop_per_token"] * run["tokens_per_s"] * run["elapsed_s"]
    checkpointing = "with" if run["activation_checkpointing"] else "without"
    print(f"\n  {run['sequence_length']} x {run['batch']} {checkpointing} checkpointing: "
          f"measured {figures.measured_flop:.4e}, executed {executed:.4e}, {figures.measured_flop / executed - 1:+.2%}; "
          f"required {required:.4e}")  # fmt: skip
    assert figures.low_flop <= executed <= figures.high_flop


def test_the_margin_of_the_h100_pcie_follows_from_these_runs() -> None:
    """docs/adr/0021: the widest deviation of all runs, times the factor, rounded up to whole percents."""
    off = []
    for run in RUNS:
        measured = of_run(run).measured_flop
        assert measured is not None
        executed = run["executed_flop_per_token"] * run["tokens_per_s"] * run["elapsed_s"]
        off.append(abs(executed / measured - 1))
    (entry,) = [row["margins"]["activity"]["bf16"] for row in raw()["accelerators"] if row["id"] == "h100-pcie"]
    assert (entry["runs"], entry["widest_ppm"]) == (len(RUNS), round(max(off) * 10**6))
    assert H100_PCIE.margins[Evidence.ACTIVITY, "bf16"].ppm == margin_ppm(Fraction(max(off)))


def of_run(run: dict[str, Any]) -> Figures:
    return computed(
        H100_PCIE, run["sms"], run["mean_tensor_active_ratio"], run["mean_sm_clock_mhz"], run["elapsed_s"], BF16
    )
