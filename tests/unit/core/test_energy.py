"""Energy per FLOP compared with published runs: when it is compared, when it is not, and which results are flagged."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.energy import (
    ABOVE,
    BELOW,
    ComparedEnergy,
    Published,
    compared,
    energy_for_ledger,
    energy_from,
    sum_comparisons,
)
from flopsd.core.ledger.rated_tally import RatedTally, rating_of
from flopsd.core.ledger.run_view import DeviceView
from flopsd.core.model import Evidence, GapReason, Pipe, Precision
from flopsd.core.tally import Tally
from flopsd.errors import PeakTableError
from flopsd.settings.data_files import config_dir, load_peaks, parse_peaks
from tests.support.story import H100 as SXM

H100 = replace(SXM, model="NVIDIA H100 PCIe", pci_device_id=0x2331, sm_count=114, sm_clock_max_mhz=1755)
TABLE = load_peaks()
PUBLISHED = Published("h100-pcie", "bf16", 1011, 1373)
HOUR_NS = 3600 * 10**9
# 30 % of the cycles at 1300 MHz are 1.82 x 10^14 FLOP/s; the published runs reached 2.5 to 3.4 x 10^14.
CYCLES = {(Evidence.ACTIVITY, Pipe.TENSOR): 114 * 1300 * HOUR_NS // 1000 * 3 // 10}
FLOP = CYCLES[Evidence.ACTIVITY, Pipe.TENSOR] * 4096


def tally(watts: int = 220, **changes: Any) -> Tally:
    """One hour of one GPU, without energy for the first second."""
    known: dict[str, Any] = {
        "active_sm_cycles": CYCLES,
        "observed_ns": {Evidence.ACTIVITY: HOUR_NS},
        "energy_mj": watts * 3_600_000,
        "energy_ns": HOUR_NS - 10**9,
    }
    return Tally(0, HOUR_NS, **{**known, **changes})


def of(*tallies: Tally, precision: str | None = None, part: str = "h100-pcie") -> Mapping[Published, ComparedEnergy]:
    declared = None if precision is None else Precision(((precision, 1_000_000),), "config")
    entry = DeviceEntry(H100, "nvml", part, 0, declared)
    rated = [RatedTally(n, entry, one, rating_of(entry, TABLE)) for n, one in enumerate(tallies, 1)]
    return compared([DeviceView(tuple(rated))])


def said(*tallies: Tally) -> dict[str, Any]:
    (entry,) = energy_for_ledger(of(*tallies))
    return entry


def test_a_run_is_compared_with_the_published_runs_of_its_part() -> None:
    entry = said(tally())
    assert (entry["energyJoules"], entry["deviceSeconds"]) == ("792000.000", "3600.000000000")
    assert entry["measuredFlop"] == str(FLOP)
    energy_fj, doubt = 792_000 * 10**15, -(-FLOP * 9 // 100)
    assert entry["fjPerFlop"] == {
        "low": str(energy_fj // (FLOP + doubt)),
        "measured": str(energy_fj // FLOP),
        "high": str(-(-energy_fj // (FLOP - doubt))),
    }
    assert entry["publishedFjPerFlop"] == {"low": "1011", "high": "1373"}
    assert (entry["withinMargin"], entry["warning"]) == (True, None)


@pytest.mark.parametrize(("watts", "warning"), [(150, BELOW), (250, None), (350, ABOVE)])
def test_energy_outside_the_published_range_and_counter_margin_is_flagged(watts: int, warning: str | None) -> None:
    assert said(tally(watts))["warning"] == warning
    assert said(tally(watts))["withinMargin"] is (warning is None)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"energy_mj": None, "energy_ns": 0}, id="no energy counter"),
        pytest.param({"energy_ns": HOUR_NS * 98 // 100}, id="energy of less time than the work"),
        pytest.param(
            {
                "observed_ns": {Evidence.ACTIVITY: HOUR_NS * 98 // 100},
                "gap_ns": {GapReason.DRIVER_ERROR: HOUR_NS - HOUR_NS * 98 // 100},
            },
            id="work of less time than the energy",
        ),
        pytest.param({"observed_ns": {Evidence.UTILIZATION: HOUR_NS}, "active_sm_cycles": {}}, id="only bounded"),
        pytest.param({"unread_ns": {Pipe.TENSOR_HMMA: 1}}, id="a tensor pipe that was not read"),
        pytest.param({"active_sm_cycles": {}}, id="nothing was done"),
        pytest.param(
            {"active_sm_cycles": {**CYCLES, (Evidence.ACTIVITY, Pipe.TENSOR_IMMA): 10**15}}, id="work in integers too"
        ),
    ],
)
def test_energy_and_work_that_do_not_cover_the_same_time_are_not_compared(changes: dict[str, Any]) -> None:
    assert of(tally(watts=1))
    assert of(tally(watts=1, **changes)) == {}


def test_only_the_published_format_and_part_are_compared() -> None:
    assert of(tally(), precision="bf16").keys() == {PUBLISHED}
    assert of(tally(), precision="fp8") == {}
    assert of(tally(), part="h100-sxm5-80gb") == {}


def test_daemon_starts_of_one_device_are_compared_as_one() -> None:
    """Energy that a later start counted for the time before it fills the gap that the first start left."""
    first, second = tally(energy_ns=HOUR_NS * 9 // 10), tally(energy_ns=HOUR_NS * 11 // 10)
    assert of(first) == {}
    assert of(first, second)[PUBLISHED].energy_mj == 2 * 792_000_000


def test_compared_energy_adds_up_and_survives_a_round_trip() -> None:
    one, other = of(tally()), of(tally(350))
    both = sum_comparisons([one, other])
    assert both[PUBLISHED].measured_flop == 2 * FLOP
    further = {PUBLISHED._replace(precision="fp8"): both[PUBLISHED]}
    entries = energy_for_ledger({**both, **further})
    assert [entry["precision"] for entry in entries] == ["bf16", "fp8"]
    assert energy_from([{"name": "executed/architecture"}, *entries]) == {**both, **further}
    assert energy_from(energy_for_ledger(one)) == one


@pytest.mark.parametrize(
    "change", [{"measuredFlop": "0"}, {"measuredFlop": "-1"}, {"doubtFlop": None}, {"energyJoules": "1"}]
)
def test_a_malformed_comparison_is_refused(change: dict[str, Any]) -> None:
    (entry,) = energy_for_ledger(of(tally()))
    with pytest.raises((TypeError, ValueError)):
        energy_from([{**entry, **change}])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("low_fj_per_flop: 1011", "low_fj_per_flop: 0"),
        ("low_fj_per_flop: 1011", "low_fj_per_flop: 1374"),
        ("high_fj_per_flop: 1373", "high_fj_per_flop: 1373.5"),
        ("high_fj_per_flop: 1373", ""),
        ("      bf16:\n        low_fj", "      int8:\n        low_fj"),
        ("      bf16:\n        low_fj", "      fp4:\n        low_fj"),
    ],
)
def test_a_peak_table_with_an_invalid_energy_range_is_refused(before: str, after: str) -> None:
    text = (config_dir() / "peaks.yaml").read_text()
    assert text.count(before) == 1
    with pytest.raises(PeakTableError):
        parse_peaks(text.replace(before, after).encode(), "peaks.yaml")
