"""`make hardware` on the stand-in driver: runner, bracket, table, results and page, without GPU and without PyTorch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hardware import plan
from tests.hardware.accuracy import page
from tests.hardware.results import read
from tests.support.process import environment

ROOT = Path(__file__).resolve().parent.parent.parent
PIPES = {"fp64": "tensor_dfma", "fp32": "fp32", "bf16": "tensor_hmma", "fp16": "tensor_hmma", "int8": "tensor_imma"}

pytestmark = [pytest.mark.tool("make", "cc")]


def hardware(out: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "hardware", f"HARDWARE_PYTHON={sys.executable}", f"HARDWARE_DIR={out}",
         f"HARDWARE_ARGS={arguments}"],
        cwd=ROOT, env=environment(None), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_metered_flop_match_the_true_ones_load_by_load(tmp_path: Path) -> None:
    ran = hardware(tmp_path / "out", "--simulated")
    print(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    document = read(tmp_path / "out" / "results.json")
    specs = plan.simulated()
    assert [load["name"] for load in document["loads"]] == [spec.name for spec in specs]
    for load in document["loads"]:
        check(load)
    assert document["origin"] == "simulated"
    assert document["daemon"]["exit_code"] == 0
    assert document["daemon"]["verified"] is True
    assert document["settings"] == {"changed": False}
    assert [q["number"] for q in document["questions"]] == list(range(1, 17))
    assert all((q["answer"] is None) != (q["not_answered"] is None) for q in document["questions"])
    assert "tensor_hmma" in document["questions"][2]["answer"]
    assert document["questions"][4]["not_answered"] == "the driver was simulated"
    stated = {q["subject"]: q["answer"] or q["not_answered"] for q in document["questions"]}
    assert stated["clock buffer"] == "none: NVML answers with status 3", "the stand-in keeps none here"
    assert stated["streaming"].startswith("on before flopsd ran")
    assert "ms apart, faster than counters are renewed: ANY_TENSOR_UTIL" in stated["stuck"]
    assert "--change-settings does" in stated["stuck"], "nothing global was touched"
    assert stated["Nsight"] == "Nsight Compute (ncu) is not installed"
    assert stated["DCGM"] == "dcgmi is not installed"
    lines = ran.stdout.splitlines()
    for question in document["questions"]:
        assert sum(line.startswith(f"{question['number']:>2} {question['subject']}: ") for line in lines) == 1
    assert all(len(line) <= 100 or "results.json" in line for line in lines)
    assert all(any(line.startswith(spec.name) for line in lines) for spec in specs)
    assert "SIMULATED: no figure here is about hardware" in lines
    text = page([document])
    assert "SIMULATED: no hardware was measured" in text
    assert "No run on hardware has been made yet" in text
    assert "proposed ppm" not in text


def check(load: dict[str, Any]) -> None:
    """Compare one result with the simulation."""
    assert load["status"] == "done", load
    metered, true = load["metered"], int(load["true_flop"])
    assert metered["from_ns"] <= load["begin_ns"] < load["end_ns"] <= metered["to_ns"]
    assert metered["gap_seconds"] == {}
    assert load["inside"] is True
    assert load["clock_mhz"]["mean"] == 1755
    undeclared = int(metered["undeclared"]["measured"])
    assert metered["exported_flop"] == pytest.approx(undeclared, rel=1e-6, abs=1e6)
    if load["format"] is None:
        assert (true, undeclared, load["ratio"], load["main"]) == (0, 0, None, None)
        return
    assert true > 10**13
    assert load["ratio"] == pytest.approx(1, abs=0.01)
    assert load["main"]["pipe"] == PIPES[load["format"]]
    assert load["main"]["ratio"] == pytest.approx(1, abs=0.01)
    assert [pipe["pipe"] for pipe in metered["pipes"]] == [PIPES[load["format"]]]
    assert load["raw"]["whole"]["percent"]["5"]["status"] == 0


def test_a_journal_of_an_earlier_run_is_never_mixed_with_this_one(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.jsonl").write_text("kept")
    ran = hardware(tmp_path, "--simulated")
    assert ran.returncode == 2, ran.stdout
    assert "give --out an empty folder" in ran.stderr
    assert (tmp_path / "state" / "journal.jsonl").read_text() == "kept"


def test_without_pytorch_it_names_the_missing_packages_and_measures_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import tests.hardware.torch_loads, tests.hardware.suite; "
        "from tests.hardware.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "--out", str(tmp_path / "out")], cwd=ROOT, env=environment(None),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 2, ran.stderr
    assert "HARDWARE_PYTHON" in ran.stderr
    assert not (tmp_path / "out").exists()
