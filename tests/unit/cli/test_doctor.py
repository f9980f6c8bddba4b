"""`doctor`'s findings about a host, and about a device that a source lists."""

import errno
import fcntl
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.cli.doctor import Diagnosis, _mig, _profiling_counters, _source, device_diagnosis, doctor_text, examine
from flopsd.core.model import UNIDENTIFIED, Device, Evidence
from flopsd.sources.nvml.profiling_advice import mig_advice
from flopsd.sources.probe import Probe, ProbedSource
from flopsd.sources.registry import known_sources
from flopsd.telemetry.snapshot import DiskState
from flopsd.testing.fakes import FakeClock
from tests.support.settings import load_settings
from tests.support.strategies import table

H100 = Device("GPU-1", 0, "nvidia", "NVIDIA H100 80GB HBM3", sm_count=132, evidence=Evidence.CYCLES)


def test_a_slice_names_its_gpu_and_a_shared_device_its_other_users() -> None:
    alone = device_diagnosis(H100, "nvml", table())
    assert (alone.state, alone.meters) == ("ok", True)
    assert "132 SMs: evidence cycles by nvml, a measurement" in alone.detail
    assert not {"slice", "SHARED"} & set(alone.detail.split())
    found = device_diagnosis(replace(H100, sm_count=16, parent="GPU-0", shared="pod-2"), "nvml", table())
    assert "16 SMs, a slice of GPU-0: evidence cycles" in found.detail
    assert found.detail.endswith("; SHARED with pod-2")


def test_a_ceiling_is_not_called_a_measurement() -> None:
    bounded = device_diagnosis(replace(H100, evidence=Evidence.UTILIZATION), "nvml", table())
    assert (bounded.state, bounded.meters) == ("warn", True)
    assert "evidence utilization by nvml, only a ceiling" in bounded.detail


@pytest.mark.parametrize(
    ("monitor", "evidence", "parent", "state"),
    [
        ("open", Evidence.UTILIZATION, "GPU-0", "ok"),
        ("closed", Evidence.ACTIVITY, "GPU-0", "ok"),
        ("closed", Evidence.UTILIZATION, "GPU-0", "warn"),
        ("absent", Evidence.GAP, "GPU-0", "warn"),
        ("closed", Evidence.UTILIZATION, None, None),
    ],
)
def test_a_sliced_gpu_needs_the_monitor_capability_unless_its_slices_are_measured(
    monitor: str, evidence: Evidence, parent: str | None, state: str | None
) -> None:
    facts = {"mig_monitor": monitor, "mig_config": "closed"}
    device = replace(H100, evidence=evidence, parent=parent)
    other = (replace(H100, index=1, parent="GPU-0", evidence=Evidence.GAP), "dcgm")
    said = _mig(Probe((ProbedSource("dcgm"), ProbedSource("nvml", facts)), ((device, "nvml"), other)), "host")
    detail = f"monitor is {monitor}, config closed to this process, for device 0"
    fix = mig_advice("host") if state == "warn" else ""
    assert [(one.state, one.detail, one.fix) for one in said] == ([] if state is None else [(state, detail, fix)])


def test_a_gpu_that_hangs_is_not_said_to_lack_profiling_counters() -> None:
    facts = {"profiling_counters": "unknown", "counters_served_by": None}
    for model, count in ((H100.model, 1), (UNIDENTIFIED, 0)):
        device = replace(H100, model=model, evidence=Evidence.GAP)
        found = Probe((ProbedSource("nvml", facts),), ((device, "nvml"),))
        assert len(list(_profiling_counters(found, "host", None))) == count


def test_a_source_states_its_facts_but_not_those_for_the_ledger_alone() -> None:
    facts = {"driver": "550.90", "cuda": "", "library": "/usr/lib/x.so", "mig_config": "closed", "gpus": 8}
    assert _source(ProbedSource("nvml", facts)) == Diagnosis("source nvml", "ok", "driver 550.90, gpus 8")
    assert _source(ProbedSource("nvml")).detail == "answers"


def found(state: Path, environment: Mapping[str, str] | None = None, **flags: Any) -> dict[str, Diagnosis]:
    """The findings by name, for a host on which a recording is replayed."""
    settings = load_settings({"sources": "replay", "state_dir": str(state), "listen": "off", **flags}, {})
    return {one.name: one for one in examine(settings, environment or {}, FakeClock(), known_sources())}


def test_a_healthy_host_has_no_failures(tmp_path: Path) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "x", "POD_NAME": "p", "INSTANCE_TYPE": "ml.g6.xlarge"}
    checks = found(tmp_path / "a" / "state", pod, listen="127.0.0.1:0")
    instance = checks.pop("instance type")
    assert (instance.state, instance.detail) == ("warn", "ml.g6.xlarge has 1 x l4, 2 seen")
    assert "--devices job" in instance.fix
    assert {(one.state, one.fix, one.meters, one.needs) for one in checks.values()} == {("ok", "", False, "")}
    assert list(checks) == [
        "python", "sealing", "signing key", "state folder", "metrics address", "peak table", "source replay",
        "device 0", "device 1",
    ]  # fmt: skip
    assert checks["metrics address"].detail == "127.0.0.1:0 is free"
    assert checks["signing key"].detail.startswith("none is given: the first seal makes an Ed25519 key")
    assert checks["source replay"].detail.startswith("plays h100x2.jsonl: simulation")
    assert ", recorded elsewhere, margin 9 %" in checks["device 0"].detail
    text = doctor_text(list(checks.values()))
    assert text.splitlines()[-1] == "no accelerator can be metered here; `flopsd run --source replay` plays a recording"


