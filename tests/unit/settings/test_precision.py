"""A declared number format, of a run or of single devices, and who declared it: from the setting to the ledger."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from flopsd.core.model import Precision
from flopsd.daemon.writer import WriterSettings
from flopsd.settings.parsers import device_precision
from flopsd.settings.schema import effective
from tests.support.runs import A100, H100, finished

BF16, FP8 = Precision((("bf16", 1_000_000),), "config"), Precision((("fp8", 1_000_000),), "config")
MIX = Precision((("bf16", 900_000), ("fp8", 100_000)), "config")


@pytest.mark.parametrize("value", ["0=bf16;GPU-a=bf16:0.9,fp8:0.1", {0: "bf16", "GPU-a": {"bf16": 0.9, "fp8": 0.1}}])
def test_the_setting_as_text_and_as_yaml(value: object) -> None:
    assert device_precision(value) == {"0": BF16, "GPU-a": MIX}


@pytest.mark.parametrize("value", ["bf16", "0=bf17", "0=bf16:0.5", 7, {0: {"bf16": 2}}])
def test_an_invalid_precision_is_refused_with_what_is_expected(value: object) -> None:
    _, problems = effective([("command line", {"device_precision": value})])
    assert len(problems) == 1
    assert problems[0].startswith("command line: --device-precision")


def test_a_devices_own_declaration_comes_before_the_runs() -> None:
    settings = WriterSettings(1, 1, "", BF16, (), {"0": FP8, A100.uid: MIX})
    assert settings.declared(H100) == FP8
    assert settings.declared(A100) == MIX
    assert WriterSettings(1, 1, "", BF16, ()).declared(H100) == BF16


def test_the_ledger_rates_each_device_by_its_own_declaration(tmp_path: Path) -> None:
    other = H100.__class__(**{**{f: getattr(H100, f) for f in H100.__slots__}, "uid": "GPU-h2", "index": 1})
    run = finished(tmp_path / "state", 5, devices=(H100, other), precision=BF16, device_precision={"GPU-h2": FP8})
    sealed = run.seal(tmp_path / "ledger.json")
    statement = json.loads(base64.b64decode(json.loads(sealed.ledger.read_bytes())["payload"]))
    told = {}
    for device in statement["predicate"]["devices"]:
        (row,) = [row for row in device["work"] if row["pipe"] == "tensor_hmma"]
        told[device["uuid"]] = (
            row["precision"],
            row["precisionDeclaredBy"],
            int(row["flop"]["measured"]) // int(row["smCycles"]),
        )
    assert told == {"GPU-h": ("bf16", "config", 4096), "GPU-h2": ("fp8", "config", 8192)}
