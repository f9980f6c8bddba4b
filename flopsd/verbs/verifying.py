"""`verify`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.errors import NotVerifiedError
from flopsd.verbs import NOT_VERIFIED, OK, positive

if TYPE_CHECKING:
    from flopsd.verbs import Verbs


def add(verbs: Verbs) -> None:
    """The verbs of this module."""
    verify = verbs.add_parser(
        "verify",
        help="verify a ledger: signatures, then every total again",
        description="Checks signatures, then recomputes every total from journal and peak table. "
        "Exit 0: verified. Exit 3: not, and the first reason why.",
    )
    verify.add_argument("ledger", metavar="LEDGER")
    verify.add_argument("--key", action="append", required=True, metavar="PUBLIC-KEY", help="PEM file; repeatable")
    verify.add_argument(
        "--threshold", type=positive, default=1, metavar="N", help="how many of the keys must have signed"
    )
    verify.add_argument("--journal", metavar="FILE", help="the journal, where it does not lie beside the ledger")
    verify.add_argument(
        "--peaks", metavar="FILE", help="the peak table, where it is neither packaged nor beside the ledger"
    )
    verify.add_argument(
        "--allow-replay", action="store_true", help="accept a replay of a recording, which is no evidence"
    )
    verify.add_argument(
        "--anchors",
        action="append",
        default=[],
        metavar="LOGFILE",
        help="log with the daemon's checkpoint lines, as CloudWatch Logs, S3 or a container runtime gives it, also "
        "gzipped: each line must lie on the journal's chain; repeatable",
    )
    verify.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from flopsd.report import one_line, verified_text
    from flopsd.signing.keys import load_public
    from flopsd.verify import verify_ledger

    try:
        verified = verify_ledger(
            Path(arguments.ledger),
            [load_public(file) for file in arguments.key],
            threshold=arguments.threshold,
            journal=None if arguments.journal is None else Path(arguments.journal),
            peaks_file=arguments.peaks,
            allow_replay=arguments.allow_replay,
            anchors=[Path(file) for file in arguments.anchors],
        )
    except NotVerifiedError as fault:
        if arguments.json:
            print(json.dumps({"verified": False, "reason": str(fault), "hint": fault.hint}))
        else:
            print(f"NOT VERIFIED: {one_line(fault)}")
            if fault.hint:
                print(f"flopsd: hint: {fault.hint}", file=sys.stderr)
        return NOT_VERIFIED
    if arguments.json:
        print(
            json.dumps(
                {
                    "verified": True,
                    "keyids": verified.keyids,
                    "records": verified.records,
                    "replay": verified.replay,
                    "anchors": None if verified.anchored is None else verified.anchored.for_json(),
                    "predicate": verified.statement["predicate"],
                }
            )
        )
    else:
        print(verified_text(verified), end="")
    return OK
