"""docs/accuracy.md matches its generator's output for the results; the hardware suite's closed forms, and its
settings."""

import copy
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hardware import plan, preflight
from tests.hardware.accuracy import main, page
from tests.hardware.loads import Knobs, Shape, UnavailableError, gemm_flop, sparse_gemm_flop, training_step_flop
from tests.hardware.questions import answers, grown
from tests.hardware.results import ResultsError, read
from tests.support.golden import check_golden
from tests.support.paths import GOLDEN, ROOT

SYNTHETIC = GOLDEN / "hardware-synthetic.json"


def as_if_real() -> dict[str, Any]:
    """The synthetic results, labelled as a run on hardware: only so can this test see the page for such a run."""
    document = copy.deepcopy(dict(read(SYNTHETIC)))
    document["origin"] = "hardware"
    return document


def test_the_committed_page_is_made_from_the_committed_results() -> None:
    documents = [read(path) for path in sorted((ROOT / "docs" / "accuracy").glob("*.json"))]
    assert all(document["origin"] == "hardware" for document in documents)
    check_golden(page(documents), ROOT / "docs" / "accuracy.md")


def test_without_a_run_there_is_no_figure_and_the_page_says_so() -> None:
    text = page([])
    assert "No run on hardware has been made yet" in text
    assert "None is answered: no run on hardware has been made." in text
    assert len(re.findall(r"^\d+\. ", text, re.M)) == 16
    assert "| load |" not in text
    assert "%" not in text.partition("## How to run it")[0]


def test_synthetic_results_give_a_page_that_says_so() -> None:
    text = page([read(SYNTHETIC)])
    assert "SYNTHETIC: no hardware was measured" in text
    assert "No run on hardware has been made yet" in text
    assert "proposed ppm" not in text
    check_golden(text, GOLDEN / "accuracy-synthetic.md")


def test_margins_come_from_long_large_loads_without_gaps() -> None:
    text = page([as_if_real()])
    # 1/0.98 and 1/1.03 are 2.04 % and 2.91 % off; FP32, the small, the short and the gapped load do not count.
    assert "| cycles | bf16 | 50000 | 2 | 29127 | training-bf16-lora-4-10s |" in text
    assert "| Made-up GPU | gemm | bf16 | cycles | 1 | 0.9800 | 0.9800 |" in text
    assert "| Made-up GPU | gemm | fp32 | cycles | 1 | 1.3000 | 1.3000 |" in text
    assert "No run on hardware has been made yet" not in text
    assert "Not answered here (Made-up GPU, 2026-01-01): the device is Made-up GPU." in text


def test_a_load_without_any_metered_work_takes_the_whole_margin() -> None:
    document = as_if_real()
    next(r for r in document["loads"] if r["name"] == "gemm-bf16-8192-10s")["main"]["ratio"] = 0.0
    assert "| cycles | bf16 | 1000000 | 2 | 1000000 | gemm-bf16-8192-10s |" in page([document])


def test_the_order_of_the_files_does_not_matter() -> None:
    first, second = as_if_real(), as_if_real()
    second["date"] = "2026-02-02"
    assert page([first, second]) == page([second, first])


def test_every_question_is_answered_or_has_a_reason_why_not() -> None:
    stated = answers(as_if_real(), {})
    assert [q["number"] for q in stated] == list(range(1, 17))
    assert all((q["answer"] is None) != (q["not_answered"] is None) for q in stated)
    assert "ELAPSED is 1.000 x SM clock" in stated[0]["answer"]
    assert "absolute in 6 loads" in stated[1]["answer"]
    assert stated[3]["not_answered"].startswith("settings are left as they are")
    assert answers(as_if_real(), {"SM_TRAINING_ENV": "{}"})[8]["answer"] == "driver 0.0.0 on Made-up GPU"


def test_a_driver_without_cycle_ids_leaves_two_questions_open() -> None:
    document = as_if_real()
    for load in document["loads"]:
        for triple in load.get("raw", {}).values():
            for name in ("cycles_ab", "cycles_bc", "cycles_ac") if isinstance(triple, dict) else ():
                triple[name] = {metric: {"status": 3, "value": None} for metric in triple[name]}
    stated = answers(document, {})
    assert stated[0]["not_answered"] == "driver 0.0.0 does not give ids 248 to 260 (status ['3'])"
    assert stated[1]["answer"] is None


def test_root_alone_does_not_answer_for_everybody() -> None:
    document = as_if_real()
    nobody = {"asked": False, "why": "x"}
    document["privileges"] = {"euid": 0, "sys_admin": True, "container": False, "as_nobody": nobody}
    assert "only root was tried" in answers(document, {})[4]["not_answered"]
    document["privileges"]["as_nobody"] = {"asked": True, "works": False, "status": 4}
    assert "as user 65534: does not work (status 4)" in answers(document, {})[4]["answer"]


@pytest.mark.parametrize(
    ("ab", "bc", "ac", "found"),
    [
        (100.0, 130.0, 130.0, (30.0, "absolute")),
        (10.0, 30.0, 40.0, (30.0, "difference")),
        (0.0, 0.0, 0.0, (0.0, "difference")),
        (10.0, 30.0, 70.0, None),
        (None, 30.0, 40.0, None),
    ],
)
def test_running_counters_and_differences_are_distinguished(
    ab: float | None, bc: float, ac: float, found: tuple[float, str] | None
) -> None:
    values = {"cycles_ab": ab, "cycles_bc": bc, "cycles_ac": ac}
    assert grown({name: {"248": {"value": value}} for name, value in values.items()}, 248) == found


