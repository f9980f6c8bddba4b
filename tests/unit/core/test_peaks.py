"""The packaged peak table: consistent with its datasheets, exact in its names, without guesses for unknown devices."""

import json
import math
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import astuple, replace
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
import yaml

from flopsd.core.declarations import precision_from
from flopsd.core.model import UNIDENTIFIED, ChipLimits, Device, Evidence, Pipe, Precision
from flopsd.core.part import Margin
from flopsd.core.rows import Rating, precision_label, rows, total_of
from flopsd.core.tally import Tally
from flopsd.errors import PeakTableError, UnknownDeviceError
from flopsd.settings.data_files import config_dir, parse_peaks
from tests.hardware.margins import LEAST_WITHOUT_RUNS_PPM, margin_ppm
from tests.support.strategies import table


@cache
def packaged() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((config_dir() / "peaks.yaml").read_text())
    return document


def raw() -> dict[str, Any]:
    return deepcopy(packaged())


def device(model: str, pci: int | None = None) -> Device:
    return Device("GPU-0", 0, "nvidia", model, pci_device_id=pci)


def test_rates_times_clocks_match_every_datasheet_figure() -> None:
    checked = 0
    for row in raw()["accelerators"]:
        if row["vendor"] != "nvidia" or row["sm_count"] is None:
            continue
        for name, tflops in row["datasheet_dense_tflop_per_s"].items():
            pipe, fmt = name.split(".")
            at_vector = pipe == "vector" or fmt in row.get("tensor_formats_at_vector_ref", [])
            mhz = row["clocks_mhz"]["vector_ref" if at_vector else "tensor_ref"]
            computed = row["flop_per_cycle_per_sm"][pipe][fmt] * row["sm_count"] * mhz / 1e6
            assert computed == pytest.approx(tflops, rel=0.013), (row["id"], name)
            checked += 1
    assert checked == 135


def test_every_row_states_its_status_and_sources() -> None:
    for row in raw()["accelerators"]:
        assert row["status"] in ("published", "derived", "disputed", "unverified"), row["id"]
        assert row["sources"], row["id"]
    for evidence in (Evidence.CYCLES, Evidence.ACTIVITY, Evidence.COUNT):
        assert table().margins[evidence].source
        assert table().margins[evidence].ppm > 0


@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA GB300", "gb300"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm5-80gb"),
        ("Tesla T4", "t4"),
        ("inferentia2", "inferentia2"),
        ("Trainium1", "trainium1"),
        ("trainium2", "trainium2"),
        ("Trainium3", "trainium3"),
    ],
)
def test_each_device_name_resolves_to_its_own_row(model: str, row: str) -> None:
    assert table().resolve(device(model)).id == row


@pytest.mark.parametrize(
    "model", ["NVIDIA H20", "NVIDIA H2000", "H200", "NVIDIA L40", "NVIDIA A10", "NVIDIA X9000", ""]
)
def test_unknown_devices_are_refused_not_guessed(model: str) -> None:
    with pytest.raises(UnknownDeviceError, match=r"device 0 \(GPU-0\)") as caught:
        table().resolve(device(model))
    assert "--peaks" in caught.value.hint


def test_a_device_that_is_not_identified_has_the_reason_and_the_fix_of_its_source() -> None:
    bare = device(UNIDENTIFIED)
    told = replace(bare, evidence_reason="cannot be identified: Insufficient Permissions", evidence_fix="give access")
    for one, words, hint in ((told, "Permissions", "give access"), (bare, "the driver does not identify it", "dmesg")):
        with pytest.raises(UnknownDeviceError, match=words) as caught:
            table().resolve(one)
        assert hint in caught.value.hint


def test_the_pci_id_resolves_a_row_and_a_contradiction_resolves_none() -> None:
    assert table().resolve(device("Graphics Device", 0x2330)).id == "h100-sxm5-80gb"
    assert table().resolve(device("NVIDIA H100 SXM5 64GB HBM3", 0x2330)).id == "h100-sxm5-80gb"
    with pytest.raises(UnknownDeviceError, match="matches more than one row"):
        table().resolve(device("NVIDIA H200", 0x2330))
    with pytest.raises(UnknownDeviceError, match="the id is that of h100-sxm5-80gb, the name another chip's"):
        table().resolve(device("NVIDIA GB300 NVL72", 0x2330))


