"""From a training that sees its kernels to the ledger and the report: the Trainer's callback, and a process under
exec."""

import functools
import sys
from pathlib import Path

import pytest

from tests.support.process import environment, flopsd, predicate
from tests.support.scenario import Scenario, Segment, a100
from tests.train.kernel_records import H100, profiler_with, records_of
from tests.train.operator_cases import DEVICE
from tests.train.trainers import declared_to, trainer_of

pytestmark = pytest.mark.training("transformers")

JOB = """
import time
import torch
import flopsd.client
from flopsd.integrations.kernel_windows import KernelWindows
from tests.train.kernel_records import H100, profiler_with, records_of

client = flopsd.client.connect()
client.set_phase("train")
while not client._is_served:
    time.sleep(0.02)
events = records_of(H100)
windows = KernelWindows(client, first_seconds=0, every_seconds=600, profile=lambda: profiler_with(events))
for _ in range(3):
    with windows.step():
        torch.ones(8, 8) @ torch.ones(8, 8)
        time.sleep(0.05)
assert windows.ended is None
while client._work._noted or client._work._has_unsent:  # until that is a message of its own
    time.sleep(0.02)
client.count("train", kernel_windows=1, kernel_window_ns=1, kernel_ns_other=10**15, kernel_launches_other=1)
client.close()
"""


def test_the_callback_sees_kernels_only_where_enabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flopsd.integrations import transformers
    from flopsd.integrations.kernel_windows import KernelWindows

    monkeypatch.setenv("FLOPSD_DEVICE_UUID", DEVICE)
    with declared_to(tmp_path / "off.sock") as (callback, _):
        assert callback._windows is None
    few = records_of(H100)[:3]
    short = functools.partial(KernelWindows, first_seconds=0, every_seconds=0, profile=lambda: profiler_with(few))
    with monkeypatch.context() as changed:
        changed.setattr(transformers, "KernelWindows", short)
        with declared_to(tmp_path / "on.sock", kernel_windows=True) as (callback, found):
            trainer_of(tmp_path, callback, max_steps=2, gradient_accumulation_steps=2).train()
    seen = found.work["train"]
    assert seen["kernel_windows"] >= 1
    assert seen["kernel_window_ns"] >= sum(one.lasted_ns for one in few)
    assert seen["kernel_launches_matrix_bf16"] == 3 * seen["kernel_windows"]
    assert found.facts["device"] == DEVICE
    monkeypatch.setenv("FLOPSD_KERNEL_WINDOWS", "on")
    monkeypatch.setattr(
        transformers, "KernelWindows", functools.partial(KernelWindows, first_seconds=0, profile=lambda: None)
    )
    with declared_to(tmp_path / "broken.sock") as (callback, found):
        trainer_of(tmp_path, callback, max_steps=2).train()
    assert callback._windows.ended == "window_did_not_open"
    assert found.work["train"]["steps"] == 2
    assert "the training goes on" in caplog.text


def test_kernels_seen_by_a_process_are_in_the_ledger(tmp_path: Path, standin: Path) -> None:
    scenario = Scenario((a100((Segment(1000, mhz=1200, hmma=0.75),)),))
    ledger, key = tmp_path / "ledger.json", tmp_path / "ledger.pub"
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    done = flopsd(
        "exec", "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger), "--listen", "off", "--",
        sys.executable, "-c", JOB, env={**env, "FLOPSD_DEVICE_UUID": scenario.uuid(0), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = predicate(ledger)
    (session,) = found["declared"]["sessions"]
    assert session["facts"]["device"] == scenario.uuid(0)
    seen = {name: int(count) for name, count in session["work"]["train"].items()}
    whole = sum(count for name, count in seen.items() if name.startswith("kernel_launches_"))
    assert whole == sum(count for _, count, _ in H100["kernels"])
    assert seen["kernel_windows"] == 1
    assert seen["kernel_window_ns"] >= 50_000_000
    assert seen["kernel_windows_refused"] >= 1, "more kernel time than 128 at once in a window of a nanosecond"
    assert found["totals"]["executed"]["low"] == "0", "what was seen raises nothing"
    given = (str(ledger), "--key", str(key))
    assert "VERIFIED" in flopsd("verify", *given, code=0).stdout
    said = " ".join(flopsd("report", *given, code=0).stdout.split())
    assert "Sampled: 1 window of" in said
    assert "matrix products in BF16" in said
