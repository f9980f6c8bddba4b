"""`flopsd-package`: a digest over the source files of the flopsd that sealed.

It equals the output of `cd PACKAGE && find . -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopsd import __version__
from flopsd.attestation.evidence.item import CheckContext, CollectContext, EvidenceKind, EvidenceState, fields_of
from flopsd.errors import EvidenceError
from flopsd.settings.evidence_kinds import PACKAGE

KIND = EvidenceKind(
    PACKAGE,
    3,
    "The flopsd that sealed the ledger states this digest of its source files.",
    "A changed program can state the digest of an unchanged one. The digest is of the files at the time of the seal, "
    "not of the program that metered.",
)


def collect(context: CollectContext) -> dict[str, Any]:  # noqa: ARG001, the interface of all kinds
    """The version, digest and number of files. Raises EvidenceError if they cannot be read."""
    sha256, files = digest(_package())
    return {"version": __version__, "sha256": sha256, "files": str(files)}


def check(data: Mapping[str, Any], context: CheckContext) -> tuple[EvidenceState, str]:  # noqa: ARG001
    """Compare with the verifier's own flopsd if it has the same version."""
    fields = fields_of(data)
    version, sealed = fields.text("version"), fields.text("sha256")
    if version != __version__:
        return EvidenceState.NOT_CHECKED, f"flopsd {version} {sealed}; this verifier is {__version__}"
    own, _ = digest(_package())
    if own != sealed:
        return EvidenceState.NOT_CHECKED, (
            f"flopsd {version} {sealed}, NOT the same files as this verifier's of that version ({own}): one was changed"
        )
    return EvidenceState.HOLDS, f"flopsd {version} {sealed}, the same files as this verifier's"


def digest(package: Path) -> tuple[str, int]:
    """SHA-256 over the sorted `sha256sum` lines of all `*.py`, and their number. Raises EvidenceError."""
    names = sorted(os.fsencode(f"./{path.relative_to(package).as_posix()}") for path in package.rglob("*.py"))
    if not names:
        raise EvidenceError("the source files of this flopsd were not found")
    whole = hashlib.sha256()
    try:
        for name in names:
            data = (package / os.fsdecode(name)).read_bytes()
            whole.update(hashlib.sha256(data).hexdigest().encode("ascii") + b"  " + name + b"\n")
    except OSError as fault:
        raise EvidenceError(f"cannot read {fault.filename}: {fault.strerror}") from fault
    return whole.hexdigest(), len(names)


def _package() -> Path:
    return Path(__file__).resolve().parents[2]
