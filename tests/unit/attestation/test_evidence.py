"""Evidence in a ledger: what is recorded, what verify reports, and that forged evidence is not verified."""

import base64
import hashlib
import io
import json
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import flopsd
from flopsd.attestation.evidence import collect, driver_library, ec2_identity, package_digest, rfc3161, sagemaker_job
from flopsd.attestation.evidence.check import findings, timestamp_findings
from flopsd.attestation.evidence.collect import Call
from flopsd.attestation.evidence.http import request
from flopsd.attestation.evidence.item import CheckContext, CollectContext, EvidenceState
from flopsd.attestation.evidence.trust import Trust, load_trust
from flopsd.attestation.seal import Sealed
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.attestation.storage.copies import copy_ledger
from flopsd.attestation.verify import Verified
from flopsd.core.ledger.history import History
from flopsd.core.ledger.statement import encode
from flopsd.daemon.stop_requests import StopRequests
from flopsd.errors import EvidenceError, FlopsdError, NotVerifiedError
from flopsd.report.ledger_text import verified_text
from flopsd.settings.evidence_kinds import KINDS, WITNESS, EvidenceWanted
from flopsd.sources.nvml.loaded_library import loaded_library
from flopsd.system.clock import Clock, SystemClock
from flopsd.system.progress import ProgressLine
from tests.second_implementation.arithmetic import payload_of
from tests.support.authorities import IDENTITY, Metadata, serving
from tests.support.paths import ROOT
from tests.support.process import PATIENCE_SECONDS
from tests.support.runs import CONTEXT, copied, finished, history_of, verified

AWS = load_trust([str(IDENTITY / "pinned_cert.pem")])


class PatientClock(SystemClock):
    """Makes no collector time out on a busy machine."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return super().wait(event, max(seconds, PATIENCE_SECONDS))


def seal(folder: Path, wanted: EvidenceWanted | None, clock: Clock | None = None) -> Sealed:
    return finished(folder / "state", 3).seal(folder / "ledger.json", clock=clock or SystemClock(), wanted=wanted)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    folder = tmp_path_factory.mktemp("evidence")
    with serving(Metadata().answer) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ec2_identity, "_TIMEOUT_SECONDS", PATIENCE_SECONDS)
        return seal(folder, EvidenceWanted(environment={"AWS_EC2_METADATA_SERVICE_ENDPOINT": url}), PatientClock())


def held(sealed: Sealed, trust: Trust = AWS) -> Verified:
    return verified(sealed, trust=trust)


def verdicts(sealed: Sealed, trust: Trust = AWS) -> dict[str, str]:
    return {finding.type: finding.verdict.value for finding in held(sealed, trust).evidence}


def test_every_kind_of_evidence_is_in_the_ledger_present_or_absent(sealed: Sealed) -> None:
    items = {item["type"]: item for item in held(sealed).statement["predicate"]["evidence"]}
    assert tuple(items) == (*KINDS, WITNESS)
    present = [name for name, item in items.items() if item["state"] == "present"]
    assert present == ["ec2-instance-identity", "flopsd-package"]
    assert items["sagemaker-job-description"]["reason"] == {"code": "not_sagemaker"}
    assert items["driver-library"]["reason"] == {"code": "no_nvidia_library"}
    assert items["nvidia-spdm"]["reason"]["code"] == "failed"
    assert re.search("^NVML cannot be used|no GPU returned a report", items["nvidia-spdm"]["reason"]["said"])
    for item in items.values():
        assert (item["data"] is None) == (item["state"] == "absent") == (item["reason"] is not None)


def test_verify_reports_a_verdict_for_each_piece_of_evidence(sealed: Sealed) -> None:
    assert verdicts(sealed) == {
        "ec2-instance-identity": "checked", "nvidia-spdm": "absent", "driver-library": "absent",
        "flopsd-package": "checked", "sagemaker-job-description": "absent", "witness": "absent", "rfc3161": "absent",
    }  # fmt: skip
    assert verdicts(sealed, Trust())["ec2-instance-identity"] == "not checked"
    text = verified_text(held(sealed))
    assert "  ec2-instance-identity: checked: instance i-0abc, p5.48xlarge" in text
    assert "    limits: It has no nonce" in text
    assert "    claims: AWS signed" in verified_text(held(sealed, Trust()))


def test_evidence_switched_off_is_named_as_switched_off(tmp_path: Path) -> None:
    items = held(seal(tmp_path, EvidenceWanted(()))).statement["predicate"]["evidence"]
    reasons = [item["reason"] for item in items]
    assert reasons == [{"code": "switched_off"}] * len(KINDS) + [{"code": "no_witness"}]


@pytest.mark.long
def test_a_collector_that_hangs_or_breaks_is_an_absence(tmp_path: Path) -> None:
    service = Metadata(hold=threading.Event())
    with serving(service.answer) as url:
        made = seal(tmp_path, EvidenceWanted(environment={"AWS_EC2_METADATA_SERVICE_ENDPOINT": url}))
        assert service.hold is not None
        service.hold.set()
    assert verdicts(made)["ec2-instance-identity"] == "absent"
    broken = EvidenceWanted(environment={"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[::bad"})
    items = collect.collect(broken, History(), "00" * 32, SystemClock())
    assert [item["state"] for item in items] == ["absent", "absent", "absent", "present", "absent", "absent"]
    said = items[0]["reason"]["said"]
    assert "does not answer: " in said or "ValueError" in said


def test_a_run_is_sealed_even_at_the_thread_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example in a container that the job filled with processes. The copy can be delivered later."""
    said = "can't start new thread"
    with monkeypatch.context() as now:
        now.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError(said)))
        with ProgressLine(out := io.StringIO(), SystemClock(), "sealing", is_shown=True):
            made = seal(tmp_path, EvidenceWanted())
        (copy,) = copy_ledger(made.ledger, [tmp_path / "copy.json"], SystemClock(), 1)
        with pytest.raises(FlopsdError, match=said):
            StopRequests._start("lifeline", lambda: None)
    items = payload_of(made.ledger)["predicate"]["evidence"]
    assert {item["reason"]["said"] for item in items if item["reason"]["code"] == "failed"} == {said}
    assert (copy.fault, out.getvalue()) == (said, "")
    verified(made)


