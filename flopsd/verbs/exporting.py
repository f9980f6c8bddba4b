"""`export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.verbs import OK

if TYPE_CHECKING:
    from flopsd.verbs import Verbs


def add(verbs: Verbs) -> None:
    """The verbs of this module."""
    export = verbs.add_parser(
        "export",
        help="a ledger in the form that another tool reads",
        description="Writes one signature of a ledger with its payload as a Sigstore bundle v0.3, which cosign reads. "
        "It checks that signature and nothing else: `flopsd verify` judges a ledger.",
    )
    export.add_argument("ledger", metavar="LEDGER")
    export.add_argument("--format", choices=("sigstore-bundle",), default="sigstore-bundle")
    export.add_argument(
        "--key", metavar="PUBLIC-KEY", help="whose signature, as PEM file (default: the .pub beside the ledger)"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="where to (default: stdout)")
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from flopsd.core.envelope import parse_envelope
    from flopsd.errors import LedgerError
    from flopsd.files import replace_file
    from flopsd.placing import public_key_beside
    from flopsd.signing.bundle import sigstore_bundle
    from flopsd.signing.keys import load_public
    from flopsd.verify import read_ledger

    ledger = Path(arguments.ledger)
    key = load_public(arguments.key or str(public_key_beside(ledger)))
    bundle = sigstore_bundle(parse_envelope(read_ledger(ledger)), key)
    if arguments.output is None:
        sys.stdout.write(bundle.decode("ascii"))
        return OK
    try:
        replace_file(Path(arguments.output), bundle)
    except OSError as fault:
        raise LedgerError(f"cannot write {arguments.output}: {fault.strerror}") from fault
    return OK
