"""Evidence through the real program: sealed with a metadata service and a timestamp authority, and without any
service."""

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from flopsd.settings.evidence_kinds import KINDS, WITNESS
from flopsd.system.clock import SystemClock
from tests.support.authorities import IDENTITY, Answer, Authority, Metadata, serving
from tests.support.process import environment, flopsd, in_process
from tests.support.scenario import LIBRARY, Scenario, Segment, h100

ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/evidence"


def metered(folder: Path, standin: Path, **variables: str) -> dict[str, str]:
    """A short run that is not sealed yet, and its environment."""
    scenario = Scenario((h100((Segment(1000, hmma=0.5, util=100, watts=500),)),))
    env = environment(standin, scenario.write(folder / "scenario.txt"), **variables)
    flopsd("run", "--source", "nvml", "--state-dir", str(folder), "--listen", "off", "--no-seal", "--duration", "1.5",
           "--interval", "0.3", env=env, code=0)  # fmt: skip
    return env


def seal(folder: Path, env: Mapping[str, str], *more: str) -> tuple[str, float]:
    """The output of `flopsd seal` on one line, and its duration in seconds."""
    clock = SystemClock()
    begin_ns = clock.boottime_ns()
    done = flopsd("seal", "--state-dir", str(folder), "--ledger", str(folder / "ledger.json"), *more, env=env, code=0)
    return " ".join(done.stdout.split()), (clock.boottime_ns() - begin_ns) / 1e9


def verify(folder: Path, *more: str) -> tuple[int, str]:
    done = in_process("verify", str(folder / "ledger.json"), "--key", str(folder / "ledger.pub"), *more)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def verdicts(folder: Path, *more: str) -> dict[str, str]:
    code, said = verify(folder, "--json", *more)
    assert code == 0, said
    return {finding["type"]: finding["verdict"] for finding in json.loads(said)["evidence"]}


def items(folder: Path) -> dict[str, dict[str, Any]]:
    code, said = verify(folder, "--json")
    assert code == 0, said
    return {item["type"]: item for item in json.loads(said)["predicate"]["evidence"]}


@pytest.mark.tool("openssl")
def test_a_run_is_sealed_with_all_available_evidence(tmp_path: Path, standin: Path) -> None:
    state, authority = tmp_path / "state", Authority(tmp_path / "tsa")
    state.mkdir()
    service = Metadata()
    env = metered(state, standin, TRAINING_JOB_NAME="evidence", TRAINING_JOB_ARN=ARN)
    with serving(service.answer) as imds, serving(authority.answer) as tsa:
        said, seconds = seal(state, {**env, "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds}, "--timestamp-url", tsa)
    print(f"sealed with identity document and timestamp in {seconds:.2f} s, the start of the program included\n{said}")
    assert f"Z, by {tsa}" in said

    certificates = ("--aws-certificate", str(IDENTITY / "pinned_cert.pem"), "--tsa-certificate", str(authority.root))
    assert verdicts(state, *certificates) == {
        "ec2-instance-identity": "checked",
        "nvidia-spdm": "absent",
        "driver-library": "not checked",
        "flopsd-package": "checked",
        "sagemaker-job-description": "not checked",
        "witness": "absent",
        "rfc3161": "checked",
    }
    unpinned = verdicts(state)
    assert (unpinned["ec2-instance-identity"], unpinned["rfc3161"]) == ("not checked", "not checked")
    _, shown = verify(state, *certificates)
    print(shown)
    assert "ec2-instance-identity: checked: instance i-0abc, p5.48xlarge, account 123456789012" in shown
    assert f"rfc3161: checked: the signature existed at {said.split('timestamp')[1].split(',')[0].strip()}" in shown
    assert f"unsigned; job {ARN}, as in the journal" in shown

    # The simulated driver is not a secret: its file's digest is in the journal and in the ledger.
    (library,) = items(state)["driver-library"]["data"]["libraries"]
    assert library["sha256"] == hashlib.sha256((standin / LIBRARY).read_bytes()).hexdigest()
    assert "no GPU returned a report: GPU 0: Not Supported" in items(state)["nvidia-spdm"]["reason"]["said"]

    code, shown = verify(state, "--aws-certificate", str(IDENTITY / "attacker_cert.pem"))
    assert (code, "NOT VERIFIED: the evidence ec2-instance-identity is invalid" in shown) == (3, True)
    code, shown = verify(state, "--tsa-certificate", str(IDENTITY / "pinned_cert.pem"))
    assert (code, "rfc3161: not checked" in shown) == (0, True)  # by an authority that was not named
    code, shown = verify(state, "--aws-certificate", str(state / "ledger.pub"))
    assert (code, "ledger.pub contains no X.509 certificate" in shown) == (1, True)


def test_without_any_answer_the_seal_is_made_and_says_so(tmp_path: Path, standin: Path) -> None:
    env = metered(tmp_path, standin)
    said, nothing = seal(tmp_path, env, "--evidence", "off")
    assert "timestamp" not in said
    assert {item["reason"]["code"] for item in items(tmp_path).values()} == {"switched_off", "no_witness"}

    hold = threading.Event()

    def silent(_: BaseHTTPRequestHandler, __: bytes) -> Answer:
        hold.wait(120)
        return 200, b"", {}

    (tmp_path / "ledger.json").unlink()  # a sealed ledger is not sealed again
    with serving(silent) as nobody:
        asked = {**env, "AWS_EC2_METADATA_SERVICE_ENDPOINT": nobody}
        said, hanging = seal(tmp_path, asked, "--timestamp-url", nobody)
        hold.set()
    assert f"timestamp NONE: {nobody} does not answer: timed out" in said
    found = items(tmp_path)
    assert tuple(found) == (*KINDS, WITNESS)
    assert found["ec2-instance-identity"]["reason"]["said"].endswith("/latest/api/token does not answer: timed out")

    (tmp_path / "ledger.json").unlink()
    closed = {**env, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}
    said, refused = seal(tmp_path, closed, "--timestamp-url", "http://127.0.0.1:1/tsr")
    assert "timestamp NONE: http://127.0.0.1:1/tsr does not answer: [Errno 111] Connection refused" in said
    assert verdicts(tmp_path)["rfc3161"] == "absent"
    print(
        f"`flopsd seal`, whole program: {nothing:.2f} s without evidence, {refused:.2f} s where all refuse, "
        f"{hanging:.2f} s where all hang"
    )