def test_an_instance_type_is_compared_with_the_listed_devices(tmp_path: Path) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "x", "POD_NAME": "p"}
    assert "instance type" not in found(tmp_path, pod)
    assert "instance type" not in found(tmp_path, {**pod, "INSTANCE_TYPE": "ml.of-no-table"})
    one = [device_diagnosis(H100, "nvml", table())]
    assert doctor_text(one).splitlines()[-1] == "this machine can be metered"


def test_each_problem_is_named_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    below = found(tmp_path / "file" / "state")["state folder"]
    assert (below.state, below.fix.split(" on ")[0]) == ("fail", "give --state-dir a writable folder")
    assert below.detail == (
        f"no journal can be kept in {tmp_path}/file/state: cannot use {tmp_path}/file: Not a directory"
    )
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as unlocked:  # like Lustre mounted without `flock`
        unlocked.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOSYS, "Function not implemented")))
        without = found(tmp_path)["state folder"]
    assert (without.state, "cannot lock the state folder" in without.detail) == ("fail", True)
    assert sorted(tmp_path.iterdir()) == before
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        taken = found(tmp_path, listen=address)["metrics address"]
    assert (taken.state, taken.detail.split(" (")[0]) == ("warn", f"{address}: Address already in use")
    assert "give --listen another port" in taken.fix
    assert found(tmp_path)["metrics address"].detail == "off"
    unknown = found(tmp_path, sources="reply")["source reply"]
    assert (unknown.state, unknown.meters, "replay" in unknown.detail + unknown.fix) == ("fail", False, True)
    unread = found(tmp_path, peaks=str(tmp_path / "none.yaml"))["peak table"]
    assert (unread.state, "cannot read the peak table" in unread.detail) == ("fail", True)
    monkeypatch.setattr("flopsd.cli.doctor.disk_state", lambda *_, **__: DiskState(free_bytes=1 << 20))
    full = found(tmp_path)["state folder"]
    assert (full.state, full.detail) == ("warn", f"{tmp_path}, 1 MB free")
    assert "a larger disk" in full.fix


def test_the_key_of_the_state_folder_is_tried(tmp_path: Path) -> None:
    path, _ = ensure_key(None, tmp_path)
    key = load_signer(path, {})
    assert found(tmp_path)["signing key"].detail == f"{key.describe()} signs, key id {key.public.keyid}"
    Path(path).write_text("no key")
    broken = found(tmp_path)["signing key"]
    assert (broken.state, bool(broken.fix)) == ("fail", True)


@pytest.mark.parametrize(
    ("flags", "packages"),
    [
        ({}, {}),
        ({"ledger": "s3://bucket/l.json"}, {"copies to S3": "s3"}),
        ({"key": "awskms:alias/x"}, {"key in AWS KMS": "kms"}),
        ({"key": "pkcs11:token=x"}, {"key in a PKCS#11 token": "hsm"}),
        ({"timestamp_url": "https://stamps.test"}, {"timestamps": "timestamp"}),
        ({"witness_url": "https://stamps.test"}, {"timestamps": "timestamp"}),
        ({"devices": "pod"}, {"devices of the pod": "kubernetes"}),
    ],
)
def test_packages_that_settings_need_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], packages: dict[str, str]
) -> None:
    monkeypatch.setattr("flopsd.cli.doctor.find_spec", lambda _: None)
    checks = found(tmp_path, **flags)
    failed = {name: one.fix for name, one in checks.items() if "is not installed" in one.detail}
    assert failed == {name: f"pip install 'flopsd[{extra}]'" for name, extra in {"sealing": "seal", **packages}.items()}
    assert {checks[name].state for name in failed} == {"fail"}
    assert "signing key" not in checks  # the key needs the missing package


def test_the_text_of_checks() -> None:
    warned = Diagnosis("device 1", "warn", "an A10", "load DCGM", True, "utilization", "no profiling")
    absent = Diagnosis("source neuron", "none", "not here", "install it")
    needed = Diagnosis("device 2", "ok", "a chip", needs="--source other")
    assert doctor_text([warned, absent, needed]).splitlines() == [
        "warn  device 1: an A10",
        "      why not better: no profiling",
        "      -> load DCGM",
        "none  source neuron: not here",
        "ok    device 2: a chip",
        "      -> `flopsd run --source other` meters it",
        "this machine can be metered",
    ]
    failed = Diagnosis("signing key", "fail", "no such file")
    assert doctor_text([warned, failed]).splitlines()[-1] == (
        "this machine can be metered; what is marked fail needs a fix"
    )
    assert doctor_text([absent, needed]).splitlines()[1:] == [
        "      -> install it",
        "ok    device 2: a chip",
        "      -> `flopsd run --source other` meters it",
        "`flopsd run` alone meters nothing here; with --source other it meters what a plug-in reads",
    ]


def test_problems_that_would_stop_a_run_from_beginning_are_named(tmp_path: Path) -> None:
    check = found(tmp_path / "state", ledger=str(tmp_path), policies="eu-ai-actt")["settings"]
    assert (check.state, check.detail) == ("fail", "eu-ai-actt: cannot be read: No such file or directory")
    check = found(tmp_path / "state", ledger=str(tmp_path))["settings"]
    assert (check.detail, check.fix) == (f"{tmp_path} is a folder", f"name a file, such as {tmp_path}/ledger.json")