def test_slow_collectors_are_given_up_within_a_total_deadline() -> None:
    never = threading.Event()
    with pytest.raises(EvidenceError, match=r"no answer within 0.05 s"):
        Call("hang", never.wait, 0.05, SystemClock()).result()
    never.set()
    with pytest.raises(EvidenceError, match="ZeroDivisionError"):
        Call("break", lambda: 1 // 0, 5, SystemClock()).result()
    assert Call("answer", lambda: "it", 5, SystemClock()).result() == "it"

    longest = max(module.KIND.deadline_seconds for module in collect.MODULES)
    assert longest + rfc3161.KIND.deadline_seconds <= 10


Edit = Callable[[list[dict[str, Any]]], object]
OTHER = json.dumps({**json.loads((IDENTITY / "document.json").read_text()), "instanceType": "p4d.24xlarge"}).encode()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda e: e[0]["data"].update(rsa2048=(IDENTITY / "forged.p7").read_text()), "ec2-instance-identity is invalid: its signature"),
        (lambda e: e[0]["data"].update(document=base64.b64encode(OTHER).decode()), "AWS signed a different document"),
        (lambda e: e[0].update(data={}), "ec2-instance-identity is invalid: data.document: must be text, is missing"),
        (lambda e: e[2].update(state="present", reason=None, data={"libraries": []}), None),
        (lambda e: e[2].update(state="present", reason=None, data={"libraries": [{"path": "/x", "sha256": None}]}), "the journal records other libraries"),
        (lambda e: e[1].update(state="present", reason=None, data={"reports": []}), "nvidia-spdm is invalid"),
        (lambda e: e[0].update(state="absent"), "must be present with data, or absent with a reason"),
        (lambda e: e[0].update(note="x"), "must have exactly the fields"),
        (lambda e: e[0].update(collectedAt="yesterday"), "has a malformed type or time"),
        (lambda e: e.append(dict(e[0])), "contains the same type twice"),
        (lambda e: e.append(1), "must have exactly the fields"),
        (lambda e: e.extend({**e[0], "type": str(n)} for n in range(64)), "must be a list of at most"),
    ],
)  # fmt: skip
def test_forged_evidence_with_the_right_key_is_not_verified(
    sealed: Sealed, tmp_path: Path, edit: Edit, reason: str | None
) -> None:
    copy = copied(sealed, tmp_path)
    document = payload_of(copy.ledger)
    edit(document["predicate"]["evidence"])
    key = load_signer(str(sealed.ledger.parent / "state" / "flopsd-key.pem"))
    copy.ledger.write_bytes(sign(encode(document), key))
    if reason is None:
        assert verdicts(copy)["driver-library"] == "not checked"
        return
    with pytest.raises(NotVerifiedError, match=reason):
        held(copy)


def test_a_kind_of_evidence_unknown_to_the_verifier_proves_nothing() -> None:
    item = {"type": "x-oracle", "state": "present", "data": {}}
    (shown,) = findings([item], CheckContext(History(), "00" * 32))
    assert (shown.verdict, shown.text) == (EvidenceState.NOT_CHECKED, "a kind unknown to this verifier")
    assert shown.proves == "Unknown to this verifier."


def test_a_missing_timestamp_is_shown_with_what_one_would_prove() -> None:
    (shown,) = timestamp_findings((), AWS, "2026-01-01T00:00:00Z")
    kind = rfc3161.KIND
    assert (shown.type, shown.proves, shown.limits) == (kind.name, kind.proves, kind.limits)
    assert (shown.verdict, shown.text) == (EvidenceState.ABSENT, "no valid signature has a timestamp")