def test_all_instance_types_resolve() -> None:
    assert len(table().instances) == 66
    for instance in table().instances.values():
        assert instance.accelerator in table().parts
        assert instance.count is not None or instance.status == "unverified"


def test_hopper_has_two_reference_clocks() -> None:
    peaks = {(pipe, name): peak for pipe, name, peak in table().parts["h100-sxm5-80gb"].datasheet_peaks()}
    assert peaks[(Pipe.TENSOR_HMMA, "bf16")] == 132 * 4096 * 1_830_000_000
    assert peaks[(Pipe.TENSOR_DFMA, "fp64")] == 132 * 256 * 1_980_000_000
    assert peaks[(Pipe.FP32, "fp32")] == 132 * 256 * 1_980_000_000
    assert 1 - peaks[(Pipe.TENSOR_HMMA, "bf16")] / (132 * 4096 * 1_980_000_000) == pytest.approx(0.0758, abs=1e-4)
    assert table().parts["trainium2"].datasheet_peaks()[0] == (None, "bf16", 667 * 10**12)


def test_the_rate_of_an_undeclared_format_is_a_range() -> None:
    h100 = table().parts["h100-sxm5-80gb"]
    rates = h100.rates(Pipe.TENSOR_HMMA, None)
    assert (rates.low, rates.measured, rates.high) == (2048, 4096, 8192)
    declared = h100.rates(Pipe.TENSOR_HMMA, Precision((("bf16", 900_000), ("fp8", 100_000)), "config"))
    assert (declared.low, declared.measured, declared.high) == (4505, 4505, 4506)  # 4505.6
    assert h100.rates(Pipe.FP32, None).low == 0
    assert table().ceiling_flop_per_cycle(h100, None) == 8192 + 128 + 256 + 512
    assert not table().parts["a100-sxm4-80gb"].declares(Precision((("fp8", 1_000_000),), "config")), "it lacks FP8"
    for name, fits in (("bf16", True), ("fp8", True), ("int8", False)):
        assert table().parts["trainium2"].declares(Precision(((name, 1_000_000),), "config")) is fits


def test_a_disputed_rate_raises_only_the_upper_figure() -> None:
    a10g = table().parts["a10g"].rates(Pipe.TENSOR_HMMA, Precision((("bf16", 1_000_000),), "config"))
    assert (a10g.low, a10g.measured, a10g.high) == (512, 512, 1024)


def test_an_unrated_pipe_is_bounded_and_not_zero() -> None:
    b200 = table().parts["b200"]
    assert b200.rates(Pipe.FP16, None).measured is None
    assert table().bound(b200, Pipe.FP16, None) == 1024
    assert table().ceiling_flop_per_cycle(b200, None) == 32768 + 128 + 256 + 1024
    for part in table().parts.values():
        vector, tensor = part.vector_flop_per_cycle, part.tensor_flop_per_cycle
        fp32 = vector.get("fp32", 0)
        rates = {
            "fp16": vector.get("fp16"),
            "fp64": vector.get("fp64"),
            "int8": tensor.get("int8"),
            "dfma": tensor.get("fp64"),
        }
        assert all(table().unrated_times_fp32[name] * fp32 >= (rate or 0) for name, rate in rates.items() if fp32)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("schema: flopsd-peaks/1", "schema: other/2"), "schema 'other/2'"),
        (("tensor: {fp16: 1024}", "tensor: {fp16: 1024.5}"), "not positive integers"),
        (("sm_count: 132", "sm_count: .nan"), "sizes that are not positive integers"),
        (
            (
                "disputed_flop_per_cycle_per_sm:\n      tensor: {fp16: ",
                "disputed_flop_per_cycle_per_sm:\n      tensor: {fp16: -",
            ),
            "integers: -1024",
        ),
        (("times_fp32: 4", "times_fp32: 4.9"), "times_fp32 of fp16 is a whole number above 0, not 4.9"),
        (("cores: 64}", "cores: 0}"), "cores is a whole number above 0, not 0"),
        (("_per_chip: {bf16: 191", "_per_chip: {bf16: 0"), r"are above 0 and below 1000000000, not \[0\]"),
        (("h100-sxm5-80gb, count: 8", "h100-sxm5-80gb, count: -1"), "is a whole number above 0, not -1"),
        (("per_chip: {bf16: ", "per_chip: {bf16: -"), "TFLOP/s of a chip are above 0"),
        (('names: ["Tesla T4"]', 'names: ["NVIDIA L4"]'), "belongs to both"),
        (('names: ["Tesla T4"]', "names: Tesla T4"), "names is a list of texts, not 'Tesla T4'"),
        (("id: t4", "id: l4"), "share an id"),
        (("accelerator: t4", "accelerator: t5"), "unknown accelerator 't5'"),
        (("clocks_mhz: {", "clocks_mhz: x # {"), "row 'v100-sxm2' of accelerators: a member is of another type"),
        (("accelerator: t4", "accelerator: [t4]"), "unknown accelerator a list"),
        (("schema:", "schema: x\nschema:"), "given twice"),
    ],
)
def test_a_bad_table_is_refused_with_its_fault(change: tuple[str, str], fault: str) -> None:
    text = (config_dir() / "peaks.yaml").read_text().replace(*change, 1)
    with pytest.raises(PeakTableError, match=fault):
        parse_peaks(text.encode(), "peaks.yaml")


