"""The kinds of evidence that --evidence accepts. `attestation/evidence/` has a module for each.

They are defined here because the settings schema needs them but may not import the modules that collect them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from flopsd.core.dataclass import dataclass

INSTANCE_IDENTITY = "ec2-instance-identity"
SPDM = "nvidia-spdm"
DRIVER_LIBRARY = "driver-library"
PACKAGE = "flopsd-package"
SAGEMAKER = "sagemaker-job-description"
TIMESTAMP = "rfc3161"  # stored next to the signature, not in the payload, so not one of KINDS
WITNESS = "witness"  # requested by its own setting, a URL
KINDS = (INSTANCE_IDENTITY, SPDM, DRIVER_LIBRARY, PACKAGE, SAGEMAKER)


@dataclass(frozen=True, slots=True)
class EvidenceWanted:
    """The evidence to collect when sealing: its kinds, and the URL of a timestamp authority, if any."""

    kinds: tuple[str, ...] = KINDS
    timestamp_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    witness_url: str | None = None
    witness_alone: bool = False  # a rolling seal requests nothing else
