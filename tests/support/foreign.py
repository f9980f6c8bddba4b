"""Verifiers that know nothing of flopsd: cosign, and a POSIX shell that follows recipes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from flopsd.core.ledger.statement import PREDICATE_TYPE
from tests.support.process import Done, as_expected

EMPTY_ROOT = (
    '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": [],'
    ' "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": []}\n'
)


def cosign_envelope(ledger: Path, key: Path, blob: Path, kind: str = PREDICATE_TYPE) -> Done:
    """Verify a DSSE envelope with cosign, unchanged."""
    return _cosign(key, blob, kind, "--signature", str(ledger))


def cosign_bundle(bundle: Path, key: Path, blob: Path, kind: str = PREDICATE_TYPE) -> Done:
    """Verify a Sigstore bundle with cosign, offline: the root of trust that it demands is empty."""
    root = bundle.with_name("empty-root.json")
    root.write_text(EMPTY_ROOT)
    return _cosign(key, blob, kind, "--new-bundle-format", "--bundle", str(bundle), "--trusted-root", str(root))


def _cosign(key: Path, blob: Path, kind: str, *how: str) -> Done:
    return subprocess.run(
        ["cosign", "verify-blob-attestation", "--key", str(key), *how, "--type", kind, "--insecure-ignore-tlog=true", str(blob)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def shell(script: str, folder: Path, code: int | None = None) -> Done:
    """Run `script` by sh in `folder`, where `flopsd` is the program under test."""
    with tempfile.TemporaryDirectory(prefix="flopsd-commands-") as commands:  # `folder` may be the checkout
        flopsd = Path(commands, "flopsd")
        flopsd.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flopsd "$@"\n')
        flopsd.chmod(0o755)
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLOPSD_")}
        env |= {"PATH": f"{commands}:{env['PATH']}", "LC_ALL": "C.UTF-8", "TMPDIR": str(folder)}
        done = subprocess.run(["sh"], input=script, cwd=folder, env=env, capture_output=True, text=True, timeout=180, check=False)  # fmt: skip
    return as_expected(done, code, ())
