"""Evidence beside the figures: what makes a lie harder to keep consistent, and what each piece does not prove.

Every kind has a module with `KIND`, `collect` and `check`. A piece that cannot be had is recorded as absent and
never stops a seal; a piece that is there and does not hold makes `verify` fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

INSTANCE_IDENTITY = "ec2-instance-identity"
SPDM = "nvidia-spdm"
DRIVER_LIBRARY = "driver-library"
PACKAGE = "flopsd-package"
SAGEMAKER = "sagemaker-job-description"
TIMESTAMP = "rfc3161"  # beside the signature, so not in the payload and not in KINDS
KINDS = (INSTANCE_IDENTITY, SPDM, DRIVER_LIBRARY, PACKAGE, SAGEMAKER)


@dataclass(frozen=True, slots=True)
class EvidenceWanted:
    """What to collect when sealing: kinds, and the timestamp authority to ask, if any."""

    kinds: tuple[str, ...] = KINDS
    timestamp_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def parse_kinds(value: object) -> tuple[str, ...]:
    """The setting `evidence`: `off`, or kinds as a list or as text with commas. Raises ValueError."""
    if value == "off" or value is False:  # YAML reads a bare `off` as false
        return ()
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or any(name not in KINDS for name in names):
        raise ValueError(f"expected off, or some of {', '.join(KINDS)}")
    if len(set(names)) != len(names):
        raise ValueError("a kind is named twice")
    return tuple(names)