def test_the_package_digest_matches_the_documented_shell_command(tmp_path: Path) -> None:
    folder = Path(flopsd.__file__).parent
    (command,) = re.findall(r"^find .*", (ROOT / "docs" / "evidence.md").read_text(), re.MULTILINE)
    shell = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    sha256, files = package_digest.digest(folder)
    assert sha256 == shell.split()[0]
    data = {"version": flopsd.__version__, "sha256": sha256, "files": str(files)}
    grounds = CheckContext(History(), "")
    assert package_digest.check(data, grounds)[0] is EvidenceState.HOLDS
    verdict, words = package_digest.check({**data, "sha256": "0" * 64}, grounds)
    assert verdict is EvidenceState.NOT_CHECKED
    assert "NOT the same files as this verifier's of that version" in words
    assert "this verifier is" in package_digest.check({**data, "version": "0.0.1"}, grounds)[1]
    with pytest.raises(EvidenceError, match="were not found"):
        package_digest.digest(tmp_path)


def job(folder: Path, arn: str | None) -> History:
    run = finished(folder, 1, context=replace(CONTEXT, job_arn=arn))
    return history_of(run.state.journal)


def test_only_harmless_facts_of_a_sagemaker_job_are_taken(tmp_path: Path) -> None:
    config = tmp_path / "opt/ml/input/config"
    config.mkdir(parents=True)
    resources = b'{"current_host": "algo-1", "hosts": ["algo-1"]}'
    (config / "resourceconfig.json").write_bytes(resources)
    (config / "hyperparameters.json").write_text('{"token": "SECRET"}')
    (config / "inputdataconfig.json").write_text('{"train": "s3://SECRET"}')
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"
    variables = {"TRAINING_JOB_NAME": "j", "TRAINING_JOB_ARN": arn, "HF_TOKEN": "SECRET"}
    found = sagemaker_job.collect(CollectContext(History(), "", variables, tmp_path))
    assert found == {
        "trainingJobName": "j",
        "trainingJobArn": arn,
        "resourceConfig": base64.b64encode(resources).decode(),
    }
    verdict, words = sagemaker_job.check(found, CheckContext(job(tmp_path / "a", arn), ""))
    assert (verdict, words) == (EvidenceState.NOT_CHECKED, f"unsigned; job {arn}, as in the journal")
    assert "NOT the job in the journal" in sagemaker_job.check(found, CheckContext(job(tmp_path / "b", None), ""))[1]
    (config / "resourceconfig.json").write_bytes(bytes(300_000))
    with pytest.raises(EvidenceError, match="more than 262144 bytes"):
        sagemaker_job.collect(CollectContext(History(), "", {}, tmp_path))


def test_the_driver_library_is_reported_as_recorded_in_the_journal(tmp_path: Path) -> None:
    history = job(tmp_path, None)
    history.incarnations[0].sources["nvml"] = {"library": "/lib/libnvidia-ml.so.1", "library_sha256": "ab" * 32}
    found = driver_library.collect(CollectContext(history, ""))
    assert found == {"libraries": [{"path": "/lib/libnvidia-ml.so.1", "sha256": "ab" * 32}]}
    verdict, words = driver_library.check(found, CheckContext(history, ""))
    assert verdict is EvidenceState.NOT_CHECKED
    assert words.endswith("as in the journal, not compared with NVIDIA's file")


def test_the_digest_of_a_replaced_library_is_unknown(tmp_path: Path) -> None:
    path, maps = tmp_path / "a b" / "libnvidia-ml.so.595.91.07", tmp_path / "maps"
    path.parent.mkdir()
    path.write_bytes(bytes(3_000_000))
    line = "7f00-7f01 r-xp 00000000 fe:00 42                         "
    maps.write_text(f"7e00-7e01 rw-p 00000000 00:00 0 \n{line}/lib/libc.so.6\n{line}{path}\n")
    assert loaded_library(maps) == (str(path), hashlib.sha256(bytes(3_000_000)).hexdigest())
    maps.write_text(f"{line}{path} (deleted)\n")
    Path(f"{path} (deleted)").touch()  # by anybody
    assert loaded_library(maps) == (f"{path} (deleted)", None)
    maps.write_text("")
    assert loaded_library(maps) == (None, None)
    assert loaded_library(tmp_path / "none") == (None, None)


def test_requests_to_this_host_bypass_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda *_: (200, b"of a proxy", {})) as proxy, serving(lambda *_: (200, b"itself", {})) as service:
        monkeypatch.setenv("http_proxy", proxy)
        found = [request(service, timeout_seconds=9, limit_bytes=99, proxies=through) for through in (True, False)]
    assert found == [b"of a proxy", b"itself"]
