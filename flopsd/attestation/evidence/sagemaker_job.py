"""`sagemaker-job-description`: the job as SageMaker describes it to its own container.

Hyperparameters and input channels are never included: they may hold secrets and the user's paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.attestation.evidence.item import (
    CheckContext,
    CollectContext,
    EvidenceKind,
    EvidenceState,
    not_collected,
    read_bounded,
)
from flopsd.core.envelope import encode64
from flopsd.settings.evidence_kinds import SAGEMAKER
from flopsd.system.file_presence import is_file

KIND = EvidenceKind(
    SAGEMAKER,
    2,
    "The container stated that it was this job, with these hosts and this instance type.",
    "It is not signed: the owner of a container can set its files and variables. "
    "Compare it with DescribeTrainingJob and the bill.",
)
_VARIABLES = {"trainingJobName": "TRAINING_JOB_NAME", "trainingJobArn": "TRAINING_JOB_ARN"}
_RESOURCES = "opt/ml/input/config/resourceconfig.json"
_LIMIT_BYTES = 256 * 1024


def collect(context: CollectContext) -> dict[str, Any]:
    """The job's name and ARN, and resourceconfig.json byte for byte. Raises EvidenceError outside a training job."""
    found: dict[str, Any] = {key: context.environment.get(name) for key, name in _VARIABLES.items()}
    path = context.root / _RESOURCES
    found["resourceConfig"] = encode64(read_bounded(path, _LIMIT_BYTES)) if is_file(path) else None
    if not any(found.values()):
        raise not_collected("not_sagemaker")
    return found


def check(data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:
    """Report a contradiction with the journal; there is no signature to check."""
    arn, journal = data.get("trainingJobArn"), context.history.incarnations[0].begin["context"]["run"]["jobArn"]
    if arn != journal:
        return EvidenceState.NOT_CHECKED, f"unsigned, and NOT the job in the journal: {arn!r}, not {journal!r}"
    return EvidenceState.NOT_CHECKED, f"unsigned; job {arn or data.get('trainingJobName')}, as in the journal"
