"""An A100 with utilization only, and a process that counts its operators: from a ceiling to a figure."""

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.model import Pipe
from flopsd.system.clock import NS_PER_S
from tests.support.process import environment, flopsd, in_process, predicate
from tests.support.scenario import Gpu, Scenario, Segment, Slice, a100

TENSOR_FLOP = 2048  # BF16, per SM and cycle
GPU = a100((Segment(1000, mhz=1200, hmma=0.75),))
# Three and four sevenths of an A100, as MIG divides it.
CUT = replace(GPU, mig=True, slices=(Slice(1, 42, GPU.segments), Slice(2, 56, GPU.segments)))
SLICES = tuple(f"MIG-5a4d0000-0000-4000-8000-000000{gi:03d}000" for gi in (1, 2))

# Once the daemon knows it, counts for three seconds the true work of the stand-in's GPU times a factor.
JOB = """
import os, sys, time
import flopsd.client
rate, factor, device, journal = sys.argv[1:]
client = flopsd.client.connect()
client.declare(device=device, precision="bf16", method="full")
client.set_phase("train")
while not os.path.exists(journal) or b'"declaration"' not in open(journal, "rb").read():
    time.sleep(0.02)
began, counted = time.clock_gettime_ns(time.CLOCK_BOOTTIME), 0
for _ in range(30):
    time.sleep(0.1)
    done = int(rate) * (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began) // 10**9
    client.count("train", operator_flop=max(0, int(done * float(factor)) - counted), steps=1)
    counted = max(counted, int(done * float(factor)))
print(counted)
client.close()
"""


J = dict[str, Any]
NEAR = ("--base-flop", str(10**23 - 10**14), "--base-systemic", "false")
TRAINING = ("--phase", "train", "--method", "full", "--recomputation", "none", *NEAR)


def metered(
    tmp_path: Path,
    standin: Path,
    factor: float,
    *options: str,
    gpu: Gpu = GPU,
    sms: int = 108,
    device: str | None = None,
) -> tuple[J, int, int]:
    """The ledger of a job that counts `factor` times the truth, the truth, and the count."""
    scenario = Scenario((gpu,))
    rate = int(GPU.sm_cycles(Pipe.TENSOR_HMMA, 0, NS_PER_S, sms)) * TENSOR_FLOP
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    device, journal = device or scenario.uuid(0), tmp_path / "state" / "journal.jsonl"
    job = (sys.executable, "-c", JOB, str(rate), str(factor), device, str(journal))
    done = flopsd(
        "exec", "--state-dir", str(tmp_path / "state"), "--ledger", str(tmp_path / "ledger.json"), "--listen", "off",
        *options, "--", *job, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (counted,) = (int(line) for line in done.stdout.splitlines() if line.isdigit())
    found = predicate(tmp_path / "ledger.json")
    is_used = "operator_count" in found["totals"]["executed"]["byEvidence"]
    assert (
        "The measured figure and the lower bound include software's count" in " ".join(done.stderr.split())
    ) is is_used
    return found, int(rate * Fraction(found["deviceSeconds"])), counted


def test_a_count_gives_a_figure_and_a_verdict_that_names_its_origin(tmp_path: Path, standin: Path) -> None:
    found, truth, counted = metered(tmp_path, standin, 1, *TRAINING, "--precision", "bf16")
    low, measured, high = (int(found["totals"]["executed"][name]) for name in ("low", "measured", "high"))
    assert 0 < low == measured == counted <= truth <= high
    (rule,) = (one for one in found["findings"] if one["rule"] == "base-not-gpai")
    assert (rule["state"], rule["restsOn"]) == ("above", "operator_count")
    said = in_process("verify", str(tmp_path / "ledger.json"), "--key", str(tmp_path / "ledger.pub"), code=0).stdout
    assert "count of operators by its training processes" in " ".join(said.split())


def test_figures_as_claimed_use_the_format_that_the_process_sees(tmp_path: Path, standin: Path) -> None:
    found, truth, counted = metered(tmp_path, standin, 1, *TRAINING)
    executed, claimed = found["totals"]["executed"], found["totals"]["guidelines"]["asClaimed"]
    assert int(executed["low"]) == int(executed["measured"]) == counted <= truth <= int(executed["high"])
    assert 0 < int(claimed["low"]) <= counted
    assert truth <= int(claimed["high"]) <= int(executed["high"])


def test_a_process_that_counts_ten_times_its_work_changes_nothing(tmp_path: Path, standin: Path) -> None:
    found, truth, counted = metered(tmp_path, standin, 10, *TRAINING, "--precision", "bf16")
    executed = found["totals"]["executed"]
    assert (executed["low"], executed["measured"]) == ("0", None)
    assert truth <= int(executed["high"]) < counted
    (note,) = found["declared"]["contradictions"]
    assert note["name"] == "COUNT_EXCEEDS_CEILING"
    assert (note["flop"], note["ceiling"]) == (str(counted), executed["high"])
    assert [one["restsOn"] for one in found["findings"]] == [None] * len(found["findings"])


@pytest.mark.parametrize("factor", [1, 10])
def test_a_count_on_a_mig_slice_applies_only_to_that_slice(tmp_path: Path, standin: Path, factor: int) -> None:
    """The ceiling of the slice decides what is too much."""
    found, truth, counted = metered(
        tmp_path, standin, factor, *TRAINING, "--precision", "bf16", gpu=CUT, sms=42, device=SLICES[0]
    )
    executed = {one["uuid"]: one["executed"] for one in found["devices"]}
    spans = {one["uuid"]: Fraction(one["spanSeconds"]) for one in found["devices"]}
    truth = int(truth * spans[SLICES[0]] / Fraction(found["deviceSeconds"]))
    own, sibling = (executed.pop(uuid) for uuid in SLICES)
    assert truth <= int(own["high"]) < int(sibling["high"])
    assert [(one["low"], one["measured"]) for one in (sibling, *executed.values())] == [("0", None)] * (
        1 + len(executed)
    )
    if factor == 1:
        assert 0 < int(own["low"]) == int(own["measured"]) == counted <= truth
        assert found["totals"]["executed"]["low"] == str(counted)
    else:
        assert (own["low"], own["measured"]) == ("0", None)
        (note,) = found["declared"]["contradictions"]
        assert (note["name"], note["device"], note["ceiling"]) == ("COUNT_EXCEEDS_CEILING", SLICES[0], own["high"])
        assert counted > int(own["high"])