def test_another_file_is_refused_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"schema": "flopsd-ledger/1"}')
    with pytest.raises(ResultsError, match="not a results file"):
        read(other)
    assert main([str(other), "-o", str(tmp_path / "page.md")]) == 1
    assert str(other) in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


SMALL = Shape(layers=1, width=24, heads=3, sequence=5, batch=3, hidden=40, vocabulary=11, rank=2)
LONG = Shape(layers=3, width=16, heads=1, sequence=12, batch=1, hidden=16, vocabulary=100, rank=8)
# One step of tests/hardware/torch_loads.py as torch.utils.flop_counter.FlopCounterMode counts it: PyTorch 2.13.0, CPU.
COUNTED_BY_PYTORCH = [
    (plan.TINY, False, False, 1818624), (plan.TINY, False, True, 1437696),
    (plan.TINY, True, False, 2375680), (plan.TINY, True, True, 2093056),
    (SMALL, False, False, 425520), (SMALL, False, True, 286560),
    (SMALL, True, False, 559440), (SMALL, True, True, 436800),
    (LONG, False, False, 529920), (LONG, False, True, 635904),
    (LONG, True, False, 668160), (LONG, True, True, 866304),
]  # fmt: skip

sizes = st.integers(1, 64)


def test_a_multiply_add_is_two_flop_and_a_sparse_product_costs_half() -> None:
    assert gemm_flop(8192, 8192, 8192) == 1_099_511_627_776
    assert gemm_flop(2, 3, 5) == 60
    assert sparse_gemm_flop(2, 3, 4) * 2 == gemm_flop(2, 3, 4)


@pytest.mark.parametrize(("shape", "checkpointing", "lora", "counted"), COUNTED_BY_PYTORCH)
def test_a_training_step_has_the_flop_that_pytorch_counts(
    shape: Shape, checkpointing: bool, lora: bool, counted: int
) -> None:
    assert training_step_flop(shape, checkpointing=checkpointing, lora=lora) == counted


@given(sizes, sizes, sizes, sizes, sizes, sizes, st.booleans())
def test_checkpointing_costs_one_more_forward_pass_of_every_layer(
    layers: int, width: int, sequence: int, hidden: int, vocabulary: int, rank: int, lora: bool
) -> None:
    one = Shape(layers, width, 1, sequence, 1, hidden, vocabulary, rank)
    two = Shape(2 * layers, width, 1, sequence, 1, hidden, vocabulary, rank)
    extra = [training_step_flop(s, checkpointing=True, lora=lora) - training_step_flop(s, checkpointing=False, lora=lora)
             for s in (one, two)]  # fmt: skip
    assert 0 < 2 * extra[0] == extra[1]


@pytest.mark.parametrize("name", sorted(plan.PLANS))
def test_every_plan_has_loads_with_unique_names(name: str) -> None:
    names = [spec.name for spec in plan.PLANS[name]()]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 29, "the table's first column is 29 wide"
    assert names[0].startswith("idle"), "idle is measured before anything has heated the GPU"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool of that name that records its arguments, and refuses power limits."""
    tool, said = tmp_path / "nvidia-smi", tmp_path / "said"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{said}\ncase "$*" in *-pl*) echo no permission; exit 4;; esac\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said.touch()
    return said


def test_gpu_settings_are_left_unchanged_unless_allowed(nvidia_smi: Path) -> None:
    knobs = Knobs("GPU-1", allowed=False, power_limit_mw=700_000)
    with pytest.raises(UnavailableError, match="left as they are"), knobs.applied("clock:1830"):
        pytest.fail("the load ran")
    with knobs.applied(""):
        pass
    assert nvidia_smi.read_text() == ""


def test_a_locked_clock_is_restored_when_the_load_fails(nvidia_smi: Path) -> None:
    knobs = Knobs("GPU-1", allowed=True, power_limit_mw=None)
    with pytest.raises(ZeroDivisionError), knobs.applied("clock:1830"):
        raise ZeroDivisionError
    assert nvidia_smi.read_text().splitlines() == ["-i GPU-1 -lgc 1830,1830", "-i GPU-1 -rgc"]


def test_a_refused_power_limit_is_recorded_as_refused(nvidia_smi: Path) -> None:
    knobs = Knobs("GPU-1", allowed=True, power_limit_mw=700_000)
    with pytest.raises(UnavailableError, match="refused: .* -pl 420: no permission"), knobs.applied("power:60"):
        pytest.fail("the load ran")
    assert nvidia_smi.read_text().splitlines() == ["-i GPU-1 -pl 420"]


def test_missing_packages_are_named_with_the_way_to_carry_them() -> None:
    missing = preflight.missing(simulated=False, here=lambda module: module == "yaml")
    assert missing == ["prometheus-client", "nvidia-ml-py", "torch"]
    advice = preflight.advice(missing)
    assert "-d .whl prometheus-client nvidia-ml-py\n" in advice
    assert "HARDWARE_PYTHON" in advice
    assert not preflight.can_seal(lambda module: module != "cryptography")
