"""The hardware suite's closed forms, and its rule that settings stay as they are."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hardware import plan, preflight
from tests.hardware.flop import Shape, gemm_flop, sparse_gemm_flop, training_step_flop
from tests.hardware.knobs import Knobs
from tests.hardware.loads import UnavailableError

SMALL = Shape(layers=1, width=24, heads=3, sequence=5, batch=3, hidden=40, vocabulary=11, rank=2)
LONG = Shape(layers=3, width=16, heads=1, sequence=12, batch=1, hidden=16, vocabulary=100, rank=8)
# One step of tests/hardware/transformer.py as torch.utils.flop_counter.FlopCounterMode counts it: PyTorch 2.13.0, CPU.
COUNTED_BY_PYTORCH = [
    (plan.TINY, False, False, 1818624), (plan.TINY, False, True, 1437696),
    (plan.TINY, True, False, 2375680), (plan.TINY, True, True, 2093056),
    (SMALL, False, False, 425520), (SMALL, False, True, 286560),
    (SMALL, True, False, 559440), (SMALL, True, True, 436800),
    (LONG, False, False, 529920), (LONG, False, True, 635904),
    (LONG, True, False, 668160), (LONG, True, True, 866304),
]  # fmt: skip

sizes = st.integers(1, 64)


def test_a_product_is_two_flop_a_multiply_add_and_a_sparse_one_half_of_it() -> None:
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
def test_every_plan_has_loads_of_its_own_names(name: str) -> None:
    names = [spec.name for spec in plan.PLANS[name]()]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 29, "the table's first column is 29 wide"
    assert names[0].startswith("idle"), "idle is measured before anything has heated the GPU"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool of that name which writes down its arguments, and refuses power limits."""
    tool, said = tmp_path / "nvidia-smi", tmp_path / "said"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{said}\ncase "$*" in *-pl*) echo no permission; exit 4;; esac\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said.touch()
    return said


def test_settings_are_left_as_they_are_unless_it_is_asked_otherwise(nvidia_smi: Path) -> None:
    knobs = Knobs("GPU-1", allowed=False, power_limit_mw=700_000)
    with pytest.raises(UnavailableError, match="left as they are"), knobs.applied("clock:1830"):
        pytest.fail("the load ran")
    with knobs.applied(""):
        pass
    assert nvidia_smi.read_text() == ""


def test_a_locked_clock_is_given_back_when_the_load_fails(nvidia_smi: Path) -> None:
    knobs = Knobs("GPU-1", allowed=True, power_limit_mw=None)
    with pytest.raises(ZeroDivisionError), knobs.applied("clock:1830"):
        raise ZeroDivisionError
    assert nvidia_smi.read_text().splitlines() == ["-i GPU-1 -lgc 1830,1830", "-i GPU-1 -rgc"]


def test_a_refused_power_limit_is_recorded_as_refused(nvidia_smi: Path) -> None:
    knobs = Knobs("GPU-1", allowed=True, power_limit_mw=700_000)
    with pytest.raises(UnavailableError, match="refused: .* -pl 420: no permission"), knobs.applied("power:60"):
        pytest.fail("the load ran")
    assert nvidia_smi.read_text().splitlines() == ["-i GPU-1 -pl 420"]


def test_what_is_missing_is_named_with_the_way_to_carry_it() -> None:
    missing = preflight.missing(simulated=False, here=lambda module: module == "yaml")
    assert missing == ["prometheus-client", "nvidia-ml-py", "torch"]
    advice = preflight.advice(missing)
    assert "-d .whl prometheus-client nvidia-ml-py\n" in advice
    assert "HARDWARE_PYTHON" in advice
    assert not preflight.can_seal(lambda module: module != "cryptography")
