"""`flopsd export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from flopsd.cli.common import OK, Verbs, write_output


def add(verbs: Verbs) -> None:
    export = verbs.add_parser(
        "export",
        help="convert a ledger to the format of another tool",
        description="Converts one signature of a ledger and the payload to a Sigstore bundle v0.3, as cosign reads it. "
        "Checks only that signature; use `flopsd verify` to verify the ledger.",
    )
    export.add_argument("ledger", metavar="LEDGER", help="the ledger file")
    export.add_argument("--format", choices=("sigstore-bundle",), default="sigstore-bundle", help="output format")
    export.add_argument(
        "--key",
        metavar="PUBLIC-KEY",
        help="public key of the signer, a PEM file (default: the .pub file next to the ledger)",
    )
    export.add_argument("-o", "--output", metavar="FILE", help="output file (default: stdout)")
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.ledger_files import paths_of, public_key_beside
    from flopsd.attestation.signed_statement import read_ledger
    from flopsd.attestation.signing.public_key import load_public
    from flopsd.attestation.signing.sigstore_bundle import sigstore_bundle
    from flopsd.core.envelope import parse_envelope

    ledger = Path(arguments.ledger)
    envelope = parse_envelope(read_ledger(ledger))
    key_file = arguments.key or str(public_key_beside(ledger))
    bundle = sigstore_bundle(envelope, load_public(key_file))
    write_output(arguments.output, bundle.decode("ascii"), [*paths_of(ledger, ledger), Path(key_file)])
    return OK
