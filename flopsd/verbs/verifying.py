"""`verify`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.errors import ConfigError, NotVerifiedError
from flopsd.verbs import NOT_VERIFIED, OK, positive

if TYPE_CHECKING:
    from flopsd.verbs import Verbs
    from flopsd.verify import Opened


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
        "--policy",
        action="append",
        default=[],
        metavar="FILE",
        help="a policy that the ledger was judged by, where it is not a packaged one; repeatable",
    )
    verify.add_argument(
        "--allow-replay", action="store_true", help="accept a replay of a recording, which is no evidence"
    )
    verify.add_argument(
        "--aws-certificate",
        action="append",
        default=[],
        metavar="FILE",
        help="AWS's certificate of the region, to check the instance identity document with; repeatable",
    )
    verify.add_argument(
        "--tsa-certificate",
        action="append",
        default=[],
        metavar="FILE",
        help="root of a timestamp authority, with the rest of its chain where tokens leave it out; repeatable",
    )
    verify.add_argument(
        "--anchors",
        action="append",
        default=[],
        metavar="LOGFILE",
        help="log with the daemon's checkpoint lines, as CloudWatch Logs, S3 or a container runtime gives it, also "
        "gzipped: each line must lie on the journal's chain; repeatable",
    )
    verify.add_argument(
        "--children",
        action="append",
        default=[],
        metavar="LEDGER",
        help="of a merged ledger: its children, a folder, archive or s3:// that holds them; repeatable",
    )
    told = verify.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    told.add_argument(
        "--explain",
        action="store_true",
        help="how to check this ledger without flopsd, as a shell script on stdout, whatever the verdict; "
        "the verdict goes to stderr",
    )
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from flopsd.evidence.trust import load_trust
    from flopsd.report import one_line, verified_text
    from flopsd.signing.keys import load_public
    from flopsd.tables import Tables
    from flopsd.verify import open_ledger, verify_opened

    verdict = sys.stdout
    if arguments.explain:
        from flopsd.recipe import recipe

        journal = None if arguments.journal is None else Path(arguments.journal)
        print(recipe(Path(arguments.ledger), arguments.key, journal), end="", flush=True)
        verdict = sys.stderr
    try:
        keys = [load_public(file) for file in arguments.key]
        opened = open_ledger(Path(arguments.ledger), keys, arguments.threshold)
        if opened.kind in ("job", "lineage"):
            return _verify_merged(opened, arguments)
        if arguments.children:
            raise ConfigError([f"verify: --children is for merged ledgers, and {arguments.ledger} is a node's"])
        verified = verify_opened(
            opened,
            Path(arguments.ledger),
            journal=None if arguments.journal is None else Path(arguments.journal),
            tables=Tables(arguments.peaks, arguments.policy),
            allow_replay=arguments.allow_replay,
            trust=load_trust(arguments.aws_certificate, arguments.tsa_certificate),
            anchors=[Path(file) for file in arguments.anchors],
        )
    except NotVerifiedError as fault:
        if arguments.json:
            print(json.dumps({"verified": False, "reason": str(fault), "hint": fault.hint}))
        else:
            print(f"NOT VERIFIED: {one_line(fault)}", file=verdict)
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
                    "unsealed_records": verified.unsealed_records,
                    "replay": verified.replay,
                    "evidence": [finding.as_json() for finding in verified.evidence],
                    "anchors": None if verified.anchored is None else verified.anchored.for_json(),
                    "predicate": verified.statement["predicate"],
                }
            )
        )
    else:
        print(verified_text(verified), end="", file=verdict)
    return OK


def _verify_merged(opened: Opened, arguments: argparse.Namespace) -> int:
    """Raises NotVerifiedError, and ConfigError for what can only be held against a node's ledger."""
    from dataclasses import asdict

    from flopsd.merge.checking import verify_merged
    from flopsd.merge.report import verified_merge_text
    from flopsd.tables import Tables

    for given, option in (
        (arguments.journal, "--journal"),
        (arguments.anchors, "--anchors"),
        (arguments.aws_certificate, "--aws-certificate"),
        (arguments.tsa_certificate, "--tsa-certificate"),
    ):
        if given:  # ignoring it would let the verdict say more than was looked at
            raise ConfigError(
                [f"verify: {option} is for a node's ledger, and {arguments.ledger} is a {opened.kind}'s"],
                hint="verify the ledgers of its nodes with it, one by one",
            )
    verified = verify_merged(
        opened,
        children=arguments.children,
        allow_replay=arguments.allow_replay,
        tables=Tables(arguments.peaks, arguments.policy),
        note=lambda words: print(f"flopsd: {words}", file=sys.stderr),
    )
    if arguments.json:
        print(
            json.dumps(
                {
                    "verified": True,
                    "keyids": verified.keyids,
                    "replay": verified.replay,
                    "children": None if verified.children is None else asdict(verified.children),
                    "predicate": verified.statement["predicate"],
                }
            )
        )
    else:
        print(verified_merge_text(verified), end="")
    return OK