@pytest.mark.parametrize(
    ("ppm", "is_margin"), [(0, True), (10**6, True), (10**6 + 1, False), ("1", False), (0.5, False)]
)
def test_a_margin_is_at_most_a_million_ppm(ppm: object, is_margin: bool) -> None:
    changed = raw()
    row = next(row for row in changed["accelerators"] if "activity" in row.get("margins", {}))
    next(iter(row["margins"]["activity"].values()))["ppm"] = ppm
    with nullcontext() if is_margin else pytest.raises(PeakTableError, match="at most a million"):
        parse_peaks(json.dumps(changed).encode(), "peaks.yaml")


@pytest.mark.parametrize(
    ("shares", "hmma", "label"),
    [
        ({"bf16": 500_000, "fp64": 500_000}, (4096, 4096, 4096), "bf16"),
        ({"bf16": 900_001, "int8": 99_999}, (4096, 4096, 4096), "bf16"),
        ({"bf16": 300_000, "fp8": 100_000, "fp64": 600_000}, (5120, 5120, 5120), "bf16:0.75,fp8:0.25"),
        ({"bf16": 900_001, "fp8": 99_999}, (4505, 4505, 4506), "bf16:0.900001,fp8:0.099999"),
        ({"int8": 1_000_000}, (2048, 4096, 8192), "undeclared"),
    ],
)
def test_a_counter_is_rated_by_the_declared_formats_it_counts(
    shares: dict[str, int], hmma: tuple[int, int, int], label: str
) -> None:
    part, mix = table().parts["h100-sxm5-80gb"], precision_from(shares, "config")
    assert astuple(part.rates(Pipe.TENSOR_HMMA, mix)) == hmma
    assert precision_label(Pipe.TENSOR_HMMA, Rating(part, None, mix, table())) == label
    whole = Rating(part, None, mix, table())
    assert (
        precision_label(Pipe.TENSOR, whole) == precision_label(None, whole) == mix.label
    )  # these counters count every format
    tensor = part.rates(Pipe.TENSOR, mix)
    for integers, found in ((False, tensor), (True, part.integer_rates(Pipe.TENSOR, mix))):
        rates = [part.tensor_flop_per_cycle[n] * p for n, p in mix.shares_ppm if (n == "int8") is integers]
        assert (found.low, found.high) == (math.floor(sum(rates) / 10**6), math.ceil(sum(rates) / 10**6))


def test_a_mix_says_nothing_about_what_counters_of_single_kinds_leave_in_any_phase() -> None:
    """All integers of the mix ran in one phase, so that the rest is BF16 alone."""
    integers, rest = {(Evidence.CYCLES, Pipe.TENSOR_IMMA): 600}, {(Evidence.CYCLES, Pipe.TENSOR): 400}
    share = Tally(0, 1, observed_ns={Evidence.CYCLES: 1}, active_sm_cycles=integers)
    whole = Tally(
        0, 2, observed_ns={Evidence.CYCLES: 2}, active_sm_cycles={**integers, **rest}, phases={"train": share}
    )
    part, mix = table().parts["h100-sxm5-80gb"], precision_from({"bf16": 400_000, "int8": 600_000}, "config")
    found = total_of(rows(whole, Rating(part, None, mix, table())), whole)
    assert found.high_flop is not None
    assert found.low_flop <= 400 * 4096 <= found.high_flop


@pytest.mark.long
def test_each_margin_follows_its_rule() -> None:
    """The rule is in docs/adr/0021, and the runs themselves are in test_published."""
    own: dict[str, list[int]] = {}
    for row in raw()["accelerators"]:
        for evidence, formats in row.get("margins", {}).items():
            for name, entry in formats.items():
                assert name in row["flop_per_cycle_per_sm"]["tensor"], (row["id"], name)
                assert entry["ppm"] == margin_ppm(Fraction(entry["widest_ppm"], 10**6)), (row["id"], name)
                assert entry["runs"] > 0
                own.setdefault(evidence, []).append(entry["ppm"])
    assert own
    for evidence, margin in raw()["margins"].items():
        runs = own.get("activity" if evidence == "cycles" else evidence, [])
        assert margin["ppm"] == max(LEAST_WITHOUT_RUNS_PPM, *runs, 0), evidence


def test_a_margin_is_the_widest_of_the_formats_that_the_work_may_use() -> None:
    plain = table().margins[Evidence.ACTIVITY].ppm
    part = replace(
        table().parts["h100-pcie"],
        margins={(Evidence.ACTIVITY, name): Margin(ppm, "") for name, ppm in (("bf16", 40_000), ("fp8", 60_000))},
    )

    def margin(pipe: Pipe, *formats: str, evidence: Evidence = Evidence.ACTIVITY) -> int:
        shares = {name: 10**6 // len(formats) for name in formats}
        mix = precision_from(shares, "config") if formats else None
        return table().margin_ppm(evidence, part, part.formats(pipe, mix))

    assert margin(Pipe.TENSOR_HMMA, "bf16") == 40_000
    assert margin(Pipe.TENSOR_HMMA, "bf16", "fp8") == 60_000
    assert margin(Pipe.TENSOR_HMMA, "bf16", "fp64") == 40_000, "FP64 is counted elsewhere"
    assert margin(Pipe.TENSOR, "bf16", "fp64") == plain, "one of the two has no run"
    assert {margin(pipe) for pipe in Pipe} == {plain}, "undeclared work may be in a format without a run"
    assert margin(Pipe.TENSOR_HMMA, "bf16", evidence=Evidence.CYCLES) == table().margins[Evidence.CYCLES].ppm


# Per SM-cycle: the fastest floating-point tensor format plus FP64, FP32 and FP16; the most undeclared tensor work; the
# fastest integer format. docs/accelerators.md has the same table, and test_pages compares them.
UNDECLARED = {
    "v100-sxm2": (1024 + 64 + 128 + 256, 1024, 0), "t4": (1024 + 4 + 128 + 256, 1024, 4096),
    "a100-sxm4-80gb": (2048 + 64 + 128 + 512, 2048, 8192), "a10g": (1024 + 4 + 256 + 256, 1024, 4096),
    "l4": (2048 + 4 + 256 + 256, 2048, 4096), "h100-sxm5-80gb": (8192 + 128 + 256 + 512, 8192, 8192),
    "b200": (32768 + 128 + 256 + 1024, 32768, 16384), "b300": (49152 + 256 + 256 + 1024, 49152, 16384),
}  # fmt: skip


@pytest.mark.parametrize("row", UNDECLARED)
def test_integer_operations_have_their_own_ceiling(row: str) -> None:
    ceiling, tensor, integers = UNDECLARED[row]
    part = table().parts[row]
    assert (table().ceiling_flop_per_cycle(part, None), part.rates(Pipe.TENSOR, None).high) == (ceiling, tensor)
    assert table().integer_bound(part, Pipe.TENSOR, None) == table().integer_bound(part, Pipe.TENSOR_IMMA, None)
    assert table().integer_bound(part, Pipe.TENSOR, None) == integers
    assert table().bound(part, Pipe.TENSOR_IMMA, None) == 0
    assert part.rates(Pipe.TENSOR, None).low == (0 if integers else 1024), "tensor work of no kind may be integers"


def test_a_chip_has_a_floating_point_and_an_integer_ceiling() -> None:
    limits = {row: table().limits(device("chip", None), table().parts[row]) for row in ("trainium1", "trainium2")}
    assert limits["trainium1"] == ChipLimits(191 * 10**12, 380 * 10**12)
    assert limits["trainium2"] == ChipLimits(2563 * 10**12, None), "no source states an integer rate"
